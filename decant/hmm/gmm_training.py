"""Training of Gaussian mixtures by Viterbi: rounds of realigning, re-estimating and splitting.

What Kaldi's train_mono.sh, train_deltas.sh, train_lda_mllt.sh and train_sat.sh do: some alignment to begin with, then
rounds until the asked number of Gaussians is reached, shared out by occupancy to a power.

The letters: T frames, D feature dimensions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from decant.feat.fmllr import affine, compose, identity
from decant.hmm.alignment import align, equal_alignment, transition_counts
from decant.hmm.gmm import (
    DiagonalGmm,
    QuadraticForm,
    fmllr_transforms,
    mllt_transform,
    reestimate,
    split,
    split_targets,
)
from decant.hmm.topology import StateGraph, TransitionModel
from decant.settings import config_field


@dataclass(frozen=True)
class GmmTrainingConfig:
    """The training of Gaussian mixtures."""

    num_iterations: int = config_field(40, "Rounds of re-estimation.")
    realign_iterations: tuple[int, ...] = config_field(
        (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 23, 26, 29, 32, 35, 38),
        "Rounds that begin with a new alignment; the default is Kaldi's.")
    num_gaussians: int = config_field(1000, "Gaussians of all states together at the end (Kaldi: 1000).")
    last_split_iteration: int = config_field(30, "The number of Gaussians grows evenly up to this round.")
    occupancy_power: float = config_field(
        0.25, "A state gets Gaussians in proportion to its number of frames to this power (Kaldi: 0.25).")
    variance_floor: float = config_field(0.01, "Smallest variance of a Gaussian.")

    def __post_init__(self) -> None:
        if not 1 <= self.last_split_iteration <= self.num_iterations:
            raise ValueError("last_split_iteration has to lie between 1 and num_iterations")
        if self.num_gaussians < 1 or self.variance_floor <= 0:
            raise ValueError("num_gaussians has to be at least 1, variance_floor above 0")


@dataclass(frozen=True)
class MonophoneConfig(GmmTrainingConfig):
    """The monophone system of Gaussian mixtures, from a flat start."""

    num_cepstra: int = config_field(
        13, "Cepstral coefficients with the zeroth; first and second differences are added.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_cepstra < 1:
            raise ValueError(f"num_cepstra is {self.num_cepstra}; it has to be at least 1 (13 is usual)")


@dataclass(frozen=True)
class TriphoneConfig(GmmTrainingConfig):
    """The triphone systems of Gaussian mixtures, up to three."""

    num_iterations: int = 35
    realign_iterations: tuple[int, ...] = (10, 20, 30)
    num_gaussians: int = config_field(5000, "Gaussians of all states together at the end.")
    last_split_iteration: int = 25
    lda_dim: int = config_field(
        0, "Features that LDA keeps for a second system of triphones (Kaldi: 40); 0: there is none.")
    lda_context: int = config_field(3, "Frames on each side that LDA sees (Kaldi: 3).")
    mllt_iterations: tuple[int, ...] = config_field(
        (2, 4, 6, 12), "Rounds of the second system that estimate MLLT anew; the default is Kaldi's.")
    speaker_adaptation: bool = config_field(
        False, "A third system, with fMLLR for every speaker on top of LDA and MLLT.")
    fmllr_iterations: tuple[int, ...] = config_field(
        (2, 4, 6, 12), "Rounds of the third system that estimate fMLLR anew; the default is Kaldi's.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lda_dim < 0 or self.lda_context < 0:
            raise ValueError("lda_dim and lda_context may not be negative")
        if self.speaker_adaptation and not self.lda_dim:
            raise ValueError("speaker_adaptation needs the system of LDA and MLLT before it: set lda_dim (40 is usual)")


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
    fmllr_iterations adapt those of each utterance's speaker. An utterance that cannot be aligned takes no part. Raises
    ValueError if none can, and FloatingPointError if the likelihood is not finite.
    """
    transform = torch.eye(features[0].shape[1])
    adapted = {speaker: identity(len(transform)) for speaker in sorted(set(speakers))}
    frames = torch.cat(list(features))
    gmm = DiagonalGmm(torch.zeros(transitions.num_pdfs, 1), frames.mean(dim=0).expand(transitions.num_pdfs, 1, -1),
                      frames.var(dim=0).clamp(min=config.variance_floor).expand(transitions.num_pdfs, 1, -1))
    for iteration in range(config.num_iterations + 1):
        if iteration in config.realign_iterations:
            graphs = [graph.reweighted(transitions) for graph in graphs]
            paths = align(graphs, features, QuadraticForm(gmm).log_likelihoods, jobs)
            labels = [None if path is None else path.pdfs for path in paths]
        usable = [i for i, pdfs in enumerate(labels) if pdfs is not None]
        if not usable:
            raise ValueError("no training utterance has as many frames as its transcript has states; look at the audio "
                             "and the transcripts")
        if iteration in config.realign_iterations:
            counts = (transition_counts(graph, path.states, transitions.num_pdfs)
                      for graph, path in zip(graphs, paths, strict=True) if path is not None)
            transitions = transitions.reestimated(reduce(np.add, counts))
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
        if not math.isfinite(log_likelihood):
            raise FloatingPointError(f"round {iteration}: the log-likelihood is {log_likelihood}; look at the features "
                                     "and at state_tying and triphone in the config")
        grown = min(iteration / config.last_split_iteration, 1.0)
        target = round(transitions.num_pdfs + grown * (config.num_gaussians - transitions.num_pdfs))
        occupancies = torch.bincount(pdfs, minlength=transitions.num_pdfs).numpy()
        if iteration < config.num_iterations:
            gmm = split(gmm, split_targets(occupancies, gmm.num_gaussians.numpy(), target, config.occupancy_power))
        report(f"round {iteration}: {int(gmm.num_gaussians.sum())} Gaussians, log-likelihood a frame "
               f"{log_likelihood:.3f}, {len(usable)} of {len(features)} utterances")
    return TrainedGmm(gmm, transitions, len(features) - len(usable), transform, adapted)
