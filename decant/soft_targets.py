"""Soft targets: the ensemble's softened predictions on the training frames, on disk, and what a student makes of them.

A folder with `temperature_<t>.npy` for every temperature: float16 [N, S], the arithmetic mean of the members'
distributions at that temperature, a row for each frame of the store. 2 S bytes a frame and temperature.

The letters: N frames of the store, B batch, S pdf-ids.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from decant.acoustic_model import AcousticModel
from decant.ensemble import mean_probabilities
from decant.files import atomic_path
from decant.frame_store import FrameStore, map_array
from decant.progress import progress


@dataclass(frozen=True)
class DistillationConfig:
    temperatures: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)  # a student each; dev chooses (paper: 1, 2, 5, 10)
    hard_label_weight: float = 0.5  # of the hard labels' cross-entropy beside the soft targets' (paper: 0.5)
    num_seeds: int = 3  # students of the chosen temperature, for mean and spread

    def __post_init__(self) -> None:
        if not self.temperatures or min(self.temperatures) <= 0:
            raise ValueError(f"temperatures is {self.temperatures}; it needs one or more, all above 0")
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"temperatures {self.temperatures} has one twice")
        if self.hard_label_weight < 0 or self.num_seeds < 1:
            raise ValueError("hard_label_weight may not be negative, and num_seeds has to be at least 1")


def _file(directory: Path, temperature: float) -> Path:
    return directory / f"temperature_{temperature:g}.npy"


def write_soft_targets(directory: Path, members: Sequence[AcousticModel], store: FrameStore,
                       temperatures: Sequence[float], batch_size: int = 4096) -> None:
    """Writes every temperature's targets in one pass of the members over the store."""
    shape = (len(store), members[0].num_pdfs)
    with ExitStack() as stack:
        paths = [stack.enter_context(atomic_path(_file(directory, t))) for t in temperatures]
        files = [np.lib.format.open_memmap(path, "w+", np.float16, shape) for path in paths]
        index = torch.arange(len(store), device=store.frames.device)
        parts = index.split(batch_size)
        for part in progress(parts, len(parts), "soft targets"):
            means = mean_probabilities(members, members[0].windows(store, part), temperatures)
            for file, mean in zip(files, means, strict=True):
                file[part[0]:part[-1] + 1] = mean.half().cpu().numpy()
        for file in files:
            file.flush()


def read_soft_targets(directory: Path, temperature: float, num_frames: int) -> Tensor:
    """The targets float16 [N, S] of a temperature, memory-mapped.

    Raises FileNotFoundError if that temperature was not written, ValueError if it is of another store.
    """
    path = _file(directory, temperature)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no soft targets of this temperature; run the soft-target stage again")
    targets = map_array(path)
    if len(targets) != num_frames:
        raise ValueError(f"{path}: targets for {len(targets)} frames, but the store has {num_frames}; run the "
                         "soft-target stage again")
    return targets
