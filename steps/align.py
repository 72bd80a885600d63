"""Stage 5: the hard labels (a pdf-id a frame) of every split by forced alignment, and the frame stores."""

import json

from decant.archive import write_int_vectors
from decant.cepstra import gmm_features
from decant.data_dir import UtterancesConfig, check_unusable, read_data_dir
from decant.fbank import load_features, read_unusable, write_unusable
from decant.files import atomic_path
from decant.frame_store import pack, write_frame_store
from decant.gmm import align, load_gmm
from decant.hmm import read_transitions, state_graph
from decant.lexicon import read_lexicon
from steps.common import SPLITS, Stage, as_tensors, hmm_folders, run_step


def main(stage: Stage) -> None:
    [limits] = stage.config(utterances=UtterancesConfig)
    lexicon = read_lexicon(stage.exp / "lang" / "lexicon.txt")
    model = hmm_folders(stage.exp)[-1]
    gmm, seen = load_gmm(model)
    transitions = read_transitions(model)
    with atomic_path(stage.out / "states.json") as path:
        path.write_text(json.dumps({"num_pdfs": transitions.num_pdfs, "tree": transitions.tree.fingerprint}) + "\n")
    for split in SPLITS:
        utterances = read_data_dir(stage.exp / "data" / split)
        features_dir, out = stage.exp / "fbank" / split, stage.out / split
        words = {utterance.id: utterance.words for utterance in utterances}
        features = as_tensors(gmm_features(features_dir, seen))
        labels, unusable = {}, read_unusable(features_dir)
        for utterance in list(features):  # stage 1 has refused such words in train
            if unknown := [word for word in words[utterance] if word not in lexicon.pronunciations]:
                unusable[utterance] = f"{unknown[0]} is not in the lexicon; it is decoded all the same"
                del features[utterance]
        graphs = [state_graph(words[utterance], lexicon, transitions) for utterance in features]
        paths = align(gmm, graphs, list(features.values()), stage.jobs)
        for (utterance, x), graph, path in zip(features.items(), graphs, paths, strict=True):
            if path is None:
                unusable[utterance] = f"{len(x)} frames are fewer than the {graph.min_frames} states of its transcript"
            else:
                labels[utterance] = path.pdfs
        out.mkdir(exist_ok=True)
        check_unusable(split, unusable, len(utterances), limits)
        write_unusable(out, unusable)
        write_int_vectors(out / "ali", labels.items())
        write_frame_store(out, pack((utterance, frames, labels[utterance])
                                    for utterance, frames in load_features(features_dir, labels)))


if __name__ == "__main__":
    run_step(main)
