"""Stage 9: the ensemble's soft targets on the training frames, for every temperature; none if soft_targets.stored is
false."""

from decant.ensemble import EnsembleConfig
from decant.frame_store import read_frame_store
from decant.parallel import parallel_map
from decant.soft_targets import SoftTargetsConfig, finish_pass, num_shards, origin, write_shard
from steps.acoustic_training import load_members
from steps.common import Stage, run_step


def make_shard(stage: Stage, number: int, shard: int) -> None:
    ensemble, config = stage.config(ensemble=EnsembleConfig, soft_targets=SoftTargetsConfig)
    members = load_members(stage.exp, ensemble.num_members, stage.device)
    store = read_frame_store(stage.exp / "alignment" / "train").to(stage.device)
    write_shard(stage.out, members, store, config, number, shard)


def main(stage: Stage) -> None:
    ensemble, config = stage.config(ensemble=EnsembleConfig, soft_targets=SoftTargetsConfig)
    if not config.stored:
        return
    store = read_frame_store(stage.exp / "alignment" / "train")
    todo = [(stage, number, shard) for number in range(config.num_passes)
            for shard in range(num_shards(len(store), config.shard_frames))]
    for _ in parallel_map(make_shard, todo, stage.model_jobs, "soft targets"):
        pass
    made_from = origin(load_members(stage.exp, ensemble.num_members, stage.device), store, config)
    for number in range(config.num_passes):
        finish_pass(stage.out, number, made_from)


if __name__ == "__main__":
    run_step(main)
