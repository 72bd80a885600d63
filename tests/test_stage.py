"""The bookkeeping of stages, with programs of a line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from decant.feat.data_dir import UtterancesConfig, check_unusable

STAGE = Path(__file__).parents[1] / "steps" / "stage.py"
PROGRAM = """
import argparse, pathlib, time
parser = argparse.ArgumentParser()
for name in ("--exp", "--out", "--jobs", "--device", "--corpus", "--engine"):
    parser.add_argument(name)
out = pathlib.Path(parser.parse_args().out)
tries = out / "tries"
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
(out / "timing.json").write_text(str(time.time()))  # never the same: it is no part of the result
assert not (out / "fail").exists()
"""


class Recipe:
    """Two stages: `first` with the table [a], and `second` with [b], which reads it."""

    def __init__(self, folder: Path):
        self.exp, self.config = folder / "exp", {"a": {"x": 1}, "b": {"y": [1, 2]}}
        self.exp.mkdir()
        self.program = folder / "program.py"
        self.program.write_text(PROGRAM)

    def run(self, **options) -> str:
        (self.exp / "config.toml").write_text("")
        with open(self.exp / ".lock", "w") as lock:
            run = {"exp": str(self.exp), "stage": None, "stop_stage": 99, "list": False, "corpus": "", "jobs": 1,
                   "processes": 1, "device": "cpu", "engine": "kaldi", "config": self.config, "defaults": {},
                   "lock": lock.fileno()} | options
            said = ""
            for line in (["1", "first", "--config", "a"],
                         ["2", "second", "--reads", "first", "--config", "b", "--by-engine"]):
                done = subprocess.run([sys.executable, STAGE, *line, "--", self.program], pass_fds=[lock.fileno()],
                                      env=os.environ | {"DECANT_RUN": json.dumps(run)}, capture_output=True, text=True,
                                      check=False)
                said += done.stdout + done.stderr
                if done.returncode:
                    break
        return said

    def tries(self) -> tuple[str, str]:
        return tuple((self.exp / name / "tries").read_text() for name in ("first", "second"))


@pytest.fixture
def recipe(tmp_path):
    recipe = Recipe(tmp_path)
    recipe.run()
    return recipe


def test_done_stages_are_passed_over(recipe):
    assert recipe.run().count("done, passed over") == 2
    assert recipe.run(list=True).split() == ["1", "first", "done", "2", "second", "done"]


def test_a_changed_table_makes_its_stage_run_again_and_an_equal_result_leaves_the_next_one_alone(recipe):
    recipe.config["a"]["x"] = 2
    listed = [line.split(maxsplit=2)[2] for line in recipe.run(list=True).splitlines()]
    assert listed == ["stale: a.x changed", "stale: first is stale"]
    said = recipe.run()
    assert "stage  1 first (stale: a.x changed)" in said and "stage  2 second: done, passed over" in said


def test_a_field_that_decant_did_not_have_then_had_its_default(recipe):
    recipe.config["a"]["new"] = 5
    listed = recipe.run(list=True, defaults={"a": {"x": 7, "new": 5}})
    assert listed.split() == ["1", "first", "done", "2", "second", "done"]
    assert "stage  1 first (stale: a.new changed)" in recipe.run(defaults={"a": {"x": 1, "new": 4}})
    assert recipe.run(defaults={"a": {"x": 1, "new": 4}}).count("done, passed over") == 2


def test_another_engine_makes_the_stages_that_search_stale(recipe):
    said = recipe.run(engine="k2")
    assert "stage  1 first: done" in said and "stage  2 second (stale: kaldi was the engine)" in said


def test_a_file_changed_by_hand_makes_what_follows_stale_and_is_kept(recipe):
    (recipe.exp / "first" / "tries").write_text("by hand")
    assert "stage  1 first: done" in (said := recipe.run()) and "stage  2 second (stale: first changed)" in said
    assert (recipe.exp / "first" / "tries").read_text() == "by hand"


def test_a_file_that_was_removed_is_made_again(recipe):
    (recipe.exp / "first" / "tries").unlink()
    assert "stage  1 first (stale: tries was removed)" in recipe.run()
    assert recipe.tries() == ("x", "x")


def test_a_copied_experiment_is_as_done_as_the_first(recipe, tmp_path):
    subprocess.run(["cp", "-r", recipe.exp, tmp_path / "copy"], check=True)  # other times, the same contents
    recipe.exp = tmp_path / "copy"
    assert recipe.run().count("done, passed over") == 2


def test_a_stage_that_failed_goes_on_in_its_folder_and_one_of_other_settings_starts_anew(recipe):
    partial = recipe.exp / "second.partial"

    def fail() -> None:
        partial.mkdir()
        (partial / "fail").touch()
        (partial / "stage.json").write_text(json.dumps(
            {kind: json.loads((recipe.exp / "second" / "stage.json").read_text())[kind]
             for kind in ("config", "reads", "corpus", "engine")}))
        subprocess.run(["rm", "-r", recipe.exp / "second"], check=True)

    fail()
    assert "second.partial/log" in recipe.run() and (partial / "tries").exists()
    (partial / "fail").unlink()
    recipe.run()
    assert recipe.tries() == ("x", "xx")
    fail()
    recipe.config["b"]["y"] = [3]
    recipe.run()
    assert recipe.tries() == ("x", "x")


def test_a_damaged_note_is_no_note(recipe):
    partial = recipe.exp / "second.partial"
    partial.mkdir()
    (partial / "stage.json").write_text("")
    subprocess.run(["rm", "-r", recipe.exp / "second"], check=True)
    assert "failed" not in recipe.run() and recipe.tries() == ("x", "x")


def test_a_stage_asked_for_runs_again_with_those_after_it(recipe):
    said = recipe.run(stage=2)
    assert "first" not in said and "stage  2 second\n" in said
    recipe.config["a"]["x"] = 5
    assert "error: stage 1 (first) is stale: a.x changed" in recipe.run(stage=2)


def test_too_many_unusable_utterances_fail_a_stage_and_few_are_named(caplog):
    check_unusable("dev", {"u7": "too short"}, 100, UtterancesConfig(max_unusable=0.01))
    assert "dev: utterance u7 is left out: too short" in caplog.text
    with pytest.raises(ValueError, match="dev: 2 of 100 utterances cannot be used, more than max_unusable = 0.01"):
        check_unusable("dev", {"u7": "too short", "u8": "too short"}, 100, UtterancesConfig(max_unusable=0.01))
