"""Checkpoints of a training: one safetensors file, replaced as a whole, from which it goes on bit for bit."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from decant.files import write_tensors


@dataclass
class TrainingState:
    """Where a training stands. step: steps done; history: a record an epoch; best: the weights of the epoch that was
    best on dev; epoch_loss: float64 scalar, the current epoch's loss summed over its frames so far."""

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    epoch_loss: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    epoch_seconds: float = 0.0


def save_checkpoint(directory: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState) -> None:
    """Writes weights, optimizer and position to `directory/checkpoint.safetensors`."""
    tensors = {f"model.{name}": x for name, x in model.state_dict().items()}
    tensors |= {f"best.{name}": x for name, x in state.best.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": x for name, x in moments.items()}
    tensors["epoch_loss"] = state.epoch_loss
    position = {"step": state.step, "history": state.history, "epoch_seconds": state.epoch_seconds}
    directory.mkdir(parents=True, exist_ok=True)
    write_tensors(directory / "checkpoint.safetensors", tensors, {"position": json.dumps(position)})


def load_checkpoint(directory: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState:
    """Puts a checkpoint's weights into model and optimizer and returns where it stands; a new state if there is none.

    Raises ValueError naming the file if it is damaged or of another model.
    """
    path = directory / "checkpoint.safetensors"
    if not path.exists():
        return TrainingState()
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    try:
        with safe_open(path, framework="pt") as file:
            position = json.loads(file.metadata()["position"])
            epoch_loss = file.get_tensor("epoch_loss")
            for name in file.keys():
                group, _, rest = name.partition(".")
                if group in groups:
                    groups[group][rest] = file.get_tensor(name)
        model.load_state_dict(groups["model"])
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path}: damaged, or of another model ({error}); remove it to train anew") from error
    states: dict[int, dict[str, Tensor]] = {}
    for name, x in groups["optimizer"].items():
        number, field_name = name.split(".")
        states.setdefault(int(number), {})[field_name] = x
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return TrainingState(position["step"], position["history"], groups["best"], epoch_loss, position["epoch_seconds"])
