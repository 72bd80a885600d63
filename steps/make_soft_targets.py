"""Stage 9: the ensemble's soft targets on the training frames, at every temperature."""

from decant.ensemble import EnsembleConfig
from decant.frame_store import read_frame_store
from decant.soft_targets import DistillationConfig, write_soft_targets
from steps.acoustic_training import load_members
from steps.common import Stage, run_step


def main(stage: Stage) -> None:
    ensemble, config = stage.config(ensemble=EnsembleConfig, distillation=DistillationConfig)
    members = load_members(stage.exp, ensemble.num_members, stage.device)
    store = read_frame_store(stage.exp / "alignment" / "train").to(stage.device)
    write_soft_targets(stage.out, members, store, config.temperatures)


if __name__ == "__main__":
    run_step(main)
