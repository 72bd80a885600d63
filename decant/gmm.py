"""Gaussian mixtures with diagonal covariances, one a pdf-id, and their training by Viterbi.

What Kaldi's train_mono.sh and train_deltas.sh do: some alignment to begin with, then rounds of realigning,
re-estimating and splitting until the asked number of Gaussians is reached, shared out by occupancy to a power.

The letters: T frames, D feature dimensions, S pdf-ids, M Gaussians of a pdf-id (padded to the most).
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from decant.alignment import align, equal_alignment, transition_counts
from decant.cepstra import GmmFeatures
from decant.files import write_tensors
from decant.fmllr import MIN_FRAMES, FmllrStatistics, affine, compose, fmllr, fmllr_statistics, identity
from decant.hmm import StateGraph, TransitionModel
from decant.lda_mllt import mllt, mllt_statistics
from decant.state_tying import DecisionTree, read_tree

LOG_2_PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class GmmTrainingConfig:
    num_iterations: int = 40  # rounds of re-estimation
    # rounds that begin with a new alignment (Kaldi's choice)
    realign_iterations: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 23, 26, 29, 32, 35, 38)
    num_gaussians: int = 1000  # of all states together at the end (Kaldi: 1000)
    last_split_iteration: int = 30  # the number of Gaussians grows evenly up to this round
    occupancy_power: float = 0.25  # a state gets Gaussians in proportion to its frames to this power (Kaldi: 0.25)
    variance_floor: float = 0.01  # smallest variance of a Gaussian

    def __post_init__(self) -> None:
        if not 1 <= self.last_split_iteration <= self.num_iterations:
            raise ValueError("last_split_iteration has to lie between 1 and num_iterations")
        if self.num_gaussians < 1 or self.variance_floor <= 0:
            raise ValueError("num_gaussians has to be at least 1, variance_floor above 0")


@dataclass(frozen=True)
class MonophoneConfig(GmmTrainingConfig):
    num_cepstra: int = 13  # cepstral coefficients with the zeroth; first and second differences are added

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_cepstra < 1:
            raise ValueError(f"num_cepstra is {self.num_cepstra}; it has to be at least 1 (13 is usual)")


@dataclass(frozen=True)
class TriphoneConfig(GmmTrainingConfig):
    num_iterations: int = 35
    realign_iterations: tuple[int, ...] = (10, 20, 30)  # rounds that begin with a new alignment (Kaldi's choice)
    num_gaussians: int = 5000  # of all states together at the end
    last_split_iteration: int = 25  # the number of Gaussians grows evenly up to this round
    lda_dim: int = 0  # features that LDA keeps for a second system of triphones (Kaldi: 40); 0: there is none
    lda_context: int = 3  # frames on each side that LDA sees (Kaldi: 3)
    mllt_iterations: tuple[int, ...] = (2, 4, 6, 12)  # rounds of that system that estimate MLLT anew (Kaldi's choice)
    speaker_adaptation: bool = False  # a third system, with fMLLR for every speaker on top of LDA and MLLT
    fmllr_iterations: tuple[int, ...] = (2, 4, 6, 12)  # rounds of that system that estimate fMLLR anew (Kaldi's choice)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lda_dim < 0 or self.lda_context < 0:
            raise ValueError("lda_dim and lda_context may not be negative")
        if self.speaker_adaptation and not self.lda_dim:
            raise ValueError("speaker_adaptation needs the system of LDA and MLLT before it: set lda_dim (40 is usual)")


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


def reestimate(gmm: DiagonalGmm, features: Tensor, pdfs: Tensor, variance_floor: float) -> tuple[DiagonalGmm, float]:
    """One step of expectation and maximisation inside every state, given each frame's pdf-id.

    features: [T, D]; pdfs: int64 [T]. Gaussians that hold fewer than 10 frames keep their parameters, states without
    frames too. Returns the new mixtures and the mean log-likelihood a frame under the old ones.
    """
    form, total = QuadraticForm(gmm), 0.0
    occupancy, moments = torch.zeros_like(gmm.log_weights), torch.zeros_like(form.weights)
    for state, one, frames in gmm.by_state(features, pdfs):
        number = one.means.shape[1]
        squares = torch.cat([frames.square(), frames], dim=1)
        scores = torch.addmm(form.constants[state, :number], squares, form.weights[state, :number].T)
        total += float(log_sum_exp(scores, dim=1).sum(dtype=torch.float64))
        posteriors = scores.softmax(dim=1)
        occupancy[state, :number] = posteriors.sum(dim=0)
        moments[state, :number] = posteriors.T @ squares
    square, mean = (moments / occupancy.clamp(min=1e-3)[:, :, None]).chunk(2, dim=2)
    fed = (occupancy >= 10)[:, :, None]
    num_frames = occupancy.sum(dim=1, keepdim=True)
    share = torch.where(torch.isfinite(gmm.log_weights),
                        torch.maximum(occupancy, 1e-2 * num_frames / gmm.num_gaussians[:, None]), 0.0)
    return DiagonalGmm(
        torch.where(num_frames > 0, (share / share.sum(dim=1, keepdim=True)).log(), gmm.log_weights),
        torch.where(fed, mean, gmm.means),
        torch.where(fed, (square - mean.square()).clamp(min=variance_floor), gmm.variances),
    ), total / len(features)


def shares(occupancies: np.ndarray, present: np.ndarray, total: int, power: float,
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


def mllt_transform(gmm: DiagonalGmm, features: Tensor, pdfs: Tensor) -> Tensor:
    """The square transform of the features [T, D] under which the mixtures' diagonal covariances fit best: float32
    [D, D] (decant.lda_mllt), given each frame's pdf-id (int64 [T])."""
    total = torch.zeros((features.shape[1],) * 3, dtype=torch.float64)
    for _, one, frames in gmm.by_state(features, pdfs):
        posteriors = one.component_log_likelihoods(frames)[:, 0].softmax(dim=1)
        total += mllt_statistics(frames, posteriors, one.means[0], one.variances[0])
    return mllt(total, len(features)).float()


