"""Stage 4: tied triphone states and their Gaussian mixtures, each system from the alignment of the one before.

`triphone` sees cepstra and their differences; `triphone_lda`, where triphone.lda_dim asks for it, LDA and MLLT of
spliced cepstra; `triphone_sat`, where triphone.speaker_adaptation does, these with fMLLR for every speaker. Each grows
its own tree on its own features."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from decant.feat.archive import write_matrices
from decant.feat.cepstra import GmmFeatures, gmm_features, speaker_cepstra
from decant.feat.data_dir import read_data_dir
from decant.feat.fbank import read_speakers
from decant.feat.fmllr import affine, compose
from decant.feat.lda_mllt import lda, splice
from decant.files import atomic_path
from decant.hmm.alignment import align
from decant.hmm.gmm import QuadraticForm, fmllr_transforms, load_gmm
from decant.hmm.gmm_training import TriphoneConfig, train_gmm
from decant.hmm.state_tying import (
    DecisionTree,
    StateTyingConfig,
    accumulate,
    grow_tree,
    phone_questions,
    read_questions,
)
from decant.hmm.topology import TransitionModel, read_transitions, state_graph
from decant.lang.lexicon import Lexicon, LexiconConfig, phone_variants, position_classes, read_lexicon
from steps.common import Stage, logger, run_step
from steps.hmm_training import save_hmm


def main(stage: Stage) -> None:
    tying, config = stage.config(state_tying=StateTyingConfig, triphone=TriphoneConfig)
    systems = [name for name, wanted in (("triphone", True), ("triphone_lda", config.lda_dim),
                                         ("triphone_sat", config.speaker_adaptation)) if tying.num_leaves and wanted]
    for name, before in zip(systems, [stage.exp / "monophone", *(stage.out / name for name in systems)], strict=False):
        if (stage.out / name / "timing.json").exists():
            logger.info("%s: done before, kept", name)
        else:
            train(stage, before, stage.out / name, config)
    with atomic_path(stage.out / "models.json") as path:
        path.write_text(json.dumps(systems) + "\n")


def train(stage: Stage, before: Path, out: Path, config: TriphoneConfig) -> None:
    """Trains the system `out` from the alignment of the system `before`."""
    started = time.monotonic()
    lexicon = read_lexicon(stage.exp / "lang" / "lexicon.txt")
    words = {utterance.id: utterance.words for utterance in read_data_dir(stage.exp / "data" / "train")}
    features_dir = stage.exp / "fbank" / "train"
    gmm, seen = load_gmm(before)
    transitions = read_transitions(before, lexicon.phones)
    features = dict(gmm_features(features_dir, seen))
    graphs = [state_graph(words[utterance], lexicon, transitions) for utterance in features]
    paths = align(graphs, list(features.values()), QuadraticForm(gmm).log_likelihoods, stage.jobs)
    index = {phone: i for i, phone in enumerate(lexicon.phones)}
    events = {utterance: graph.events(path.states, index)
              for utterance, path, graph in zip(features, paths, graphs, strict=True) if path is not None}

    speaker_of, speakers = read_speakers(features_dir), {}
    if out.name == "triphone":
        features = dict(gmm_features(features_dir, GmmFeatures(seen.num_cepstra)))
    elif out.name == "triphone_lda":
        seen = discriminant_features(features_dir, transitions.tree, events, seen.num_cepstra, config)
        features = dict(gmm_features(features_dir, seen))
    else:
        speakers = fmllr_transforms(gmm, list(features.values()), [path and path.pdfs for path in paths],
                                    [speaker_of[utterance] for utterance in features], transitions.silence_pdfs,
                                    stage.jobs)
        features = {utterance: affine(speakers[speaker_of[utterance]], x) for utterance, x in features.items()}
        seen = replace(seen, adapted=True)

    tree = tie(stage, lexicon, [(features[utterance].numpy(), event) for utterance, event in events.items()])
    transitions = TransitionModel(tree, transitions.config)
    graphs = [state_graph(words[utterance], lexicon, transitions) for utterance in features]
    labels = [tree.label(events[utterance]) if utterance in events else None for utterance in features]
    trained = train_gmm(list(features.values()), graphs, transitions, labels, config, stage.jobs, logger.info,
                        mllt_iterations=config.mllt_iterations if out.name == "triphone_lda" else (),
                        fmllr_iterations=config.fmllr_iterations if out.name == "triphone_sat" else (),
                        speakers=[speaker_of[utterance] for utterance in features] if speakers else ())
    if out.name == "triphone_lda":
        seen = replace(seen, transform=(trained.transform @ torch.from_numpy(seen.transform)).numpy())
    out.mkdir(exist_ok=True)
    if speakers:
        write_matrices(out / "fmllr", ((speaker, compose(trained.speakers[speaker], speakers[speaker]).numpy())
                                       for speaker in sorted(speakers)))
    save_hmm(out, trained, seen, started)


def discriminant_features(features_dir: Path, tree: DecisionTree, events: Mapping[str, np.ndarray], num_cepstra: int,
                          config: TriphoneConfig) -> GmmFeatures:
    """LDA of spliced cepstra for the states of `tree`."""
    frames = ((splice(static, config.lda_context), tree.label(events[utterance]))
              for utterance, static in speaker_cepstra(features_dir, num_cepstra) if utterance in events)
    return GmmFeatures(num_cepstra, lda(frames, config.lda_dim).astype(np.float32))


def tie(stage: Stage, lexicon: Lexicon, utterances: Sequence[tuple[np.ndarray, np.ndarray]]) -> DecisionTree:
    """Grows the tree of all states from (features, events) of the training utterances."""
    tying, phones = stage.config(state_tying=StateTyingConfig, lexicon=LexiconConfig)
    statistics = accumulate(utterances, len(lexicon.phones))
    groups = phone_variants(lexicon.phones, phones.position_dependent_phones)
    questions = (read_questions(Path(tying.questions), lexicon.phones) if tying.questions else
                 phone_questions(statistics, lexicon.phones, groups))
    if phones.position_dependent_phones:
        questions += position_classes(lexicon.phones)
    tree, gain = grow_tree(statistics, lexicon.phones, groups, questions, tying)
    logger.info("%d states of triphones seen; %d leaves from %d questions, log-likelihood a frame %.3f higher than "
                "without context", len(statistics.events), tree.num_pdfs, len(questions), gain)
    if tree.num_pdfs < tying.num_leaves:
        logger.warning("%d leaves in place of %d: any further split leaves fewer than %g frames on one side, or gains "
                       "nothing; more speech or a lower state_tying.min_occupancy gives more", tree.num_pdfs,
                       tying.num_leaves, tying.min_occupancy)
    return tree


if __name__ == "__main__":
    run_step(main)
