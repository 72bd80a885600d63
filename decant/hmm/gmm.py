"""Gaussian mixtures with diagonal covariances, one a pdf-id: likelihoods, one step of their training, their files.

The letters: T frames, D feature dimensions, S pdf-ids, M Gaussians of a pdf-id (padded to the most).
"""

import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from decant.feat.cepstra import GmmFeatures
from decant.feat.fmllr import MIN_FRAMES, FmllrStatistics, fmllr, fmllr_statistics, identity
from decant.feat.lda_mllt import mllt_statistics
from decant.files import write_tensors
from decant.hmm.state_tying import DecisionTree, read_tree

LOG_2_PI = math.log(2 * math.pi)
SUMMED_AT_ONCE = 8192  # frames that are summed in float32, before their sum is in float64


@dataclass
class DiagonalGmm:
    """log_weights: float32 [S, M], -inf where a state has fewer than M. means, variances: float32 [S, M, D]."""

    log_weights: Tensor
    means: Tensor
    variances: Tensor

    @property
    def num_gaussians(self) -> Tensor:
        return torch.isfinite(self.log_weights).sum(dim=1)

    def component_log_likelihoods(self, features: Tensor) -> Tensor:
        """log(weight) + log N(x; mean, variance) of every Gaussian: float32 [T, S, M] of features [T, D]."""
        form, squares = QuadraticForm(self), torch.cat([features.square(), features], dim=1)
        return torch.addmm(form.constants.flatten(), squares, form.weights.flatten(0, 1).T).unflatten(
            1, form.constants.shape)

    def by_state(self, features: Tensor, pdfs: Tensor) -> Iterator[tuple[int, "DiagonalGmm", Tensor]]:
        """(pdf-id, its mixture without padding, its frames [T, D]) of every pdf-id (int64 [T]) that has frames."""
        counts, widths = torch.bincount(pdfs, minlength=len(self.means)).tolist(), self.num_gaussians.tolist()
        for state, frames in enumerate(features[pdfs.argsort(stable=True)].split(counts)):
            if len(frames):
                yield state, DiagonalGmm(*(x[state:state + 1, :widths[state]] for x in vars(self).values())), frames


