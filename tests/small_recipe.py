"""The default recipe, small enough for tests, and what it takes to run it and to kill it."""

import fcntl
import json
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TINY = """
[data]
train_minutes = 1.5
dev_minutes = 0.4
test_minutes = 0.4
speaker_minutes = 0.4
lm_sentences = 300
[monophone]
num_iterations = 8
realign_iterations = [1, 2, 3, 4, 5, 6]
last_split_iteration = 6
num_gaussians = 150
[state_tying]
num_leaves = 150
min_occupancy = 30
[triphone]
num_iterations = 6
realign_iterations = [3]
last_split_iteration = 4
num_gaussians = 200
lda_dim = 20
mllt_iterations = [2]
speaker_adaptation = true
fmllr_iterations = [2]
[frames]
features = "fmllr"
speeds = [0.9]
[realignment]
rounds = 1
epochs = 1
[acoustic_model]
hidden_layers = 1
hidden_units = 48
[training]
epochs = 3
batch_size = 64
checkpoint_steps = 10
precision = "float32"           # a test compares its weights
[ensemble]
num_members = 3
[soft_targets]
temperatures = [1.0, 2.0]
num_passes = 2
[distillation]
num_seeds = 2
generations = 2
[student_training]
epochs = 3
batch_size = 64
checkpoint_steps = 10
[regularization]
share = 0.2
num_seeds = 2
[hard_regularization_training]
epochs = 3
batch_size = 32
[soft_regularization_training]
epochs = 6
batch_size = 32
checkpoint_steps = 10
[scoring]
lm_weights = [6.0, 10.0]
word_insertion_penalties = [0.0]
"""


def command(exp: Path, *options: str) -> list[str]:
    return [str(ROOT / "recipes/espeak/run.sh"), "--conf", str(exp.parent / "tiny.toml"), "--exp", str(exp), *options]


def run(exp: Path, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(exp, *options), capture_output=True, text=True, cwd=exp.parent)


def kill_when(exp: Path, there: str, *options: str) -> None:
    """Starts the recipe and kills run.sh the moment a file is there; returns when all its processes have gone."""
    process = subprocess.Popen(command(exp, *options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(exp.glob(there)):
        assert process.poll() is None, f"the recipe ended before {there} was there"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with open(exp / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the stages hold it as long as one lives


def results(exp: Path) -> list[dict]:
    return [row | {"seconds": None} for row in json.loads((exp / "results.json").read_text())]
