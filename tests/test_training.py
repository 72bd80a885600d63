import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from decant.acoustic_model import AcousticModel, AcousticModelConfig, load_model, log_priors, save_model
from decant.fbank import FbankConfig
from decant.frame_store import pack, read_frame_store, write_frame_store
from decant.losses import hard_label_loss
from decant.training import TrainingConfig, frame_order, learning_rate, predictions, train

SIZES = AcousticModelConfig(left_context=1, right_context=1, hidden_layers=2, hidden_units=16)
CONFIG = TrainingConfig(epochs=3, batch_size=32, learning_rate=1e-2, checkpoint_steps=4)


@pytest.fixture
def store(tmp_path):
    """200 frames of two bins whose label says which bin is larger."""
    frames = np.random.default_rng(0).normal(size=(200, 2))
    write_frame_store(tmp_path / "store", pack([("a", frames, (frames[:, 0] > frames[:, 1]).astype(int))]))
    return read_frame_store(tmp_path / "store")


def train_on(store, directory, config=CONFIG, loss=None):
    model = AcousticModel(SIZES, num_bins=2, num_pdfs=2).initialize(7)

    def batch_loss(model, index, epoch):
        return hard_label_loss(model(model.windows(store, index)), store.pdfs[index])

    history = train(model, store, store, loss or batch_loss, config, 7, directory, "test")
    return model, history


def test_training_learns_and_keeps_the_epoch_that_is_best_on_dev(store, tmp_path):
    model, history = train_on(store, tmp_path / "run", replace(CONFIG, epochs=12))
    best = max(epoch["dev_frame_accuracy"] for epoch in history)
    assert len(history) == 12 and best > 0.9
    assert float((predictions(model, store) == store.pdfs).double().mean()) == best


def test_the_same_seed_gives_the_same_weights_bit_for_bit(store, tmp_path):
    first, _ = train_on(store, tmp_path / "first")
    second, _ = train_on(store, tmp_path / "second")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("stopped_after", [1, 4, 5, 7, 8, 14, 20])
def test_a_training_that_was_stopped_anywhere_goes_on_to_the_same_weights_bit_for_bit(store, tmp_path, stopped_after):
    """7 steps an epoch, checkpoints after steps 4, 7, 8, 12, 14, 16, 20 and 21."""
    steps = 0

    def interrupted(model, index, epoch):
        nonlocal steps
        if steps == stopped_after:
            raise KeyboardInterrupt
        steps += 1
        return hard_label_loss(model(model.windows(store, index)), store.pdfs[index])

    whole, whole_history = train_on(store, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_on(store, tmp_path / "stopped", loss=interrupted)
    resumed, resumed_history = train_on(store, tmp_path / "stopped")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    for a, b in zip(whole_history, resumed_history, strict=True):
        assert a | {"seconds": 0} == b | {"seconds": 0}


def test_a_loss_that_is_not_finite_stops_and_names_step_and_learning_rate(store, tmp_path):
    def broken(model, index, epoch):
        return hard_label_loss(model(model.windows(store, index)), store.pdfs[index]) * float("nan")

    with pytest.raises(FloatingPointError, match="not finite by step 4 .learning rate .*lower learning_rate"):
        train_on(store, tmp_path / "run", loss=broken)


def test_a_damaged_checkpoint_is_named(store, tmp_path):
    train_on(store, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match="checkpoint.safetensors: damaged"):
        train_on(store, tmp_path / "run")


def test_every_epoch_visits_every_frame_once_in_an_order_of_its_own():
    orders = [frame_order(50, seed, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3
    assert torch.equal(orders[1], frame_order(50, 1, 1))


def test_the_learning_rate_rises_then_falls_linearly():
    config = TrainingConfig(learning_rate=1.0, warmup=0.2)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_a_model_survives_its_folder_with_its_feature_settings(tmp_path):
    model = AcousticModel(SIZES, num_bins=20, num_pdfs=3).initialize(1)
    model.log_priors.copy_(log_priors(torch.tensor([0, 0, 0, 1]), 3))
    save_model(tmp_path, model, FbankConfig(num_bins=20))
    read, features = load_model(tmp_path)
    windows = torch.randn(4, 3, 20)
    assert torch.equal(read(windows), model(windows)) and features == FbankConfig(num_bins=20)
    assert read.log_priors.exp().tolist() == pytest.approx([3 / 4.5, 1 / 4.5, 0.5 / 4.5])


def test_a_model_folder_that_is_empty_or_of_other_sizes_is_named(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(FileNotFoundError, match="no model.safetensors"):
        load_model(tmp_path)
    save_model(tmp_path, AcousticModel(SIZES, num_bins=20, num_pdfs=3), FbankConfig(num_bins=20))
    config = tmp_path / "config.toml"
    config.write_text(config.read_text().replace("hidden_units = 16", "hidden_units = 32"))
    with pytest.raises(ValueError, match="damaged or does not fit config.toml"):
        load_model(tmp_path)
