"""Stage 9: the ensemble's soft targets on the training frames, for every temperature; none if soft_targets.stored is
false."""

from functools import lru_cache

from decant.acoustic_model import AcousticModel
from decant.ensemble import EnsembleConfig
from decant.frame_store import FrameStore, read_frame_store
from decant.parallel import parallel_map
from decant.soft_targets import SoftTargetsConfig, finish_pass, num_shards, origin, write_shard
from steps.acoustic_training import load_members
from steps.common import Stage, run_step


@lru_cache(maxsize=1)
def teacher(stage: Stage) -> tuple[list[AcousticModel], FrameStore]:
    """The members and the frames, which a process loads once."""
    [ensemble] = stage.config(ensemble=EnsembleConfig)
    return (load_members(stage.exp, ensemble.num_members, stage.device),
            read_frame_store(stage.exp / "alignment" / "train").to(stage.device))


def make_shard(stage: Stage, number: int, shard: int) -> None:
    [config] = stage.config(soft_targets=SoftTargetsConfig)
    members, store = teacher(stage)
    write_shard(stage.out, members, store, config, number, shard)


def main(stage: Stage) -> None:
    [config] = stage.config(soft_targets=SoftTargetsConfig)
    if not config.stored:
        return
    members, store = teacher(stage)
    todo = [(stage, number, shard) for number in range(config.num_passes)
            for shard in range(num_shards(len(store), config.shard_frames))]
    for _ in parallel_map(make_shard, todo, stage.model_jobs, "soft targets"):
        pass
    made_from = origin(members, store, config)
    for number in range(config.num_passes):
        finish_pass(stage.out, number, made_from)


if __name__ == "__main__":
    run_step(main)
