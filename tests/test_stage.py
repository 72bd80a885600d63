"""The bookkeeping of stages, with programs of a line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from decant.feat.data_dir import UtterancesConfig, check_unusable

ROOT = Path(__file__).parents[1]
STAGE = ROOT / "steps" / "stage.py"
PROGRAM = """
import argparse, pathlib, time
parser = argparse.ArgumentParser()
for name in ("--exp", "--out", "--jobs", "--device", "--corpus", "--engine"):
    parser.add_argument(name)
out = pathlib.Path(parser.parse_args().out)
tries = out / "tries"
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
(out / "timing.json").write_text(str(time.time()))  # never the same: it is no part of the result
assert not (out / "fail").exists() and not (out.parent / "fail").exists()
"""


class Recipe:
    """Two stages: `first` with the table [a], and `second` with [b], which reads it."""

    def __init__(self, folder: Path):
        self.exp, self.config = folder / "exp", {"a": {"x": 1}, "b": {"y": [1, 2]}}
        self.lines = [["1", "first", "--config", "a"],
                      ["2", "second", "--reads", "first", "--config", "b", "--by-engine"]]
        self.environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.exp.mkdir()
        self.program = folder / "program.py"
        self.program.write_text(PROGRAM)

    def asked(self, **options) -> dict[str, str]:
        """What the stages' programs are started with."""
        run = {"exp": str(self.exp), "stage": None, "stop_stage": 99, "list": False, "corpus": "", "jobs": 1,
               "processes": 1, "device": "cpu", "engine": "kaldi", "config": self.config, "defaults": {}} | options
        (self.exp / "config.toml").write_text("")
        return self.environment | {"DECANT_RUN": json.dumps(run)}

    def run(self, **options) -> str:
        with open(self.exp / ".lock", "w") as lock:
            environment, said = self.asked(lock=lock.fileno(), **options), ""
            for line in self.lines:
                done = subprocess.run([sys.executable, STAGE, *line, "--", self.program], pass_fds=[lock.fileno()],
                                      env=environment, capture_output=True, text=True, check=False)
                said += done.stdout + done.stderr
                if done.returncode:
                    break
        return said

    def states(self, **options) -> list[str]:
        return [line.split(maxsplit=2)[2] for line in self.run(list=True, **options).splitlines()]

    def tries(self) -> tuple[str, str]:
        return tuple((self.exp / name / "tries").read_text() for name in ("first", "second"))

    def leave_partial(self) -> Path:
        """What an interrupted run of `second` leaves, with a file of its own."""
        partial = self.exp / "second.partial"
        partial.mkdir()
        note = json.loads((self.exp / "second" / "stage.json").read_text())
        (partial / "stage.json").write_text(json.dumps({kind: note[kind] for kind in ORIGIN}))
        (partial / "tries").write_text("trained for hours ")
        return partial


ORIGIN = ("config", "reads", "corpus", "engine")


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
    (recipe.exp / "first" / "tries").write_text("y")
    assert "stage  1 first: done" in (said := recipe.run()) and "stage  2 second (stale: first changed)" in said
    assert (recipe.exp / "first" / "tries").read_text() == "y"


def test_a_file_of_another_size_than_it_had_makes_its_stage_stale(recipe):
    """As a power cut leaves it, say."""
    (recipe.exp / "second" / "tries").write_text("")
    assert recipe.states() == ["done", "stale: tries has 0 bytes, and had 1"]
    recipe.run()
    assert recipe.tries() == ("x", "x")


def test_a_stage_whose_note_is_damaged_is_stale(recipe):
    (recipe.exp / "second" / "stage.json").write_text("")
    assert recipe.states() == ["done", "stale: its stage.json is damaged"]
    recipe.run()
    assert recipe.states() == ["done", "done"]


def test_a_file_that_was_removed_is_made_again(recipe):
    (recipe.exp / "first" / "tries").unlink()
    assert "stage  1 first (stale: tries was removed)" in recipe.run()
    assert recipe.tries() == ("x", "x")


