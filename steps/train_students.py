"""Stage 10: a student for each temperature; then, for the temperature whose student is best on dev, further seeds; then
further generations, if asked for, each taught by the students of the one before."""

import json
from pathlib import Path
from statistics import fmean

from decant.distill.ensemble import EnsembleConfig
from decant.distill.needs import of_students, read_frames
from decant.distill.soft_targets import DistillationConfig, SoftTargetsConfig, read_soft_targets
from decant.experiment import Run
from decant.files import atomic_path
from decant.nnet import data_parallel
from decant.nnet.acoustic_model import AcousticModelConfig
from decant.nnet.model_training import best_dev_accuracy
from decant.nnet.training import TrainingConfig
from decant.parallel import parallel_map
from steps.make_soft_targets import sources, write_soft_targets
from steps.stage_program import Stage, logger, run_step
from steps.train_student import train_student


def ready_targets(stage: Stage, generation: int, teachers: tuple[Path, ...]) -> dict:
    """Sees that a generation's soft targets are there, and that stage 9's are whole; returns what they are made from.
    {}: none are stored."""
    [teaching] = stage.config(soft_targets=SoftTargetsConfig)
    if not teaching.stored:
        return {}
    source = sources(stage, teachers) if generation == 1 else write_soft_targets(stage, teachers, generation)
    check = generation == 1 and data_parallel.rank() == 0  # later ones have just been written
    for number in range(teaching.passes(source["num_frames"])):
        read_soft_targets(stage.experiment.soft_targets(generation), number, teaching.temperatures[0], source, check)
    return source


def train_students(stage: Stage, runs: list[Run], teachers: tuple[Path, ...], source: dict) -> list[Path]:
    """Students, unless they are there; returns their folders."""
    tasks = [(stage, run, teachers, source) for run in runs]
    for _ in parallel_map(train_student, tasks, stage.model_jobs, "students"):
        pass
    return [stage.experiment.student(run) for run in runs]


def announce(stage: Stage) -> None:
    """Says what all students need, and sees that there is room on the disk."""
    sizes, teaching, config, training, ensemble = stage.config(
        acoustic_model=AcousticModelConfig, soft_targets=SoftTargetsConfig, distillation=DistillationConfig,
        student_training=TrainingConfig, ensemble=EnsembleConfig)
    frames = read_frames(stage.experiment.student_frames(bool(teaching.unlabelled)), stage.experiment.states)
    of_students(frames, sizes, training, teaching, config, ensemble.num_members, stage.model_jobs).announce(stage.out)


def main(stage: Stage) -> None:
    announce(stage)
    teaching, config, ensemble = stage.config(soft_targets=SoftTargetsConfig, distillation=DistillationConfig,
                                              ensemble=EnsembleConfig)
    teachers = tuple(stage.experiment.members(ensemble.num_members))
    dev = {}
    for generation in range(1, config.generations + 1):
        source = ready_targets(stage, generation, teachers)
        if generation == 1:
            first = [Run("student", temperature, 1, 1) for temperature in teaching.temperatures]
            accuracies = map(best_dev_accuracy, train_students(stage, first, teachers, source))
            by_temperature = dict(zip(teaching.temperatures, accuracies, strict=True))
            temperature = max(by_temperature, key=by_temperature.__getitem__)
        runs = [Run("student", temperature, generation, seed) for seed in range(1, config.num_seeds + 1)]
        teachers = tuple(train_students(stage, runs, teachers, source))
        dev[generation] = fmean(map(best_dev_accuracy, teachers))
    chosen = max(dev, key=dev.__getitem__)
    for what, figures in (("temperature", by_temperature), ("generation", dev)):
        logger.info("dev frame accuracy by %s: %s", what,
                    ", ".join(f"{name:g}: {100 * accuracy:.2f}%" for name, accuracy in figures.items()))
    if data_parallel.rank() == 0:
        with atomic_path(stage.experiment.chosen_student) as path:
            path.write_text(json.dumps({"temperature": temperature, "generation": chosen}))


if __name__ == "__main__":
    run_step(main)
