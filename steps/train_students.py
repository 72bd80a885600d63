"""Stage 10: a student for each temperature; then, for the temperature whose student is best on dev, further seeds."""

import json
from pathlib import Path

from torch import Tensor

from decant.acoustic_model import AcousticModel
from decant.files import atomic_path
from decant.frame_store import read_frame_store
from decant.losses import distillation_loss
from decant.parallel import parallel_map
from decant.soft_targets import DistillationConfig, read_soft_targets
from decant.training import TrainingConfig
from steps.acoustic_training import train_model
from steps.common import Stage, logger, run_step


def student_name(temperature: float, seed: int) -> str:
    return f"temperature_{temperature:g}_seed_{seed}"


def train_student(stage: Stage, temperature: float, seed: int) -> None:
    config, training = stage.config(distillation=DistillationConfig, student_training=TrainingConfig)
    store = read_frame_store(stage.exp / "alignment" / "train").to(stage.device)
    targets = read_soft_targets(stage.exp / "soft_targets", temperature, len(store))

    def batch_loss(model: AcousticModel, index: Tensor, epoch: int) -> Tensor:
        return distillation_loss(model(model.windows(store, index)), targets[index.cpu()].to(index.device).float(),
                                 store.pdfs[index], temperature, config.hard_label_weight)

    # Seeds apart from the members', so that no student begins with a member's weights.
    train_model(stage, store, batch_loss, training, training.seed + 1000 + seed,
                stage.out / student_name(temperature, seed))


def best_dev_accuracy(folder: Path) -> float:
    return max(epoch["dev_frame_accuracy"] for epoch in json.loads((folder / "history.json").read_text()))


def main(stage: Stage) -> None:
    [config] = stage.config(distillation=DistillationConfig)
    for _ in parallel_map(train_student, [(stage, t, 1) for t in config.temperatures], stage.model_jobs, "students"):
        pass
    dev = {t: best_dev_accuracy(stage.out / student_name(t, 1)) for t in config.temperatures}
    chosen = max(config.temperatures, key=lambda t: dev[t])
    logger.info("dev frame accuracy by temperature: %s; chosen: %g",
                ", ".join(f"{t:g}: {100 * accuracy:.2f}%" for t, accuracy in dev.items()), chosen)
    with atomic_path(stage.out / "chosen.json") as path:
        path.write_text(json.dumps({"temperature": chosen, "dev_frame_accuracy": {f"{t:g}": dev[t] for t in dev}}))
    further = [(stage, chosen, seed) for seed in range(2, config.num_seeds + 1)]
    for _ in parallel_map(train_student, further, stage.model_jobs, "students"):
        pass


if __name__ == "__main__":
    run_step(main)