def test_a_copied_experiment_is_as_done_as_the_first(recipe, tmp_path):
    subprocess.run(["cp", "-r", recipe.exp, tmp_path / "copy"], check=True)  # other times, the same contents
    recipe.exp = tmp_path / "copy"
    assert recipe.run().count("done, passed over") == 2


def test_a_stage_that_failed_goes_on_in_its_folder(recipe):
    partial = recipe.leave_partial()
    (partial / "fail").touch()
    subprocess.run(["rm", "-r", recipe.exp / "second"], check=True)
    assert "second.partial/log" in recipe.run() and (partial / "tries").exists()
    (partial / "fail").unlink()
    assert f"{partial}, of a run that did not end: gone on with" in recipe.run()
    assert recipe.tries() == ("x", "trained for hours xx")


def test_what_a_run_with_other_settings_left_is_removed_with_a_word(recipe):
    partial = recipe.leave_partial()
    recipe.config["b"]["y"] = [3]
    assert f"{partial}, of a run that did not end: removed, b.y changed" in recipe.run()
    assert recipe.tries() == ("x", "x")


@pytest.mark.parametrize("effect, tries", [("nothing", "trained for hours x"), ("rounding", "x")])
def test_what_a_run_left_is_kept_if_only_fields_that_change_no_result_differ(recipe, effect, tries):
    partial = recipe.leave_partial()
    subprocess.run(["rm", "-r", recipe.exp / "second"], check=True)
    recipe.config["b"]["y"] = [3]
    said = recipe.run(neutral={"b": {"y": effect}})
    assert f"{partial}, of a run that did not end: " in said and ("b.y changed" in said) == (effect == "rounding")
    assert recipe.tries() == ("x", tries)


def test_a_field_that_changes_no_result_makes_no_stage_stale_and_one_of_rounding_is_said(recipe):
    recipe.config = {"a": {"x": 2}, "b": {"y": [3]}}
    neutral = {"a": {"x": "nothing"}, "b": {"y": "rounding"}}
    assert recipe.states(neutral=neutral) == ["done", "done (rounding may differ: b.y changed)"]
    assert recipe.run(neutral=neutral).count("done, passed over") == 2


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


def test_a_stage_asked_for_that_fails_leaves_the_finished_one(recipe):
    (recipe.exp / "fail").touch()
    assert "failed (exit status 1)" in recipe.run(stage=2)
    assert recipe.tries() == ("x", "x") and recipe.states() == ["done", "done"]
    assert "second.partial is of a run that did not end; remove" in recipe.run()
    (recipe.exp / "fail").unlink()
    assert "second.partial, of a run that did not end: removed, --stage begins anew" in recipe.run(stage=2)
    assert sorted(path.name for path in recipe.exp.iterdir()) == [".lock", "config.toml", "first", "second"]


def test_a_stage_whose_folder_is_a_link_lies_where_it_leads(recipe, tmp_path):
    large = tmp_path / "large"
    large.mkdir()
    (recipe.exp / "second").rename(large / "of_second")
    (recipe.exp / "second").symlink_to(large / "of_second")
    assert recipe.states() == ["done", "done"]
    recipe.config["b"]["y"] = [3]
    recipe.run()
    assert recipe.states() == ["done", "done"] and (recipe.exp / "second").is_symlink()
    assert (recipe.exp / "second").resolve() == large / "of_second" and list(large.iterdir()) == [large / "of_second"]
    subprocess.run(["rm", "-r", large / "of_second"], check=True)  # to be made, on that disk
    recipe.run()
    assert recipe.states() == ["done", "done"] and (large / "of_second" / "tries").read_text() == "x"


def test_a_link_that_no_stage_can_be_written_through_is_refused_before_the_program_runs(recipe, tmp_path):
    second, other = recipe.exp / "second", tmp_path / "other"
    other.mkdir()
    (other / ".lock").touch()
    second.rename(other / "second")
    recipe.config["b"]["y"] = [3]
    for target, reason in ((tmp_path / "nowhere" / "second", "there is no"), (Path("/proc"), "where a disk begins"),
                           (other / "second", "of another experiment")):
        second.unlink(missing_ok=True)
        second.symlink_to(target)
        assert reason in (said := recipe.run()) and said.splitlines()[-1].startswith(f"error: {second} is a link to")
    assert (other / "second" / "tries").read_text() == "x"


