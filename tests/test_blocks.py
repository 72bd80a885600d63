"""Frames, labels and soft targets read in blocks say what the mapped ones say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import CONFIG, SIZES, network, two_bins

from decant.distill.mixing import Mixture
from decant.distill.soft_targets import SoftTargets, record_type
from decant.files import read_array
from decant.nnet import blocks, frame_store
from decant.nnet.blocks import Blocks, read_rows, streamed
from decant.nnet.frame_store import in_blocks, pack, read_frame_store, training_frames, write_frame_store
from decant.nnet.minibatches import Shuffled, minibatches
from decant.nnet.objectives import hard_labels
from decant.nnet.training import TrainingConfig, train


@pytest.fixture
def folder(tmp_path):
    """100 frames of 3 bins, in utterances of 1 to 13 frames, labelled by their numbers."""
    random = np.random.default_rng(0)
    lengths, labels = [1, 13, 2, 9, 11, 1, 1, 12, 10, 3, 13, 8, 5, 11], iter(range(100))
    write_frame_store(tmp_path, pack((f"u{n:02d}", random.normal(size=(length, 3)),
                                      np.array([next(labels) for _ in range(length)]))
                                     for n, length in enumerate(lengths)))
    return tmp_path


def counting(array, reads):
    def read(first, end):
        reads.append((first, end))
        return array[first:end]
    return read


@pytest.mark.parametrize("window", [range(-2, 2), range(-20, 6), range(-4, 1, 4), range(0, 3), range(2, 4)])
@pytest.mark.parametrize("room", [1, 3, 100])
def test_windows_and_labels_from_blocks_are_those_gathered_from_all_frames(folder, window, room):
    """Over the blocks' ends, the utterances' ends and the store's, where windows are longer than blocks too."""
    mapped = read_frame_store(folder)
    read = in_blocks(mapped, folder, window, room, block=8)
    for index in (torch.arange(100), torch.arange(100).flip(0), torch.randperm(100), torch.tensor([99, 0, 50]),
                  torch.randint(100, (2, 40))):
        assert torch.equal(read.windows(index, window), mapped.windows(index, window))
        assert torch.equal(read.labels(index), mapped.labels(index)) and read.labels(index).dtype == torch.int64


def test_a_window_wider_than_what_blocks_are_read_for_is_refused(folder):
    read = in_blocks(read_frame_store(folder), folder, range(-2, 2), room=1, block=8)
    for window in (range(-3, 2), range(-2, 3)):
        with pytest.raises(ValueError, match="wider than the window that these frames are read for"):
            read.windows(torch.arange(3), window)


def test_an_epoch_reads_every_block_once_from_its_first_row_to_its_last():
    reads, array = [], np.arange(100)
    kept = Blocks(counting(array, reads), 100, room=3, before=2, after=1, block=8)
    reads.clear()
    for _, index, _ in minibatches([Shuffled(100, 1, pool=24, block=8)], 7, 1, 0):
        assert torch.equal(kept.take(index), index)
    assert sorted(reads) == [(max(0, 8 * n - 2), min(100, 8 * n + 9)) for n in range(13)]


def test_no_more_blocks_are_in_memory_than_there_is_room_for_and_the_least_recently_used_goes():
    reads = []
    kept = Blocks(counting(np.arange(40), reads), 40, room=2, block=10)
    reads.clear()
    for row in (0, 10, 1, 20, 2, 11):
        assert kept.take(torch.tensor([row])).tolist() == [row]
    assert reads == [(0, 10), (10, 20), (20, 30), (10, 20)]
    assert len(kept.kept) == 20


def test_rows_of_a_file_are_read_and_those_of_one_that_became_shorter_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(60).reshape(20, 3))
    array = read_array(tmp_path / "x.npy")
    rows = read_rows(array, 3, 7)
    assert not isinstance(rows, np.memmap) and np.array_equal(rows, np.arange(9, 21).reshape(4, 3))
    with (tmp_path / "x.npy").open("r+b") as file:
        file.truncate(128 + 8 * 15)
    with pytest.raises(ValueError, match="x.npy: truncated while it was read"):
        read_rows(array, 3, 7)


@pytest.mark.parametrize("shard_frames", [10, 23, 100])
def test_soft_targets_from_blocks_are_those_of_the_shards(tmp_path, shard_frames):
    random, kind = np.random.default_rng(0), record_type(3, 2)
    records = np.frombuffer(random.bytes(100 * kind.itemsize), kind).copy()
    records["logits"], records["tails"] = random.normal(size=(100, 3)), random.normal(size=(100, 2))
    for first in range(0, 100, shard_frames):
        np.save(tmp_path / f"{first}.npy", records[first:first + shard_frames])
    shards = [read_array(tmp_path / f"{first}.npy") for first in range(0, 100, shard_frames)]
    mapped = SoftTargets(shards, shard_frames, 2.0, 1)
    read = SoftTargets(shards, shard_frames, 2.0, 1, room=3, block=8)
    for index in (torch.arange(100), torch.randperm(100)):
        for found, expected in zip(read.batch(index), mapped.batch(index), strict=True):
            assert torch.equal(found, expected)


def test_mixtures_of_blocks_have_the_windows_of_mixtures_of_all_frames(folder):
    mapped, mixed, index = read_frame_store(folder), Mixture(100, 1), torch.arange(100)
    read = in_blocks(mapped, folder, range(-2, 2), room=3, block=8)
    assert torch.equal(mixed.windows(read, index, range(-2, 2)), mixed.windows(mapped, index, range(-2, 2)))


def test_only_what_has_more_frames_than_a_pool_is_read_in_blocks(folder, monkeypatch):
    assert not streamed(2**23, 2**16) and streamed(2**23 + 1, 2**23) and not streamed(2**23 + 1, 2**24)
    monkeypatch.setattr(blocks, "POOL", 99)
    monkeypatch.setattr(frame_store, "BLOCK", 16)
    cpu = torch.device("cpu")
    read = training_frames(folder, cpu, range(-2, 2), pool=32, num_models=2)
    assert [len(kept.block_in) for kept in read.blocks] == [1, 1]  # BLOCK holds them all
    assert training_frames(folder, cpu, range(-2, 2), pool=100).blocks is None


def test_a_training_in_pools_read_in_blocks_is_that_of_mapped_frames_and_goes_on_to_the_same_weights(tmp_path):
    mapped = two_bins()
    write_frame_store(tmp_path / "store", mapped)
    read = in_blocks(mapped, tmp_path / "store", SIZES.window, room=3, block=16)

    def trained(store, directory, stop=10**9):
        model, objective = network(), hard_labels(store, SIZES.window)
        steps = iter(range(stop))

        def stopped(index, epoch):
            if next(steps, None) is None:
                raise KeyboardInterrupt
            return objective.read(index, epoch)

        train([model], [Shuffled(len(store), 7, pool=48, block=16)], mapped, replace(objective, read=stopped), CONFIG,
              directory, ["test"])
        return model

    expected = trained(mapped, tmp_path / "mapped")
    with pytest.raises(KeyboardInterrupt):
        trained(read, tmp_path / "read", stop=11)
    found = trained(read, tmp_path / "read")
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), found.parameters(), strict=True))


def test_a_pool_smaller_than_a_block_is_refused():
    with pytest.raises(ValueError, match="shuffle_frames is 1000; it has to be at least 65536, a block"):
        TrainingConfig(shuffle_frames=1000)
