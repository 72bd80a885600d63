"""What the training stages share: the stores, members, a finished model's folder."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from decant.distill.mixing import Mixture
from decant.distill.soft_targets import DistillationConfig, LiveTargets, SoftTargets
from decant.feat.fbank import read_fbank_config
from decant.files import atomic_path
from decant.nnet import data_parallel
from decant.nnet.acoustic_model import AcousticModel, AcousticModelConfig, load_model, log_priors, save_model
from decant.nnet.frame_store import FrameStore, read_frame_store
from decant.nnet.losses import distillation_loss, hard_label_loss, mixed_label_loss
from decant.nnet.training import Objective, TrainingConfig, train
from steps.common import Stage, logger

Lesson = tuple[Mixture, SoftTargets | LiveTargets]
SEEDS_APART = 1_000_000  # so that no two draws of the experiment share a member


def train_models(stage: Stage, alignment: Path, sizes: AcousticModelConfig, store: FrameStore, objective: Objective,
                 config: TrainingConfig, seeds: Sequence[int], folders: Sequence[Path]) -> None:
    """Trains a model of each seed on a store, several of them side by side, and writes each to its folder, unless they
    are there. alignment: where dev is, and the labels whose frequencies are the priors."""
    labels = [folder.name.removesuffix(".partial") for folder in folders]
    if all((folder / "model.safetensors").exists() for folder in folders):
        logger.info("%s: done before, kept", ", ".join(labels))
        (folders[0] / "checkpoint.safetensors").unlink(missing_ok=True)
        return
    data_parallel.wait()  # so that no process finds what another one has already written
    torch.set_num_threads(config.threads)
    dev = read_frame_store(alignment / "dev").to(stage.device)
    states = json.loads((alignment / "states.json").read_text())
    models = [AcousticModel(sizes, store.frames.shape[1], **states).initialize(seed).to(stage.device) for seed in seeds]
    logger.info("%s: training on %s, processes: %d", ", ".join(labels), stage.device, data_parallel.num_processes())
    histories = train(models, store, dev, objective, config, seeds, folders[0], labels)
    priors = log_priors(read_frame_store(alignment / "train").pdfs, models[0].num_pdfs)
    for model, history, folder in zip(models, histories, folders, strict=True):
        model.log_priors.copy_(priors)
        folder.mkdir(parents=True, exist_ok=True)
        if data_parallel.rank() == 0:
            with atomic_path(folder / "history.json") as path:
                path.write_text(json.dumps(history, indent=1) + "\n")
        save_model(folder, model, read_fbank_config(stage.exp / "fbank" / "train"))
    data_parallel.wait()  # until the models are written, the checkpoint is all there is
    (folders[0] / "checkpoint.safetensors").unlink(missing_ok=True)


def hard_labels(store: FrameStore, sizes: AcousticModelConfig, training: TrainingConfig) -> Objective:
    """A model learns the labels of a store."""
    def read(index: Tensor, epoch: int) -> tuple[Tensor, ...]:
        return store.windows(index, sizes.window), store.labels(index)

    def loss(model: Callable[[Tensor], Tensor], windows: Tensor, pdfs: Tensor) -> Tensor:
        return hard_label_loss(model(windows), pdfs, training.label_smoothing)

    return Objective(read, loss)


def soft_labels(store: FrameStore, sizes: AcousticModelConfig, lesson: Callable[[int], Lesson], temperature: float,
                config: DistillationConfig, training: TrainingConfig) -> Objective:
    """A student learns soft targets; lesson: an epoch's mixtures of the store's frames, and the targets on them."""
    lessons: dict[int, Lesson] = {}

    def read(index: Tensor, epoch: int) -> tuple[Tensor, ...]:
        if epoch not in lessons:
            lessons.clear()  # there is room for one
            lessons[epoch] = lesson(epoch)
        mixed, targets = lessons[epoch]
        windows = mixed.windows(store, index, sizes.window)
        return (windows, *targets.batch(index, windows), store.labels(index), store.labels(mixed.partner[index]),
                mixed.share[index])

    def loss(model: Callable[[Tensor], Tensor], windows: Tensor, states: Tensor, probabilities: Tensor, labels: Tensor,
             partners: Tensor, share: Tensor) -> Tensor:
        logits = model(windows)
        hard_loss = logits.new_zeros(())
        if config.hard_label_weight:
            hard_loss = mixed_label_loss(logits, labels, partners, share, training.label_smoothing)
        return distillation_loss(logits, states, probabilities, hard_loss, temperature, config.soft_target_weight,
                                 config.hard_label_weight)

    return Objective(read, loss)


def train_members(stage: Stage, numbers: Sequence[int], folders: Sequence[Path]) -> None:
    """Members of the ensemble (1 is the baseline), side by side: a member's number is its seed, and all that sets it
    apart."""
    sizes, config = stage.config(acoustic_model=AcousticModelConfig, training=TrainingConfig)
    store = read_frame_store(stage.exp / "alignment" / "train").to(stage.device)
    train_models(stage, stage.exp / "alignment", sizes, store, hard_labels(store, sizes, config), config,
                 [config.seed * SEEDS_APART + number for number in numbers], folders)


def member_folders(exp: Path, num_members: int) -> list[Path]:
    """The folders of all members, the baseline first."""
    return [exp / "baseline"] + [exp / "ensemble" / member_name(number) for number in range(2, num_members + 1)]


def member_name(number: int) -> str:
    return f"member_{number:02d}"


def load_models(folders: Sequence[Path], device: torch.device) -> list[AcousticModel]:
    return [load_model(folder)[0].to(device) for folder in folders]
