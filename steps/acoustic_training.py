"""What the training stages share: the stores, a member, a finished model's folder."""

import json
from pathlib import Path

import torch

from decant.acoustic_model import AcousticModel, AcousticModelConfig, load_model, log_priors, save_model
from decant.fbank import read_fbank_config
from decant.files import atomic_path
from decant.frame_store import FrameStore, read_frame_store
from decant.losses import hard_label_loss
from decant.training import BatchLoss, TrainingConfig, train
from steps.common import Stage, logger

SEEDS_APART = 1_000_000  # so that no two draws of the experiment share a member


def train_model(stage: Stage, store: FrameStore, batch_loss: BatchLoss, config: TrainingConfig, seed: int,
                directory: Path) -> None:
    """Trains a model of the config's sizes on the store of stage 6 unless `directory` holds it already, and writes it
    there."""
    [sizes] = stage.config(acoustic_model=AcousticModelConfig)
    train_on(stage, stage.exp / "alignment", sizes, store, batch_loss, config, seed, directory)


def train_on(stage: Stage, alignment: Path, sizes: AcousticModelConfig, store: FrameStore, batch_loss: BatchLoss,
             config: TrainingConfig, seed: int, directory: Path) -> None:
    """The same for any sizes, and any folder of stores."""
    if (directory / "model.safetensors").exists():
        logger.info("%s: done before, kept", directory.name)
        (directory / "checkpoint.safetensors").unlink(missing_ok=True)
        return
    torch.set_num_threads(config.threads)
    dev = read_frame_store(alignment / "dev").to(stage.device)
    states = json.loads((alignment / "states.json").read_text())
    model = AcousticModel(sizes, store.frames.shape[1], **states).initialize(seed).to(stage.device)
    model.log_priors.copy_(log_priors(store.pdfs, model.num_pdfs))
    directory.mkdir(parents=True, exist_ok=True)
    history = train(model, store, dev, batch_loss, config, seed, directory, directory.name.removesuffix(".partial"))
    with atomic_path(directory / "history.json") as path:
        path.write_text(json.dumps(history, indent=1) + "\n")
    save_model(directory, model, read_fbank_config(stage.exp / "fbank" / "train"))
    (directory / "checkpoint.safetensors").unlink()


def hard_labels(store: FrameStore) -> BatchLoss:
    """The loss of a model that learns the labels of a store."""
    return lambda model, index, epoch: hard_label_loss(model(model.windows(store, index)), store.pdfs[index])


def train_member(stage: Stage, number: int, directory: Path) -> None:
    """Member `number` of the ensemble (1 is the baseline): its number is its seed, and all that sets it apart."""
    [config] = stage.config(training=TrainingConfig)
    store = read_frame_store(stage.exp / "alignment" / "train").to(stage.device)
    train_model(stage, store, hard_labels(store), config, config.seed * SEEDS_APART + number, directory)


def member_folders(exp: Path, num_members: int) -> list[Path]:
    """The folders of all members, the baseline first."""
    return [exp / "baseline"] + [exp / "ensemble" / member_name(number) for number in range(2, num_members + 1)]


def member_name(number: int) -> str:
    return f"member_{number:02d}"


def load_members(exp: Path, num_members: int, device: torch.device) -> list[AcousticModel]:
    return [load_model(folder)[0].to(device) for folder in member_folders(exp, num_members)]
