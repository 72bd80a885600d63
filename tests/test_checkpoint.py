"""Trainings that were interrupted: they go on from the checkpoint as if nothing had been."""

import multiprocessing
import random
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from small_training import CONFIG, SIZES, train_on, two_bins

from decant.files import write_tensors
from decant.nnet.losses import hard_label_loss


@pytest.mark.parametrize("stopped_after", [1, 4, 5, 7, 8, 14, 20])
def test_a_training_that_was_stopped_anywhere_goes_on_to_the_same_weights_bit_for_bit(store, tmp_path, stopped_after):
    """7 steps an epoch, checkpoints after steps 4, 7, 8, 12, 14, 16, 20 and 21."""
    steps = 0

    def interrupted(model, index, epoch):
        nonlocal steps
        if steps == stopped_after:
            raise KeyboardInterrupt
        steps += 1
        return hard_label_loss(model(store.windows(index, SIZES.window)), store.labels(index))

    whole, whole_history = train_on(store, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_on(store, tmp_path / "stopped", loss=interrupted)
    resumed, resumed_history = train_on(store, tmp_path / "stopped")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    for a, b in zip(whole_history, resumed_history, strict=True):
        assert a | {"seconds": 0} == b | {"seconds": 0}


def train_and_save(directory):
    """What the killed processes below run."""
    torch.set_num_threads(1)
    model, _ = train_on(two_bins(), directory, replace(CONFIG, epochs=10, checkpoint_steps=3))
    write_tensors(directory / "weights.safetensors", model.state_dict())


def test_a_training_killed_at_twenty_random_moments_goes_on_to_the_same_weights_bit_for_bit(tmp_path):
    """By SIGKILL from outside, wherever it was: in a step, at an epoch's end, writing a checkpoint."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["torch", "decant.nnet.training"])

    def start(directory):
        """A training that has written its first checkpoint."""
        process = processes.Process(target=train_and_save, args=(directory,))
        process.start()
        while process.is_alive() and not (directory / "checkpoint.safetensors").exists():
            time.sleep(0.001)
        return process

    process, started = start(tmp_path / "whole"), time.monotonic()
    process.join()
    duration, moments, killed = time.monotonic() - started, random.Random(0), 0
    whole = load_file(tmp_path / "whole" / "weights.safetensors")
    for attempt in range(60):
        directory = tmp_path / f"killed_{attempt}"
        process = start(directory)
        process.join(moments.uniform(0, duration))
        process.kill()
        process.join()
        if process.exitcode == 0:
            continue  # it was done before the signal came
        start(directory).join()
        resumed = load_file(directory / "weights.safetensors")
        assert all(torch.equal(x, resumed[name]) for name, x in whole.items())
        killed += 1
        if killed == 20:
            return
    raise AssertionError(f"only {killed} of 60 were killed on the way")


def test_a_damaged_checkpoint_is_named(store, tmp_path):
    train_on(store, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match="checkpoint.safetensors: damaged"):
        train_on(store, tmp_path / "run")


@pytest.mark.parametrize("position", ['{"step": 21, "history": []}', "{"])
def test_a_checkpoint_of_an_older_decant_or_without_its_place_is_named(store, tmp_path, position):
    train_on(store, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    write_tensors(checkpoint, load_file(checkpoint), {"position": position})
    with pytest.raises(ValueError, match="checkpoint.safetensors: damaged, of another model or of another decant"):
        train_on(store, tmp_path / "run")
