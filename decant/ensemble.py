"""The ensemble: models of one architecture and procedure that differ in their random seed alone (paper, section 4).

The letters: B batch, W frames of a window, F features of a frame, S pdf-ids.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decant.acoustic_model import AcousticModel


@dataclass(frozen=True)
class EnsembleConfig:
    num_members: int = 10  # models, the baseline among them (paper: 10)

    def __post_init__(self) -> None:
        if self.num_members < 2:
            raise ValueError(f"num_members is {self.num_members}; an ensemble has at least 2")


@torch.inference_mode()
def mean_probabilities(members: Sequence[AcousticModel], windows: Tensor,
                       temperatures: Sequence[float]) -> list[Tensor]:
    """The arithmetic mean of the members' distributions softmax(z / temperature), for each of `temperatures`.

    windows: [B, W, F]; returns float32 [B, S] each. At temperature 1 this is the ensemble's prediction. (The other
    choice, the geometric mean, is the softmax of the mean logits; the paper averages predictions.)
    """
    totals = [windows.new_zeros(len(windows), members[0].num_pdfs) for _ in temperatures]
    for member in members:
        logits = member(windows)
        for total, temperature in zip(totals, temperatures, strict=True):
            total += (logits / temperature).softmax(dim=1)
    return [total / len(members) for total in totals]


@torch.inference_mode()
def log_posteriors(members: Sequence[AcousticModel], windows: Tensor) -> Tensor:
    """The log of the members' mean distribution at temperature 1: float32 [B, S]; a single model's own for one."""
    logs = torch.stack([member(windows).log_softmax(dim=1) for member in members])
    return logs.logsumexp(dim=0) - math.log(len(members))
