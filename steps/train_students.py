"""Stage 10: a student for each temperature; then, for the temperature whose student is best on dev, further seeds."""

import json
from pathlib import Path

from decant import data_parallel
from decant.acoustic_model import AcousticModelConfig
from decant.ensemble import EnsembleConfig
from decant.files import atomic_path
from decant.frame_store import read_frame_store
from decant.mixing import mixture
from decant.parallel import parallel_map
from decant.soft_targets import DistillationConfig, LiveTargets, SoftTargetsConfig, origin, read_soft_targets
from decant.training import TrainingConfig
from steps.acoustic_training import SEEDS_APART, Lesson, load_members, soft_labels, train_models
from steps.common import Stage, logger, run_step


def student_name(temperature: float, seed: int) -> str:
    return f"temperature_{temperature:g}_seed_{seed}"


def train_student(stage: Stage, temperature: float, seed: int, made_from: dict) -> None:
    sizes, ensemble, teaching, config, training = stage.config(
        acoustic_model=AcousticModelConfig, ensemble=EnsembleConfig, soft_targets=SoftTargetsConfig,
        distillation=DistillationConfig, student_training=TrainingConfig)
    store = read_frame_store(stage.exp / "alignment" / "train").to(stage.device)
    members = [] if teaching.stored else load_members(stage.exp, ensemble.num_members, stage.device)
    num_passes = teaching.num_passes if teaching.stored or teaching.num_passes == 1 else training.epochs

    def lesson(epoch: int) -> Lesson:
        number = epoch % num_passes
        targets = (read_soft_targets(stage.exp / "soft_targets", number, temperature, made_from) if teaching.stored
                   else LiveTargets(members, teaching, temperature))
        return mixture(len(store), number, stage.device), targets

    batch_loss = soft_labels(store, sizes, lesson, temperature, config)
    # Seeds apart from the members', so that no student begins with a member's weights.
    train_models(stage, stage.exp / "alignment", sizes, store, batch_loss, training,
                 [training.seed * SEEDS_APART + 1000 + seed], [stage.out / student_name(temperature, seed)])


def best_dev_accuracy(folder: Path) -> float:
    return max(epoch["dev_frame_accuracy"] for epoch in json.loads((folder / "history.json").read_text()))


def main(stage: Stage) -> None:
    teaching, config, ensemble = stage.config(soft_targets=SoftTargetsConfig, distillation=DistillationConfig,
                                              ensemble=EnsembleConfig)
    made_from = {}
    if teaching.stored:
        made_from = origin(load_members(stage.exp, ensemble.num_members, stage.device),
                           read_frame_store(stage.exp / "alignment" / "train"), teaching)
        for number in range(teaching.num_passes):
            read_soft_targets(stage.exp / "soft_targets", number, teaching.temperatures[0], made_from,
                              check=data_parallel.rank() == 0)
    first = [(stage, t, 1, made_from) for t in teaching.temperatures]
    for _ in parallel_map(train_student, first, stage.model_jobs, "students"):
        pass
    dev = {t: best_dev_accuracy(stage.out / student_name(t, 1)) for t in teaching.temperatures}
    chosen = max(teaching.temperatures, key=lambda t: dev[t])
    logger.info("dev frame accuracy by temperature: %s; chosen: %g",
                ", ".join(f"{t:g}: {100 * accuracy:.2f}%" for t, accuracy in dev.items()), chosen)
    if data_parallel.rank() == 0:
        with atomic_path(stage.out / "chosen.json") as path:
            path.write_text(json.dumps({"temperature": chosen, "dev_frame_accuracy": {f"{t:g}": dev[t] for t in dev}}))
    further = [(stage, chosen, seed, made_from) for seed in range(2, config.num_seeds + 1)]
    for _ in parallel_map(train_student, further, stage.model_jobs, "students"):
        pass


if __name__ == "__main__":
    run_step(main)
