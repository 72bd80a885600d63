"""Stage 10: a student for each temperature; then, for the temperature whose student is best on dev, further seeds."""

import json
from pathlib import Path

from torch import Tensor

from decant.acoustic_model import AcousticModel
from decant.files import atomic_path
from decant.frame_store import read_frame_store
from decant.losses import distillation_loss, mixed_label_loss
from decant.mixing import mixture
from decant.parallel import parallel_map
from decant.soft_targets import DistillationConfig, SoftTargetsConfig, read_soft_targets
from decant.training import TrainingConfig
from steps.acoustic_training import SEEDS_APART, train_model
from steps.common import Stage, logger, run_step


def student_name(temperature: float, seed: int) -> str:
    return f"temperature_{temperature:g}_seed_{seed}"


def train_student(stage: Stage, temperature: float, seed: int) -> None:
    teaching, config, training = stage.config(soft_targets=SoftTargetsConfig, distillation=DistillationConfig,
                                              student_training=TrainingConfig)
    store = read_frame_store(stage.exp / "alignment" / "train").to(stage.device)
    passes = [(mixture(len(store), number, stage.device),
               read_soft_targets(stage.exp / "soft_targets", number, temperature, len(store)))
              for number in range(teaching.num_passes)]

    def batch_loss(model: AcousticModel, index: Tensor, epoch: int) -> Tensor:
        mixed, targets = passes[epoch % len(passes)]
        logits = model(mixed.windows(store, index, model.config.left_context, model.config.right_context))
        hard_loss = mixed_label_loss(logits, store.pdfs[index], store.pdfs[mixed.partner[index]], mixed.share[index])
        soft = targets[index.cpu()].to(stage.device).float()
        return distillation_loss(logits, soft, hard_loss, temperature, config.soft_target_weight,
                                 config.hard_label_weight)

    # Seeds apart from the members', so that no student begins with a member's weights.
    train_model(stage, store, batch_loss, training, training.seed * SEEDS_APART + 1000 + seed,
                stage.out / student_name(temperature, seed))


def best_dev_accuracy(folder: Path) -> float:
    return max(epoch["dev_frame_accuracy"] for epoch in json.loads((folder / "history.json").read_text()))


def main(stage: Stage) -> None:
    teaching, config = stage.config(soft_targets=SoftTargetsConfig, distillation=DistillationConfig)
    for _ in parallel_map(train_student, [(stage, t, 1) for t in teaching.temperatures], stage.model_jobs, "students"):
        pass
    dev = {t: best_dev_accuracy(stage.out / student_name(t, 1)) for t in teaching.temperatures}
    chosen = max(teaching.temperatures, key=lambda t: dev[t])
    logger.info("dev frame accuracy by temperature: %s; chosen: %g",
                ", ".join(f"{t:g}: {100 * accuracy:.2f}%" for t, accuracy in dev.items()), chosen)
    with atomic_path(stage.out / "chosen.json") as path:
        path.write_text(json.dumps({"temperature": chosen, "dev_frame_accuracy": {f"{t:g}": dev[t] for t in dev}}))
    further = [(stage, chosen, seed) for seed in range(2, config.num_seeds + 1)]
    for _ in parallel_map(train_student, further, stage.model_jobs, "students"):
        pass


if __name__ == "__main__":
    run_step(main)
