import threading

import pytest
import torch
from small_training import CONFIG, SIZES, network

from decant.nnet import training
from decant.nnet.minibatches import Shuffled, minibatches, read_ahead
from decant.nnet.objectives import hard_labels
from decant.nnet.training import train


def test_every_epoch_visits_every_frame_once_in_an_order_of_its_own():
    orders = [Shuffled(50, seed)(epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3
    assert torch.equal(orders[1], Shuffled(50, 1)(1))


def test_seeds_of_any_size_have_orders_of_their_own():
    seeds = [1, 1 + 2**12, 1 + 2**13, 64_000_001, 20_240_101_000_001]
    assert len({tuple(Shuffled(50, seed)(0).tolist()) for seed in seeds}) == len(seeds)


def test_minibatches_go_on_in_the_middle_of_an_epoch():
    orders = [Shuffled(10, seed) for seed in (1, 2)]
    steps = list(minibatches(orders, 4, 3, 0))
    assert [epoch for epoch, *_ in steps] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for epoch in range(3):
        index = torch.cat([index for e, index, _ in steps if e == epoch], dim=1)
        assert torch.equal(index, torch.stack([order(epoch) for order in orders]))
    for start in range(10):
        rest = list(minibatches(orders, 4, 3, start))
        assert len(rest) == 9 - start
        for (_, index, weight), (_, expected, _) in zip(rest, steps[start:], strict=True):
            assert torch.equal(index, expected) and weight == 1.0


class EvenFrames:
    """Another order: every second frame, as they come."""

    def __len__(self):
        return 5

    def __call__(self, epoch):
        return torch.arange(0, 10, 2)


def test_an_order_may_visit_some_of_the_frames():
    steps = [(epoch, index.tolist()) for epoch, index, _ in minibatches([EvenFrames()], 3, 2, 1)]
    assert steps == [(0, [6, 8]), (1, [0, 2, 4]), (1, [6, 8])]


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


def test_what_a_read_ahead_raises_comes_when_it_is_asked_for():
    def read(number, epoch):
        return number // (1 - number)

    first, second = read_ahead(read, [(0, 0), (1, 0)], in_thread=True)
    assert first() == 0
    with pytest.raises(ZeroDivisionError):
        second()


def test_what_is_read_in_a_thread_trains_to_the_same_weights_bit_for_bit(store, tmp_path, monkeypatch):
    """As on a GPU; resumed in the middle of an epoch, too."""
    def trained(directory, config=CONFIG):
        model = network()
        train([model], [Shuffled(len(store), 7)], store, hard_labels(store, SIZES.window), config, directory, ["test"])
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
