"""Speakers' transforms: from what the system before recognises, or from transcripts where these are given."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import Tensor

from decant.feat.archive import write_matrices
from decant.feat.fbank import read_speakers
from decant.feat.fmllr import affine, compose, identity
from decant.hmm.alignment import align
from decant.hmm.gmm import QuadraticForm, fmllr_transforms, load_gmm
from decant.hmm.topology import read_transitions, state_graph
from decant.lang.lexicon import Lexicon
from decant.search.beam_search import AdaptationConfig
from steps.common import Stage, hmm_folders
from steps.features import mixture_features
from steps.search import decode_grid

FRAMES_AT_A_TIME = 200_000  # of so many at least, whole speakers, the log-likelihoods are on disk at a time


def speaker_transforms(stage: Stage, lexicon: Lexicon, fbank: Path,
                       words: Mapping[str, Sequence[str]] | None = None) -> dict[str, np.ndarray]:
    """The transform float32 [D, D + 1] of each speaker of a folder of filterbanks, for the last system of mixtures.

    words: what is said in every utterance; without them, what the system before recognises is taken as said.
    """
    features = dict(mixture_features(hmm_folders(stage.exp)[-2], fbank))
    speaker_of = read_speakers(fbank)
    by_speaker: dict[str, dict[str, Tensor]] = {}
    for utterance, x in features.items():
        by_speaker.setdefault(speaker_of[utterance], {})[utterance] = x
    found: dict[str, Tensor] = {}
    group: dict[str, Tensor] = {}
    for number, utterances in enumerate(by_speaker.values(), start=1):
        group |= utterances
        if sum(map(len, group.values())) >= FRAMES_AT_A_TIME or number == len(by_speaker):
            found |= transforms_of(stage, lexicon, group, speaker_of, words)
            group = {}
    return {speaker: transform.numpy() for speaker, transform in found.items()}


def transforms_of(stage: Stage, lexicon: Lexicon, features: Mapping[str, Tensor],
                  speaker_of: Mapping[str, str], words: Mapping[str, Sequence[str]] | None) -> dict[str, Tensor]:
    """Of the speakers of these features, float32 [T, D] by utterance: the system before the last, which sees them
    unadapted, recognises, unless the words are given, and aligns; its phones in context name the first states of the
    last, whose own alignments of the same words follow (as Kaldi's decode_fmllr.sh, without its second search)."""
    [config] = stage.config(adaptation=AdaptationConfig)
    *_, before, adapted = hmm_folders(stage.exp)
    (first_gmm, _), (gmm, _) = load_gmm(before), load_gmm(adapted)
    first, form = QuadraticForm(first_gmm), QuadraticForm(gmm)
    words = words or recognised(stage, config, first, stage.exp / "graph" / before.name, features)
    spoken = [utterance for utterance in features if words[utterance]]
    transforms = {speaker_of[utterance]: identity(x.shape[1]) for utterance, x in features.items()}

    transitions = read_transitions(before, lexicon.phones)
    graphs = [state_graph(words[utterance], lexicon, transitions) for utterance in spoken]
    paths = align(graphs, [features[utterance] for utterance in spoken], first.log_likelihoods, stage.jobs)
    transitions = read_transitions(adapted, lexicon.phones)
    index = {phone: i for i, phone in enumerate(lexicon.phones)}
    labels = {utterance: transitions.tree.label(graph.events(path.states, index))
              for utterance, graph, path in zip(spoken, graphs, paths, strict=True) if path}
    graphs = [state_graph(words[utterance], lexicon, transitions) for utterance in spoken]
    for number in range(config.passes):
        if number:
            paths = align(graphs, [features[utterance] for utterance in spoken], form.log_likelihoods, stage.jobs)
            labels = {utterance: path.pdfs for utterance, path in zip(spoken, paths, strict=True) if path}
        more = fmllr_transforms(gmm, list(features.values()), [labels.get(utterance) for utterance in features],
                                [speaker_of[utterance] for utterance in features], transitions.silence_pdfs, stage.jobs)
        features = {utterance: affine(more[speaker_of[utterance]], x) for utterance, x in features.items()}
        transforms = {speaker: compose(more[speaker], transform) for speaker, transform in transforms.items()}
    return transforms


def recognised(stage: Stage, config: AdaptationConfig, form: QuadraticForm, graph_dir: Path,
               features: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """The words that mixtures hear in every utterance."""
    setting = (config.lm_weight, 0.0)
    with TemporaryDirectory(dir=stage.out, prefix=".") as scratch:
        write_matrices(Path(scratch, "x"), ((utterance, form.log_likelihoods(x).numpy())
                                            for utterance, x in features.items()))
        found = decode_grid(stage, Path(scratch, "x.scp"), graph_dir, [setting], config, stage.jobs)
    return found[setting].words
