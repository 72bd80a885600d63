"""Stage 6's second part: labels by networks in place of the mixtures'."""

from dataclasses import replace

import torch

from decant.distill.realignment import RealignmentConfig, aligned_again
from decant.experiment import training_seed
from decant.feat.data_dir import read_data_dir, with_copies
from decant.hmm.topology import read_transitions
from decant.lang.lexicon import read_lexicon
from decant.nnet.acoustic_model import AcousticModelConfig, load_model
from decant.nnet.frame_store import FramesConfig, read_frame_store, training_frames, write_labelled_store
from decant.nnet.model_training import read_task, train_new_models
from decant.nnet.objectives import hard_labels
from steps.stage_program import Stage, logger


def label_with_network(stage: Stage, config: RealignmentConfig, number: int) -> None:
    """Trains a network on the labels as they are, and writes those of its own alignment in their place."""
    [frames] = stage.config(frames=FramesConfig)
    experiment, sizes, directory = stage.experiment, AcousticModelConfig(), stage.out / f"network_{number}"
    stores = {split: read_frame_store(experiment.alignment(split)).to(stage.device)
              for split in experiment.splits("data")}
    task = read_task(stage.out, experiment.fbank("train"), stage.device, config.label_smoothing)
    learned = training_frames(experiment.alignment("train"), stage.device, sizes.window, config.shuffle_frames)
    train_new_models(task, sizes, [training_seed("realigned", number, config.seed)], len(learned),
                     hard_labels(learned, sizes.window, config.label_smoothing), config, [directory])
    model = load_model(directory)[0].to(stage.device)
    lexicon = read_lexicon(experiment.lexicon)
    transitions = read_transitions(experiment.mixtures[-1], lexicon.phones)
    for split, store in stores.items():
        utterances = read_data_dir(experiment.data(split), audio=False)
        if split == "train":
            utterances = with_copies(utterances, frames.speeds, experiment.data(split))
        words = {utterance.id: utterance.words for utterance in utterances}
        pdfs = aligned_again(model, store, words, lexicon, transitions, stage.engine)
        logger.info("%s: %s gives %.2f%% of the frames of %s another label", experiment.stage, directory.name,
                    100 * float((pdfs != store.pdfs.cpu()).double().mean()), split)
        write_labelled_store(experiment.alignment(split), replace(store.to(torch.device("cpu")), pdfs=pdfs))
