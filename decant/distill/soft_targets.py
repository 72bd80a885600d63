"""Soft targets: what the ensemble says about the training frames, on disk, for students of every temperature.

A folder `pass_<p>` for every pass over the training frames (see decant.distill.mixing), with shards of consecutive
frames, `shard_<first frame>.npy`, a record a frame:

    states   uint16 [K]   the pdf-ids that the ensemble finds most probable, the best first (all of them: in order)
    logits   float16 [K]  their logits, the best one's subtracted
    tails    float32 [R]  log-sum-exp of all other states' logits / temperature, for each of the R temperatures

so that softmax([logits / temperature, tail]) is the ensemble's softened distribution, exact for the kept states but for
float16, all others in one: 4 (K + R) bytes a frame. `pass.json`, written last, has what it was made from and the
SHA-256 of the shards.

The letters: N frames of the store, B batch, S pdf-ids, K of them kept, R temperatures.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from decant.distill.ensemble import TEACHERS, ensemble_logits
from decant.distill.mixing import Mixture
from decant.files import atomic_path, read_array
from decant.nnet.acoustic_model import AcousticModel
from decant.nnet.blocks import BLOCK, POOL, Blocks, read_rows, streamed
from decant.nnet.frame_store import FrameStore
from decant.nnet.precision import autocast, check_precision
from decant.progress import progress
from decant.settings import config_field


@dataclass(frozen=True)
class SoftTargetsConfig:
    """The soft targets: what the ensemble says about the training frames."""

    temperatures: tuple[float, ...] = config_field(
        (1.0, 2.0, 5.0, 10.0), "A student each; dev chooses one.", paper=(1.0, 2.0, 5.0, 10.0))
    num_passes: int = config_field(
        0, "Passes over the training frames with targets of their own; further ones mix frames "
        "(decant/distill/mixing.py). 0: 8 of up to 8,388,608 frames (23 hours), 1 of more, for the disk's sake.",
        paper=1)
    teacher: str = config_field(
        "geometric", "The mean of the members' logits; or arithmetic: of their distributions, softened after.")
    num_states: int = config_field(20, "States of a frame that keep a probability of their own; the others share one.")
    precision: str = config_field(
        "auto", "Of the members' matrix products: float32, bfloat16, or auto, which is bfloat16 where the hardware "
        "has it.")
    stored: bool = config_field(
        True, "false: no store, the teacher answers while students train; if there are several passes, one an epoch.")
    shard_frames: int = config_field(
        10_000_000, "Frames of a file; an interrupted stage goes on at the next one.", changes="nothing")
    unlabelled: str = config_field(
        "", "A Kaldi data directory, without text, of further audio that the ensemble labels for the students.")

    def __post_init__(self) -> None:
        if not self.temperatures or min(self.temperatures) <= 0:
            raise ValueError(f"temperatures is {self.temperatures}; it needs one or more, all above 0")
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"temperatures {self.temperatures} has one twice")
        if min(self.num_states, self.shard_frames) < 1 or self.num_passes < 0:
            raise ValueError("num_states and shard_frames have to be at least 1, num_passes may not be negative")
        if self.teacher not in TEACHERS:
            raise ValueError(f"teacher is {self.teacher!r}; known are {' and '.join(TEACHERS)}")
        check_precision(self.precision)

    def passes(self, num_frames: int) -> int:
        """How many passes there are over so many training frames."""
        return self.num_passes or (8 if num_frames <= POOL else 1)


@dataclass(frozen=True)
class DistillationConfig:
    """The students: what they learn, and how many there are."""

    soft_target_weight: float = config_field(
        1.0, "Weight of the soft targets' cross-entropy; 0: the student's training without a teacher.")
    hard_label_weight: float = config_field(0.5, "Weight of the hard labels' cross-entropy beside it.", paper=0.5)
    num_seeds: int = config_field(3, "Students of the chosen temperature, for mean and spread.")
    generations: int = config_field(
        1, "2: the mean of these students teaches others, as many; and so on. dev chooses the generation.", paper=1)

    def __post_init__(self) -> None:
        if min(self.soft_target_weight, self.hard_label_weight) < 0 or min(self.num_seeds, self.generations) < 1:
            raise ValueError("the weights may not be negative; num_seeds and generations have to be at least 1")
        if not self.soft_target_weight + self.hard_label_weight:
            raise ValueError("soft_target_weight and hard_label_weight are both 0: students would learn nothing")


def teacher_logits(members: Sequence[AcousticModel], windows: Tensor, config: SoftTargetsConfig) -> Tensor:
    """decant.distill.ensemble.ensemble_logits, float32 [B, S], of windows [B, W, F], as the config has it."""
    windows = windows.to(members[0].log_priors.device)
    with autocast(config.precision, windows.device):
        return ensemble_logits(members, windows, config.teacher)


def top_states(logits: Tensor, num_states: int, temperatures: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """What a record keeps of logits float32 [B, S]: the `num_states` best states int64 [B, K], the best first, their
    logits [B, K], and the tails [B, R]; all states in their own order, if there are no more."""
    if num_states >= logits.shape[1]:
        states = torch.arange(logits.shape[1], device=logits.device).expand_as(logits)
        return (states, logits - logits.amax(dim=1, keepdim=True),
                logits.new_full((len(logits), len(temperatures)), -math.inf))
    best, states = logits.topk(num_states, dim=1)
    others = (logits - best[:, :1]).scatter(1, states, -math.inf)
    tails = torch.stack([(others / temperature).logsumexp(dim=1) for temperature in temperatures], dim=1)
    return states, best - best[:, :1], tails


def softened(logits: Tensor, tails: Tensor, temperature: float) -> Tensor:
    """The probabilities float32 [B, K + 1] of the kept states, of logits [B, K], and of all others, of tails [B]."""
    return torch.cat([logits / temperature, tails[:, None]], dim=1).softmax(dim=1)


def record_type(num_states: int, num_temperatures: int) -> np.dtype:
    """The layout of a frame's record, as the module describes it."""
    return np.dtype([("states", "<u2", num_states), ("logits", "<f2", num_states), ("tails", "<f4", num_temperatures)])


