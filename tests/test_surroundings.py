"""What a run finds around it: another working directory, other audio, a file system without locks, any terminal."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from decant.feat.data_dir import Utterance, write_data_dir
from steps.tables import audio_of

ROOT = Path(__file__).parents[1]


def configure(folder: Path, cwd: Path, *options: str) -> subprocess.CompletedProcess:
    """Runs steps/configure.py as a recipe's run.sh does, with a recipe that only prints what was asked for."""
    (folder / "run.sh").write_text('printf %s "$DECANT_RUN"\n')
    command = [sys.executable, "-m", "steps.configure", folder / "run.sh", "espeak", "--exp", folder / "exp", *options]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"DECANT_FROM": str(cwd)}, capture_output=True,
                          text=True, check=False)


def test_audio_without_transcripts_is_known_by_what_it_is_wherever_the_run_is_started(tmp_path):
    """One second of sound with a click in its middle, then without: the name and the size are the same."""
    click = np.zeros(16000, np.int16)
    click[8000] = 20000

    def asked(cwd: Path, given: str) -> str:
        return json.loads(configure(tmp_path, cwd, "--soft_targets.unlabelled", given).stdout)["config"]["soft_targets"]

    audio = tmp_path / "audio" / "a.wav"
    audio.parent.mkdir()
    soundfile.write(audio, click, 16000)
    write_data_dir(tmp_path / "audio" / "data", [Utterance("a", "a", audio, ("WORD",))])
    first = asked(tmp_path, "audio/data")
    assert asked(tmp_path / "audio", "../audio/data") == first
    shutil.copy(audio, tmp_path / "copy.wav")
    (tmp_path / "copy.wav").replace(audio)  # at another time, the same
    assert asked(tmp_path, "audio/data") == first
    soundfile.write(audio, np.zeros(16000, np.int16), 16000)
    assert asked(tmp_path, "audio/data") != first


def test_verify_ends_with_status_1_and_names_the_file(tmp_path):
    stage = tmp_path / "exp" / "data"
    stage.mkdir(parents=True)
    (stage / "text").write_text("")
    (stage / "stage.json").write_text(json.dumps({"files": {"text": [7, 0, "0"]}}))
    done = configure(tmp_path, tmp_path, "--verify")
    assert done.returncode == 1 and done.stdout == f"{stage}/text: has 0 bytes, and had 7\n"


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_a_file_system_without_locks_is_said_and_the_run_goes_on(tmp_path):
    """strace has the system refuse the lock as such a file system does."""
    program = "import sys, pathlib; from steps.lock import take_lock; print(take_lock(pathlib.Path(sys.argv[1])))"
    refuse = ["strace", "-f", "--seccomp-bpf", "-o", tmp_path / "calls", "-e", "trace=flock", "-e",
              "inject=flock:error=ENOSYS"]
    done = subprocess.run([*refuse, sys.executable, "-c", program, tmp_path / ".lock"], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0 and int(done.stdout) > 2
    assert f"warning: {tmp_path}: this file system has no locks (Function not implemented)" in done.stderr


def on_ascii_terminal(program: str, *arguments: object) -> str:
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT, capture_output=True,
                          env=os.environ | {"PYTHONIOENCODING": "ascii"}, encoding="ascii", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tables_come_out_on_an_ascii_terminal():
    shown = on_ascii_terminal(
        "from rich.console import Console\n"
        "from decant.score.results import ResultRow, results_table\n"
        "rows = [ResultRow('baseline', 'test', True, seed=seed, wer=wer) for seed, wer in ((1, 0.1), (2, 0.2))]\n"
        "Console().print(results_table(rows))")
    assert "15.0 +- 7.1" in shown and "+-: standard deviation over the runs" in shown


def test_a_step_can_print_any_word_on_an_ascii_terminal(tmp_path):
    shown = on_ascii_terminal(
        "from steps.stage_program import run_step\nrun_step(lambda stage: print('na\u00efve'))",
        "--exp", tmp_path, "--out", tmp_path, "--jobs", 1, "--device", "cpu", "--corpus", "", "--engine", "kaldi")
    assert shown == "na\\xefve\n"


def test_of_recordings_in_an_archive_each_is_looked_at(tmp_path):
    """Two of a second in one file, of which the second gets a click in its middle."""
    contents = []
    for name in ("silence", "click"):
        samples = np.zeros(16000, np.int16)
        samples[8000] = 20000 * (name == "click")
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000)
        contents.append((tmp_path / f"{name}.wav").read_bytes())
    silence, click = contents
    archive, facts = tmp_path / "x.ark", []
    for second in (silence, click):
        whole = b"a " + silence + b"b " + second
        archive.write_bytes(whole)
        write_data_dir(tmp_path / "data", [Utterance(name, "s", archive, ("WORD",), offset=offset)
                                           for name, offset in (("a", 2), ("b", 4 + len(silence)))])
        facts.append(audio_of(tmp_path / "data"))
    assert facts[0] != facts[1]


@pytest.mark.parametrize("skipped", ["11,10", "regularization", "77"])
def test_what_is_no_stages_number_is_not_left_out_in_silence(skipped):
    recipe = f'set -euo pipefail; . steps/start.sh espeak; SKIP_STAGES="{skipped}"; stage 1 lang -- x'
    environment = os.environ | {"DECANT_RUN": "{}", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                                "VIRTUAL_ENV": "there"}
    done = subprocess.run(["bash", "-c", recipe], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and f"error: SKIP_STAGES: {skipped} is no stage's number" in done.stderr