def test_an_optional_stage_may_be_absent_and_makes_its_reader_stale_when_it_comes_changes_or_goes(recipe):
    third = ["3", "third", "--reads", "first", "--reads-if-there", "second"]
    first, second = recipe.lines
    recipe.lines = [first, third]
    subprocess.run(["rm", "-r", recipe.exp / "second"], check=True)
    recipe.run()
    reads = json.loads((recipe.exp / "third" / "stage.json").read_text())["reads"]
    assert list(reads) == ["first", "second"] and reads["first"] and reads["second"] == ""
    assert recipe.states() == ["done", "done"]
    recipe.lines = [first, second, third]
    assert recipe.states() == ["done", "to do", "done"]
    assert "stage  3 third (stale: second is there now)" in recipe.run()
    assert recipe.states() == ["done", "done", "done"]
    (recipe.exp / "second" / "tries").write_text("y")
    assert "stage  3 third (stale: second changed)" in recipe.run()
    subprocess.run(["rm", "-r", recipe.exp / "second"], check=True)
    assert recipe.states() == ["done", "to do", "stale: second is not there"]


def in_shell(recipe: Recipe, script: str, **options) -> subprocess.CompletedProcess:
    """A recipe's lines, read by bash after steps/start.sh."""
    with open(recipe.exp / ".lock", "w") as lock:
        return subprocess.run(["bash", "-euo", "pipefail", "-c", f". steps/start.sh x\n{script}"], cwd=ROOT, text=True,
                              pass_fds=[lock.fileno()], capture_output=True, check=False,
                              env=recipe.asked(lock=lock.fileno(), **options) | {"VIRTUAL_ENV": sys.prefix})


def test_a_stage_that_the_recipe_leaves_out_is_not_there_even_if_its_folder_is(recipe):
    lines = (f"stage 1 first --config a -- {recipe.program}\nstage 2 second --reads first --config b --by-engine -- "
             f"{recipe.program}\nstage 3 third --reads-if-there second -- {recipe.program}\n")
    assert "stage  2 second: done" in in_shell(recipe, lines).stdout
    without = 'SKIP_STAGES="2"\n' + lines
    assert [line.split(maxsplit=2)[2] for line in in_shell(recipe, without, list=True).stdout.splitlines()] == [
        "done", "left out", "stale: second is not there"]
    done = in_shell(recipe, without)
    assert done.returncode == 0 and "stage  2 second: left out by the recipe" in done.stdout
    assert json.loads((recipe.exp / "third" / "stage.json").read_text())["reads"] == {"second": ""}
    done = in_shell(recipe, without.replace("-if-there", ""))
    assert done.returncode != 0 and "error: stage 3 (third) reads second, which the recipe leaves out" in done.stderr


def test_a_file_that_a_stage_shows_is_the_stages_own(recipe):
    recipe.lines[1] += ["--show", "tries"]
    (recipe.exp / "tries").write_text("a copy that an earlier decant left")
    recipe.run()
    assert os.readlink(recipe.exp / "tries") == "second/tries" and (recipe.exp / "tries").read_text() == "x"
    (recipe.exp / "second" / "tries").write_text("of another run")
    assert (recipe.exp / "tries").read_text() == "of another run"


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.002)


def test_a_program_that_is_still_importing_ends_with_the_run(recipe, tmp_path):
    """The program says that it is there, and does nothing else: it has not come to ask for anything."""
    recipe.program.write_text("import os, sys, time\n"
                              f"open('{tmp_path}/started', 'w').close()\ntime.sleep(600)\n")
    with open(recipe.exp / ".lock", "w") as lock:
        shell = subprocess.Popen(
            ["bash", "-c", f". steps/start.sh x; stage 3 third -- {recipe.program}; true"], cwd=ROOT,
            pass_fds=[lock.fileno()], env=recipe.asked(lock=lock.fileno()) | {"VIRTUAL_ENV": sys.prefix},
            stdout=subprocess.PIPE)
        wait_for(tmp_path / "started", shell)
        shell.send_signal(signal.SIGKILL)
    shell.communicate(timeout=300)  # the pipe closes when the program is gone, after 600 s if it lives on