def made_from(members: Sequence[AcousticModel], store: FrameStore, config: SoftTargetsConfig) -> dict:
    """What soft targets are made from: the SHA-256 of the members' weights and of the labels, and their sizes."""
    teacher, frames = hashlib.sha256(config.teacher.encode()), hashlib.sha256()
    for member in members:
        for name, weights in sorted(member.state_dict().items()):
            teacher.update(name.encode())
            teacher.update(weights.cpu().contiguous().numpy().data)
    for array in (store.offsets, store.pdfs):
        frames.update(array.cpu().contiguous().numpy().data)
    return {"teacher": teacher.hexdigest(), "alignment": frames.hexdigest(), "num_frames": len(store),
            "num_states": min(config.num_states, members[0].num_pdfs), "temperatures": list(config.temperatures),
            "shard_frames": config.shard_frames}


def num_shards(num_frames: int, shard_frames: int) -> int:
    return math.ceil(num_frames / shard_frames)


def shard_path(directory: Path, number: int, shard: int, shard_frames: int) -> Path:
    """The file of a shard of pass `number`: named by its first frame, so that shards of other sizes are told apart."""
    return directory / f"pass_{number}" / f"shard_{shard * shard_frames}.npy"


def write_shard(directory: Path, members: Sequence[AcousticModel], store: FrameStore, config: SoftTargetsConfig,
                number: int, shard: int, batch_size: int = 4096) -> None:
    """Writes a shard of pass `number`, the members going over its frames once, unless it is there."""
    if members[0].num_pdfs > 2**16:
        raise ValueError(f"{members[0].num_pdfs} states; a record has room for the names of {2**16}")
    index = torch.arange(shard * config.shard_frames, min((shard + 1) * config.shard_frames, len(store)))
    path = shard_path(directory, number, shard, config.shard_frames)
    if path.exists() and len(read_array(path)) == len(index):  # not one of another shard_frames
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes, mixed = members[0].config, Mixture(len(store), number)
    kind = record_type(min(config.num_states, members[0].num_pdfs), len(config.temperatures))
    parts = index.split(batch_size)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        # Written batch by batch: in a mapped file a full disk would be a bus error.
        np.lib.format.write_array_header_1_0(file, {"descr": np.lib.format.dtype_to_descr(kind),
                                                    "fortran_order": False, "shape": (len(index),)})
        for part in progress(parts, len(parts), f"soft targets, pass {number}, shard {shard}"):
            logits = teacher_logits(members, mixed.windows(store, part, sizes.window), config)
            records = np.empty(len(part), kind)
            kept = top_states(logits, config.num_states, config.temperatures)
            for name, x in zip(("states", "logits", "tails"), kept, strict=True):
                records[name] = x.cpu().numpy()
            file.write(records.tobytes())


