"""The acoustic model: a window of frames to a distribution over HMM states (paper, section 4).

The letters: M models, B batch, W frames of a window, F features of a frame, S pdf-ids.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tomli_w
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from decant.feat.fbank import FbankConfig
from decant.files import atomic_path, write_tensors
from decant.nnet import data_parallel
from decant.settings import config_field

NOT_SIZES = ("num_bins", "num_pdfs", "tree", "features")  # what a model has beyond its config


@dataclass(frozen=True)
class AcousticModelConfig:
    """The size of a network: its window of frames, its layers."""

    left_context: int = config_field(20, "Frames before the one whose state is predicted.", paper=20)
    right_context: int = config_field(5, "Frames after it: the look-ahead, 50 ms for 5.", paper=5)
    frame_step: int = config_field(1, "The network sees one in so many of these frames.", paper=1)
    hidden_layers: int = config_field(4, "Layers of rectified linear units.", paper=8)
    hidden_units: int = config_field(512, "Units of each layer.", paper=2560)
    residual: bool = config_field(False, "Each hidden layer but the first adds to its normalised input.", paper=False)

    def __post_init__(self) -> None:
        if min(self.left_context, self.right_context) < 0 or min(self.hidden_layers, self.hidden_units) < 1:
            raise ValueError("contexts may not be negative, and there has to be a hidden layer with a unit")
        if self.frame_step < 1 or self.left_context % self.frame_step:
            raise ValueError(f"frame_step is {self.frame_step}; it has to divide left_context ({self.left_context}), "
                             "so that the frame itself is seen")

    @property
    def window(self) -> range:
        """The frames that the network sees, counted from the one whose state it predicts."""
        return range(-self.left_context, self.right_context + 1, self.frame_step)


class ResidualLayer(nn.Module):
    """x + relu(linear(normalised x)), of as many units as x has (He et al. 2016; normalised before, Xiong et al. 2020).
    """

    def __init__(self, units: int):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(units), nn.Linear(units, units)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(self.norm(x)).relu()


class AcousticModel(nn.Module):
    """Rectified linear units over the window, and a linear layer to the logits of the pdf-ids.

    `log_priors` (float32 [S]) are what it predicts on average in training, for scaled likelihoods; `tree` is the
    fingerprint of the decision tree whose pdf-ids it predicts, `features` what its frames are (FramesConfig).
    """

    log_priors: Tensor

    def __init__(self, config: AcousticModelConfig, num_bins: int, num_pdfs: int, tree: str = "",
                 features: str = "fbank") -> None:
        super().__init__()
        self.config, self.num_bins, self.num_pdfs, self.tree, self.features = config, num_bins, num_pdfs, tree, features
        units = config.hidden_units
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(len(config.window) * num_bins, units), nn.ReLU()]
        for _ in range(config.hidden_layers - 1):
            layers += [ResidualLayer(units)] if config.residual else [nn.Linear(units, units), nn.ReLU()]
        if config.residual:
            layers.append(nn.LayerNorm(units))
        self.layers = nn.Sequential(*layers, nn.Linear(units, num_pdfs))
        self.register_buffer("log_priors", torch.zeros(num_pdfs))

    def initialize(self, seed: int) -> "AcousticModel":
        """Random weights after He et al. (2015), which keep the variance through rectified units; zero biases."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.layers[-1].get_parameter("weight"))  # the first prediction is uniform
        return self

    def forward(self, windows: Tensor) -> Tensor:
        """Logits [B, S], on the model's device, of windows [B, W, F], float16 or float32 on any: float32, or under
        autocast what the layers compute in, for the losses to look at in float32 (decant.nnet.losses)."""
        return self.layers(windows.to(self.log_priors.device).float())


class SideBySide(nn.Module):
    """M models of one architecture as one, whose weights have a leading axis: a matrix product for all of them a layer,
    where a small model's own would leave most of a GPU idle. Under autocast biases are added in float32 here, in the
    products' precision in a model by itself."""

    def __init__(self, models: Sequence[AcousticModel]):
        super().__init__()
        self.config, self.num_models = models[0].config, len(models)
        self.one = [models[0]]  # for what it computes; in a list, so that its weights are not among these
        weights, _ = stack_module_state(list(models))
        self.names, self.weights = list(weights), nn.ParameterList(weights.values())

    def forward(self, windows: Tensor) -> Tensor:
        """Logits [M, B, S] of each model's own windows [M, B, W, F]."""
        def one(weights: dict[str, Tensor], own: Tensor) -> Tensor:
            return functional_call(self.one[0], weights, own)

        return vmap(one)(dict(zip(self.names, self.weights, strict=True)), windows)

    def copy_to(self, models: Sequence[AcousticModel]) -> None:
        """Gives the models their weights back."""
        for number, model in enumerate(models):
            model.load_state_dict({name: weight[number] for name, weight in zip(self.names, self.weights, strict=True)},
                                  strict=False)


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def log_priors(pdfs: Tensor, num_pdfs: int, smoothing: float = 0.0) -> Tensor:
    """Log of what a network's distribution is on average after training: the labels' relative frequencies, of which
    label smoothing has given all states their part evenly; float32 [S]. A state that never occurs counts as half a
    frame.

    With the plain frequencies a rare state, whose posterior is never below its part, would be likely in every frame.
    """
    parts = pdfs.split(2**24)  # each takes memory by itself
    counts = torch.stack([torch.bincount(part, minlength=num_pdfs) for part in parts]).sum(dim=0)
    counts = counts.double().clamp(min=0.5)
    return ((1 - smoothing) * counts / counts.sum() + smoothing / num_pdfs).log().float()


def save_model(directory: Path, model: AcousticModel, features: FbankConfig) -> None:
    """Writes `model.safetensors` (weights and priors) and `config.toml` (sizes and feature settings); of several
    processes that train, all have to call this, and one writes."""
    weights = {name: data_parallel.whole(x) for name, x in model.state_dict().items()}
    if data_parallel.rank() > 0:
        return
    directory.mkdir(parents=True, exist_ok=True)
    settings = {"acoustic_model": asdict(model.config) | {name: getattr(model, name) for name in NOT_SIZES},
                "fbank": asdict(features)}
    with atomic_path(directory / "config.toml") as path:
        path.write_text(tomli_w.dumps(settings), encoding="utf-8")
    write_tensors(directory / "model.safetensors", weights)


def load_model(directory: Path) -> tuple[AcousticModel, FbankConfig]:
    """Reads what `save_model` wrote. Raises FileNotFoundError or ValueError naming the folder."""
    if not (directory / "model.safetensors").exists():
        raise FileNotFoundError(f"{directory}: no model.safetensors here; run the stage that trains it")
    try:
        settings = tomllib.loads((directory / "config.toml").read_text(encoding="utf-8"))
        others = [settings["acoustic_model"].pop(name) for name in NOT_SIZES]
        features = FbankConfig(**settings["fbank"])
        model = AcousticModel(AcousticModelConfig(**settings["acoustic_model"]), *others)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{directory}: config.toml is damaged or of an older decant ({error!r}); train "
                         "again") from error
    try:
        model.load_state_dict(load_file(directory / "model.safetensors"))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{directory}: model.safetensors is damaged or does not fit config.toml: {error}") from error
    return model.eval(), features
