"""Stage 9's first part: frames and labels of audio without transcripts (soft_targets.unlabelled)."""

import shutil
from pathlib import Path

import torch

from decant.distill.soft_targets import SoftTargetsConfig
from decant.distill.unlabelled import read_unlabelled, write_labelled_by
from decant.feat.archive import write_matrices
from decant.feat.data_dir import UtterancesConfig, check_unusable, read_data_dir
from decant.feat.fbank import compute_fbank_dir, read_fbank_config
from decant.feat.front_end import read_filterbanks, read_transforms
from decant.hmm.shards import write_shards
from decant.nnet.frame_store import FramesConfig, read_frame_store, write_frame_store
from decant.nnet.model_training import load_models
from decant.parallel import parallel_map
from decant.search.shard_labels import do_shard, transforms_found
from steps.adapted_features import for_networks, labelling
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
    transforms = find_transforms(stage, out) if frames.features == "fmllr" else None
    torch.set_num_threads(stage.jobs)
    new = write_labelled_by(out / "frames", load_models(teachers, stage.device),
                            for_networks(stage, filterbanks, transforms), config, stage.device)
    write_frame_store(store, train, new)
    shutil.rmtree(out / "frames")
    logger.info("%s: %d frames of %d utterances, beside %d of train", data, len(new), len(new.utterances), len(train))


def find_transforms(stage: Stage, out: Path) -> dict[str, torch.Tensor]:
    """Every speaker's transform, written to OUT/fmllr.scp unless it is there. out: the folder of the filterbanks."""
    if not (out / "fmllr.scp").exists():
        work = out / "work"
        work.mkdir(exist_ok=True)
        labelling(stage, adapt_only=True).write(work)
        shards = write_shards(out, {}, work / "shards")
        jobs = 1 if stage.engine.name == "k2" else stage.jobs
        for _ in parallel_map(do_shard, [(work, shard) for shard in shards], jobs, "speakers"):
            pass
        found = transforms_found(work, shards)
        write_matrices(out / "fmllr", ((speaker, x.numpy()) for speaker, x in found.items()))
        shutil.rmtree(work)
    return read_transforms(out / "fmllr")
