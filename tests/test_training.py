import multiprocessing
import re
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import CONFIG, SIZES, network, train_on, with_opinions

from decant.nnet.acoustic_model import AcousticModel, SideBySide
from decant.nnet.frame_store import pack
from decant.nnet.losses import hard_label_loss
from decant.nnet.minibatches import Shuffled
from decant.nnet.objectives import Objective, hard_labels
from decant.nnet.training import TrainingConfig, accuracy_and_loss, better, learning_rate, train


def test_training_learns_and_keeps_the_epoch_that_is_best_on_dev(store, tmp_path):
    model, history = train_on(store, tmp_path / "run", replace(CONFIG, epochs=12))
    best = max(epoch["dev_frame_accuracy"] for epoch in history)
    assert len(history) == 12 and best > 0.9
    assert accuracy_and_loss(model, store)[0].item() == best


def test_the_same_seed_gives_the_same_weights_bit_for_bit(store, tmp_path):
    first, _ = train_on(store, tmp_path / "first")
    second, _ = train_on(store, tmp_path / "second")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(("factor", "step"), [(float("nan"), 12), (1e4, 12)])
def test_a_training_that_diverges_stops_and_keeps_the_checkpoint_before(store, tmp_path, factor, step):
    steps = 0

    def explodes(model, index, epoch):
        nonlocal steps
        steps += 1
        loss = hard_label_loss(model(store.windows(index, SIZES.window)), store.labels(index))
        return loss * (factor if steps > 9 else 1)

    message = (rf"test: training diverged by step {step}: loss .*, 0\.69\d at first, learning rate 0.00\d+; "
               r"lower learning_rate .the checkpoint, if any, is still step 8's")
    with pytest.raises(FloatingPointError, match=message):
        train_on(store, tmp_path / "run", loss=explodes)
    resumed, whole = train_on(store, tmp_path / "run")[0], train_on(store, tmp_path / "whole")[0]
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


def test_dev_is_looked_at_as_often_as_asked_and_at_the_end(store, tmp_path):
    _, every = train_on(store, tmp_path / "every", replace(CONFIG, epochs=5))
    model, some = train_on(store, tmp_path / "some", replace(CONFIG, epochs=5, dev_epochs=2))
    assert [record["epoch"] for record in some] == [2, 4, 5]
    assert all(every[record["epoch"] - 1] | {"seconds": record["seconds"]} == record for record in some)
    assert accuracy_and_loss(model, store)[0].item() == max(
        record["dev_frame_accuracy"] for record in some)


def test_of_two_epochs_equally_good_on_dev_the_first_is_kept(store, tmp_path):
    """No accuracy is a float32: compared in that, half of them would beat themselves."""
    weights = []

    def keeps(model, index, epoch):
        if len(weights) <= epoch:
            weights.append({name: x.clone() for name, x in model.state_dict().items()})
        return hard_label_loss(model(store.windows(index, SIZES.window)), store.labels(index))

    model, history = train_on(store, tmp_path / "run", replace(CONFIG, epochs=20), keeps)
    accuracies = [epoch["dev_frame_accuracy"] for epoch in history]
    assert accuracies.count(max(accuracies)) > 1
    first = accuracies.index(max(accuracies))
    assert all(torch.equal(x, weights[first + 1][name]) for name, x in model.state_dict().items())


def train_in_little_memory(directory):
    """With 256 MB more than it has, and 128 for the frames' order: of 4 million each layer's outputs alone are 256 MB,
    several times over. In float32: for bfloat16 oneDNN keeps what it took, and much smaller minibatches may not fit
    then."""
    frames = 4_000_000
    store = pack([("a", np.zeros((frames, 2)), np.zeros(frames, int))])
    held = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (held + 2**28 + 2**27,) * 2)
    try:
        train_on(store, directory, replace(CONFIG, batch_size=frames, precision="float32"))
    except ValueError as error:
        (directory / "error.txt").write_text(str(error))


