"""Soft targets as regularisers (paper, section 6): a network learns the hard labels of a small share of the data by
heart; the soft targets of one that saw all of it, on the same share, teach it most of what that one knows."""

from dataclasses import dataclass

import torch

from decant.feat.data_dir import original_id
from decant.nnet.frame_store import FrameStore
from decant.nnet.training import TrainingConfig
from decant.settings import config_field


@dataclass(frozen=True)
class RegularizationConfig:
    """Soft targets as regularisers, on a small share of the data (paper, section 6)."""

    share: float = config_field(0.03, "Share of the training utterances, above 0 and below 1.", paper=0.03)
    temperature: float = config_field(5.0, "Temperature of the soft targets, which are the baseline's.")
    hard_label_weight: float = config_field(0.0, "Weight of the hard labels' cross-entropy beside them.")
    mixtures: bool = config_field(
        True, "Soft targets on mixtures of two frames, new ones every epoch (decant/distill/mixing.py).", paper=False)
    num_seeds: int = config_field(3, "Draws of the utterances, with a network each.")

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.temperature <= 0:
            raise ValueError(f"share is {self.share}, temperature {self.temperature}; a share is above 0 and below 1, "
                             "a temperature above 0")
        if self.hard_label_weight < 0 or self.num_seeds < 1:
            raise ValueError("hard_label_weight may not be negative, and num_seeds has to be at least 1")


@dataclass(frozen=True)
class HardRegularizationConfig(TrainingConfig):
    """The training of networks by the hard labels of a small share of the data."""

    epochs: int = config_field(10, "Passes over these frames; the best on dev is kept: early stopping.")
    batch_size: int = 64
    learning_rate: float = 5e-4


@dataclass(frozen=True)
class SoftRegularizationConfig(TrainingConfig):
    """The training of networks by soft targets on a small share of the data."""

    epochs: int = config_field(60, "Passes over these few frames; networks go on improving.")
    dev_epochs: int = 5  # dev may have more frames than they are
    batch_size: int = 256
    learning_rate: float = 4e-3


def share_of(store: FrameStore, share: float, seed: int) -> FrameStore:
    """A random share of a store's utterances, at least one, drawn anew for every seed; and their copies."""
    names = set(store.utterances)
    copies: dict[str, list[int]] = {}
    for number, utterance in enumerate(store.utterances):
        original = original_id(utterance)
        copies.setdefault(original if original in names else utterance, []).append(number)
    groups = list(copies.values())
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))
    drawn = order[:max(1, round(share * len(order)))].tolist()
    return store.select(sorted(number for at in drawn for number in groups[at]))