def fmllr_transforms(gmm: DiagonalGmm, features: Sequence[Tensor], labels: Sequence[np.ndarray | None],
                     speakers: Sequence[str], silence: np.ndarray, jobs: int = 1,
                     max_frames: int = 500_000) -> dict[str, Tensor]:
    """Each speaker's transform [D, D + 1] that suits the mixtures best (decant.fmllr), `jobs` speakers at a time.

    Of every utterance: features float32 [T, D], labels int64 [T] or None if it has none, its speaker. Frames of
    `silence` (pdf-ids) say nothing of a speaker (Kaldi's silence-weight 0). What the mixtures say of the frames is
    found for several speakers together, of up to `max_frames` frames (or one speaker). Raises ValueError naming a
    speaker whose frames do not vary in every direction.
    """
    speech = [None if pdfs is None else ~np.isin(pdfs, silence) for pdfs in labels]
    features = [x if kept is None else x[torch.from_numpy(kept)] for x, kept in zip(features, speech, strict=True)]
    labels = [None if kept is None else pdfs[kept] for pdfs, kept in zip(labels, speech, strict=True)]

    def of_one(speaker: str, *statistics: Tensor) -> FmllrStatistics:
        try:
            return fmllr_statistics(*statistics)
        except np.linalg.LinAlgError:
            raise ValueError(f"speaker {speaker}: the frames of speech lie in a plane, so that no transform can be "
                             "estimated; look at the audio, or leave it out") from None

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
    return transforms


def flat_start(graphs: Sequence[StateGraph], features: Sequence[Tensor]) -> list[np.ndarray | None]:
    """Each frame's pdf-id, int64 [T], by an equal alignment; None for an utterance with fewer frames than states."""
    states = [equal_alignment(graph, len(x)) for graph, x in zip(graphs, features, strict=True)]
    return [path if path is None else graph.pdfs[path] for path, graph in zip(states, graphs, strict=True)]


