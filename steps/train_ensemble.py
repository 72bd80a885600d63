"""Stage 8: the other members of the ensemble, several at a time where the machine allows."""

import math
from collections.abc import Sequence

from decant.distill.ensemble import EnsembleConfig
from decant.distill.needs import of_trainings, read_frames
from decant.experiment import training_seed
from decant.nnet.acoustic_model import AcousticModelConfig
from decant.nnet.frame_store import training_frames
from decant.nnet.model_training import read_task, train_new_models
from decant.nnet.objectives import hard_labels
from decant.nnet.training import TrainingConfig
from decant.parallel import parallel_map
from steps.stage_program import Stage, run_step


def announce_members(stage: Stage, networks: int, side_by_side: int) -> None:
    """Says what their training needs, and sees that there is room on the disk."""
    sizes, config = stage.config(acoustic_model=AcousticModelConfig, training=TrainingConfig)
    frames = read_frames(stage.experiment.alignment("train"), stage.experiment.states)
    at_a_time = min(stage.model_jobs, math.ceil(networks / side_by_side))
    of_trainings(frames, sizes, config, networks, at_a_time, side_by_side).announce(stage.out)


def train_members(stage: Stage, numbers: Sequence[int]) -> None:
    """Trains members (1 is the baseline) side by side: a member's number is its seed, and all that sets it apart."""
    sizes, config = stage.config(acoustic_model=AcousticModelConfig, training=TrainingConfig)
    experiment = stage.experiment
    task = read_task(experiment.folder("alignment"), experiment.fbank("train"), stage.device,
                     config.label_smoothing)
    store = training_frames(experiment.alignment("train"), stage.device, sizes.window, config.shuffle_frames,
                            len(numbers))
    train_new_models(task, sizes, [training_seed("member", number, config.seed) for number in numbers], len(store),
                     hard_labels(store, sizes.window, config.label_smoothing), config,
                     [experiment.member(number) for number in numbers])


def main(stage: Stage) -> None:
    [config] = stage.config(ensemble=EnsembleConfig)
    numbers = range(2, config.num_members + 1)
    announce_members(stage, len(numbers), min(config.side_by_side, len(numbers)))
    groups = [numbers[n:n + config.side_by_side] for n in range(0, len(numbers), config.side_by_side)]
    for _ in parallel_map(train_members, [(stage, group) for group in groups], stage.model_jobs, "members"):
        pass


if __name__ == "__main__":
    run_step(main)
