"""Rows of large arrays, read in blocks of contiguous ones; as many blocks as have room are kept in memory.

Trainings that see their frames in the order of `decant.nnet.minibatches.Shuffled` find those of a pool here, and read
every block once an epoch, from its first row to its last.

The letters: N rows of an array, B of a minibatch, W of a window.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

BLOCK = 2**16  # contiguous frames that are read as one: 11 minutes of speech
POOL = 2**23  # frames that are shuffled together and held in memory, 23 hours; where there are no more, all are mapped


def streamed(num_frames: int, pool: int) -> bool:
    """Whether frames, and what belongs to them, are read in blocks, for pools of so many."""
    return num_frames > max(pool, POOL)


def read_rows(array: np.ndarray, first: int, end: int) -> np.ndarray:
    """Rows of a mapped .npy file (decant.files.read_array) read, not mapped: mapped ones would stay in memory as long
    as the system likes. Raises ValueError naming the file if it ends before."""
    if not isinstance(array, np.memmap) or array.filename is None:
        return array[first:end]
    rows = np.fromfile(array.filename, array.dtype, (end - first) * array[0].size,
                       offset=array.offset + first * array.strides[0])
    if len(rows) < (end - first) * array[0].size:
        raise ValueError(f"{array.filename}: truncated while it was read; run the stage that writes it again")
    return rows.reshape(end - first, *array.shape[1:])


class Blocks:
    """Rows of an array of N, of which `room` blocks are in memory.

    read: (first, end) -> these rows, of any type that torch has. before, after: how many rows beside a block are kept
    with it, for windows. device: where they are kept.
    """

    def __init__(self, read: Callable[[int, int], np.ndarray], num_rows: int, room: int, before: int = 0,
                 after: int = 0, block: int = BLOCK, device: torch.device | str = "cpu"):
        count = -(-num_rows // block)
        self.read, self.num_rows, self.block, self.before, self.after = read, num_rows, block, before, after
        self.span = before + block + after
        room = max(1, min(room, count))
        like = torch.from_numpy(read(0, 1))
        self.kept = torch.empty((room * self.span, *like.shape[1:]), dtype=like.dtype, device=device)
        self.slot_of = np.full(count, -1)  # of every block, the slot of `kept` that has it
        self.block_in = np.full(room, -1)  # of every slot
        self.used = np.zeros(room, np.int64)  # when each slot was asked for last
        self.clock = 0

    def take(self, index: Tensor, rows: Tensor | None = None) -> Tensor:
        """The rows `rows` (int64 [B, W], each in the block of its index or at most `before` and `after` rows beside it)
        for the indices int64 [B], [B, W, ...]; without `rows` those of the indices themselves, [B, ...]."""
        blocks = index.numpy() // self.block
        at = index[:, None] if rows is None else rows
        parts, done = [], 0
        while done < len(index):
            now = slice(done, done + self.load(blocks[done:]))
            shift = self.slot_of[blocks[now]] * self.span + self.before - blocks[now] * self.block
            found = (at[now] + torch.from_numpy(shift)[:, None]).to(self.kept.device)
            parts.append(self.kept.index_select(0, found.flatten()).view(*found.shape, *self.kept.shape[1:]))
            done = now.stop
        taken = parts[0] if len(parts) == 1 else torch.cat(parts)
        return taken[:, 0] if rows is None else taken

    def load(self, blocks: np.ndarray) -> int:
        """Sees that as many of these blocks, from the first on, are in memory as have room; returns how many."""
        self.clock += 1
        slots = self.slot_of[blocks]
        if slots.min() >= 0:
            self.used[slots] = self.clock
            return len(blocks)
        different, firsts = np.unique(blocks, return_index=True)
        order, room = np.argsort(firsts), len(self.block_in)
        wanted = np.sort(different[order[:room]])
        slots = self.slot_of[wanted]
        self.used[slots[slots >= 0]] = self.clock
        missing = wanted[slots < 0]
        for block, slot in zip(missing.tolist(), np.argsort(self.used, kind="stable")[:len(missing)].tolist(),
                               strict=True):
            self.fill(slot, block)
        return int(firsts[order[room]]) if len(different) > room else len(blocks)

    def fill(self, slot: int, block: int) -> None:
        """Reads a block into a slot, in place of the one that it has."""
        if self.block_in[slot] >= 0:
            self.slot_of[self.block_in[slot]] = -1
        first = block * self.block
        start, end = max(0, first - self.before), min(self.num_rows, first + self.block + self.after)
        at = slot * self.span + self.before + start - first
        self.kept[at:at + end - start] = torch.from_numpy(self.read(start, end))
        self.slot_of[block], self.block_in[slot], self.used[slot] = slot, block, self.clock
