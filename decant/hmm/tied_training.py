"""Systems of tied triphone states, each trained from the alignment of the one before (Kaldi's train_deltas.sh,
train_lda_mllt.sh, train_sat.sh): its own features, its own tree, its own mixtures.

    events  the system before aligns: the HMM state of every frame in its context; LDA's statistics; fMLLR's first
            transforms, by the system before
    tree    with the new features: what the tree is grown from
    round_00 ...  as in decant.hmm.gmm_training

The letters: T frames, C cepstral coefficients, D features of the mixtures.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from decant.feat.cepstra import GmmFeatures
from decant.feat.lda_mllt import LdaStatistics, lda, lda_statistics, splice
from decant.hmm.gmm import fmllr_transforms
from decant.hmm.gmm_training import (
    Gather,
    Gathered,
    Labels,
    Part,
    Pass,
    Speakers,
    Sums,
    TriphoneConfig,
    aligned,
    features_of,
    passes_of,
    train_gmm,
    untrained,
)
from decant.hmm.state_tying import (
    DecisionTree,
    StateTyingConfig,
    Statistics,
    accumulate,
    event_keys,
    events_of,
    grow_tree,
    phone_questions,
    read_questions,
)
from decant.hmm.system import MixtureSystem
from decant.hmm.topology import TransitionModel
from decant.lang.lexicon import Lexicon, phone_variants, position_classes

log = logging.getLogger(__name__)

MOST_PHONES = 750  # so that an event's number fits 32 bits


def train_tied(name: str, before: MixtureSystem, lexicon: Lexicon, positions: bool, tying: StateTyingConfig,
               config: TriphoneConfig, gather: Gather) -> tuple[MixtureSystem, str]:
    """A trained system, and the pass with its speakers' transforms ("" if it has none).

    name: triphone sees cepstra and their differences; triphone_lda LDA and MLLT of spliced cepstra; triphone_sat these
    with fMLLR for every speaker. positions: LexiconConfig.position_dependent_phones.
    """
    if len(lexicon.phones) > MOST_PHONES:
        raise ValueError(f"{len(lexicon.phones)} phones are more than {MOST_PHONES}; use fewer, or no tied states")
    is_lda, is_sat = name == "triphone_lda", name == "triphone_sat"
    first = Pass("events", "events", align=True, adapt=is_sat, lda_context=config.lda_context if is_lda else -1)
    sums = gather(first, before)
    log.info("%s: %d of %d utterances aligned by %s", name, *sums["usable"].tolist()[:2], before.name)
    seen = GmmFeatures(before.features.num_cepstra, before.features.transform, is_sat)
    if is_lda:
        statistics = LdaStatistics(*(sums[f"lda_{part}"].numpy() for part in ("counts", "sums", "second")))
        seen = replace(seen, transform=lda(statistics, config.lda_dim).astype(np.float32))
    speakers = first.name if is_sat else ""
    sums = gather(Pass("tree", "tree", labels=first.name, speakers=speakers), replace(before, features=seen))
    tree = tie(_statistics(sums, len(lexicon.phones)), lexicon, positions, tying)
    passes = passes_of(config, config.mllt_iterations if is_lda else (), config.fmllr_iterations if is_sat else (),
                       flat_start=False, labels=first.name, speakers=speakers)
    start = untrained(name, seen, TransitionModel(tree, before.transitions.config))
    last = passes[-1][1]
    return train_gmm(start, config, passes, gather), last.name if last.adapt else last.speakers


def gather_events(task: Pass, system: MixtureSystem, part: Part, lexicon: Lexicon) -> Gathered:
    """What the pass `events` adds up over a part; its labels are events' numbers (event_keys), int32 [T]."""
    features = features_of(system, part, {})
    graphs, paths, sums = aligned(system, part, features, lexicon)
    index = {phone: i for i, phone in enumerate(lexicon.phones)}
    events = {utterance: graphs[utterance].events(path.states, index) for utterance, path in paths.items()}
    if task.lda_context >= 0:
        frames = ((splice(part.cepstra[utterance], task.lda_context), paths[utterance].pdfs) for utterance in paths)
        found = lda_statistics(frames, system.features.num_cepstra * (2 * task.lda_context + 1),
                               system.transitions.num_pdfs)
        sums |= {f"lda_{name}": torch.from_numpy(x) for name, x in vars(found).items()}
    speakers: Speakers = {}
    if task.adapt:
        pdfs = [paths[utterance].pdfs if utterance in paths else None for utterance in features]
        speakers = fmllr_transforms(system.gmm, list(features.values()), pdfs,
                                    [part.speaker_of[utterance] for utterance in features],
                                    system.transitions.silence_pdfs)
    sums["usable"] = torch.tensor([len(paths), len(features), sum(map(len, events.values()))], dtype=torch.float64)
    return Gathered(sums, {utterance: event_keys(x, len(index)).astype(np.int32) for utterance, x in events.items()},
                    speakers)


def gather_tree(system: MixtureSystem, part: Part, lexicon: Lexicon, keys: Labels, speakers: Speakers) -> Gathered:
    """What the pass `tree` adds up: the moments of each event that the part has, under its number."""
    features = features_of(system, part, speakers)
    if not keys:
        return Gathered(Sums(), keys, speakers)
    found = accumulate(((features[utterance].numpy(), events_of(mine.astype(np.int64), len(lexicon.phones)))
                        for utterance, mine in keys.items()), len(lexicon.phones))
    numbers = event_keys(found.events, len(lexicon.phones))
    return Gathered({"events": torch.from_numpy(numbers), "moments": torch.from_numpy(found.moments)}, keys, speakers)


def add_tree(total: Sums, more: Sums) -> Sums:
    """The sums of the pass `tree` over two parts, whose events differ."""
    if not total or not more:
        return total or more
    keys, place = torch.cat([total["events"], more["events"]]).unique(return_inverse=True)
    moments = total["moments"].new_zeros(len(keys), total["moments"].shape[1])
    moments[place[:len(total["events"])]] = total["moments"]
    moments[place[len(total["events"]):]] += more["moments"]
    return {"events": keys, "moments": moments}


def _statistics(sums: Mapping[str, torch.Tensor], num_phones: int) -> Statistics:
    if not sums:
        raise ValueError("no training utterance could be aligned by the system before; look at the audio and the "
                         "transcripts")
    return Statistics(events_of(sums["events"].numpy(), num_phones), sums["moments"].numpy())


def tie(statistics: Statistics, lexicon: Lexicon, positions: bool, config: StateTyingConfig) -> DecisionTree:
    """Grows the tree of all states."""
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
