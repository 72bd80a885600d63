"""Stage 6: the hard labels (a pdf-id a frame) of every split by forced alignment, and the frame stores.

Copies of train at other speeds (`frames.speeds`, perturbed/) are adapted and aligned with its transcripts."""

import json
import shutil
from itertools import chain

from decant.distill.realignment import RealignmentConfig
from decant.feat.data_dir import read_data_dir, with_copies
from decant.feat.fbank import compute_fbank_dir, read_fbank_config
from decant.files import atomic_path
from decant.hmm.system import read_system
from decant.lang.lexicon import read_lexicon
from decant.nnet.frame_store import FramesConfig, write_labels, write_utterances
from steps.label_with_mixtures import label_with_mixtures, labelled_frames
from steps.label_with_network import label_with_network
from steps.stage_program import Stage, run_step


def main(stage: Stage) -> None:
    [config] = stage.config(realignment=RealignmentConfig)
    label_all(stage)
    for number in range(1, config.rounds + 1):
        label_with_network(stage, config, number)


def label_all(stage: Stage) -> None:
    """Writes the labels and the frame stores of all splits; train's has its copies at `frames.speeds` too."""
    [frames] = stage.config(frames=FramesConfig)
    experiment, lexicon = stage.experiment, read_lexicon(stage.experiment.lexicon)
    system = read_system(experiment.mixtures[-1], lexicon)
    states = {"num_pdfs": system.transitions.num_pdfs, "tree": system.transitions.tree.fingerprint}
    with atomic_path(experiment.states) as path:
        path.write_text(json.dumps(states | {"features": frames.features}) + "\n")
    for split in experiment.splits("data"):
        fbank, out = experiment.fbank(split), experiment.alignment(split)
        utterances = read_data_dir(experiment.data(split), audio=False)
        words = {utterance.id: utterance.words for utterance in utterances}
        known = experiment.mixtures[-1] / "fmllr" if split == "train" and system.features.adapted else None
        label_with_mixtures(stage, words, fbank, out, known, words_are_known=split == "train")
        labelled = labelled_frames(stage, fbank, out)
        if split != "train" or not frames.speeds:
            write_utterances(out, labelled)
        else:
            copies = with_copies(utterances, frames.speeds, experiment.data(split))
            words = {utterance.id: utterance.words for utterance in copies}
            perturbed = experiment.perturbed / "fbank"
            compute_fbank_dir(experiment.data(split), perturbed, read_fbank_config(fbank), stage.jobs,
                              speeds=frames.speeds)
            label_with_mixtures(stage, words, perturbed, experiment.perturbed, words_are_known=True)
            write_utterances(out, chain(labelled, labelled_frames(stage, perturbed, experiment.perturbed)))
            shutil.rmtree(perturbed)  # what networks see of it is in train's store
        write_labels(out)


if __name__ == "__main__":
    run_step(main)
