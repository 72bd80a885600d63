"""What training and distilling will take in disk and memory: counted before the work, said, and looked for on the disk.

The letters: N frames, F features of a frame, S pdf-ids, P parameters of a network.
"""

import json
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from decant.distill.soft_targets import DistillationConfig, SoftTargetsConfig, record_type
from decant.nnet import data_parallel
from decant.nnet.acoustic_model import AcousticModel, AcousticModelConfig, num_parameters
from decant.nnet.blocks import POOL, streamed
from decant.nnet.frame_store import read_frame_store
from decant.nnet.training import TrainingConfig

LIBRARIES = 500_000_000  # bytes of a process that has imported torch
TEACHER_BATCH = 4096  # frames that members answer at a time

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Needs:
    """Bytes, about: of disk when all is written, and of memory, a GPU's among it."""

    disk: int
    memory: int

    def announce(self, folder: Path) -> None:
        """Logs them. Raises OSError if the folder's disk has no room for what is not in the folder already."""
        logger.info("needs about %.1f GB of disk in %s, %.1f GB of memory", self.disk / 1e9, folder, self.memory / 1e9)
        there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if self.disk - there > (free := shutil.disk_usage(folder).free):
            raise OSError(f"{folder}: about {(self.disk - there) / 1e9:.1f} GB more are needed on this disk, and "
                          f"{free / 1e9:.1f} GB are free; make room, or let the stage's folder be a link to one on "
                          "another disk (docs/stages.md)")


@dataclass(frozen=True)
class Frames:
    """The frames of a store and the networks' states: N, F and S."""

    num_frames: int
    num_features: int
    num_pdfs: int

    def of(self, count: int) -> int:
        """Bytes of so many of them, with their labels."""
        return count * (2 * self.num_features + 4)

    def parameters(self, sizes: AcousticModelConfig) -> int:
        """P of a network for them."""
        with torch.device("meta"):  # nothing is allocated
            return num_parameters(AcousticModel(sizes, self.num_features, self.num_pdfs))


def read_frames(store: Path, states: Path) -> Frames:
    """Of a frame store's folder and stage 6's states.json."""
    num_frames, num_features = read_frame_store(store).frames.shape
    return Frames(num_frames, num_features, json.loads(states.read_text())["num_pdfs"])


def outputs(frames: Frames, sizes: AcousticModelConfig) -> int:
    """Numbers that a network computes of a frame: its window, its layers twice (before and after), its logits."""
    return len(sizes.window) * frames.num_features + 2 * sizes.hidden_layers * sizes.hidden_units + frames.num_pdfs


def of_trainings(frames: Frames, sizes: AcousticModelConfig, config: TrainingConfig, networks: int, at_a_time: int,
                 side_by_side: int = 1, record: int = 0, live_members: int = 0) -> Needs:
    """Of trainings, so many at a time, each of so many networks side by side. record: bytes of a frame's soft targets,
    read from disk; live_members: teachers that answer in every step.

    On disk a network has its weights, and while it trains a checkpoint of them, the best ones and AdamW's two moments,
    beside the one before. In memory there are those and the gradient, and a checkpoint's bytes while it is written;
    three copies of the minibatch's numbers; the frames of a pool, or all, and their order (12 bytes a frame)."""
    weights = 4 * frames.parameters(sizes)
    pool = min(frames.num_frames, config.shuffle_frames)
    in_blocks = streamed(frames.num_frames, config.shuffle_frames)
    held = pool if in_blocks else frames.num_frames
    each = 9 * weights + 12 * (pool + config.batch_size * outputs(frames, sizes))
    stores = side_by_side if in_blocks else 1  # each order has blocks of its own
    memory = (LIBRARIES + side_by_side * each + stores * frames.of(held) + held * (record + 8 * bool(record))
              + live_members * weights)
    return Needs(weights * (networks + 8 * at_a_time * side_by_side),
                 at_a_time * data_parallel.num_processes() * memory)


def of_soft_targets(frames: Frames, sizes: AcousticModelConfig, config: SoftTargetsConfig, members: int,
                    at_a_time: int) -> Needs:
    """Of a generation's soft targets, so many shards at a time."""
    passes = config.passes(frames.num_frames)
    mixed = 8 * min(frames.num_frames, POOL) * (passes > 1)
    batch = 12 * TEACHER_BATCH * outputs(frames, sizes)
    memory = LIBRARIES + 4 * members * frames.parameters(sizes) + batch + mixed + 8 * config.shard_frames
    return Needs(passes * frames.num_frames * record_bytes(frames, config),
                 at_a_time * data_parallel.num_processes() * memory)


def of_students(frames: Frames, sizes: AcousticModelConfig, training: TrainingConfig, targets: SoftTargetsConfig,
                config: DistillationConfig, members: int, jobs: int) -> Needs:
    """Of all students, and the soft targets of later generations, so many students at a time."""
    networks = len(targets.temperatures) + config.num_seeds * config.generations - 1
    trainings = of_trainings(frames, sizes, training, networks, min(jobs, networks),
                             record=record_bytes(frames, targets) if targets.stored else 0,
                             live_members=0 if targets.stored else members)
    later = (config.generations - 1) * targets.stored * of_soft_targets(frames, sizes, targets, 0, 1).disk
    return replace(trainings, disk=trainings.disk + later)


def record_bytes(frames: Frames, config: SoftTargetsConfig) -> int:
    """Of a frame's soft targets on disk."""
    return record_type(min(config.num_states, frames.num_pdfs), len(config.temperatures)).itemsize
