"""Stage 9: the ensemble's soft targets on the training frames, for every temperature; none if soft_targets.stored is
false."""

from functools import lru_cache
from pathlib import Path

from decant import data_parallel
from decant.acoustic_model import AcousticModel
from decant.ensemble import EnsembleConfig
from decant.frame_store import FrameStore, read_frame_store
from decant.parallel import parallel_map
from decant.soft_targets import SoftTargetsConfig, finish_pass, num_shards, origin, write_shard
from steps.acoustic_training import load_models, member_folders
from steps.common import Stage, run_step


@lru_cache(maxsize=1)
def teacher_and_frames(stage: Stage, folders: tuple[Path, ...]) -> tuple[list[AcousticModel], FrameStore]:
    """What a process loads once."""
    return (load_models(folders, stage.device),
            read_frame_store(stage.exp / "alignment" / "train").to(stage.device))


def make_shard(stage: Stage, folders: tuple[Path, ...], directory: Path, number: int, shard: int) -> None:
    [config] = stage.config(soft_targets=SoftTargetsConfig)
    write_shard(directory, *teacher_and_frames(stage, folders), config, number, shard)


def made_from(stage: Stage, folders: tuple[Path, ...]) -> dict:
    """What the soft targets of the models in these folders have to be made from (decant.soft_targets.origin)."""
    [config] = stage.config(soft_targets=SoftTargetsConfig)
    return origin(*teacher_and_frames(stage, folders), config)


def write_soft_targets(stage: Stage, folders: tuple[Path, ...], directory: Path) -> dict:
    """Writes what the models in these folders say together, as far as it is not there, and returns what it is made
    from; several processes share the work."""
    [config] = stage.config(soft_targets=SoftTargetsConfig)
    source = made_from(stage, folders)
    todo = [(stage, folders, directory, number, shard) for number in range(config.num_passes)
            for shard in range(num_shards(source["num_frames"], config.shard_frames))]
    own = todo[data_parallel.rank()::data_parallel.num_processes()]
    for _ in parallel_map(make_shard, own, stage.model_jobs, "soft targets"):
        pass
    data_parallel.wait()
    if data_parallel.rank() == 0:
        for number in range(config.num_passes):
            finish_pass(directory, number, source)
    data_parallel.wait()
    return source


def main(stage: Stage) -> None:
    config, ensemble = stage.config(soft_targets=SoftTargetsConfig, ensemble=EnsembleConfig)
    if config.stored:
        write_soft_targets(stage, tuple(member_folders(stage.exp, ensemble.num_members)), stage.out)


if __name__ == "__main__":
    run_step(main)
