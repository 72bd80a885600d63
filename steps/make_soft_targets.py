"""Stage 9: the ensemble's soft targets on the training frames, at every temperature."""

from decant.ensemble import EnsembleConfig
from decant.frame_store import read_frame_store
from decant.parallel import parallel_map
from decant.soft_targets import SoftTargetsConfig, write_soft_targets
from steps.acoustic_training import load_members
from steps.common import Stage, run_step


def write_pass(stage: Stage, num_members: int, number: int, temperatures: tuple[float, ...]) -> None:
    members = load_members(stage.exp, num_members, stage.device)
    store = read_frame_store(stage.exp / "alignment" / "train").to(stage.device)
    write_soft_targets(stage.out, members, store, number, temperatures)


def main(stage: Stage) -> None:
    ensemble, config = stage.config(ensemble=EnsembleConfig, soft_targets=SoftTargetsConfig)
    todo = [(stage, ensemble.num_members, number, config.temperatures) for number in range(config.num_passes)]
    for _ in parallel_map(write_pass, todo, stage.model_jobs, "soft targets"):
        pass


if __name__ == "__main__":
    run_step(main)
