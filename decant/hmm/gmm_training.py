"""Training of Gaussian mixtures by Viterbi: rounds of realigning, re-estimating and splitting.

What Kaldi's train_mono.sh, train_deltas.sh, train_lda_mllt.sh and train_sat.sh do: some alignment to begin with, then
rounds until the asked number of Gaussians is reached, shared out by occupancy to a power. A round is a pass over the
utterances, in parts, of which sums are added up (`gather`), and one update of the model from the sums.

The letters: T frames, D feature dimensions, S pdf-ids.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from decant.feat.cepstra import GmmFeatures
from decant.feat.fmllr import affine, compose, identity
from decant.feat.front_end import mixture_frames
from decant.feat.lda_mllt import mllt
from decant.hmm.alignment import WIDER, BestPath, align, equal_alignment, transition_counts
from decant.hmm.gmm import (
    DiagonalGmm,
    accumulate,
    accumulate_mllt,
    first_mixtures,
    fmllr_transforms,
    reestimate,
    split,
    split_targets,
)
from decant.hmm.system import MixtureSystem
from decant.hmm.topology import NUM_COLUMNS, StateGraph, TransitionModel, state_graph
from decant.lang.lexicon import Lexicon
from decant.settings import config_field

log = logging.getLogger(__name__)


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
        if self.realign_iterations and min(self.realign_iterations) < 1:
            raise ValueError("realign_iterations begin with round 1: before it there are no mixtures to align with")


@dataclass(frozen=True)
class MonophoneConfig(GmmTrainingConfig):
    """The monophone system of Gaussian mixtures, from a flat start."""

    utterances: int = config_field(0, "Utterances to train on, of all speakers (Kaldi's mini_librispeech: 2000, the "
                                      "shortest); 0: all.")
    shortest: bool = config_field(False, "The shortest utterances, whose flat start is best; or evenly spaced ones.")
    num_cepstra: int = config_field(
        13, "Cepstral coefficients with the zeroth; first and second differences are added.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_cepstra < 1 or self.utterances < 0:
            raise ValueError(f"num_cepstra is {self.num_cepstra}, utterances {self.utterances}; the first has to be at "
                             "least 1 (13 is usual), the other may not be negative")


@dataclass(frozen=True)
class TriphoneConfig(GmmTrainingConfig):
    """The triphone systems of Gaussian mixtures, up to three."""

    num_iterations: int = 35
    realign_iterations: tuple[int, ...] = (10, 20, 30)
    num_gaussians: int = config_field(5000, "Gaussians of all states together at the end.")
    last_split_iteration: int = 25
    utterances: tuple[int, ...] = config_field(
        (), "Utterances to train each system on, evenly spaced, one number a system, 0 for all (Kaldi's librispeech: "
        "5000, 10000, 10000, then all by a quick pass); none: all for each.")
    quick: bool = config_field(
        False, "The last system has 20 rounds, of which 10 and 15 realign (Kaldi's train_quick.sh): for one on all "
        "utterances after one on some.")
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
        if self.utterances and (len(self.utterances) != len(self.systems) or min(self.utterances) < 0):
            raise ValueError(f"utterances is {self.utterances}; it has to have a number, 0 or more, for each of "
                             f"{', '.join(self.systems)}")

    @property
    def systems(self) -> tuple[str, ...]:
        """The names of the systems."""
        wanted = (("triphone", True), ("triphone_lda", self.lda_dim), ("triphone_sat", self.speaker_adaptation))
        return tuple(name for name, there in wanted if there)

    def of_system(self, name: str) -> tuple["TriphoneConfig", int]:
        """The config of one of the systems, and how many utterances it is trained on (0: all)."""
        number = self.systems.index(name)
        config = self
        if self.quick and number == len(self.systems) - 1:
            config = replace(self, num_iterations=20, realign_iterations=(10, 15), last_split_iteration=15)
        return config, self.utterances[number] if self.utterances else 0


@dataclass(frozen=True)
class Pass:
    """What is done with every utterance in one pass.

    kind: `flat_start`, `round` or `mllt`, which training consists of; `events` and `tree`, which begin a system of tied
    states (decant.hmm.tied_training). name: of its folder. align: with the model. adapt: the speakers' transforms are
    estimated anew. labels, speakers: the passes whose labels and transforms are the latest; none: "".
    """

    kind: str
    name: str
    align: bool = False
    adapt: bool = False
    labels: str = ""
    speakers: str = ""
    lda_context: int = -1  # of `events`: LDA's statistics are wanted, of so many frames on each side


@dataclass(frozen=True)
class Part:
    """Utterances of whole speakers. cepstra: float32 [T, C] of each, the speaker's mean taken off."""

    cepstra: Mapping[str, np.ndarray]
    words: Mapping[str, Sequence[str]]
    speaker_of: Mapping[str, str]


