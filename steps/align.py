"""Stage 6: the hard labels (a pdf-id a frame) of every split by forced alignment, and the frame stores.

With a speaker-adapted system of mixtures each speaker's transform comes first (SPLIT/fmllr.scp): that of training for
train; for dev and test from what the system before it recognises, as in use, and never from their transcripts."""

import json

from decant.archive import read_matrices, write_int_vectors, write_matrices
from decant.data_dir import UtterancesConfig, check_unusable, read_data_dir
from decant.fbank import read_unusable, write_unusable
from decant.files import atomic_path
from decant.frame_store import FramesConfig, pack, write_frame_store
from decant.gmm import QuadraticForm, load_gmm
from decant.hmm import read_transitions, state_graph
from decant.lexicon import Lexicon, read_lexicon
from steps.adaptation import unsupervised_transforms
from steps.common import SPLITS, Stage, hmm_folders, run_step
from steps.features import mixture_features, network_features
from steps.search import best_pdfs


def main(stage: Stage) -> None:
    limits, frames = stage.config(utterances=UtterancesConfig, frames=FramesConfig)
    lexicon = read_lexicon(stage.exp / "lang" / "lexicon.txt")
    model = hmm_folders(stage.exp)[-1]
    gmm, seen = load_gmm(model)
    transitions = read_transitions(model)
    with atomic_path(stage.out / "states.json") as path:
        path.write_text(json.dumps({"num_pdfs": transitions.num_pdfs, "tree": transitions.tree.fingerprint,
                                    "features": frames.features}) + "\n")
    for split in SPLITS:
        out = stage.out / split
        out.mkdir(exist_ok=True)
        if seen.adapted:
            adapt_speakers(stage, lexicon, split)
        utterances = read_data_dir(stage.exp / "data" / split)
        words = {utterance.id: utterance.words for utterance in utterances}
        features = dict(mixture_features(stage.exp, model, split, stage.out))
        unusable = read_unusable(stage.exp / "fbank" / split)
        for utterance in list(features):  # stage 1 has refused such words in train
            if unknown := [word for word in words[utterance] if word not in lexicon.pronunciations]:
                unusable[utterance] = f"{unknown[0]} is not in the lexicon; it is decoded all the same"
                del features[utterance]
        graphs = {utterance: state_graph(words[utterance], lexicon, transitions) for utterance in features}
        labels = best_pdfs(stage, graphs, features, QuadraticForm(gmm).log_likelihoods)
        for utterance in graphs.keys() - labels.keys():
            unusable[utterance] = (f"{len(features[utterance])} frames are fewer than the "
                                   f"{graphs[utterance].min_frames} states of its transcript")
        check_unusable(split, unusable, len(utterances), limits)
        write_unusable(out, unusable)
        write_int_vectors(out / "ali", labels.items())
        write_frame_store(out, pack(
            (utterance, x, labels[utterance])
            for utterance, x in network_features(stage.exp, frames.features, split, stage.out) if utterance in labels))


def adapt_speakers(stage: Stage, lexicon: Lexicon, split: str) -> None:
    """Writes SPLIT/fmllr.{ark,scp}, a transform for every speaker, as Kaldi's trans.* hold them."""
    *_, before, adapted = hmm_folders(stage.exp)
    if split == "train":
        transforms = dict(read_matrices(adapted / "fmllr.scp"))
    else:
        found = unsupervised_transforms(stage, lexicon, before, adapted, split)
        transforms = {speaker: transform.numpy() for speaker, transform in found.items()}
    write_matrices(stage.out / split / "fmllr", sorted(transforms.items()))


if __name__ == "__main__":
    run_step(main)
