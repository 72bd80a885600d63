"""The minibatches of a training: which frames, in which order, brought to the device that trains.

The letters: N frames of the store, B of a minibatch, M seeds.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, pairwise

import torch
from torch import Tensor

from decant.nnet import data_parallel


def frame_order(num_frames: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch visits the frames: int64 [N], a function of seed and epoch alone."""
    number = (seed << 20) + epoch
    folded = (number ^ (number >> 32) * 0x9E3779B1) % 2**32  # of a seed, torch's generator takes 32 bits
    return torch.randperm(num_frames, generator=torch.Generator().manual_seed(folded))


def minibatches(num_frames: int, batch_size: int, epochs: int, seeds: Sequence[int],
                start: int) -> Iterator[tuple[int, Tensor, float]]:
    """For each step from `start` on: its epoch; the indices of the frames that this process reads, int64 [B], of M
    seeds [M, B]; what their mean loss counts (data_parallel.own_share)."""
    steps_an_epoch = math.ceil(num_frames / batch_size)
    for epoch in range(start // steps_an_epoch, epochs):
        orders = [frame_order(num_frames, seed, epoch) for seed in seeds]
        for position in range(max(0, start - epoch * steps_an_epoch), steps_an_epoch):
            part = slice(position * batch_size, (position + 1) * batch_size)
            index = torch.stack([order[part] for order in orders])
            yield epoch, *data_parallel.own_share(index if len(seeds) > 1 else index[0])


def read_to(device: torch.device, read: Callable[..., tuple[Tensor, ...]], index: Tensor,
            epoch: int) -> tuple[Tensor, ...]:
    """A minibatch on the device that trains; by way of pinned memory, from which a GPU copies while it computes."""
    if device.type == "cpu":
        return read(index, epoch)
    return tuple(x if x.is_cuda else x.pin_memory().to(device, non_blocking=True)
                 for x in read(index.pin_memory(), epoch))


def read_ahead(read: Callable[..., tuple], indices: Iterable[tuple[Tensor, int]],
               in_thread: bool) -> Iterator[Callable[[], tuple]]:
    """For each of the (indices, epoch) what gives read(indices, epoch); in a thread, while the one before is in use."""
    if not in_thread:
        yield from (partial(read, *index) for index in indices)
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        for now, _ in pairwise(chain((thread.submit(read, *index) for index in indices), [None])):
            yield now.result