Sums = dict[str, Tensor]
"""What is added up over parts: float64, by name."""
Labels = Mapping[str, np.ndarray]
"""Of every utterance that could be aligned: int32 or int64 [T]."""
Speakers = Mapping[str, Tensor]
"""Each speaker's transform, float32 [D, D + 1] (decant.feat.fmllr)."""
Gather = Callable[[Pass, MixtureSystem], Sums]
"""Makes a pass over all utterances with a model and adds up."""


@dataclass(frozen=True)
class Gathered:
    """What comes of a pass over a part; labels and speakers as they are now."""

    sums: Sums
    labels: Labels
    speakers: Speakers


def aligned(system: MixtureSystem, part: Part, features: Mapping[str, Tensor],
            lexicon: Lexicon) -> tuple[dict[str, StateGraph], dict[str, BestPath], Sums]:
    """The state graph of every utterance, the best path of those that have one, and how often which beam found it and
    how often each state was followed by which: `searches` [3] and `transitions` [S, 6]."""
    transitions = system.transitions
    beam = transitions.config.alignment_beam
    graphs = {utterance: state_graph(part.words[utterance], lexicon, transitions) for utterance in features}
    found = align(list(graphs.values()), list(features.values()), system.form.log_likelihoods, beam=beam)
    paths = {utterance: path for utterance, path in zip(graphs, found, strict=True) if path is not None}
    counts = np.zeros((transitions.num_pdfs, NUM_COLUMNS))
    for utterance, path in paths.items():
        counts += transition_counts(graphs[utterance], path.states, transitions.num_pdfs)
    tried = [sum(path.beam == width for path in paths.values()) for width in (beam, WIDER * beam, math.inf)]
    return graphs, paths, {"transitions": torch.from_numpy(counts),
                           "searches": torch.tensor(tried, dtype=torch.float64)}


def features_of(system: MixtureSystem, part: Part, speakers: Speakers) -> dict[str, Tensor]:
    """What the system's mixtures see of every utterance: float32 [T, D]; unadapted without `speakers`."""
    return {utterance: mixture_frames(static, system.features, speakers.get(part.speaker_of[utterance]))
            for utterance, static in part.cepstra.items()}


def gather(task: Pass, system: MixtureSystem, part: Part, lexicon: Lexicon, labels: Labels,
           speakers: Speakers) -> Gathered:
    """What a `flat_start`, a `round` or an `mllt` adds up over a part, with its labels (pdf-ids) and its speakers'
    transforms as they were before."""
    features, sums = features_of(system, part, speakers), Sums()
    if task.kind == "flat_start":
        graphs = {utterance: state_graph(part.words[utterance], lexicon, system.transitions) for utterance in features}
        paths = {utterance: equal_alignment(graph, len(features[utterance])) for utterance, graph in graphs.items()}
        labels = {utterance: graphs[utterance].pdfs[path] for utterance, path in paths.items() if path is not None}
    elif task.align:
        _, best, sums = aligned(system, part, features, lexicon)
        labels = {utterance: path.pdfs for utterance, path in best.items()}
    if task.adapt:
        more = fmllr_transforms(system.gmm, list(features.values()), [labels.get(utterance) for utterance in features],
                                [part.speaker_of[utterance] for utterance in features],
                                system.transitions.silence_pdfs)
        features = {utterance: affine(more[part.speaker_of[utterance]], x) for utterance, x in features.items()}
        speakers = {speaker: compose(transform, speakers.get(speaker, identity(len(transform))))
                    for speaker, transform in more.items()}
    frames = torch.cat([features[utterance] for utterance in labels]) if labels else torch.zeros(
        0, system.gmm.means.shape[2])
    pdfs = torch.from_numpy(np.concatenate([labels[utterance] for utterance in labels] or [np.zeros(0, np.int64)]))
    if task.kind == "mllt":
        sums |= {"mllt": accumulate_mllt(system.gmm, frames, pdfs.long())}
    else:
        sums["moments"], log_likelihood = accumulate(system.gmm, frames, pdfs.long())
        sums["log_likelihood"] = torch.tensor(log_likelihood, dtype=torch.float64)
    sums["usable"] = torch.tensor([len(labels), len(features), len(frames)], dtype=torch.float64)
    return Gathered(sums, labels, speakers)


