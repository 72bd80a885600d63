"""Systems of tied triphone states, each trained from the alignment of the one before (Kaldi's train_deltas.sh,
train_lda_mllt.sh, train_sat.sh): its own features, its own tree, its own mixtures.

The letters: T frames, C cepstral coefficients, D features of the mixtures.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from decant.feat.cepstra import GmmFeatures
from decant.feat.fmllr import affine, compose
from decant.feat.front_end import mixture_frames
from decant.feat.lda_mllt import lda, splice
from decant.hmm.alignment import align
from decant.hmm.gmm import fmllr_transforms
from decant.hmm.gmm_training import TrainedGmm, TriphoneConfig, train_gmm
from decant.hmm.state_tying import (
    DecisionTree,
    StateTyingConfig,
    accumulate,
    grow_tree,
    phone_questions,
    read_questions,
)
from decant.hmm.system import MixtureSystem
from decant.hmm.topology import TransitionModel, state_graph
from decant.lang.lexicon import Lexicon, phone_variants, position_classes

log = logging.getLogger(__name__)


def train_tied(
    name: str,
    before: MixtureSystem,
    cepstra: Mapping[str, np.ndarray],
    words: Mapping[str, Sequence[str]],
    speaker_of: Mapping[str, str],
    lexicon: Lexicon,
    positions: bool,
    tying: StateTyingConfig,
    config: TriphoneConfig,
    jobs: int = 1,
) -> tuple[TrainedGmm, GmmFeatures, dict[str, Tensor]]:
    """The mixtures of a system, what they see, and of `triphone_sat` each speaker's transform [D, D + 1].

    name: triphone sees cepstra and their differences; triphone_lda LDA and MLLT of spliced cepstra; triphone_sat these
    with fMLLR for every speaker. cepstra: float32 [T, C] of every utterance, the speaker's mean taken off. positions:
    LexiconConfig.position_dependent_phones.
    """
    features = see(cepstra, before.features)
    graphs = [state_graph(words[utterance], lexicon, before.transitions) for utterance in features]
    paths = align(graphs, list(features.values()), before.form.log_likelihoods, jobs)
    index = {phone: i for i, phone in enumerate(lexicon.phones)}
    events = {utterance: graph.events(path.states, index)
              for utterance, path, graph in zip(features, paths, graphs, strict=True) if path is not None}
    speakers = [speaker_of[utterance] for utterance in features]

    first: dict[str, Tensor] = {}
    seen = before.features
    if name == "triphone":
        seen = GmmFeatures(seen.num_cepstra)
        features = see(cepstra, seen)
    elif name == "triphone_lda":
        frames = ((splice(static, config.lda_context), before.transitions.tree.label(events[utterance]))
                  for utterance, static in cepstra.items() if utterance in events)
        seen = GmmFeatures(seen.num_cepstra, lda(frames, config.lda_dim).astype(np.float32))
        features = see(cepstra, seen)
    else:
        pdfs = [None if path is None else path.pdfs for path in paths]
        first = fmllr_transforms(before.gmm, list(features.values()), pdfs, speakers, before.transitions.silence_pdfs,
                                 jobs)
        features = {utterance: affine(first[speaker_of[utterance]], x) for utterance, x in features.items()}
        seen = replace(seen, adapted=True)

    tree = tie([(features[utterance].numpy(), event) for utterance, event in events.items()], lexicon, positions, tying)
    transitions = TransitionModel(tree, before.transitions.config)
    graphs = [state_graph(words[utterance], lexicon, transitions) for utterance in features]
    labels = [tree.label(events[utterance]) if utterance in events else None for utterance in features]
    trained = train_gmm(list(features.values()), graphs, transitions, labels, config, jobs, log.info,
                        mllt_iterations=config.mllt_iterations if name == "triphone_lda" else (),
                        fmllr_iterations=config.fmllr_iterations if name == "triphone_sat" else (),
                        speakers=speakers if first else ())
    if name == "triphone_lda":
        seen = replace(seen, transform=(trained.transform @ torch.from_numpy(seen.transform)).numpy())
    return trained, seen, {speaker: compose(trained.speakers[speaker], first[speaker]) for speaker in sorted(first)}


def see(cepstra: Mapping[str, np.ndarray], features: GmmFeatures) -> dict[str, Tensor]:
    return {utterance: mixture_frames(static, features) for utterance, static in cepstra.items()}


def tie(utterances: Sequence[tuple[np.ndarray, np.ndarray]], lexicon: Lexicon, positions: bool,
        config: StateTyingConfig) -> DecisionTree:
    """Grows the tree of all states from (features, events) of the training utterances."""
    statistics = accumulate(utterances, len(lexicon.phones))
    groups = phone_variants(lexicon.phones, positions)
    questions = (read_questions(Path(config.questions), lexicon.phones) if config.questions else
                 phone_questions(statistics, lexicon.phones, groups))
    if positions:
        questions += position_classes(lexicon.phones)
    tree, gain = grow_tree(statistics, lexicon.phones, groups, questions, config)
    log.info("%d states of triphones seen; %d leaves from %d questions, log-likelihood a frame %.3f higher than "
             "without context", len(statistics.events), tree.num_pdfs, len(questions), gain)
    if tree.num_pdfs < config.num_leaves:
        log.warning("%d leaves in place of %d: any further split leaves fewer than %g frames on one side, or gains "
                    "nothing; more speech or a lower state_tying.min_occupancy gives more", tree.num_pdfs,
                    config.num_leaves, config.min_occupancy)
    return tree
