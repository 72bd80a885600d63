"""Speaker adaptation of a split without its transcripts: what the system before recognises is taken as said."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from decant.alignment import align
from decant.archive import write_matrices
from decant.beam_search import AdaptationConfig
from decant.fbank import read_speakers
from decant.fmllr import affine, compose, identity
from decant.gmm import QuadraticForm, fmllr_transforms, load_gmm
from decant.hmm import read_transitions, state_graph
from decant.lexicon import Lexicon
from steps.common import Stage
from steps.features import mixture_features
from steps.search import decode_grid


def unsupervised_transforms(stage: Stage, lexicon: Lexicon, before: Path, adapted: Path,
                            split: str) -> dict[str, Tensor]:
    """Each speaker's transform [D, D + 1] for the mixtures `adapted`: the system `before`, which sees the same features
    unadapted, recognises and aligns; its phones in context name the first states of `adapted`, whose own alignments of
    the same words follow (as Kaldi's decode_fmllr.sh, without its second search)."""
    [config] = stage.config(adaptation=AdaptationConfig)
    features = dict(mixture_features(stage.exp, before, split))
    (first_gmm, _), (gmm, _) = load_gmm(before), load_gmm(adapted)
    first, form = QuadraticForm(first_gmm), QuadraticForm(gmm)
    words = recognised(stage, config, first, stage.exp / "graph" / before.name, features)
    spoken = [utterance for utterance in features if words[utterance]]
    speaker_of = read_speakers(stage.exp / "fbank" / split)
    transforms = {speaker: identity(features[utterance].shape[1]) for utterance, speaker in speaker_of.items()
                  if utterance in features}

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
