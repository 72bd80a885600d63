"""Checkpoints of a training: one safetensors file, replaced as a whole, from which it goes on bit for bit."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from decant.files import write_tensors
from decant.nnet import data_parallel


@dataclass
class TrainingState:
    """Where a training stands. step: steps done; histories: a list for each model, a record an epoch; best: the weights
    of the epochs that were best on dev; losses: two of each model: this epoch's, summed over its frames so far, and the
    first minibatch's."""

    step: int = 0
    histories: list[list[dict[str, float]]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    losses: list[list[float]] = field(default_factory=list)
    epoch_seconds: float = 0.0


NUMBERS = ("step", "histories", "losses", "epoch_seconds")  # all of it but the weights


def save_checkpoint(directory: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState) -> None:
    """Writes weights, optimizer and position to `directory/checkpoint.safetensors`.

    Weights are whole there, however many processes divide them (all of which have to call this; one writes), so that
    another number of processes can go on.
    """
    tensors = {f"model.{name}": x for name, x in model.state_dict().items()}
    tensors |= {f"best.{name}": x for name, x in state.best.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": x for name, x in moments.items()}
    for name, x in tensors.items():  # one after the other, and off the device: divided weights may not fit whole
        x = data_parallel.whole(x)
        tensors[name] = x.detach().cpu() if data_parallel.rank() == 0 else torch.empty(0)
    if data_parallel.rank() == 0:
        directory.mkdir(parents=True, exist_ok=True)
        position = {name: getattr(state, name) for name in NUMBERS}
        write_tensors(directory / "checkpoint.safetensors", tensors, {"position": json.dumps(position)})


def load_checkpoint(directory: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState:
    """Puts a checkpoint's weights into model and optimizer and returns where it stands; a new state if there is none.

    Raises ValueError naming the file if it is damaged or of another model.
    """
    path = directory / "checkpoint.safetensors"
    if not path.exists():
        return TrainingState()
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    own = model.state_dict()
    parameters = [x for group in optimizer.param_groups for x in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            position = json.loads(file.metadata()["position"])
            for name in file.keys():
                group, _, rest = name.partition(".")
                groups[group][rest] = file.get_tensor(name)
        for group in ("model", "best"):
            groups[group] = {name: data_parallel.divided_like(x, own[name]) for name, x in groups[group].items()}
        for name, x in groups["optimizer"].items():
            number, kind = name.split(".")
            like = parameters[int(number)]
            moments.setdefault(int(number), {})[kind] = data_parallel.divided_like(x, like) if x.ndim else x
        model.load_state_dict(groups["model"])
        state = TrainingState(**position, best=groups["best"])
    except (SafetensorError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged, of another model or of another decant ({error}); remove it to train "
                         "anew") from error
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return state
