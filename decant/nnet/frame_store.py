"""All frames of a split in one array, from which windows are gathered by index: no window is ever copied to disk.

Where there are more than a training shuffles together, they are read in blocks (`training_frames`); else they are
mapped, or on the GPU.

A folder with `frames.npy` (float16 [N, F]), `offsets.npy` (int64 [U + 1], where each utterance begins), `pdfs.npy`
(int32 [N], the hard labels) and `utterances.txt`. 2000 hours at 100 frames a second are 58 GB.

The letters: N frames of the split, U utterances, B batch, W frames of a window, F features of a frame.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from decant.feat.archive import write_int_vectors
from decant.files import atomic_path, read_array
from decant.nnet.blocks import BLOCK, Blocks, read_rows, streamed
from decant.settings import config_field

MOST = 0.8  # share of a GPU's free memory that a store may fill: the rest is for a training

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FramesConfig:
    """The frames that the networks see."""

    features: str = config_field(
        "fbank", "What a frame is: fbank; or fmllr, the speaker-adapted features of triphone.speaker_adaptation.",
        paper="fbank")
    speeds: tuple[float, ...] = config_field(
        (), "Networks also learn from train's utterances at these speeds: copies by speakers of their own, with labels "
        "of their own alignment (Kaldi's perturb_data_dir_speed_3way.sh: 0.9 and 1.1).", paper=())

    def __post_init__(self) -> None:
        if self.features not in ("fbank", "fmllr"):
            raise ValueError(f"features is {self.features!r}; known are fbank and fmllr")
        if len({1.0, *self.speeds}) != 1 + len(self.speeds) or not all(
                0.5 <= speed <= 2 and speed == round(speed, 2) for speed in self.speeds):
            raise ValueError(f"speeds {self.speeds} must be 0.5 to 2, in hundredths, and differ from each other and "
                             "from 1, which is there in any case")


@dataclass(frozen=True)
class FrameStore:
    """frames: float16 [N, F]; offsets: int64 [U + 1]; pdfs: int32 [N]; all on one device. blocks: where windows, and
    labels, come from in place of these, if they are read in blocks."""

    frames: Tensor
    offsets: Tensor
    pdfs: Tensor
    utterances: tuple[str, ...]
    blocks: tuple[Blocks, Blocks] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def device(self) -> torch.device:
        return self.frames.device

    def windows(self, index: Tensor, window: range) -> Tensor:
        """The frames around each of `index` (int64 [..., B]), `window` counted from it: float16 [..., B, W, F], on the
        store's device, wherever the index is.

        Beyond an utterance's ends its first and last frames are repeated.
        """
        index = self.here(index)
        utterance = torch.searchsorted(self.offsets, index, right=True)
        first, last = self.offsets[utterance - 1].unsqueeze(-1), self.offsets[utterance].unsqueeze(-1) - 1
        around = torch.arange(window.start, window.stop, window.step, device=index.device)
        rows = torch.minimum(torch.maximum(index.unsqueeze(-1) + around, first), last)
        if self.blocks:
            if -window[0] > self.blocks[0].before or window[-1] > self.blocks[0].after:
                raise ValueError(f"{window} is wider than the window that these frames are read for")
            return self.blocks[0].take(index.flatten(), rows.flatten(0, -2)).view(*rows.shape, -1)
        return self.frames.index_select(0, rows.flatten()).view(*rows.shape, -1)

    def labels(self, index: Tensor) -> Tensor:
        """The pdf-ids of the frames `index` (int64 [..., B]): int64 [..., B], on the store's device."""
        if self.blocks:
            return self.blocks[1].take(index.flatten()).view(index.shape).long()
        return self.pdfs[self.here(index)].long()

    def here(self, x: Tensor) -> Tensor:
        """A tensor of the host on the store's device. A GPU does not make the host wait for it."""
        return x.to(self.device, non_blocking=self.device.type == "cuda")

    def utterance_slices(self) -> Iterable[tuple[str, slice]]:
        """Each utterance's name and its rows."""
        ends = self.offsets.tolist()
        for name, start, end in zip(self.utterances, ends[:-1], ends[1:], strict=True):
            yield name, slice(start, end)

    def select(self, utterances: Sequence[int]) -> "FrameStore":
        """A store of these utterances alone, by their numbers from 0, in that order."""
        rows = torch.cat([torch.arange(*self.offsets[u:u + 2].tolist()) for u in utterances])
        sizes = [0] + [int(self.offsets[u + 1] - self.offsets[u]) for u in utterances]
        return FrameStore(self.frames[rows], torch.tensor(sizes, device=self.offsets.device).cumsum(dim=0),
                          self.pdfs[rows],
                          tuple(self.utterances[u] for u in utterances))

    def to(self, device: torch.device) -> "FrameStore":
        """The store on a device, or where it is, on disk even, if it would fill more than `MOST` of a GPU's memory."""
        if device.type == "cuda" and (size := self.frames.nbytes + self.pdfs.nbytes) > MOST * free_memory(device):
            logger.info("%d frames, %.1f GB, stay on the host: %s has %.1f GB free", len(self), size / 1e9, device,
                        free_memory(device) / 1e9)
            return self
        return replace(self, frames=self.frames.to(device), offsets=self.offsets.to(device), pdfs=self.pdfs.to(device))


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU that a new tensor may take: the driver's, and those that torch holds but does not use."""
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held


Utterances = Iterable[tuple[str, np.ndarray, np.ndarray]]
"""(name, frames [T, F], pdf-ids [T]) of each."""


