"""Stage 11: soft targets as regularisers (paper, section 6): networks on a small share of the training utterances, with
their hard labels, or with what the baseline says about them."""

import math
from dataclasses import replace

from decant.distill.mixing import Mixture
from decant.distill.needs import of_trainings, read_frames
from decant.distill.regularization import RegularizationConfig, share_of
from decant.distill.soft_targets import DistillationConfig, LiveTargets, SoftTargetsConfig
from decant.distill.students import soft_labels
from decant.experiment import training_seed
from decant.nnet.acoustic_model import AcousticModelConfig, load_model
from decant.nnet.frame_store import read_frame_store
from decant.nnet.model_training import read_task, train_new_models
from decant.nnet.objectives import hard_labels
from decant.nnet.training import TrainingConfig
from decant.parallel import parallel_map
from steps.stage_program import Stage, run_step


def train_on_share(stage: Stage, targets: str, seed: int) -> None:
    """A network of the baseline's architecture, by hard or soft targets, on the same utterances."""
    sizes, config, training = stage.config(acoustic_model=AcousticModelConfig, regularization=RegularizationConfig,
                                           **{f"{targets}_regularization_training": TrainingConfig})
    experiment = stage.experiment
    store = share_of(read_frame_store(experiment.alignment("train")), config.share, seed).to(stage.device)
    task = read_task(experiment.folder("alignment"), experiment.fbank("train"), stage.device, training.label_smoothing)
    if targets == "hard":
        objective = hard_labels(store, sizes.window, training.label_smoothing)
    else:
        task = task.taught_by(experiment.member(1))
        baseline = load_model(experiment.member(1))[0].to(stage.device)
        teacher = LiveTargets([baseline], SoftTargetsConfig(num_states=baseline.num_pdfs, precision=training.precision),
                              config.temperature)
        objective = soft_labels(
            store, sizes.window, lambda epoch: (Mixture(len(store), epoch if config.mixtures else 0), teacher),
            config.temperature, DistillationConfig(hard_label_weight=config.hard_label_weight),
            training.label_smoothing)
    train_new_models(task, sizes, [training_seed("regularized", seed, training.seed)], len(store), objective, training,
                     [experiment.regularized(targets, seed)])


def announce(stage: Stage, config: RegularizationConfig) -> None:
    """Says what all of them need, and sees that there is room on the disk."""
    sizes, training = stage.config(acoustic_model=AcousticModelConfig, soft_regularization_training=TrainingConfig)
    frames = read_frames(stage.experiment.alignment("train"), stage.experiment.states)
    few = replace(frames, num_frames=math.ceil(config.share * frames.num_frames))
    at_a_time = min(stage.model_jobs, 2 * config.num_seeds)
    of_trainings(few, sizes, training, 2 * config.num_seeds, at_a_time, live_members=1).announce(stage.out)


def main(stage: Stage) -> None:
    [config] = stage.config(regularization=RegularizationConfig)
    announce(stage, config)
    runs = [(stage, targets, seed) for targets in ("soft", "hard") for seed in range(1, config.num_seeds + 1)]
    for _ in parallel_map(train_on_share, runs, stage.model_jobs, "regularization"):
        pass


if __name__ == "__main__":
    run_step(main)
