"""Trainings by several processes: real ones, which torchrun starts and gloo connects."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_training import SIZES, two_bins
from torch.distributed.tensor import DTensor

from decant.feat.fbank import FbankConfig
from decant.nnet import data_parallel
from decant.nnet.acoustic_model import AcousticModel, load_model, save_model
from decant.nnet.losses import hard_label_loss
from decant.nnet.minibatches import Shuffled
from decant.nnet.objectives import Objective
from decant.nnet.training import TrainingConfig, train

ROOT = Path(__file__).resolve().parents[1]
CONFIG = TrainingConfig(epochs=3, batch_size=33, learning_rate=1e-2, checkpoint_steps=4,
                        precision="float32")  # bfloat16 rounds a minibatch and its parts apart


def train_here(directory, shard=False, killed_at=-1):
    """200 frames in minibatches of 33: an epoch's last one has 2. Process 1 kills itself at step `killed_at`."""
    store, sizes = two_bins(), replace(SIZES, residual=True)
    model = AcousticModel(sizes, num_bins=2, num_pdfs=2).initialize(7)
    steps, divided = 0, set()

    def batch_loss(model, index, epoch):
        nonlocal steps
        divided.add(any(isinstance(x, DTensor) for x in model.parameters()))
        if steps == killed_at and data_parallel.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
        return hard_label_loss(model(store.windows(index, SIZES.window)), store.labels(index))

    objective = Objective(lambda index, epoch: (index, torch.tensor(epoch)), batch_loss)
    [history] = train([model], [Shuffled(len(store), 7)], store, objective, replace(CONFIG, shard_weights=shard),
                      directory, ["test"])
    if data_parallel.rank() == 0:
        (directory / "history.json").write_text(json.dumps(history))
        (directory / "how.json").write_text(json.dumps([data_parallel.num_processes(), *divided]))
    save_model(directory, model, FbankConfig(num_bins=20))


def train_together(directory, processes, *options):
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "steps.torchrun", "--standalone", "--nproc-per-node", str(processes), __file__]
    return subprocess.run([*command, directory, *options], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=300)


def assert_same_training(found, expected):
    """But for the order of sums."""
    for a, b in zip(*(json.loads((path / "history.json").read_text()) for path in (found, expected)), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["dev_frame_accuracy"] == b["dev_frame_accuracy"]
    for a, b in zip(*(load_model(path)[0].parameters() for path in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("processes", "options"), [(2, []), (3, []), (2, ["--shard"])])
def test_several_processes_train_as_one_does(tmp_path, processes, options):
    train_here(tmp_path / "one")
    done = train_together(tmp_path / "several", processes, *options)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "several" / "how.json").read_text()) == [processes, "--shard" in options]
    assert_same_training(tmp_path / "several", tmp_path / "one")


@pytest.mark.parametrize(("options", "then"), [([], 3), ([], 1), (["--shard"], 1), (["--shard"], 2)])
def test_a_lost_process_ends_the_run_and_another_number_of_them_goes_on_from_the_checkpoint(tmp_path, options, then):
    train_here(tmp_path / "one")
    lost = train_together(tmp_path / "several", 2, "--killed-at", "10", *options)
    assert lost.returncode != 0 and "SIGKILL" in lost.stderr
    assert (tmp_path / "several" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "several" / "model.safetensors").exists()
    if then == 1:
        train_here(tmp_path / "several")
    else:
        assert (done := train_together(tmp_path / "several", then, *options)).returncode == 0, done.stderr
    assert_same_training(tmp_path / "several", tmp_path / "one")


if __name__ == "__main__":
    data_parallel.join(torch.device("cpu"))
    given = sys.argv[2:]
    train_here(Path(sys.argv[1]), "--shard" in given, int(given[1]) if "--killed-at" in given else -1)
    data_parallel.leave()