def passes_of(config: GmmTrainingConfig, mllt_iterations: Sequence[int], fmllr_iterations: Sequence[int],
              flat_start: bool, labels: str, speakers: str) -> list[tuple[int, Pass]]:
    """(round, pass) of a training, in order. labels, speakers: the passes that it begins with."""
    passes = []
    for number in range(config.num_iterations + 1):
        align, name = number in config.realign_iterations, f"round_{number:02d}"
        if number in mllt_iterations:
            passes.append((number, Pass("mllt", f"{name}_mllt", align, labels=labels, speakers=speakers)))
            labels, align = passes[-1][1].name if align else labels, False
        kind = "flat_start" if flat_start and number == 0 else "round"
        passes.append((number, Pass(kind, name, align, number in fmllr_iterations, labels, speakers)))
        labels = name if align or kind == "flat_start" else labels
        speakers = name if number in fmllr_iterations else speakers
    return passes


def train_gmm(system: MixtureSystem, config: GmmTrainingConfig, passes: Sequence[tuple[int, Pass]],
              gather: Gather) -> MixtureSystem:
    """Trains mixtures and transition probabilities by Viterbi, from one Gaussian a state.

    Of `system`, what its mixtures see and its transitions are taken. Passes `mllt` turn the features to suit diagonal
    covariances. An utterance that cannot be aligned takes no part. Raises ValueError if none can, and
    FloatingPointError if the likelihood is not finite.
    """
    for number, task in passes:
        system = update(system, config, number, task, gather(task, system))
    return system


def untrained(name: str, features: GmmFeatures, transitions: TransitionModel) -> MixtureSystem:
    """A system of one Gaussian for each state, of mean 0 and variance 1, to gather with before there are mixtures."""
    shape = (transitions.num_pdfs, 1)
    gmm = DiagonalGmm(torch.zeros(shape), torch.zeros(*shape, features.dims), torch.ones(*shape, features.dims))
    return MixtureSystem(name, gmm, features, transitions)


def update(system: MixtureSystem, config: GmmTrainingConfig, number: int, task: Pass, sums: Sums) -> MixtureSystem:
    """The model after a pass of `train_gmm` (the round `number`), from the sums of all utterances."""
    usable, total, num_frames = sums["usable"].tolist()
    if not usable:
        raise ValueError("no training utterance has as many frames as its transcript has states; look at the audio "
                         "and the transcripts")
    if task.align:
        system = replace(system, transitions=system.transitions.reestimated(sums["transitions"].numpy()))
    if task.kind == "mllt":
        turn = mllt(sums["mllt"], num_frames).float()
        transform = (turn @ torch.from_numpy(system.features.transform)).numpy()
        return replace(system, features=replace(system.features, transform=transform),
                       gmm=replace(system.gmm, means=system.gmm.means @ turn.T))
    log_likelihood = float(sums["log_likelihood"]) / num_frames
    if not math.isfinite(log_likelihood):
        raise FloatingPointError(f"round {number}: the log-likelihood is {log_likelihood}; look at the features "
                                 "and at state_tying and triphone in the config")
    floor, num_pdfs = config.variance_floor, system.transitions.num_pdfs
    there = torch.isfinite(system.gmm.log_weights)
    occupancies = torch.zeros(there.shape, dtype=torch.float64)
    occupancies[there] = sums["moments"][:, 0]
    gmm = reestimate(system.gmm, sums["moments"], floor) if number else first_mixtures(sums["moments"], floor)
    grown = min(number / config.last_split_iteration, 1.0)
    target = round(num_pdfs + grown * (config.num_gaussians - num_pdfs))
    if number < config.num_iterations:
        gmm = split(gmm, split_targets(occupancies.sum(dim=1).round().numpy(), gmm.num_gaussians.numpy(), target,
                                       config.occupancy_power))
    log.info("round %d: %d Gaussians%s, %d of %d utterances%s", number, int(gmm.num_gaussians.sum()),
             f", log-likelihood a frame {log_likelihood:.3f}" if number else "", usable, total, _searches(sums))
    return replace(system, gmm=gmm)


def _searches(sums: Sums) -> str:
    """Which utterances needed more than the beam."""
    if "searches" not in sums or not sums["searches"][1:].any():
        return ""
    _, wider, exact = sums["searches"].tolist()
    return f"; {wider:.0f} needed a beam {WIDER:g} times as wide, {exact:.0f} none"
