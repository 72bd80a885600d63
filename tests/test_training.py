import multiprocessing
import random
import re
import resource
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from decant import training
from decant.acoustic_model import AcousticModel, AcousticModelConfig
from decant.files import write_tensors
from decant.frame_store import pack, read_frame_store, write_frame_store
from decant.losses import hard_label_loss
from decant.training import (
    Objective,
    TrainingConfig,
    better,
    frame_order,
    learning_rate,
    minibatches,
    predictions,
    read_ahead,
    train,
)
from steps.acoustic_training import hard_labels

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
        return hard_label_loss(model(store.windows(index, SIZES.window)), store.labels(index))

    objective = Objective(lambda index, epoch: (index, torch.tensor(epoch)), loss or batch_loss)
    [history] = train([model], store, store, objective, config, [7], directory, ["test"])
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
        return hard_label_loss(model(store.windows(index, SIZES.window)), store.labels(index))

    whole, whole_history = train_on(store, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_on(store, tmp_path / "stopped", loss=interrupted)
    resumed, resumed_history = train_on(store, tmp_path / "stopped")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    for a, b in zip(whole_history, resumed_history, strict=True):
        assert a | {"seconds": 0} == b | {"seconds": 0}


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


def train_and_save(directory):
    """What the killed processes below run."""
    torch.set_num_threads(1)
    store = read_frame_store(directory.parent / "store")
    model, _ = train_on(store, directory, replace(CONFIG, epochs=10, checkpoint_steps=3))
    write_tensors(directory / "weights.safetensors", model.state_dict())


def test_a_training_killed_at_twenty_random_moments_goes_on_to_the_same_weights_bit_for_bit(store, tmp_path):
    """By SIGKILL from outside, wherever it was: in a step, at an epoch's end, writing a checkpoint."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["torch", "decant.training"])

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


def test_dev_is_looked_at_as_often_as_asked_and_at_the_end(store, tmp_path):
    _, every = train_on(store, tmp_path / "every", replace(CONFIG, epochs=5))
    model, some = train_on(store, tmp_path / "some", replace(CONFIG, epochs=5, dev_epochs=2))
    assert [record["epoch"] for record in some] == [2, 4, 5]
    assert all(every[record["epoch"] - 1] | {"seconds": record["seconds"]} == record for record in some)
    assert float((predictions(model, store) == store.pdfs).double().mean()) == max(
        record["dev_frame_accuracy"] for record in some)


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


def test_of_two_epochs_equally_good_on_dev_the_first_is_kept(store, tmp_path):
    """No accuracy is a float32: compared in that, half of them would beat themselves."""
    weights = []

    def keeps(model, index, epoch):
        if len(weights) <= epoch:
            weights.append({name: x.clone() for name, x in model.state_dict().items()})
        return hard_label_loss(model(store.windows(index, range(-1, 2))), store.labels(index))

    model, history = train_on(store, tmp_path / "run", replace(CONFIG, epochs=20), keeps)
    accuracies = [epoch["dev_frame_accuracy"] for epoch in history]
    assert accuracies.count(max(accuracies)) > 1
    first = accuracies.index(max(accuracies))
    assert all(torch.equal(x, weights[first + 1][name]) for name, x in model.state_dict().items())


def train_in_little_memory(directory):
    """With 256 MB more than it has: of 4 million frames each layer's outputs alone are 256 MB, several times over. In
    float32: for bfloat16 oneDNN keeps what it took, and much smaller minibatches may not fit then."""
    frames = 4_000_000
    store = pack([("a", np.zeros((frames, 2)), np.zeros(frames, int))])
    held = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (held + 2**28, held + 2**28))
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
    """But for rounding; and each keeps its own best epoch. The loss is the members' of steps.acoustic_training."""
    config, seeds = replace(CONFIG, epochs=6, precision="float32"), [7, 8, 9]

    def models():
        return [AcousticModel(SIZES, num_bins=2, num_pdfs=2).initialize(seed) for seed in seeds]

    objective = hard_labels(store, SIZES, CONFIG)
    together, alone = models(), models()
    histories = train(together, store, store, objective, config, seeds, tmp_path / "together", list("abc"))
    for model, seed, beside, history in zip(alone, seeds, together, histories, strict=True):
        [expected] = train([model], store, store, objective, config, [seed], tmp_path / str(seed), ["alone"])
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


def test_minibatches_go_on_in_the_middle_of_an_epoch():
    config = TrainingConfig(epochs=3, batch_size=4)
    steps = list(minibatches(10, config, [1, 2], 0))
    assert [epoch for epoch, *_ in steps] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for epoch in range(3):
        index = torch.cat([index for e, index, _ in steps if e == epoch], dim=1)
        assert torch.equal(index, torch.stack([frame_order(10, seed, epoch) for seed in (1, 2)]))
    for start in range(10):
        rest = list(minibatches(10, config, [1, 2], start))
        assert len(rest) == 9 - start
        for (_, index, weight), (_, expected, _) in zip(rest, steps[start:], strict=True):
            assert torch.equal(index, expected) and weight == 1.0


def test_the_next_minibatch_is_read_in_a_thread_while_the_one_before_is_in_use():
    begun = [threading.Event() for _ in range(4)]

    def read(number, epoch):
        begun[number].set()
        return number, epoch

    indices = [(number, 7) for number in range(4)]
    assert [now() for now in read_ahead(read, indices, in_thread=False)] == indices
    for event in begun:
        event.clear()
    for number, now in enumerate(read_ahead(read, indices, in_thread=True)):
        assert now() == (number, 7)
        assert number == 3 or begun[number + 1].wait(timeout=60)


def test_what_is_read_in_a_thread_trains_to_the_same_weights_bit_for_bit(store, tmp_path, monkeypatch):
    """As on a GPU; resumed in the middle of an epoch, too."""
    def trained(directory, config=CONFIG):
        model = AcousticModel(SIZES, num_bins=2, num_pdfs=2).initialize(7)
        train([model], store, store, hard_labels(store, SIZES, CONFIG), config, [7], directory, ["test"])
        return model

    expected = trained(tmp_path / "here")

    def interrupted(read, indices, in_thread):
        for number, now in enumerate(read_ahead(read, indices, in_thread=True)):
            if number == 10:
                raise KeyboardInterrupt
            yield now

    monkeypatch.setattr(training, "read_ahead", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "thread")
    monkeypatch.setattr(training, "read_ahead", lambda read, indices, _: read_ahead(read, indices, in_thread=True))
    found = trained(tmp_path / "thread")
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), found.parameters(), strict=True))


