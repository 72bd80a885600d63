"""All frames of a split in one array, from which windows are gathered by index: no window is ever copied to disk.

A folder with `frames.npy` (float16 [N, F]), `offsets.npy` (int64 [U + 1], where each utterance begins), `pdfs.npy`
(int32 [N], the hard labels) and `utterances.txt`. 2000 hours at 100 frames a second are 58 GB.

The letters: N frames of the split, U utterances, B batch, W frames of a window, F features of a frame.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from decant.feat.archive import write_int_vectors
from decant.files import atomic_path, read_array
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
    """frames: float16 [N, F]; offsets: int64 [U + 1]; pdfs: int32 [N]; all on one device."""

    frames: Tensor
    offsets: Tensor
    pdfs: Tensor
    utterances: tuple[str, ...]

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
        return self.frames.index_select(0, rows.flatten()).view(*rows.shape, -1)

    def labels(self, index: Tensor) -> Tensor:
        """The pdf-ids of the frames `index` (int64 [..., B]): int64 [..., B], on the store's device."""
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


def pack(utterances: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> FrameStore:
    """A store, in memory, of (name, frames [T, F], pdf-ids [T]). Raises ValueError if their lengths differ, or if a
    value is not finite in float16."""
    names, frames, pdfs = [], [], []
    for name, x, labels in utterances:
        if len(x) != len(labels):
            raise ValueError(f"utterance {name} has {len(x)} frames and {len(labels)} labels; align again with these "
                             "features")
        names.append(name)
        with np.errstate(over="ignore"):
            frames.append(torch.from_numpy(x.astype(np.float16)))
        if not frames[-1].isfinite().all():
            frame, feature = np.argwhere(~frames[-1].isfinite().numpy())[0]
            raise ValueError(f"utterance {name}: feature {feature} of frame {frame} is {x[frame, feature]:g}; a frame "
                             "store holds numbers up to 65504; look at its audio and its speaker's, or leave it out")
        pdfs.append(torch.from_numpy(labels.astype(np.int32)))
    if not names:
        raise ValueError("no utterances to store; look at unusable.txt")
    offsets = torch.tensor([0] + [len(x) for x in frames]).cumsum(dim=0)
    return FrameStore(torch.cat(frames), offsets, torch.cat(pdfs), tuple(names))


def write_frame_store(directory: Path, *stores: FrameStore) -> None:
    """Writes the files of one store of all these stores' utterances, in their order."""
    directory.mkdir(parents=True, exist_ok=True)
    ends = torch.cat([store.offsets.diff() for store in stores]).cumsum(dim=0)
    arrays = {"offsets": torch.cat([ends.new_zeros(1), ends]),
              "pdfs": torch.cat([store.pdfs for store in stores]).int()}
    for name, array in arrays.items():
        with atomic_path(directory / f"{name}.npy") as path:
            np.save(path, array.numpy(), allow_pickle=False)
    with atomic_path(directory / "frames.npy") as path, path.open("wb") as file:  # store by store: they may fill memory
        shape = (int(ends[-1]), *stores[0].frames.shape[1:])
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        for store in stores:
            store.frames.numpy().tofile(file)
    with atomic_path(directory / "utterances.txt") as path:
        path.write_text("".join(f"{name}\n" for store in stores for name in store.utterances), encoding="utf-8")


def write_labelled_store(directory: Path, *stores: FrameStore) -> None:
    """Writes one store of all these, and its labels as a Kaldi archive, DIRECTORY/ali.scp."""
    labels = {utterance: store.pdfs[rows].numpy() for store in stores for utterance, rows in store.utterance_slices()}
    write_int_vectors(directory / "ali", sorted(labels.items()))
    write_frame_store(directory, *stores)


def read_frame_store(directory: Path) -> FrameStore:
    """Opens a store; its frames stay on disk until used. Raises ValueError if its files do not fit together."""
    arrays = {name: torch.from_numpy(read_array(directory / f"{name}.npy")) for name in ("frames", "offsets", "pdfs")}
    names = tuple((directory / "utterances.txt").read_text(encoding="utf-8").split("\n")[:-1])
    found = (len(arrays["frames"]), int(arrays["offsets"][-1]), len(arrays["pdfs"]), len(arrays["offsets"]) - 1)
    if found != (found[0],) * 3 + (len(names),):
        raise ValueError(f"{directory}: {found[0]} frames, offsets up to {found[1]}, {found[2]} labels, "
                         f"{found[3]} utterances and {len(names)} names do not fit together; run the stage again")
    return FrameStore(arrays["frames"], arrays["offsets"], arrays["pdfs"], names)
