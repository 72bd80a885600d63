"""Stage 7: the baseline acoustic model, trained on the hard labels. It is the ensemble's first member."""

from steps.stage_program import Stage, run_step
from steps.train_ensemble import announce_members, train_members


def main(stage: Stage) -> None:
    announce_members(stage, networks=1, side_by_side=1)
    train_members(stage, [1])


if __name__ == "__main__":
    run_step(main)