def test_a_process_whose_parent_has_gone_before_it_could_ask_ends(tmp_path):
    """As those of torchrun, which are started through steps/lifetime.py."""
    program = tmp_path / "program.py"
    program.write_text(f"open('{tmp_path}/lived', 'w').close()")
    for parent, status in ((os.getpid(), 0), (1 << 30, -signal.SIGKILL)):
        (tmp_path / "lived").unlink(missing_ok=True)
        done = subprocess.run([sys.executable, ROOT / "steps/lifetime.py", program], check=False,
                              env=os.environ | {"DECANT_PARENT": str(parent)})
        assert done.returncode == status and (tmp_path / "lived").exists() == (status == 0)


def test_a_killed_program_leaves_no_warning_about_semaphores(recipe):
    recipe.program.write_text("import multiprocessing, os, signal\n"
                              "semaphore = multiprocessing.get_context('spawn').Semaphore()\n"
                              "os.kill(os.getpid(), signal.SIGKILL)\n")
    recipe.lines.append(["3", "third"])
    said = recipe.run()  # until stderr closes: the process that tidies up has it too
    assert "failed (exit status -9)" in said and "leaked" not in said


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_all_is_on_disk_before_a_stage_takes_its_name(recipe, tmp_path):
    """By the calls that the system saw."""
    recipe.program.write_text(PROGRAM + "(out / 'sub').mkdir()\n(out / 'sub' / 'b').write_text('b')\n")
    calls, exp = tmp_path / "calls", recipe.exp
    trace = ["strace", "-y", "-e", "trace=fsync,rename", "-o", calls]
    with open(exp / ".lock", "w") as lock:
        subprocess.run([*trace, sys.executable, STAGE, "3", "third", "--", recipe.program], check=True,
                       pass_fds=[lock.fileno()], env=recipe.asked(lock=lock.fileno()), capture_output=True)
    lines = calls.read_text().splitlines()
    [named] = [n for n, line in enumerate(lines) if line.startswith(f'rename("{exp}/third.partial", "{exp}/third")')]
    synced = [line.partition("<")[2].partition(">")[0] for line in lines[:named] if line.startswith("fsync")]
    assert {f"{exp}/third.partial{file}" for file in ("", "/tries", "/sub", "/sub/b", "/stage.json")} <= set(synced)
    assert any(line.startswith("fsync") and f"<{exp}>" in line for line in lines[named:])


def test_verify_names_every_file_that_is_not_what_it_was(recipe):
    def verify() -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-c", "import sys, pathlib; from steps.stage_record import verify; "
                               "sys.exit(verify(pathlib.Path(sys.argv[1])))", recipe.exp], env=recipe.environment,
                              capture_output=True, text=True, check=False)

    recipe.leave_partial()
    assert verify().stdout.splitlines() == ["first: 1 files as they were", "second: 1 files as they were"]
    (recipe.exp / "first" / "tries").write_text("y")
    (recipe.exp / "second" / "tries").unlink()
    done = verify()
    assert done.returncode == 2 and done.stdout.splitlines() == [
        f"{recipe.exp}/first/tries: has other contents than it had", f"{recipe.exp}/second/tries: was removed"]


def test_too_many_unusable_utterances_fail_a_stage_and_few_are_named(caplog):
    check_unusable("dev", {"u7": "too short"}, 100, UtterancesConfig(max_unusable=0.01))
    assert "dev: utterance u7 is left out: too short" in caplog.text
    with pytest.raises(ValueError, match="dev: 2 of 100 utterances cannot be used, more than max_unusable = 0.01"):
        check_unusable("dev", {"u7": "too short", "u8": "too short"}, 100, UtterancesConfig(max_unusable=0.01))


def test_a_table_that_there_is_not_is_named(recipe):
    del recipe.config["b"]
    assert "error: stage 2 (second): its line in steps/stages.sh names the table [b], which is neither" in recipe.run()
