"""Stage 9: the ensemble's soft targets on the training frames, and on those of audio without transcripts if there is
some, for every temperature; none if soft_targets.stored is false."""

from functools import lru_cache
from pathlib import Path

import torch

from decant.distill.ensemble import EnsembleConfig
from decant.distill.soft_targets import SoftTargetsConfig, finish_pass, num_shards, origin, write_shard
from decant.nnet import data_parallel
from decant.nnet.acoustic_model import AcousticModel
from decant.nnet.frame_store import FrameStore, read_frame_store
from decant.parallel import parallel_map
from steps.acoustic_training import load_models, member_folders
from steps.common import Stage, run_step
from steps.unlabelled import label_audio, student_frames


@lru_cache(maxsize=1)
def teacher_and_frames(stage: Stage, teachers: tuple[Path, ...],
                       frames: Path) -> tuple[list[AcousticModel], FrameStore]:
    """What a process loads once."""
    return load_models(teachers, stage.device), read_frame_store(frames).to(stage.device)


def make_shard(stage: Stage, teachers: tuple[Path, ...], frames: Path, directory: Path, number: int,
               shard: int) -> None:
    [config] = stage.config(soft_targets=SoftTargetsConfig)
    write_shard(directory, *teacher_and_frames(stage, teachers, frames), config, number, shard)


def made_from(stage: Stage, teachers: tuple[Path, ...], frames: Path) -> dict:
    """What the soft targets of the models in the teachers' folders on that frame store have to be made from
    (decant.distill.soft_targets.origin)."""
    [config] = stage.config(soft_targets=SoftTargetsConfig)
    return origin(load_models(teachers, torch.device("cpu")), read_frame_store(frames), config)


def write_soft_targets(stage: Stage, teachers: tuple[Path, ...], frames: Path, directory: Path) -> dict:
    """Writes what the models in the teachers' folders say together on a frame store, as far as it is not there, and
    returns what it is made from; several processes share the work."""
    [config] = stage.config(soft_targets=SoftTargetsConfig)
    source = made_from(stage, teachers, frames)
    todo = [(stage, teachers, frames, directory, number, shard) for number in range(config.num_passes)
            for shard in range(num_shards(source["num_frames"], config.shard_frames))]
    own = todo[data_parallel.rank()::data_parallel.num_processes()]
    for _ in parallel_map(make_shard, own, stage.model_jobs, "soft targets"):
        pass
    teacher_and_frames.cache_clear()  # room for what is trained next
    data_parallel.wait()
    if data_parallel.rank() == 0:
        for number in range(config.num_passes):
            finish_pass(directory, number, source)
    data_parallel.wait()
    return source


def main(stage: Stage) -> None:
    config, ensemble = stage.config(soft_targets=SoftTargetsConfig, ensemble=EnsembleConfig)
    teachers = tuple(member_folders(stage.exp, ensemble.num_members))
    if data_parallel.rank() == 0:
        label_audio(stage, teachers)
    data_parallel.wait()  # for its frames
    if config.stored:
        write_soft_targets(stage, teachers, student_frames(stage, stage.out), stage.out)


if __name__ == "__main__":
    run_step(main)
