"""Stage 8: the other members of the ensemble, several at a time where the machine allows."""

from decant.distill.ensemble import EnsembleConfig
from decant.parallel import parallel_map
from steps.acoustic_training import member_name, train_members
from steps.common import Stage, run_step


def main(stage: Stage) -> None:
    [config] = stage.config(ensemble=EnsembleConfig)
    numbers = range(2, config.num_members + 1)
    groups = [numbers[n:n + config.side_by_side] for n in range(0, len(numbers), config.side_by_side)]
    members = [(stage, group, [stage.out / member_name(number) for number in group]) for group in groups]
    for _ in parallel_map(train_members, members, stage.model_jobs, "members"):
        pass


if __name__ == "__main__":
    run_step(main)
