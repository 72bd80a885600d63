"""Stage 9's first part: frames and labels of audio without transcripts (soft_targets.unlabelled)."""

import shutil
from pathlib import Path

import torch

from decant.distill.soft_targets import SoftTargetsConfig
from decant.distill.unlabelled import read_unlabelled, write_labelled_by
from decant.feat.archive import write_matrices
from decant.feat.data_dir import UtterancesConfig, check_unusable, read_data_dir
from decant.feat.fbank import compute_fbank_dir, read_fbank_config
from decant.feat.front_end import Filterbanks, read_filterbanks, read_transforms
from decant.hmm.system import read_system
from decant.lang.lexicon import read_lexicon
from decant.nnet.frame_store import FramesConfig, read_frame_store, write_frame_store
from decant.nnet.model_training import load_models
from steps.adapted_features import adaptation, for_networks
from steps.stage_program import Stage, logger


def label_unlabelled(stage: Stage, teachers: tuple[Path, ...]) -> None:
    """Writes a store of the training frames and of those of `soft_targets.unlabelled`, whose hard labels are the
    teachers' most probable states; unless it is there."""
    config, frames, limits = stage.config(soft_targets=SoftTargetsConfig, frames=FramesConfig,
                                          utterances=UtterancesConfig)
    experiment, out = stage.experiment, stage.out / "unlabelled"
    store = experiment.student_frames(unlabelled=True)
    if (store / "utterances.txt").exists():
        return
    train, data = read_frame_store(experiment.alignment("train")), Path(config.unlabelled)
    utterances = read_unlabelled(data, train.utterances, {
        split: read_data_dir(experiment.data(split), audio=False) for split in experiment.splits("data")[1:]})
    unusable = compute_fbank_dir(data, out, read_fbank_config(experiment.fbank("train")), stage.jobs, transcribed=False)
    check_unusable(data.name, unusable, len(utterances), limits)
    filterbanks = read_filterbanks(out)
    adapted = adapt(stage, filterbanks, out / "fmllr") if frames.features == "fmllr" else {}
    torch.set_num_threads(stage.jobs)
    new = write_labelled_by(out / "frames", load_models(teachers, stage.device),
                            for_networks(frames.features, filterbanks, adapted), config, stage.device)
    write_frame_store(store, train, new)
    shutil.rmtree(out / "frames")
    logger.info("%s: %d frames of %d utterances, beside %d of train", data, len(new), len(new.utterances), len(train))


def adapt(stage: Stage, filterbanks: Filterbanks, transforms: Path) -> dict[str, torch.Tensor]:
    """What the last system of mixtures sees, by transforms that are found unless they are there: float32 [T, D]."""
    system = read_system(stage.experiment.mixtures[-1], read_lexicon(stage.experiment.lexicon))
    if not Path(f"{transforms}.scp").exists():
        features = filterbanks.for_mixtures(system.features)
        found = adaptation(stage).transforms(features, filterbanks.speaker_of)
        write_matrices(transforms, ((speaker, found[speaker].numpy()) for speaker in sorted(found)))
    return filterbanks.for_mixtures(system.features, read_transforms(transforms))
