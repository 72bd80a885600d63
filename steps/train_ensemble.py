"""Stage 8: the other members of the ensemble, several at a time where the machine allows."""

from decant.ensemble import EnsembleConfig
from decant.parallel import parallel_map
from steps.acoustic_training import member_name, train_member
from steps.common import Stage, run_step


def main(stage: Stage) -> None:
    [config] = stage.config(ensemble=EnsembleConfig)
    members = [(stage, number, stage.out / member_name(number)) for number in range(2, config.num_members + 1)]
    for _ in parallel_map(train_member, members, stage.model_jobs, "members"):
        pass


if __name__ == "__main__":
    run_step(main)
