"""Stage 6: the hard labels (a pdf-id a frame) of every split by forced alignment, and the frame stores.

With a speaker-adapted system of mixtures each speaker's transform comes first (SPLIT/fmllr.scp): that of training for
train; for dev and test from what the system before it recognises, as in use, and never from their transcripts.
Copies of train at other speeds (`frames.speeds`, perturbed/) are adapted and aligned with its transcripts."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from decant.distill.ensemble import ensemble_logits
from decant.feat.archive import read_matrices, write_int_vectors, write_matrices
from decant.feat.data_dir import UtterancesConfig, at_speed, check_unusable, read_data_dir
from decant.feat.fbank import compute_fbank_dir, read_fbank_config, read_unusable, write_unusable
from decant.files import atomic_path
from decant.hmm.gmm import QuadraticForm, load_gmm
from decant.hmm.topology import TransitionModel, read_transitions, state_graph
from decant.lang.lexicon import Lexicon, read_lexicon
from decant.nnet.acoustic_model import AcousticModel, AcousticModelConfig, load_model
from decant.nnet.frame_store import FramesConfig, FrameStore, pack, read_frame_store, write_frame_store
from decant.nnet.training import RealignmentConfig
from steps.acoustic_training import SEEDS_APART, hard_labels, train_models
from steps.adaptation import speaker_transforms
from steps.common import SPLITS, Stage, hmm_folders, logger, run_step
from steps.features import mixture_features, network_features
from steps.search import best_pdfs


def main(stage: Stage) -> None:
    [config] = stage.config(realignment=RealignmentConfig)
    lexicon = read_lexicon(stage.exp / "lang" / "lexicon.txt")
    transitions = read_transitions(hmm_folders(stage.exp)[-1], lexicon.phones)
    label_with_mixtures(stage, lexicon, transitions)
    for number in range(1, config.rounds + 1):
        label_with_network(stage, lexicon, transitions, config, stage.out / f"network_{number}", number)


def label_with_mixtures(stage: Stage, lexicon: Lexicon, transitions: TransitionModel) -> None:
    """Writes the labels and the frame stores of all splits; train's has its copies at `frames.speeds` too."""
    [frames] = stage.config(frames=FramesConfig)
    with atomic_path(stage.out / "states.json") as path:
        path.write_text(json.dumps({"num_pdfs": transitions.num_pdfs, "tree": transitions.tree.fingerprint,
                                    "features": frames.features}) + "\n")
    model = hmm_folders(stage.exp)[-1]
    for split in SPLITS:
        fbank, out = stage.exp / "fbank" / split, stage.out / split
        words = words_of(stage, split)
        # Of train, the transforms that it was trained with; of the others, what their audio alone gives.
        stores = [label(stage, lexicon, transitions, words, fbank, out,
                        partial(read_matrices, model / "fmllr.scp") if split == "train" else
                        partial(speaker_transforms, stage, lexicon, fbank))]
        if split == "train" and frames.speeds:
            copies = stage.out / "perturbed"
            perturbed = copies / "fbank"
            compute_fbank_dir(stage.exp / "data" / split, perturbed, read_fbank_config(fbank), stage.jobs,
                              speeds=frames.speeds)
            stores.append(label(stage, lexicon, transitions, words, perturbed, copies,
                                partial(speaker_transforms, stage, lexicon, perturbed, words)))
            shutil.rmtree(perturbed)  # what networks see of it is in train's store
        write_labels(out, *stores)


