"""What run.sh --help says, of the options, the tables and their fields."""

import importlib
import re
import subprocess
from pathlib import Path

import pytest

from decant.config import read_tables
from decant.distill.regularization import SoftRegularizationConfig
from decant.nnet.training import TrainingConfig
from decant.settings import config_field, config_fields, neutral, type_words
from steps.tables import SHARED_TABLES
from steps.usage import option_parser, stages_that_read, summary, usage

ROOT = Path(__file__).parents[1]
RECIPES = ["an4", "espeak", "librispeech", "mini_librispeech", "speechocean762"]


def tables(recipe):
    return {"data": importlib.import_module(f"local.{recipe}").CorpusConfig, **SHARED_TABLES}


def said(*topics, recipe="espeak", conf=None):
    parser = option_parser(f"recipes/{recipe}/run.sh", recipe)
    return usage(parser, list(topics), tables(recipe), conf or Path(f"conf/{recipe}.toml"))


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_field_of_every_table_has_a_meaning(recipe):
    for name, table in tables(recipe).items():
        assert summary(table) and not summary(table).startswith(table.__name__ + "("), name  # a dataclass's own
        for about in config_fields(table).values():
            assert re.fullmatch(r"\S.{7,}\.", about.meaning), f"{name}.{about.name}"
            assert not type_words(about.type).startswith("<"), f"{name}.{about.name}"


@pytest.mark.parametrize("recipe", RECIPES)
def test_help_of_every_table_has_its_fields(recipe):
    for name, table in tables(recipe).items():
        text = said(name, recipe=recipe)
        assert re.findall(r"^  (\w+)$", text, re.MULTILINE) == list(config_fields(table))
        assert f"[{name}]" in text and "read by the stages" in text


def test_help_has_a_line_for_every_option_and_table():
    text = said()
    for option in ("stage", "stop-stage", "list", "plan", "corpus", "conf", "exp", "jobs", "processes", "device",
                   "engine"):
        assert re.search(rf"^  --{option} .*  \w", text, re.MULTILINE)
    assert re.findall(r"^  (\w+)  .*\[\d", text, re.MULTILINE) == list(tables("espeak"))
    assert len(text.splitlines()) < 50 and max(map(len, text.splitlines())) <= 120


def test_help_of_a_field_has_its_meaning_type_default_the_papers_value_and_the_recipes_own():
    assert said("acoustic_model.hidden_units").endswith("""
  hidden_units
    Units of each layer.
    a whole number; default 512; paper 2560; conf/espeak.toml has 256
""")
    assert "conf/" not in said("acoustic_model.left_context", recipe="an4")  # it has the default there
    assert "paper [1.0, 2.0, 5.0, 10.0]\n" in said("soft_targets.temperatures")  # espeak's are the default's
    assert "changes no result" in said("training.checkpoint_steps")
    assert "rounding only" in said("training.threads")


def test_help_of_what_is_not_there_names_what_is_like_it():
    with pytest.raises(ValueError, match="there is no table trainings; nearest: training"):
        said("trainings")
    with pytest.raises(ValueError, match=r"\[training\] has no field epoch; nearest: epochs"):
        said("training.epoch")


def test_a_subclass_gives_a_field_another_default_and_keeps_its_meaning():
    base, own = config_fields(TrainingConfig)["dev_epochs"], config_fields(SoftRegularizationConfig)["dev_epochs"]
    assert (base.default, own.default) == (1, 5) and own.meaning == base.meaning
    assert neutral(SoftRegularizationConfig) == neutral(TrainingConfig)


def test_fields_that_change_no_result_or_only_its_rounding_are_marked():
    marked = {(name, field): changes for name, table in SHARED_TABLES.items()
              for field, changes in neutral(table).items() if table is not TrainingConfig
              and not issubclass(table, TrainingConfig)}
    assert marked == {("utterances", "max_unusable"): "nothing", ("soft_targets", "shard_frames"): "nothing",
                      ("lexicon", "max_unknown"): "nothing", ("ensemble", "side_by_side"): "rounding"}
    assert neutral(TrainingConfig) == {
        "checkpoint_steps": "nothing", "threads": "rounding", "shard_weights": "rounding"}


def test_a_field_is_marked_by_one_of_three_words_alone():
    with pytest.raises(ValueError, match="changes is 'nothin'; known are result, rounding and nothing"):
        config_field(1, "Steps.", changes="nothin")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipes_settings_and_the_papers_are_read(recipe):
    for conf in (f"conf/{recipe}.toml", "conf/paper.toml"):
        assert read_tables(Path(conf), tables(recipe)).keys() == tables(recipe).keys()


def test_the_stages_that_read_a_table_are_those_of_the_scripts(tmp_path):
    (tmp_path / "run.sh").write_text("stage 0 data --config data -- a.py\n# stage 9 no --config data\n"
                                     "stage 7 net --reads data \\\n  --config data training --by-engine -- b.py\n")
    assert stages_that_read([tmp_path / "run.sh"]) == {"data": ["0 data", "7 net"], "training": ["7 net"]}


@pytest.mark.parametrize("options, status, lines", [
    (["--help"], 0, "usage: recipes/espeak/run.sh"),
    (["--help", "training.epochs"], 0, "Passes over the training frames."),
    (["--stge", "3"], 1, "error: command line: there is no option --stge; nearest: --stage"),
    (["--jobs", "many"], 1, "error: command line: argument --jobs: invalid int value: 'many'"),
])
def test_run_sh_answers_before_any_work(tmp_path, options, status, lines):
    done = subprocess.run(["recipes/espeak/run.sh", "--exp", tmp_path / "exp", *options], capture_output=True,
                          text=True, check=False)
    assert done.returncode == status and lines in (done.stderr if status else done.stdout)
    assert not (tmp_path / "exp").exists()
    if status:
        assert len(done.stderr.splitlines()) <= 3
