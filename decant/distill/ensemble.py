"""The ensemble: models of one architecture and procedure that differ in their random seed alone (paper, section 4).

The letters: B batch, W frames of a window, F features of a frame, S pdf-ids.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decant.nnet.acoustic_model import AcousticModel
from decant.settings import config_field


@dataclass(frozen=True)
class EnsembleConfig:
    """The ensemble: how many networks, and how they are trained together."""

    num_members: int = config_field(10, "Networks, the baseline among them.", paper=10)
    side_by_side: int = config_field(
        1, "Members trained in one batched matrix product, for small ones on a GPU; 1: as separate jobs.",
        changes="rounding")

    def __post_init__(self) -> None:
        if self.num_members < 2:
            raise ValueError(f"num_members is {self.num_members}; an ensemble has at least 2")
        if self.side_by_side < 1:
            raise ValueError(f"side_by_side is {self.side_by_side}; it has to be at least 1")


TEACHERS = ("arithmetic", "geometric")


@torch.inference_mode()
def ensemble_logits(members: Sequence[AcousticModel], windows: Tensor, teacher: str = "arithmetic") -> Tensor:
    """The ensemble's logits, float32 [B, S], of windows [B, W, F]: their softmax is the members' mean distribution.

    arithmetic: the log of the mean of the members' distributions (of a single member: its own); geometric: the mean of
    their logits, so that the softmax is the geometric mean, renormalised (paper, section 2: either). Divided by a
    temperature they give soft targets; the geometric ones are then the mean of the members' softened distributions
    too, the arithmetic ones are the mean, softened.
    """
    total = members[0](windows).float().log_softmax(dim=1)
    for member in members[1:]:  # one at a time: ten members' logits of 14,000 states are large
        logs = member(windows).float().log_softmax(dim=1)
        total = total + logs if teacher == "geometric" else torch.logaddexp(total, logs)
    return total / len(members) if teacher == "geometric" else total - math.log(len(members))