@dataclass(frozen=True)
class TrainedGmm:
    """What `train_gmm` returns. num_unusable: utterances without a path to the end, which took no part. transform:
    float32 [D, D] of the features, by MLLT. speakers: float32 [D, D + 1] of each speaker's features, by fMLLR."""

    gmm: DiagonalGmm
    transitions: TransitionModel
    num_unusable: int
    transform: Tensor
    speakers: dict[str, Tensor]


def train_gmm(
    features: Sequence[Tensor],
    graphs: Sequence[StateGraph],
    transitions: TransitionModel,
    labels: Sequence[np.ndarray | None],
    config: GmmTrainingConfig,
    jobs: int = 1,
    report: Callable[[str], None] = print,
    mllt_iterations: Sequence[int] = (),
    fmllr_iterations: Sequence[int] = (),
    speakers: Sequence[str] = (),
) -> TrainedGmm:
    """Trains mixtures and transition probabilities by Viterbi, from one Gaussian a state.

    features: float32 [T, D] of every utterance; labels: its pdf-ids (int64 [T]) to begin with, until the first round
    that aligns anew. The rounds mllt_iterations turn the features to suit diagonal covariances, the rounds
    fmllr_iterations adapt those of each utterance's speaker. An utterance that cannot be aligned takes no part.
    """
    transform = torch.eye(features[0].shape[1])
    adapted = {speaker: identity(len(transform)) for speaker in sorted(set(speakers))}
    frames = torch.cat(list(features))
    gmm = DiagonalGmm(torch.zeros(transitions.num_pdfs, 1), frames.mean(dim=0).expand(transitions.num_pdfs, 1, -1),
                      frames.var(dim=0).expand(transitions.num_pdfs, 1, -1))
    for iteration in range(config.num_iterations + 1):
        if iteration in config.realign_iterations:
            graphs = [graph.reweighted(transitions) for graph in graphs]
            paths = align(graphs, features, QuadraticForm(gmm).log_likelihoods, jobs)
            labels = [path and path.pdfs for path in paths]
        usable = [i for i, pdfs in enumerate(labels) if pdfs is not None]
        if not usable:
            raise ValueError("no training utterance has as many frames as its transcript has states; look at the audio "
                             "and the transcripts")
        if iteration in config.realign_iterations:
            transitions = transitions.reestimated(
                sum(transition_counts(graphs[i], paths[i].states, transitions.num_pdfs) for i in usable))
        if iteration in fmllr_iterations:
            more = fmllr_transforms(gmm, features, labels, speakers, transitions.silence_pdfs, jobs)
            features = [affine(more[speaker], x) for speaker, x in zip(speakers, features, strict=True)]
            adapted = {speaker: compose(more[speaker], before) for speaker, before in adapted.items()}
        x = torch.cat([features[i] for i in usable])
        pdfs = torch.from_numpy(np.concatenate([labels[i] for i in usable]))
        if iteration in mllt_iterations:
            turn = mllt_transform(gmm, x, pdfs)
            transform, features, x = turn @ transform, [frames @ turn.T for frames in features], x @ turn.T
            gmm.means = gmm.means @ turn.T
        gmm, log_likelihood = reestimate(gmm, x, pdfs, config.variance_floor)
        grown = min(iteration / config.last_split_iteration, 1.0)
        target = round(transitions.num_pdfs + grown * (config.num_gaussians - transitions.num_pdfs))
        occupancies = torch.bincount(pdfs, minlength=transitions.num_pdfs).numpy()
        if iteration < config.num_iterations:
            gmm = split(gmm, shares(occupancies, gmm.num_gaussians.numpy(), target, config.occupancy_power))
        report(f"round {iteration}: {int(gmm.num_gaussians.sum())} Gaussians, log-likelihood a frame "
               f"{log_likelihood:.3f}, {len(usable)} of {len(features)} utterances")
    return TrainedGmm(gmm, transitions, len(features) - len(usable), transform, adapted)


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
