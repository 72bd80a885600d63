"""Frames that nobody has seen: pairs of training windows, mixed.

Members that have memorised their training frames give targets there that say little more than the hard labels; on a
mixture of two windows the same ensemble says what it has learned (mixing is Zhang et al. 2018's mixup, with the
teacher's answer in place of mixed labels). Mixtures are functions of (seed, pass), so that teacher and student see the
same ones, and only the teacher's answers are kept on disk.

The letters: N frames of a store, B batch, W frames of a window, F features of a frame.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from decant.nnet.frame_store import FrameStore

SEED = 20150309  # of all mixtures: one set of targets serves students of every seed and temperature


@dataclass(frozen=True)
class Mixture:
    """Every training frame's partner, int64 [N], and the weight of the frame itself in the mixture, float32 [N]; both
    on the CPU, where minibatches are drawn."""

    partner: Tensor
    weight: Tensor
    alone: bool = False  # every weight is 1

    def windows(self, store: FrameStore, index: Tensor, window: range) -> Tensor:
        """weight * window + (1 - weight) * partner's window, for the frames `index` (int64 [B], on the CPU): float32,
        or float16 of frames alone, [B, W, F], on the store's device."""
        if self.alone:
            return store.windows(index, window)
        own, partner = store.windows(index, window), store.windows(self.partner[index], window)
        return torch.lerp(partner.float(), own.float(), store.here(self.weight[index])[:, None, None])


def pass_of(epoch: int, num_epochs: int, num_passes: int) -> int:
    """The pass that an epoch is on: all in turn, so that the last epoch has the plain frames."""
    return (num_epochs - 1 - epoch) % num_passes


def mixture(num_frames: int, number: int) -> Mixture:
    """Pass `number` over the training frames: 0 has each frame by itself, the others each with a random partner, with
    weights drawn evenly from 0 to 1."""
    if number == 0:
        return Mixture(torch.arange(num_frames), torch.ones(()).expand(num_frames), alone=True)
    generator = torch.Generator().manual_seed(SEED + number)
    return Mixture(torch.randperm(num_frames, generator=generator), torch.rand(num_frames, generator=generator))
