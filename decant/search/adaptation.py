"""Speakers' transforms: from what the system before recognises, or from transcripts where these are given.

The letters: T frames, D features of the mixtures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from decant.feat.fmllr import affine, compose, identity
from decant.hmm.alignment import align
from decant.hmm.gmm import fmllr_transforms
from decant.hmm.system import MixtureSystem
from decant.hmm.topology import state_graph
from decant.lang.lexicon import Lexicon
from decant.search.beam_search import SearchConfig
from decant.settings import config_field

FRAMES_AT_A_TIME = 200_000  # of so many at least, whole speakers, what they say is found together

Words = Mapping[str, Sequence[str]]
"""What is said in each utterance."""


@dataclass(frozen=True)
class AdaptationConfig(SearchConfig):
    """Adaptation to dev's and test's speakers, by what is recognised."""

    lm_weight: float = config_field(12.0, "The language model's weight in that first recognition.")
    passes: int = config_field(
        3, "Estimations of the transforms, each but the first from an alignment under those before.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lm_weight <= 0 or self.passes < 1:
            raise ValueError(f"lm_weight is {self.lm_weight}, passes {self.passes}; they have to be positive")


@dataclass(frozen=True)
class Adaptation:
    """What it takes to find the transform of a speaker who has not been heard before.

    before: a system that sees unadapted features; adapted: the one after it, which sees the same ones adapted.
    recognise: (features) -> what `before` takes as said in each utterance. passes: of estimating the transforms.
    """

    before: MixtureSystem
    adapted: MixtureSystem
    lexicon: Lexicon
    recognise: Callable[[Mapping[str, Tensor]], Words]
    passes: int = 3
    jobs: int = 1

    def transforms(self, features: Mapping[str, Tensor], speaker_of: Mapping[str, str],
                   words: Words | None = None) -> dict[str, Tensor]:
        """The transform float32 [D, D + 1] of each speaker. features: float32 [T, D] of every utterance, unadapted.
        words: what is said; without them, what is recognised is taken as said."""
        by_speaker: dict[str, dict[str, Tensor]] = {}
        for utterance, x in features.items():
            by_speaker.setdefault(speaker_of[utterance], {})[utterance] = x
        found: dict[str, Tensor] = {}
        group: dict[str, Tensor] = {}
        for number, utterances in enumerate(by_speaker.values(), start=1):
            group |= utterances
            if sum(map(len, group.values())) >= FRAMES_AT_A_TIME or number == len(by_speaker):
                found |= self._of_group(group, speaker_of, words or self.recognise(group))
                group = {}
        return found

    def _of_group(self, features: Mapping[str, Tensor], speaker_of: Mapping[str, str],
                  words: Words) -> dict[str, Tensor]:
        """Of whole speakers: the system before aligns; its phones in context name the first states of the adapted one,
        whose own alignments of the same words follow (as Kaldi's decode_fmllr.sh, without its second search)."""
        spoken = [utterance for utterance in features if words[utterance]]
        transforms = {speaker_of[utterance]: identity(x.shape[1]) for utterance, x in features.items()}
        graphs = [state_graph(words[utterance], self.lexicon, self.before.transitions) for utterance in spoken]
        beam = self.before.transitions.config.alignment_beam
        paths = align(graphs, [features[utterance] for utterance in spoken], self.before.form.log_likelihoods,
                      self.jobs, beam)
        transitions = self.adapted.transitions
        index = {phone: i for i, phone in enumerate(self.lexicon.phones)}
        labels = {utterance: transitions.tree.label(graph.events(path.states, index))
                  for utterance, graph, path in zip(spoken, graphs, paths, strict=True) if path}
        graphs = [state_graph(words[utterance], self.lexicon, transitions) for utterance in spoken]
        for number in range(self.passes):
            if number:
                paths = align(graphs, [features[utterance] for utterance in spoken], self.adapted.form.log_likelihoods,
                              self.jobs, beam)
                labels = {utterance: path.pdfs for utterance, path in zip(spoken, paths, strict=True) if path}
            more = fmllr_transforms(self.adapted.gmm, list(features.values()),
                                    [labels.get(utterance) for utterance in features],
                                    [speaker_of[utterance] for utterance in features], transitions.silence_pdfs,
                                    self.jobs)
            features = {utterance: affine(more[speaker_of[utterance]], x) for utterance, x in features.items()}
            transforms = {speaker: compose(more[speaker], transform) for speaker, transform in transforms.items()}
        return transforms