class QuadraticForm:
    """The mixtures' log-likelihoods as one matrix product of [x^2, x], for many calls with the same mixtures."""

    def __init__(self, gmm: DiagonalGmm):
        precisions = 1.0 / gmm.variances
        scaled = gmm.means * precisions
        self.constants = gmm.log_weights - 0.5 * (gmm.means * scaled - precisions.log() + LOG_2_PI).sum(dim=2)  # [S, M]
        self.weights = torch.cat([-0.5 * precisions, scaled], dim=2)  # [S, M, 2 D]
        self.num_gaussians = gmm.num_gaussians

    def log_likelihoods(self, features: Tensor, pdfs: Tensor | None = None) -> Tensor:
        """log p(x | pdf-id) of some pdf-ids (int64 [P]), or of all: float32 [T, P] of features [T, D]."""
        pdfs = torch.arange(len(self.constants)) if pdfs is None else pdfs
        # States with about as many Gaussians together, so that little is computed for padding; frames innermost, so
        # that sums over Gaussians run along them, and in parts that stay in the processor's cache.
        order = self.num_gaussians[pdfs].argsort(stable=True)
        groups = []
        for part in order.chunk(1 + len(pdfs) // 15):
            width = int(self.num_gaussians[pdfs[part[-1]]])
            constants, weights = (x[pdfs[part], :width].transpose(0, 1) for x in (self.constants, self.weights))
            groups.append((constants.reshape(-1, 1), weights.flatten(0, 1), (width, len(part))))
        squares = torch.cat([features.square(), features], dim=1).T
        scores = [torch.cat([log_sum_exp(torch.addmm(constants, weights, part).unflatten(0, shape), dim=0)[0]
                             for constants, weights, shape in groups]) for part in squares.split(1024, dim=1)]
        return torch.cat(scores, dim=1)[order.argsort()].T


def log_sum_exp(scores: Tensor, dim: int) -> Tensor:
    """torch.logsumexp with keepdim, of scores whose largest is finite. What is e^-80 of the largest or less is lost in
    float32 either way, but torch's exp takes 20 to 50 times as long where it underflows."""
    most = scores.amax(dim, keepdim=True)
    return (scores - most).clamp_(min=-80.0).exp_().sum(dim, keepdim=True).log_().add_(most)


def accumulate(gmm: DiagonalGmm, features: Tensor, pdfs: Tensor) -> tuple[Tensor, float]:
    """What one step of expectation and maximisation needs of frames [T, D], given each one's pdf-id (int64 [T]).

    Returns (moments, log-likelihood): of every Gaussian, state after state, its frames by posterior, the sums of their
    squares and of themselves, float64 [Gaussians, 1 + 2 D]; and the sum over frames. Those of parts of the frames may
    be added up.
    """
    form, total = QuadraticForm(gmm), 0.0
    moments = torch.zeros(int(gmm.num_gaussians.sum()), 1 + 2 * features.shape[1], dtype=torch.float64)
    first = (gmm.num_gaussians.cumsum(dim=0) - gmm.num_gaussians).tolist()
    for state, one, frames in gmm.by_state(features, pdfs):
        number = one.means.shape[1]
        mine = moments[first[state]:first[state] + number]
        for part in frames.split(SUMMED_AT_ONCE):
            squares = torch.cat([part.square(), part], dim=1)
            scores = torch.addmm(form.constants[state, :number], squares, form.weights[state, :number].T)
            total += float(log_sum_exp(scores, dim=1).sum(dtype=torch.float64))
            posteriors = scores.softmax(dim=1)
            mine[:, 0] += posteriors.sum(dim=0)
            mine[:, 1:] += posteriors.T @ squares
    return moments, total


def reestimate(gmm: DiagonalGmm, moments: Tensor, variance_floor: float) -> DiagonalGmm:
    """One step of maximisation inside every state, from the moments of `accumulate`.

    Gaussians that hold fewer than 10 frames keep their parameters, states without frames too.
    """
    there = torch.isfinite(gmm.log_weights)
    padded = moments.new_zeros(*there.shape, moments.shape[1])
    padded[there] = moments
    occupancy = padded[:, :, 0]
    square, mean = (padded[:, :, 1:] / occupancy.clamp(min=1e-3)[:, :, None]).chunk(2, dim=2)
    fed = (occupancy >= 10)[:, :, None]
    num_frames = occupancy.sum(dim=1, keepdim=True)
    share = torch.where(there, torch.maximum(occupancy, 1e-2 * num_frames / gmm.num_gaussians[:, None]), 0.0)
    return DiagonalGmm(
        torch.where(num_frames > 0, (share / share.sum(dim=1, keepdim=True)).log().float(), gmm.log_weights),
        torch.where(fed, mean.float(), gmm.means),
        torch.where(fed, (square - mean.square()).clamp(min=variance_floor).float(), gmm.variances),
    )


def first_mixtures(moments: Tensor, variance_floor: float) -> DiagonalGmm:
    """One Gaussian for each state, from the moments of `accumulate` under any mixtures of one Gaussian; a state with
    fewer than 10 frames has that of all frames."""
    frames, square, mean = moments.sum(dim=0).split([1, *[moments.shape[1] // 2] * 2])
    square, mean = square / frames, mean / frames
    shape = (len(moments), 1, len(mean))
    everything = DiagonalGmm(torch.zeros(len(moments), 1), mean.float().expand(shape),
                             (square - mean.square()).clamp(min=variance_floor).float().expand(shape))
    return reestimate(everything, moments, variance_floor)


def split_targets(occupancies: np.ndarray, present: np.ndarray, total: int, power: float,
           min_frames: float = 20.0) -> np.ndarray:
    """How many of `total` Gaussians each state gets: int64 [S], in proportion to occupancy ** power.

    None has fewer than at `present` (int64 [S]), and none gets another that leaves fewer than `min_frames` frames for
    each (Kaldi's GetSplitTargets).
    """
    weight = np.maximum(occupancies, 1e-3) ** power
    targets = present.copy()
    for _ in range(total - int(targets.sum())):
        gain = np.where((targets + 1) * min_frames <= occupancies, weight / targets, 0.0)
        if not gain.any():
            break
        targets[gain.argmax()] += 1
    return targets


def split(gmm: DiagonalGmm, targets: np.ndarray) -> DiagonalGmm:
    """Splits each state's heaviest Gaussian, 0.2 standard deviations up and down, until it has targets[s] of them."""
    num_states, width, dims = gmm.means.shape
    new_width = max(width, int(targets.max()))
    log_weights = gmm.log_weights.new_full((num_states, new_width), -math.inf)
    means, variances = gmm.means.new_zeros(num_states, new_width, dims), gmm.means.new_ones(num_states, new_width, dims)
    log_weights[:, :width], means[:, :width], variances[:, :width] = gmm.log_weights, gmm.means, gmm.variances
    for state, target in enumerate(targets):
        for new in range(int(gmm.num_gaussians[state]), int(target)):
            old = int(log_weights[state].argmax())
            step = 0.2 * variances[state, old].sqrt()
            log_weights[state, old] -= math.log(2)
            log_weights[state, new] = log_weights[state, old]
            means[state, new], means[state, old] = means[state, old] - step, means[state, old] + step
            variances[state, new] = variances[state, old]
    return DiagonalGmm(log_weights, means, variances)


def accumulate_mllt(gmm: DiagonalGmm, features: Tensor, pdfs: Tensor) -> Tensor:
    """The statistics of decant.feat.lda_mllt.mllt, float64 [D, D, D], of frames [T, D], given each one's pdf-id (int64
    [T])."""
    total = torch.zeros((features.shape[1],) * 3, dtype=torch.float64)
    for _, one, frames in gmm.by_state(features, pdfs):
        posteriors = one.component_log_likelihoods(frames)[:, 0].softmax(dim=1)
        total += mllt_statistics(frames, posteriors, one.means[0], one.variances[0])
    return total


def fmllr_transforms(gmm: DiagonalGmm, features: Sequence[Tensor], labels: Sequence[np.ndarray | None],
                     speakers: Sequence[str], silence: np.ndarray, jobs: int = 1,
                     max_frames: int = 500_000) -> dict[str, Tensor]:
    """Each speaker's transform [D, D + 1] that suits the mixtures best (decant.feat.fmllr), `jobs` speakers at a time.

    Of every utterance: features float32 [T, D], labels int64 [T] or None if it has none, its speaker. Frames of
    `silence` (pdf-ids) say nothing of a speaker (Kaldi's silence-weight 0). What the mixtures say of the frames is
    found for several speakers together, of up to `max_frames` frames (or one speaker). Raises ValueError naming a
    speaker whose frames do not vary in every direction.
    """
    speech = [None if pdfs is None else ~np.isin(pdfs, silence) for pdfs in labels]
    features = [x if kept is None else x[torch.from_numpy(kept)] for x, kept in zip(features, speech, strict=True)]
    labels = [None if pdfs is None else pdfs[kept] for pdfs, kept in zip(labels, speech, strict=True)]

    def of_one(speaker: str, *statistics: Tensor) -> FmllrStatistics:
        try:
            return fmllr_statistics(*statistics)
        except np.linalg.LinAlgError:
            raise ValueError(f"speaker {speaker}: the frames of speech lie in a plane (features are constant, or "
                             "combinations of others), so that no transform can be estimated; look at the audio, or "
                             "leave it out") from None

    transforms = {speaker: identity(gmm.means.shape[2]) for speaker in sorted(set(speakers))}
    of_speaker: dict[str, list[int]] = {speaker: [] for speaker in transforms}
    for i, speaker in enumerate(speakers):
        if labels[i] is not None:
            of_speaker[speaker].append(i)
    counts = {speaker: sum(len(features[i]) for i in mine) for speaker, mine in of_speaker.items()}
    counts = {speaker: count for speaker, count in counts.items() if count >= MIN_FRAMES}
    first = np.cumsum([0, *counts.values()][:-1], dtype=np.int64) // max_frames
    with ThreadPoolExecutor(jobs) as pool:
        for block in np.unique(first):
            names = [speaker for speaker, its_block in zip(counts, first, strict=True) if its_block == block]
            mine = [i for speaker in names for i in of_speaker[speaker]]
            frames, pdfs = torch.cat([features[i] for i in mine]), np.concatenate([labels[i] for i in mine])
            parts = []
            for _, one, its_frames in gmm.by_state(frames, torch.from_numpy(pdfs)):
                posteriors = one.component_log_likelihoods(its_frames)[:, 0].softmax(dim=1)
                precisions = 1 / one.variances[0]
                parts.append((posteriors @ precisions, posteriors @ (one.means[0] * precisions)))
            place = torch.from_numpy(pdfs.argsort(kind="stable").argsort())
            statistics = (torch.cat(part)[place].split([counts[speaker] for speaker in names])
                          for part in zip(*parts, strict=True))
            split_frames = frames.split([counts[speaker] for speaker in names])
            transforms |= zip(names, fmllr(list(pool.map(of_one, names, split_frames, *statistics))), strict=True)
    for speaker, transform in transforms.items():
        if not transform.isfinite().all():
            raise ValueError(f"speaker {speaker}: the transform is not finite; look at the audio, or leave it out")
    return transforms


def save_gmm(directory: Path, gmm: DiagonalGmm, features: GmmFeatures, tree: DecisionTree) -> None:
    """Writes the mixtures, what they see and their tree's fingerprint to `directory/gmm.safetensors`."""
    transform = {} if features.transform is None else {"transform": torch.from_numpy(features.transform)}
    write_tensors(directory / "gmm.safetensors", vars(gmm) | transform,
                  {"num_cepstra": str(features.num_cepstra), "adapted": json.dumps(features.adapted),
                   "tree": tree.fingerprint})


def load_gmm(directory: Path) -> tuple[DiagonalGmm, GmmFeatures]:
    """The mixtures that `save_gmm` wrote and what they see.

    Raises ValueError if the file is damaged, or if the folder's tree.json is not the tree of their states.
    """
    path, tree = directory / "gmm.safetensors", read_tree(directory / "tree.json")
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
            transform = file.get_tensor("transform").numpy() if "transform" in file.keys() else None  # noqa: SIM118
            gmm = DiagonalGmm(*(file.get_tensor(f.name) for f in fields(DiagonalGmm)))
            seen = GmmFeatures(int(facts["num_cepstra"]), transform, json.loads(facts["adapted"]))
            fingerprint = facts["tree"]
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged, or of an older decant ({error}); run its stage again") from error
    if fingerprint != tree.fingerprint:
        raise ValueError(f"{directory}: gmm.safetensors was trained with another tree than tree.json; run the stage "
                         "that writes them again")
    return gmm, seen
