"""Stage 10: a student for each temperature; then, for the temperature whose student is best on dev, further seeds; then
further generations, if asked for, each taught by the students of the one before."""

import json
from pathlib import Path
from statistics import fmean

from decant.distill.ensemble import EnsembleConfig
from decant.distill.mixing import mixture, pass_of
from decant.distill.soft_targets import DistillationConfig, LiveTargets, SoftTargetsConfig, read_soft_targets
from decant.files import atomic_path
from decant.nnet import data_parallel
from decant.nnet.acoustic_model import AcousticModelConfig
from decant.nnet.frame_store import read_frame_store
from decant.nnet.training import TrainingConfig
from decant.parallel import parallel_map
from steps.acoustic_training import SEEDS_APART, Lesson, load_models, member_folders, soft_labels, train_models
from steps.common import Stage, logger, run_step
from steps.make_soft_targets import made_from, write_soft_targets
from steps.unlabelled import student_frames


def student_name(temperature: float, seed: int, generation: int) -> str:
    later = f"generation_{generation}_" if generation > 1 else ""
    return f"{later}temperature_{temperature:g}_seed_{seed}"


def targets_folder(stage: Stage, generation: int) -> Path:
    """Where the soft targets are that a generation learns."""
    return stage.exp / "soft_targets" if generation == 1 else stage.out / f"soft_targets_{generation}"


def train_student(stage: Stage, temperature: float, seed: int, generation: int, teachers: tuple[Path, ...],
                  source: dict) -> None:
    """teachers: the folders of the models that teach; source: what their soft targets are made from, if stored."""
    sizes, teaching, config, training = stage.config(
        acoustic_model=AcousticModelConfig, soft_targets=SoftTargetsConfig, distillation=DistillationConfig,
        student_training=TrainingConfig)
    store = read_frame_store(student_frames(stage, stage.exp / "soft_targets")).to(stage.device)
    live = [] if teaching.stored else load_models(teachers, stage.device)
    num_passes = teaching.num_passes if teaching.stored or teaching.num_passes == 1 else training.epochs

    def lesson(epoch: int) -> Lesson:
        number = pass_of(epoch, training.epochs, num_passes)
        targets = (read_soft_targets(targets_folder(stage, generation), number, temperature, source) if teaching.stored
                   else LiveTargets(live, teaching, temperature))
        return mixture(len(store), number), targets

    objective = soft_labels(store, sizes, lesson, temperature, config, training)
    # Seeds apart from the members' and earlier generations', so that no student begins with its teachers' weights.
    number = training.seed * SEEDS_APART + 10_000 * (generation - 1) + 1000 + seed
    train_models(stage, stage.exp / "alignment", sizes, store, objective, training, [number],
                 [stage.out / student_name(temperature, seed, generation)])


def best_dev_accuracy(folder: Path) -> float:
    return max(epoch["dev_frame_accuracy"] for epoch in json.loads((folder / "history.json").read_text()))


def ready_targets(stage: Stage, generation: int, teachers: tuple[Path, ...]) -> dict:
    """Sees that a generation's soft targets are there, and that stage 9's are whole; returns what they are made from.
    {}: none are stored."""
    [teaching] = stage.config(soft_targets=SoftTargetsConfig)
    if not teaching.stored:
        return {}
    folder, frames = targets_folder(stage, generation), student_frames(stage, stage.exp / "soft_targets")
    source = (made_from(stage, teachers, frames) if generation == 1 else
              write_soft_targets(stage, teachers, frames, folder))
    check = generation == 1 and data_parallel.rank() == 0  # later ones have just been written
    for number in range(teaching.num_passes):
        read_soft_targets(folder, number, teaching.temperatures[0], source, check)
    return source


def train_students(stage: Stage, runs: list[tuple[float, int]], generation: int, teachers: tuple[Path, ...],
                   source: dict) -> list[Path]:
    """Students of (temperature, seed) each, unless they are there; returns their folders."""
    tasks = [(stage, temperature, seed, generation, teachers, source) for temperature, seed in runs]
    for _ in parallel_map(train_student, tasks, stage.model_jobs, "students"):
        pass
    return [stage.out / student_name(temperature, seed, generation) for temperature, seed in runs]


def main(stage: Stage) -> None:
    teaching, config, ensemble = stage.config(soft_targets=SoftTargetsConfig, distillation=DistillationConfig,
                                              ensemble=EnsembleConfig)
    teachers = tuple(member_folders(stage.exp, ensemble.num_members))
    dev = {}
    for generation in range(1, config.generations + 1):
        source = ready_targets(stage, generation, teachers)
        if generation == 1:
            first = train_students(stage, [(t, 1) for t in teaching.temperatures], generation, teachers, source)
            by_temperature = dict(zip(teaching.temperatures, map(best_dev_accuracy, first), strict=True))
            temperature = max(by_temperature, key=by_temperature.__getitem__)
        runs = [(temperature, seed) for seed in range(1, config.num_seeds + 1)]
        teachers = tuple(train_students(stage, runs, generation, teachers, source))
        dev[generation] = fmean(map(best_dev_accuracy, teachers))
    chosen = max(dev, key=dev.__getitem__)
    for what, figures in (("temperature", by_temperature), ("generation", dev)):
        logger.info("dev frame accuracy by %s: %s", what,
                    ", ".join(f"{name:g}: {100 * accuracy:.2f}%" for name, accuracy in figures.items()))
    if data_parallel.rank() == 0:
        with atomic_path(stage.out / "chosen.json") as path:
            path.write_text(json.dumps({"temperature": temperature, "generation": chosen}))


if __name__ == "__main__":
    run_step(main)