def label(stage: Stage, lexicon: Lexicon, transitions: TransitionModel, words: Mapping[str, tuple[str, ...]],
          fbank: Path, out: Path, transforms: Callable[[], Mapping[str, np.ndarray] | Iterable]) -> FrameStore:
    """What the networks see of a folder of filterbanks, with the pdf-ids of its forced alignment. Writes
    OUT/unusable.txt and, for an adapted system, OUT/fmllr.scp."""
    limits, frames = stage.config(utterances=UtterancesConfig, frames=FramesConfig)
    model = hmm_folders(stage.exp)[-1]
    gmm, seen = load_gmm(model)
    out.mkdir(exist_ok=True)
    if seen.adapted:
        write_matrices(out / "fmllr", sorted(dict(transforms()).items()))
    features = dict(mixture_features(model, fbank, out))
    unusable = read_unusable(fbank)
    total = len(features) + len(unusable)
    unlabelled = {}
    for utterance in list(features):  # stage 1 has refused such words in train
        if unknown := [word for word in words[utterance] if lexicon.spoken(word) is None]:
            unlabelled[utterance] = f"{unknown[0]} is not in the lexicon; it is decoded all the same"
            del features[utterance]
    graphs = {utterance: state_graph(words[utterance], lexicon, transitions) for utterance in features}
    labels = best_pdfs(stage, graphs, features, QuadraticForm(gmm).log_likelihoods, stage.jobs)
    for utterance in graphs.keys() - labels.keys():
        unusable[utterance] = (f"{len(features[utterance])} frames are fewer than the "
                               f"{graphs[utterance].min_frames} states of its transcript")
    check_unusable(out.name, unusable, total, limits)
    if unlabelled:
        logger.info("%s: %d of %d utterances have a word that the lexicon lacks: they are decoded, but have no "
                    "labels", out.name, len(unlabelled), total)
    write_unusable(out, unusable | unlabelled)
    return pack((utterance, x, labels[utterance])
                for utterance, x in network_features(stage.exp, frames.features, fbank, out) if utterance in labels)


def write_labels(directory: Path, *stores: FrameStore) -> None:
    """Writes one store of these, and its labels as a Kaldi archive, DIRECTORY/ali.scp."""
    labels = {utterance: store.pdfs[rows].numpy() for store in stores for utterance, rows in store.utterance_slices()}
    write_int_vectors(directory / "ali", sorted(labels.items()))
    write_frame_store(directory, *stores)


def words_of(stage: Stage, split: str) -> dict[str, tuple[str, ...]]:
    """What is said in every utterance of a split, and in train's copies; ValueError if an utterance has a copy's id."""
    [frames] = stage.config(frames=FramesConfig)
    utterances = read_data_dir(stage.exp / "data" / split)
    copies = [at_speed(utterance, speed) for speed in frames.speeds for utterance in utterances if split == "train"]
    if both := sorted({utterance.id for utterance in utterances} & {copy.id for copy in copies}):
        raise ValueError(f"{stage.exp}/data/{split}: frames.speeds would make {both[0]}, which is there already, as "
                         f"are {len(both)} in all; leave these speeds to one of the two")
    return {utterance.id: utterance.words for utterance in utterances + copies}


def label_with_network(stage: Stage, lexicon: Lexicon, transitions: TransitionModel, config: RealignmentConfig,
                       directory: Path, number: int) -> None:
    """Trains a network on the labels as they are, and writes those of its own alignment in their place."""
    stores = {split: read_frame_store(stage.out / split).to(stage.device) for split in SPLITS}
    sizes = AcousticModelConfig()
    train_models(stage, stage.out, sizes, stores["train"], hard_labels(stores["train"], sizes, config), config,
                 [config.seed * SEEDS_APART + 2000 + number], [directory])
    model = load_model(directory)[0].to(stage.device)
    for split, store in stores.items():
        words = words_of(stage, split)
        rows = dict(store.utterance_slices())
        graphs = {utterance: state_graph(words[utterance], lexicon, transitions) for utterance in sorted(rows)}
        index = {utterance: torch.arange(at.start, at.stop) for utterance, at in rows.items()}
        labels = best_pdfs(stage, graphs, index, partial(scaled_likelihoods, model, store), jobs=1)
        pdfs = torch.from_numpy(np.concatenate([labels[utterance] for utterance in rows]))
        logger.info("%s: %s gives %.2f%% of the frames of %s another label", stage.out.name.removesuffix(".partial"),
                    directory.name, 100 * float((pdfs != store.pdfs.cpu()).double().mean()), split)
        write_labels(stage.out / split, replace(store.to(torch.device("cpu")), pdfs=pdfs))


def scaled_likelihoods(model: AcousticModel, store: FrameStore, index: Tensor, pdfs: Tensor) -> Tensor:
    """log p(x | pdf-id) up to a constant, of some pdf-ids (int64 [P]) at the frames `index`: float32 [T, P]."""
    scores = torch.cat([ensemble_logits([model], store.windows(part, model.config.window))
                        for part in index.to(store.pdfs.device).split(4096)])
    return (scores - model.log_priors).cpu()[:, pdfs]


if __name__ == "__main__":
    run_step(main)