def test_a_minibatch_that_does_not_fit_names_one_that_does(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=train_in_little_memory, args=(tmp_path,))
    process.start()
    process.join()
    found = re.fullmatch(r"test: minibatches of 4000000 frames do not fit into memory; (\d+) do: set batch_size in its "
                         "table of the config", (tmp_path / "error.txt").read_text())
    assert 1000 < int(found[1]) <= 2_000_000


def test_models_side_by_side_become_what_each_becomes_alone(store, tmp_path):
    """But for rounding; and each keeps its own best epoch. The loss is the members'."""
    config, seeds = replace(CONFIG, epochs=6, precision="float32"), [7, 8, 9]
    orders = [Shuffled(len(store), seed) for seed in seeds]

    def models():
        return [network(seed) for seed in seeds]

    objective = hard_labels(store, SIZES.window)
    together, alone = models(), models()
    histories = train(together, orders, store, objective, config, tmp_path / "together", list("abc"))
    for model, order, beside, history in zip(alone, orders, together, histories, strict=True):
        [expected] = train([model], [order], store, objective, config, tmp_path / str(order.seed), ["alone"])
        for a, b in zip(history, expected, strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
            assert a["dev_frame_accuracy"] == b["dev_frame_accuracy"]
        for a, b in zip(beside.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_of_models_side_by_side_each_keeps_its_own_best_weights():
    best, now = {"x": torch.tensor([[1.0, 1.0], [2.0, 2.0]])}, {"x": torch.tensor([[3.0, 3.0], [4.0, 4.0]])}
    assert better(best, now, torch.tensor([False, True]))["x"].tolist() == [[1.0, 1.0], [4.0, 4.0]]
    assert better(best, now, torch.tensor([False, False]))["x"] is best["x"]
    assert better({}, now, torch.tensor([True, True]))["x"].tolist() == now["x"].tolist()


@pytest.mark.parametrize(("field", "value"), [
    ("learning_rate", 0.0), ("warmup", 5.0), ("weight_decay", -1.0), ("seed", -1), ("label_smoothing", 1.0),
    ("precision", "float8"), ("epochs", 0)])
def test_settings_that_cannot_be_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        TrainingConfig(**{field: value})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_computes_in_the_precision_asked_for_and_dev_in_float32(store, tmp_path, precision):
    seen = {"training": set(), "dev": set()}

    def loss(model, index, epoch):
        logits = model.layers[1](store.windows(index, SIZES.window).float().flatten(1))
        seen["training"].add(logits.dtype)
        return hard_label_loss(model(store.windows(index, SIZES.window)), store.labels(index))

    class Looked(AcousticModel):
        def forward(self, windows):
            if torch.is_inference_mode_enabled():
                seen["dev"].add(self.layers[1](windows.float().flatten(1)).dtype)
            return super().forward(windows)

    model = Looked(SIZES, num_bins=2, num_pdfs=2).initialize(7)
    objective = Objective(lambda index, epoch: (index, torch.tensor(epoch)), loss)
    train([model], [Shuffled(len(store), 7)], store, objective, replace(CONFIG, precision=precision), tmp_path / "run",
          ["test"])
    assert seen == {"training": {getattr(torch, precision)}, "dev": {torch.float32}}


def test_the_learning_rate_rises_then_falls_linearly():
    config = TrainingConfig(learning_rate=1.0, warmup=0.2)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_accuracy_and_loss_of_a_store_are_those_of_its_frames(store):
    models, index = [with_opinions(seed) for seed in (7, 8)], torch.arange(len(store))
    logits = [model(store.windows(index, SIZES.window)) for model in models]
    accuracy = [(x.argmax(dim=1) == store.pdfs).double().mean().item() for x in logits]
    loss = [hard_label_loss(x, store.labels(index)).item() for x in logits]
    together = accuracy_and_loss(SideBySide(models), store)
    assert together[0].tolist() == accuracy and together[1].tolist() == pytest.approx(loss)
    assert accuracy_and_loss(models[1], store).tolist() == pytest.approx([accuracy[1], loss[1]])
