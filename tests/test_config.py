from dataclasses import dataclass

import pytest

from decant.config import read_tables, write_tables


@dataclass(frozen=True)
class Model:
    layers: int = 2
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)
    shared: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError("layers has to be at least 1")


TABLES = {"model": Model, "student": Model}


def read(tmp_path, text, *arguments):
    (tmp_path / "conf.toml").write_text(text)
    return read_tables(tmp_path / "conf.toml", TABLES, arguments, options=["--jobs"])


def test_fields_come_from_the_file_then_from_the_options_and_else_have_their_defaults(tmp_path):
    found = read(tmp_path, "[model]\nlayers = 3\nsizes = [4]\n", "--model.layers", "5", "--student.rate", "1e-3")
    assert found == {"model": Model(layers=5, sizes=(4,)), "student": Model(rate=1e-3)}


@pytest.mark.parametrize("text, arguments, message", [
    ("[model]\nlayer = 3", (), r"conf.toml: \[model\] has no field layer; nearest: layers"),
    ("[model]\nzz = 3", (), r"conf.toml: \[model\] has no field zz; known: layers, rate, sizes, shared, name"),
    ("[modle]\nlayers = 3", (), r"conf.toml: there is no table \[modle\]; nearest: model"),
    ("[zz]\nlayers = 3", (), r"conf.toml: there is no table \[zz\]; known: model, student"),
    ("layers = 3", (), r"conf.toml: layers stands in no table; put it under its \[table\]"),
    ("[model]\nlayers = 'two'", (), r'conf.toml: model.layers is "two"; it has to be a whole number'),
    ("[model]\nlayers = 2.5", (), r"conf.toml: model.layers is 2.5; it has to be a whole number"),
    ("[model]\nlayers = true", (), r"conf.toml: model.layers is true; it has to be a whole number"),
    ("[model]\nshared = 1", (), r"conf.toml: model.shared is 1; it has to be true or false"),
    ("[model]\nname = 1", (), r"conf.toml: model.name is 1; it has to be text"),
    ("[model]\nsizes = [1, 'b']", (), r'conf.toml: model.sizes is \[1, "b"\]; it has to be a list of whole numbers'),
    ("[model]\nlayers = 0", (), r"conf.toml.*\[model\] layers has to be at least 1"),
    ("[model\nlayers = 1", (), r"conf.toml: .*line 1"),
    ("", ("--model.layer", "3"), "command line: there is no option --model.layer; nearest: --model.layers"),
    ("", ("--modl.rate=3",), "command line: there is no option --modl.rate; nearest: --model.rate"),
    ("", ("--rate", "3"), "command line: there is no option --rate; nearest: --model.rate, --student.rate"),
    ("", ("--student", "3"), "command line: there is no option --student; nearest: --student."),
    ("", ("--jbos", "3"), "command line: there is no option --jbos; nearest: --jobs"),
    ("", ("--model.rate", "fast"), 'command line: model.rate is "fast"; it has to be a number'),
    ("", ("--model.rate=fast",), 'command line: model.rate is "fast"; it has to be a number'),
    ("", ("--model.rate",), "command line: .*--model.rate"),
    ("", ("many",), "command line: .*many"),
])
def test_a_wrong_setting_is_named_with_its_place_in_three_lines_at_most(tmp_path, text, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path, text, *arguments)
    assert len(str(error.value).splitlines()) <= 3


def test_an_unknown_name_is_followed_by_where_to_look(tmp_path):
    (tmp_path / "conf.toml").write_text("")
    with pytest.raises(ValueError, match="(?s)no option --modle.rate.*\nread the manual$"):
        read_tables(tmp_path / "conf.toml", TABLES, ("--modle.rate", "3"), hint="read the manual")


def test_a_mark_before_the_first_table_does_no_harm(tmp_path):
    assert read(tmp_path, "\ufeff[model]\nlayers = 3\n")["model"].layers == 3


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.toml: no such config file"):
        read_tables(tmp_path / "nowhere.toml", TABLES)


def test_what_is_written_is_read_again(tmp_path):
    tables = {"model": Model(rate=0.3), "student": Model(sizes=())}
    write_tables(tmp_path / "conf.toml", tables)
    assert read_tables(tmp_path / "conf.toml", TABLES) == tables
