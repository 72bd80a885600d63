from dataclasses import dataclass

import pytest

from decant.config import read_tables, write_tables


@dataclass(frozen=True)
class Model:
    layers: int = 2
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError("layers has to be at least 1")


TABLES = {"model": Model, "student": Model}


def read(tmp_path, text, *arguments):
    (tmp_path / "conf.toml").write_text(text)
    return read_tables(tmp_path / "conf.toml", TABLES, arguments=arguments)


def test_fields_come_from_the_file_then_from_the_options_and_else_have_their_defaults(tmp_path):
    found = read(tmp_path, "[model]\nlayers = 3\nsizes = [4]\n", "--model.layers", "5", "--student.rate", "1e-3")
    assert found == {"model": Model(layers=5, sizes=(4,)), "student": Model(rate=1e-3)}


@pytest.mark.parametrize("text, arguments, message", [
    ("[model]\nlayer = 3", (), r"conf.toml: .*'layer'.*\[model\] has the fields layers, rate, sizes"),
    ("[modle]\nlayers = 3", (), r"conf.toml: .*modle.*the tables are model, student"),
    ("[model]\nlayers = 'two'", (), r"(?s)conf.toml: .*model.layers.*int.*two"),
    ("[model]\nlayers = 2.5", (), r"(?s)conf.toml: .*model.layers.*int"),
    ("[model]\nlayers = 0", (), r"conf.toml.*\[model\] layers has to be at least 1"),
    ("[model\nlayers = 1", (), r"conf.toml: .*line 1"),
    ("", ("--model.layer", "3"), r"command line: .*--model.layer.*has the fields layers"),
    ("", ("--model.rate", "fast"), r"(?s)command line: .*model.rate.*float.*fast"),
])
def test_a_wrong_setting_is_named_with_its_place(tmp_path, text, arguments, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text, *arguments)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.toml: no such config file"):
        read_tables(tmp_path / "nowhere.toml", TABLES)


def test_what_is_written_is_read_again(tmp_path):
    tables = {"model": Model(rate=0.3), "student": Model(sizes=())}
    write_tables(tmp_path / "conf.toml", tables)
    assert read_tables(tmp_path / "conf.toml", TABLES) == tables
