"""The minibatches of a training: which frames, in which order, brought to the device that trains.

The letters: N frames of an epoch, B of a minibatch, M models.
"""

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from decant.nnet import data_parallel


class FrameOrder(Protocol):
    """Which frames of a store an epoch visits, one after the other: int64 [N] in range(frames of the store), as many in
    every epoch, a function of the epoch alone. `Shuffled` is the usual one."""

    def __len__(self) -> int: ...

    def __call__(self, epoch: int) -> Tensor: ...


@dataclass(frozen=True)
class Shuffled:
    """All frames, each once, in an order that is a function of seed and epoch."""

    num_frames: int
    seed: int

    def __len__(self) -> int:
        return self.num_frames

    def __call__(self, epoch: int) -> Tensor:
        number = (self.seed << 20) + epoch
        folded = (number ^ (number >> 32) * 0x9E3779B1) % 2**32  # of a seed, torch's generator takes 32 bits
        return torch.randperm(self.num_frames, generator=torch.Generator().manual_seed(folded))


def minibatches(orders: Sequence[FrameOrder], batch_size: int, epochs: int,
                start: int) -> Iterator[tuple[int, Tensor, float]]:
    """For each step from `start` on: its epoch; the indices of the frames that this process reads, int64 [B], of M
    orders [M, B]; what their mean loss counts (data_parallel.own_part)."""
    steps_an_epoch = math.ceil(len(orders[0]) / batch_size)
    for epoch in range(start // steps_an_epoch, epochs):
        visited = [order(epoch) for order in orders]
        for position in range(max(0, start - epoch * steps_an_epoch), steps_an_epoch):
            part = slice(position * batch_size, (position + 1) * batch_size)
            index = torch.stack([frames[part] for frames in visited])
            yield epoch, *data_parallel.own_part(index if len(orders) > 1 else index[0])


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
