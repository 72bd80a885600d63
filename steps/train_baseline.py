"""Stage 7: the baseline acoustic model, trained on the hard labels. It is the ensemble's first member."""

from steps.acoustic_training import train_members
from steps.common import Stage, run_step


def main(stage: Stage) -> None:
    train_members(stage, [1], [stage.out])


if __name__ == "__main__":
    run_step(main)
