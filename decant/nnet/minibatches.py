"""The minibatches of a training: which frames, in which order, brought to the device that trains.

The letters: N frames of an epoch, B of a minibatch, M models.
"""

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from decant.nnet import data_parallel
from decant.nnet.blocks import BLOCK, POOL


class FrameOrder(Protocol):
    """Which frames of a store an epoch visits, one after the other, from position `start` on: in parts of any length,
    int32 or int64, N in all but for `start`, as many in every epoch, a function of the epoch alone. `Shuffled` is the
    usual one."""

    def __len__(self) -> int: ...

    def __call__(self, epoch: int, start: int = 0) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class Shuffled:
    """All frames, each once, in an order that is a function of seed and epoch.

    Up to `pool` frames any order is as likely as any other. Of more, blocks of contiguous frames, in a random order,
    are taken together to pools, and each pool is shuffled by itself: its frames can be read block by block, and no
    order of all frames is ever in memory.
    """

    num_frames: int
    seed: int
    pool: int = POOL
    block: int = BLOCK

    def __len__(self) -> int:
        return self.num_frames

    def __call__(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        number = (self.seed << 20) + epoch
        folded = (number ^ (number >> 32) * 0x9E3779B1) % 2**32  # of a seed, torch's generator takes 32 bits
        if self.num_frames <= self.pool:
            yield permutation(self.num_frames, folded)[start:]
            return
        blocks = permutation(math.ceil(self.num_frames / self.block), folded)
        for pool, taken in enumerate(blocks.split(self.pool // self.block)):
            parts = [(block * self.block, min((block + 1) * self.block, self.num_frames)) for block in taken.tolist()]
            size = sum(end - first for first, end in parts)
            if start < size:
                frames = torch.cat([torch.arange(first, end, dtype=index_type(end)) for first, end in parts])
                yield frames[permutation(size, random_seed(self.seed, epoch, pool))[start:]]
            start = max(0, start - size)


def index_type(count: int) -> torch.dtype:
    """What numbers below `count` need."""
    return torch.int32 if count < 2**31 else torch.int64


def permutation(count: int, seed: int) -> Tensor:
    """0 .. count - 1 in a random order, a function of the seed (32 bits) alone, whatever the type: int32 or int64."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed), dtype=index_type(count))


def random_seed(*numbers: int) -> int:
    """32 bits for torch's generator, of numbers that are not negative."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def in_batches(parts: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same numbers, int64, `size` at a time; the last ones may be fewer."""
    left = torch.empty(0, dtype=torch.int64)
    for part in parts:
        if len(left):
            head, part = part[:size - len(left)], part[size - len(left):]
            left = torch.cat([left, head.long()])
            if len(left) < size:
                continue
            yield left
        whole = len(part) - len(part) % size
        for position in range(0, whole, size):
            yield part[position:position + size].long()
        left = part[whole:].long()
    if len(left):
        yield left


def minibatches(orders: Sequence[FrameOrder], batch_size: int, epochs: int,
                start: int) -> Iterator[tuple[int, Tensor, float]]:
    """For each step from `start` on: its epoch; the indices of the frames that this process reads, int64 [B], of M
    orders [M, B]; what their mean loss counts (data_parallel.own_part)."""
    steps_an_epoch = math.ceil(len(orders[0]) / batch_size)
    for epoch in range(start // steps_an_epoch, epochs):
        first = max(0, start - epoch * steps_an_epoch) * batch_size
        for parts in zip(*(in_batches(order(epoch, first), batch_size) for order in orders), strict=True):
            yield epoch, *data_parallel.own_part(torch.stack(parts) if len(orders) > 1 else parts[0])


def read_to(device: torch.device, read: Callable[..., tuple[Tensor, ...]], index: Tensor,
            epoch: int) -> tuple[Tensor, ...]:
    """A minibatch on the device that trains; by way of pinned memory, from which a GPU copies while it computes."""
    if device.type == "cpu":
        return read(index, epoch)
    return tuple(x if x.is_cuda else x.pin_memory().to(device, non_blocking=True)
                 for x in read(index.pin_memory(), epoch))


def read_ahead(read: Callable[..., tuple], indices: Iterable[tuple[Tensor, int]],
               in_thread: bool) -> Generator[Callable[[], tuple], None, None]:
    """For each of the (indices, epoch) what gives read(indices, epoch); in a thread, while the one before is in use."""
    if not in_thread:
        yield from (partial(read, *index) for index in indices)
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        now: Future | None = None
        for following in (thread.submit(read, *index) for index in indices):
            if now is not None:
                yield now.result
            now = following
        if now is not None:
            yield now.result
