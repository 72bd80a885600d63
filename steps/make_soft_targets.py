"""Stage 9: the ensemble's soft targets on the training frames, and on those of audio without transcripts if there is
some, for every temperature; none if soft_targets.stored is false."""

from functools import lru_cache
from pathlib import Path

import torch

from decant.distill.ensemble import EnsembleConfig
from decant.distill.needs import of_soft_targets, read_frames
from decant.distill.soft_targets import SoftTargetsConfig, finish_pass, made_from, num_shards, write_shard
from decant.nnet import data_parallel
from decant.nnet.acoustic_model import AcousticModel, load_model
from decant.nnet.frame_store import FrameStore, read_frame_store
from decant.nnet.model_training import load_models
from decant.parallel import parallel_map
from steps.label_unlabelled import label_unlabelled
from steps.stage_program import Stage, run_step


@lru_cache(maxsize=1)
def teacher_and_frames(stage: Stage, teachers: tuple[Path, ...],
                       frames: Path) -> tuple[list[AcousticModel], FrameStore]:
    """What a process loads once."""
    return load_models(teachers, stage.device), read_frame_store(frames).to(stage.device)


def make_shard(stage: Stage, teachers: tuple[Path, ...], frames: Path, directory: Path, number: int,
               shard: int) -> None:
    [config] = stage.config(soft_targets=SoftTargetsConfig)
    write_shard(directory, *teacher_and_frames(stage, teachers, frames), config, number, shard)


def sources(stage: Stage, teachers: tuple[Path, ...]) -> dict:
    """What the soft targets of the models in the teachers' folders have to be made from."""
    [config] = stage.config(soft_targets=SoftTargetsConfig)
    store = read_frame_store(stage.experiment.student_frames(bool(config.unlabelled)))
    return made_from(load_models(teachers, torch.device("cpu")), store, config)


def write_soft_targets(stage: Stage, teachers: tuple[Path, ...], generation: int) -> dict:
    """Writes what the models in the teachers' folders say together, for a generation of students, as far as it is not
    there, and returns what it is made from; several processes share the work."""
    [config] = stage.config(soft_targets=SoftTargetsConfig)
    frames = stage.experiment.student_frames(bool(config.unlabelled))
    source, directory = sources(stage, teachers), stage.experiment.soft_targets(generation)
    directory.mkdir(exist_ok=True)
    of_soft_targets(read_frames(frames, stage.experiment.states), load_model(teachers[0])[0].config, config,
                    len(teachers), stage.model_jobs).announce(directory)
    passes = range(config.passes(source["num_frames"]))
    todo = [(stage, teachers, frames, directory, number, shard) for number in passes
            for shard in range(num_shards(source["num_frames"], config.shard_frames))]
    own = todo[data_parallel.rank()::data_parallel.num_processes()]
    for _ in parallel_map(make_shard, own, stage.model_jobs, "soft targets"):
        pass
    teacher_and_frames.cache_clear()  # room for what is trained next
    data_parallel.wait()
    if data_parallel.rank() == 0:
        for number in passes:
            finish_pass(directory, number, source)
    data_parallel.wait()
    return source


def main(stage: Stage) -> None:
    config, ensemble = stage.config(soft_targets=SoftTargetsConfig, ensemble=EnsembleConfig)
    teachers = tuple(stage.experiment.members(ensemble.num_members))
    if config.unlabelled and data_parallel.rank() == 0:
        label_unlabelled(stage, teachers)
    data_parallel.wait()  # for its frames
    if config.stored:
        write_soft_targets(stage, teachers, generation=1)


if __name__ == "__main__":
    run_step(main)
