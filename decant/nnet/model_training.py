"""Trained networks as folders: what they are trained for, and their training unless it is done."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from decant.feat.fbank import FbankConfig, read_fbank_config
from decant.files import atomic_path
from decant.nnet import data_parallel
from decant.nnet.acoustic_model import AcousticModel, AcousticModelConfig, load_model, log_priors, save_model
from decant.nnet.frame_store import FrameStore, read_frame_store
from decant.nnet.minibatches import FrameOrder, Shuffled
from decant.nnet.objectives import Objective
from decant.nnet.training import TrainingConfig, train

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetworkTask:
    """What the networks of an experiment are for: frames of a kind to the states of a tree. dev: judges their epochs.
    states: AcousticModel's num_pdfs, tree and features. log_priors: the models', float32 [S]."""

    dev: FrameStore
    states: dict
    log_priors: Tensor
    fbank: FbankConfig

    def new_model(self, sizes: AcousticModelConfig, seed: int) -> AcousticModel:
        """A model with random weights, where dev is."""
        return AcousticModel(sizes, self.dev.frames.shape[1], **self.states).initialize(seed).to(self.dev.device)

    def taught_by(self, teacher: Path) -> "NetworkTask":
        """The same for students, who predict on average what a teacher does. teacher: its folder."""
        return replace(self, log_priors=load_model(teacher)[0].log_priors)


def read_task(alignment: Path, fbank: Path, device: torch.device, smoothing: float = 0.0) -> NetworkTask:
    """The task of stage 6's folder; fbank: the feature folder of train; smoothing: of the labels."""
    states = json.loads((alignment / "states.json").read_text())
    pdfs = read_frame_store(alignment / "train").pdfs
    return NetworkTask(read_frame_store(alignment / "dev").to(device), states,
                       log_priors(pdfs, states["num_pdfs"], smoothing), read_fbank_config(fbank))


def train_new_models(task: NetworkTask, sizes: AcousticModelConfig, seeds: Sequence[int], num_frames: int,
                     objective: Objective, config: TrainingConfig, folders: Sequence[Path]) -> None:
    """`train_models` from random weights, on all frames in a random order, both by each model's seed."""
    train_models(task, [task.new_model(sizes, seed) for seed in seeds],
                 [Shuffled(num_frames, seed, config.shuffle_frames) for seed in seeds], objective, config, folders)


def train_models(task: NetworkTask, models: Sequence[AcousticModel], orders: Sequence[FrameOrder],
                 objective: Objective, config: TrainingConfig, folders: Sequence[Path]) -> None:
    """Trains models from the weights that they have, several of them side by side, and writes each to its folder,
    unless they are there. orders: in which each sees its frames."""
    labels = [folder.name.removesuffix(".partial") for folder in folders]
    if all((folder / "model.safetensors").exists() for folder in folders):
        log.info("%s: done before, kept", ", ".join(labels))
        (folders[0] / "checkpoint.safetensors").unlink(missing_ok=True)
        return
    data_parallel.wait()  # so that no process finds what another one has already written
    torch.set_num_threads(config.threads)
    log.info("%s: training on %s, processes: %d", ", ".join(labels), task.dev.device, data_parallel.num_processes())
    histories = train(models, orders, task.dev, objective, config, folders[0], labels)
    for model, history, folder in zip(models, histories, folders, strict=True):
        model.log_priors.copy_(task.log_priors)
        folder.mkdir(parents=True, exist_ok=True)
        if data_parallel.rank() == 0:
            with atomic_path(folder / "history.json") as path:
                path.write_text(json.dumps(history, indent=1) + "\n")
        save_model(folder, model, task.fbank)
    data_parallel.wait()  # until the models are written, the checkpoint is all there is
    (folders[0] / "checkpoint.safetensors").unlink(missing_ok=True)


def load_models(folders: Sequence[Path], device: torch.device) -> list[AcousticModel]:
    return [load_model(folder)[0].to(device) for folder in folders]


def best_dev_accuracy(folder: Path) -> float:
    """The frame accuracy on dev of the epoch whose weights a model kept."""
    return max(epoch["dev_frame_accuracy"] for epoch in json.loads((folder / "history.json").read_text()))
