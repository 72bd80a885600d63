"""Soft targets: the ensemble's softened predictions on the training frames, on disk, and what a student makes of them.

A folder with `pass_<p>_temperature_<t>.npy` for every pass over the training frames (see decant.mixing) and every
temperature: float16 [N, S], the arithmetic mean of the members' distributions at that temperature, a row for each frame
of the store. 2 S bytes a frame, pass and temperature.

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
from decant.mixing import mixture
from decant.progress import progress


@dataclass(frozen=True)
class SoftTargetsConfig:
    temperatures: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)  # a student each; dev chooses (paper: 1, 2, 5, 10)
    num_passes: int = 1  # passes with targets of their own; 1 is the paper's, further ones mix frames (decant.mixing)

    def __post_init__(self) -> None:
        if not self.temperatures or min(self.temperatures) <= 0:
            raise ValueError(f"temperatures is {self.temperatures}; it needs one or more, all above 0")
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"temperatures {self.temperatures} has one twice")
        if self.num_passes < 1:
            raise ValueError(f"num_passes is {self.num_passes}; it has to be at least 1")


@dataclass(frozen=True)
class DistillationConfig:
    soft_target_weight: float = 1.0  # of the soft targets' cross-entropy; 0: the student's training without a teacher
    hard_label_weight: float = 0.5  # of the hard labels' cross-entropy beside it (paper: 0.5)
    num_seeds: int = 3  # students of the chosen temperature, for mean and spread

    def __post_init__(self) -> None:
        if min(self.soft_target_weight, self.hard_label_weight) < 0 or self.num_seeds < 1:
            raise ValueError("the weights may not be negative, and num_seeds has to be at least 1")


def _file(directory: Path, number: int, temperature: float) -> Path:
    return directory / f"pass_{number}_temperature_{temperature:g}.npy"


def write_soft_targets(directory: Path, members: Sequence[AcousticModel], store: FrameStore, number: int,
                       temperatures: Sequence[float], batch_size: int = 2048) -> None:
    """Writes every temperature's targets of pass `number`, the members going over the store once."""
    shape, sizes = (len(store), members[0].num_pdfs), members[0].config
    mixed = mixture(len(store), number, store.frames.device)
    with ExitStack() as stack:
        paths = [stack.enter_context(atomic_path(_file(directory, number, t))) for t in temperatures]
        # Written row by row: in a mapped file a full disk would be a bus error.
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for file in files:
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        index = torch.arange(len(store), device=store.frames.device)
        parts = index.split(batch_size)
        for part in progress(parts, len(parts), f"soft targets, pass {number}"):
            windows = mixed.windows(store, part, sizes.left_context, sizes.right_context)
            means = mean_probabilities(members, windows, temperatures)
            for file, mean in zip(files, means, strict=True):
                file.write(mean.half().cpu().numpy().tobytes())


def read_soft_targets(directory: Path, number: int, temperature: float, num_frames: int) -> Tensor:
    """The targets float16 [N, S] of a pass at a temperature, memory-mapped.

    Raises FileNotFoundError if they were not written, ValueError if it is of another store.
    """
    path = _file(directory, number, temperature)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no soft targets of this pass and temperature; run stage 9 again")
    targets = map_array(path)
    if len(targets) != num_frames:
        raise ValueError(f"{path}: targets for {len(targets)} frames, but the store has {num_frames}; run the "
                         "soft-target stage again")
    return targets
