"""Frames that nobody has seen: pairs of training windows, mixed.

Members that have memorised their training frames give targets there that say little more than the hard labels; on a
mixture of two windows the same ensemble says what it has learned (mixing is Zhang et al. 2018's mixup, with the
teacher's answer in place of mixed labels). Mixtures are functions of (seed, pass), so that teacher and student see the
same ones, and only the teacher's answers are kept on disk.

The letters: N frames of a store, B batch, W frames of a window, F features of a frame.
"""

import numpy as np
import torch
from torch import Tensor

from decant.nnet.blocks import BLOCK, POOL, Blocks
from decant.nnet.frame_store import FrameStore
from decant.nnet.minibatches import random_seed

SEED = 20150309  # of all mixtures: one set of targets serves students of every seed and temperature


class Mixture:
    """Pass `number` over the training frames: 0 has each frame by itself, the others each with a random partner, with
    weights drawn evenly from 0 to 1.

    A partner is any of the frames, or of more than POOL one of the same block, so that a block is enough to mix from.
    pool: so many frames' partners are in memory at a time.
    """

    def __init__(self, num_frames: int, number: int, pool: int = POOL):
        self.alone = number == 0
        self.num_frames, self.number = num_frames, number
        self.block = num_frames if num_frames <= POOL else BLOCK
        if not self.alone:
            self.drawn = Blocks(self.draw, num_frames, pool // self.block, block=self.block)

    def draw(self, first: int, end: int) -> np.ndarray:
        """Partners and weights of a block, or of its first frames: int32 [B, 2], the partner counted from the block's
        first frame, the bits of the float32 weight."""
        block = first // self.block
        size = min(self.block, self.num_frames - block * self.block)
        seed = random_seed(SEED, self.number, block) if self.block < self.num_frames else SEED + self.number
        generator = torch.Generator().manual_seed(seed)
        partners = torch.randperm(size, generator=generator, dtype=torch.int32)
        weights = torch.rand(size, generator=generator)
        return torch.stack([partners, weights.view(torch.int32)], dim=1)[:end - first].numpy()

    def partners(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The partners, int64 [B], of the frames `index` (int64 [B], on the CPU, where minibatches are drawn), and the
        weights of the frames themselves in the mixtures, float32 [B]."""
        if self.alone:
            return index, torch.ones(len(index))
        found = self.drawn.take(index)
        return found[:, 0] + index // self.block * self.block, found[:, 1].contiguous().view(torch.float32)

    def windows(self, store: FrameStore, index: Tensor, window: range) -> Tensor:
        """weight * window + (1 - weight) * partner's window, for the frames `index` (int64 [B], on the CPU): float32,
        or float16 of frames alone, [B, W, F], on the store's device."""
        if self.alone:
            return store.windows(index, window)
        partner, weight = self.partners(index)
        # Each beside its own partner: they are in one block.
        own, other = store.windows(torch.stack([index, partner], dim=1), window).unbind(dim=1)
        return torch.lerp(other.float(), own.float(), weight.to(own.device, non_blocking=own.is_cuda)[:, None, None])


def pass_of(epoch: int, num_epochs: int, num_passes: int) -> int:
    """The pass that an epoch is on: all in turn, so that the last epoch has the plain frames."""
    return (num_epochs - 1 - epoch) % num_passes