def finish_pass(directory: Path, number: int, source: dict) -> None:
    """Writes the `pass.json` of a pass whose shards are all there, and removes what an interrupted run of another
    shard_frames left."""
    folder = directory / f"pass_{number}"
    shards = [shard_path(directory, number, shard, source["shard_frames"])
              for shard in range(num_shards(source["num_frames"], source["shard_frames"]))]
    for other in set(folder.glob("shard_*.npy")).difference(shards):
        other.unlink()
    with atomic_path(folder / "pass.json") as path:
        path.write_text(json.dumps(source | {"shards": [file_hash(shard) for shard in shards]}, indent=1) + "\n")


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class SoftTargets:
    """A pass's targets at a temperature, read from disk as they are used; room: so many blocks at a time, kept in
    memory (decant.nnet.blocks), or 0: mapped."""

    def __init__(self, shards: Sequence[np.ndarray], shard_frames: int, temperature: float, column: int, room: int = 0,
                 block: int = BLOCK):
        self.shards, self.shard_frames, self.temperature, self.column = shards, shard_frames, temperature, column
        self.blocks = Blocks(self.read, sum(map(len, shards)), room, block=block) if room else None

    def read(self, first: int, end: int) -> np.ndarray:
        """The records of the frames first .. end - 1 as bytes, uint8 [B, 4 (K + R)]."""
        parts = []
        while first < end:
            shard, start = divmod(first, self.shard_frames)
            stop = min(self.shard_frames, start + end - first)
            parts.append(read_rows(self.shards[shard], start, stop))
            first += stop - start
        records = np.concatenate(parts)
        return records.view(np.uint8).reshape(len(records), -1)

    def batch(self, index: Tensor, windows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The kept states int64 [B, K] of the frames `index` (int64 [B]), and their probabilities float32 [B, K + 1],
        the last that of all other states together; on the device of `index`. The windows are not looked at."""
        rows = index.cpu().numpy()
        if self.blocks:
            records = self.blocks.take(index.cpu()).numpy().view(self.shards[0].dtype)[:, 0]
        elif len(self.shards) == 1:
            records = self.shards[0][rows]
        else:
            records = np.empty(len(rows), self.shards[0].dtype)
            order = np.argsort(rows)
            ends = np.searchsorted(rows[order], self.shard_frames * np.arange(len(self.shards) + 1))
            for shard in np.flatnonzero(np.diff(ends)).tolist():
                of = order[ends[shard]:ends[shard + 1]]
                records[of] = self.shards[shard][rows[of] - shard * self.shard_frames]
        states = torch.from_numpy(records["states"].astype(np.int64)).to(index.device)
        logits = torch.from_numpy(np.ascontiguousarray(records["logits"])).to(index.device).float()
        tails = torch.from_numpy(np.ascontiguousarray(records["tails"][:, self.column])).to(index.device)
        return states, softened(logits, tails, self.temperature)


@dataclass(frozen=True)
class LiveTargets:
    """The same targets from the teacher itself, on any windows: nothing on disk, and all members' forward passes in
    every step."""

    members: Sequence[AcousticModel]
    config: SoftTargetsConfig
    temperature: float

    def batch(self, index: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Those of `windows` [B, W, F], as SoftTargets.batch gives them; the index is not looked at."""
        logits = teacher_logits(self.members, windows, self.config)
        states, best, tails = top_states(logits, self.config.num_states, [self.temperature])
        return states, softened(best, tails[:, 0], self.temperature)


def read_soft_targets(directory: Path, number: int, temperature: float, source: dict, check: bool = False,
                      pool: int = POOL) -> SoftTargets:
    """Opens the targets of a pass at a temperature; with `check`, after reading all of them once for their SHA-256.
    pool: how many frames the training shuffles together; of more than a pool's they are read in blocks.

    Raises FileNotFoundError if the pass is not whole, ValueError if it was made from something else than `source`
    (of `made_from`), lacks the temperature, or is damaged.
    """
    note = directory / f"pass_{number}" / "pass.json"
    if not note.exists():
        raise FileNotFoundError(f"{note}: this pass's soft targets are not whole; run stage 9 again")
    try:
        written = json.loads(note.read_text())
    except ValueError as error:
        raise ValueError(f"{note}: damaged ({error}); run stage 9 again") from error
    facts = source.keys() - {"temperatures", "shard_frames"}  # it may have more temperatures, and other files
    if other := [name for name in source if name in facts and written.get(name) != source[name]]:
        raise ValueError(f"{note}: soft targets of another {other[0].replace('_', ' ')} than this experiment's "
                         f"({written.get(other[0])}, not {source[other[0]]}); run stage 9 again")
    if temperature not in written["temperatures"]:
        raise ValueError(f"{note}: has the temperatures {written['temperatures']}, not {temperature:g}; add it to "
                         "soft_targets.temperatures and run stage 9 again")
    paths = [shard_path(directory, number, shard, written["shard_frames"]) for shard in range(len(written["shards"]))]
    shards = []
    for path, digest in zip(paths, written["shards"], strict=True):
        if check and file_hash(path) != digest:
            raise ValueError(f"{path}: damaged, its SHA-256 is not the one in pass.json; run stage 9 again")
        shards.append(read_array(path))
    if (found := sum(map(len, shards))) != written["num_frames"]:
        raise ValueError(f"{note}: {written['num_frames']} frames, but the shards have {found}; run stage 9 again")
    return SoftTargets(shards, written["shard_frames"], temperature, written["temperatures"].index(temperature),
                       room=pool // BLOCK if streamed(found, pool) else 0)
