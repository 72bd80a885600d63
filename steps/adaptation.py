"""Speaker adaptation of a split without its transcripts: what the system before recognises is taken as said."""

from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from decant.alignment import align
from decant.archive import write_matrices
from decant.fbank import read_speakers
from decant.fmllr import AdaptationConfig
from decant.gmm import QuadraticForm, fmllr_transforms, load_gmm
from decant.hmm import read_transitions, state_graph
from decant.lexicon import Lexicon
from steps.common import Stage
from steps.features import mixture_features
from steps.search import decode_grid


def unsupervised_transforms(stage: Stage, lexicon: Lexicon, before: Path, adapted: Path,
                            split: str) -> dict[str, Tensor]:
    """Each speaker's transform [D, D + 1] for the mixtures `adapted`: the system `before`, which sees the same features
    unadapted, recognises and aligns; its phones in context name the states of `adapted`."""
    [config] = stage.config(adaptation=AdaptationConfig)
    first, _ = load_gmm(before)
    transitions = read_transitions(before, lexicon.phones)
    tree = read_transitions(adapted, lexicon.phones).tree
    features = dict(mixture_features(stage.exp, before, split))
    setting = (config.lm_weight, 0.0)
    with TemporaryDirectory(dir=stage.out, prefix=".") as scratch:
        write_matrices(Path(scratch, split), ((utterance, first.log_likelihoods(x).numpy())
                                              for utterance, x in features.items()))
        found = decode_grid(stage, Path(scratch, f"{split}.scp"), stage.exp / "graph" / before.name, [setting],
                            stage.jobs)[setting]
    spoken = [utterance for utterance in features if found.words[utterance]]
    graphs = [state_graph(found.words[utterance], lexicon, transitions) for utterance in spoken]
    features = [features[utterance] for utterance in spoken]
    paths = align(graphs, features, QuadraticForm(first).log_likelihoods, stage.jobs)
    index = {phone: i for i, phone in enumerate(lexicon.phones)}
    labels = [path and tree.label(graph.events(path.states, index)) for path, graph in zip(paths, graphs, strict=True)]
    speaker_of = read_speakers(stage.exp / "fbank" / split)
    return fmllr_transforms(load_gmm(adapted)[0], features, labels, [speaker_of[utterance] for utterance in spoken],
                            stage.jobs)