def test_what_a_read_ahead_raises_comes_when_it_is_asked_for():
    def read(number, epoch):
        return number // (1 - number)

    first, second = read_ahead(read, [(0, 0), (1, 0)], in_thread=True)
    assert first() == 0
    with pytest.raises(ZeroDivisionError):
        second()


def test_every_epoch_visits_every_frame_once_in_an_order_of_its_own():
    orders = [frame_order(50, seed, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3
    assert torch.equal(orders[1], frame_order(50, 1, 1))


def test_seeds_of_any_size_have_orders_of_their_own():
    seeds = [1, 1 + 2**12, 1 + 2**13, 64_000_001, 20_240_101_000_001]
    assert len({tuple(frame_order(50, seed, 0).tolist()) for seed in seeds}) == len(seeds)


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
    train([model], store, store, objective, replace(CONFIG, precision=precision), [7], tmp_path / "run", ["test"])
    assert seen == {"training": {getattr(torch, precision)}, "dev": {torch.float32}}


def test_hard_labels_are_smoothed_as_the_config_says(store):
    model = AcousticModel(SIZES, num_bins=2, num_pdfs=2).initialize(7)
    torch.nn.init.normal_(model.layers[-1].weight)
    index = torch.arange(len(store))
    for smoothing in (0.0, 0.2):
        objective = hard_labels(store, SIZES, replace(CONFIG, label_smoothing=smoothing))
        expected = hard_label_loss(model(store.windows(index, SIZES.window)), store.labels(index), smoothing)
        torch.testing.assert_close(objective.loss(model, *objective.read(index, 0)), expected)


def test_the_learning_rate_rises_then_falls_linearly():
    config = TrainingConfig(learning_rate=1.0, warmup=0.2)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
