import threading

import pytest
import torch
from small_training import CONFIG, SIZES, network

from decant.nnet import training
from decant.nnet.minibatches import Shuffled, in_batches, minibatches, read_ahead
from decant.nnet.objectives import hard_labels
from decant.nnet.training import train


def whole(order, epoch):
    return torch.cat(list(order(epoch))).long()


def pools(num_frames, seed=1, pool=24, block=8):
    return Shuffled(num_frames, seed, pool, block)


def test_every_epoch_visits_every_frame_once_in_an_order_of_its_own():
    orders = [whole(Shuffled(50, seed), epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3
    assert torch.equal(orders[1], whole(Shuffled(50, 1), 1))


def test_up_to_a_pool_the_order_is_torchs_permutation_of_all_frames():
    generator = torch.Generator().manual_seed((3 << 20) + 2)
    assert torch.equal(whole(Shuffled(50, 3, pool=50), 2), torch.randperm(50, generator=generator))


def test_seeds_of_any_size_have_orders_of_their_own():
    seeds = [1, 1 + 2**12, 1 + 2**13, 64_000_001, 20_240_101_000_001]
    for kind in (Shuffled, pools):
        assert len({tuple(whole(kind(50, seed), 0).tolist()) for seed in seeds}) == len(seeds)


@pytest.mark.parametrize("num_frames", [25, 48, 50, 71, 72, 73])
def test_in_pools_too_every_epoch_visits_every_frame_once_in_an_order_of_seed_and_epoch(num_frames):
    orders = [whole(pools(num_frames, seed), epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert all(sorted(order.tolist()) == list(range(num_frames)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3
    assert torch.equal(orders[1], whole(pools(num_frames, 1), 1))


def test_a_pool_has_all_frames_of_some_blocks_from_anywhere_shuffled_together():
    parts = [part.tolist() for part in pools(200)(0)]
    assert [len(part) for part in parts] == [24] * 8 + [8]
    blocks = [sorted({frame // 8 for frame in part}) for part in parts]
    assert all(len(found) == 3 for found in blocks[:-1]) and sum(blocks, []) != list(range(25))
    assert all(part != sorted(part) for part in parts)
    assert len({frame // 8 for frame in parts[0][:8]}) > 1  # a block's frames are not together


def test_no_order_of_all_frames_of_a_large_store_is_in_memory():
    order = Shuffled(3_000_000_000, 1, pool=2**18)
    parts = order(0)
    first = next(parts)
    assert len(first) == 2**18 and first.dtype == torch.int64 and int(first.max()) > 2**31
    assert next(Shuffled(720_000_000, 1, pool=2**18)(0)).dtype == torch.int32


@pytest.mark.parametrize("order", [Shuffled(50, 1), pools(50)])
def test_an_order_goes_on_from_any_position(order):
    for start in (0, 1, 23, 24, 25, 49, 50):
        rest = torch.cat([torch.empty(0, dtype=torch.int32), *order(1, start)])
        assert rest.tolist() == whole(order, 1)[start:].tolist()


def test_minibatches_are_cut_from_parts_of_any_length():
    parts = [torch.arange(0, 2), torch.arange(2, 3), torch.arange(3, 12), torch.arange(12, 12), torch.arange(12, 15)]
    found = [batch.tolist() for batch in in_batches(parts, 4)]
    assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14]]
    assert [batch.tolist() for batch in in_batches(parts, 3)] == [list(range(n, n + 3)) for n in range(0, 15, 3)]


@pytest.mark.parametrize("pool", [10, 6])
def test_minibatches_go_on_in_the_middle_of_an_epoch(pool):
    orders = [Shuffled(10, seed, pool, block=3) for seed in (1, 2)]
    steps = list(minibatches(orders, 4, 3, 0))
    assert [epoch for epoch, *_ in steps] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for epoch in range(3):
        index = torch.cat([index for e, index, _ in steps if e == epoch], dim=1)
        assert torch.equal(index, torch.stack([whole(order, epoch) for order in orders]))
    for start in range(10):
        rest = list(minibatches(orders, 4, 3, start))
        assert len(rest) == 9 - start
        for (_, index, weight), (_, expected, _) in zip(rest, steps[start:], strict=True):
            assert torch.equal(index, expected) and weight == 1.0


class EvenFrames:
    """Another order: every second frame, as they come."""

    def __len__(self):
        return 5

    def __call__(self, epoch, start=0):
        yield torch.arange(0, 10, 2)[start:]


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