def checked(utterances: Utterances) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The same in float16 and int32. Raises ValueError if lengths differ, a value is not finite in float16, or there
    are none."""
    name = None
    for name, x, labels in utterances:
        if len(x) != len(labels):
            raise ValueError(f"utterance {name} has {len(x)} frames and {len(labels)} labels; align again with these "
                             "features")
        with np.errstate(over="ignore"):
            frames = x.astype(np.float16)
        if not np.isfinite(frames).all():
            frame, feature = np.argwhere(~np.isfinite(frames))[0]
            raise ValueError(f"utterance {name}: feature {feature} of frame {frame} is {x[frame, feature]:g}; a frame "
                             "store holds numbers up to 65504; look at its audio and its speaker's, or leave it out")
        yield name, frames, labels.astype(np.int32)
    if name is None:
        raise ValueError("no utterances to store; look at unusable.txt")


def pack(utterances: Utterances) -> FrameStore:
    """A store, in memory, of these utterances. Raises ValueError as `checked` does."""
    names, frames, pdfs = zip(*checked(utterances), strict=True)
    offsets = torch.tensor([0] + [len(x) for x in frames]).cumsum(dim=0)
    return FrameStore(torch.from_numpy(np.concatenate(frames)), offsets, torch.from_numpy(np.concatenate(pdfs)), names)


def write_utterances(directory: Path, utterances: Utterances) -> None:
    """Writes the files of a store as its utterances come, of which one is in memory at a time. Raises ValueError as
    `checked` does."""
    directory.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    ends = [0]
    with (atomic_path(directory / "pdfs.npy") as pdfs_path, atomic_path(directory / "frames.npy") as frames_path,
          pdfs_path.open("wb") as pdfs_file, frames_path.open("wb") as frames_file):
        for name, frames, pdfs in checked(utterances):
            if not names:
                write_header(frames_file, frames, 0)
                write_header(pdfs_file, pdfs, 0)
            frames.tofile(frames_file)
            pdfs.tofile(pdfs_file)
            names.append(name)
            ends.append(ends[-1] + len(frames))
        write_header(frames_file, frames, ends[-1])
        write_header(pdfs_file, pdfs, ends[-1])
    with atomic_path(directory / "offsets.npy") as path:
        np.save(path, np.array(ends), allow_pickle=False)
    with atomic_path(directory / "utterances.txt") as path:
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def write_header(file: BinaryIO, like: np.ndarray, num_rows: int) -> None:
    """The header of a .npy file of so many rows, like those of an array, at the file's beginning; its length does not
    depend on how many (numpy leaves room for 21 digits)."""
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": np.lib.format.dtype_to_descr(like.dtype),
                                                "fortran_order": False, "shape": (num_rows, *like.shape[1:])})


def write_frame_store(directory: Path, *stores: FrameStore) -> None:
    """Writes the files of one store of all these stores' utterances, in their order."""
    write_utterances(directory, ((name, store.frames[rows].numpy(), store.pdfs[rows].numpy())
                                 for store in stores for name, rows in store.utterance_slices()))


def write_labelled_store(directory: Path, *stores: FrameStore) -> None:
    """Writes one store of all these, and its labels as a Kaldi archive, DIRECTORY/ali.scp."""
    write_frame_store(directory, *stores)
    write_labels(directory)


def write_labels(directory: Path) -> None:
    """Writes the labels of the store that is in the folder as a Kaldi archive, DIRECTORY/ali.scp."""
    store = read_frame_store(directory)
    write_int_vectors(directory / "ali", ((name, store.pdfs[rows].numpy())
                                          for name, rows in sorted(store.utterance_slices())))


def read_frame_store(directory: Path) -> FrameStore:
    """Opens a store; its frames stay on disk until used. Raises ValueError if its files do not fit together."""
    arrays = {name: torch.from_numpy(read_array(directory / f"{name}.npy")) for name in ("frames", "offsets", "pdfs")}
    names = tuple((directory / "utterances.txt").read_text(encoding="utf-8").split("\n")[:-1])
    found = (len(arrays["frames"]), int(arrays["offsets"][-1]), len(arrays["pdfs"]), len(arrays["offsets"]) - 1)
    if found != (found[0],) * 3 + (len(names),):
        raise ValueError(f"{directory}: {found[0]} frames, offsets up to {found[1]}, {found[2]} labels, "
                         f"{found[3]} utterances and {len(names)} names do not fit together; run the stage again")
    return FrameStore(arrays["frames"], arrays["offsets"], arrays["pdfs"], names)


def training_frames(directory: Path, device: torch.device, window: range, pool: int,
                    num_models: int = 1) -> FrameStore:
    """A store for trainings whose orders shuffle pools of so many frames: on the GPU if it fits there, in blocks that
    are read from disk if there are more than a pool's (decant.nnet.blocks.streamed), else mapped.

    num_models: side by side, each with an order of its own. In blocks it holds pool * num_models frames in memory.
    """
    store = read_frame_store(directory).to(device)
    if store.device.type != "cpu" or not streamed(len(store), pool):
        return store
    return in_blocks(store, directory, window, num_models * (pool // BLOCK))


def in_blocks(store: FrameStore, directory: Path, window: range, room: int, block: int = BLOCK) -> FrameStore:
    """The store of a folder, with as many of its blocks in memory as there is room for."""
    frames, pdfs = (Blocks(partial(read_rows, read_array(directory / f"{name}.npy")), len(store), room, before, after,
                           block)
                    for name, before, after in (("frames", max(0, -window[0]), max(0, window[-1])), ("pdfs", 0, 0)))
    return replace(store, blocks=(frames, pdfs))
