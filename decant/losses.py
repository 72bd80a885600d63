"""The losses of the paper (section 2), as functions of logits.

The letters: B batch, S pdf-ids, K of them with targets of their own.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LOG_OF_NOTHING = -1e4  # finite: the gradient of a sum of nothing but -inf would be NaN


def hard_label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy, in nats, of logits [..., B, S] with the aligned states (int64 [..., B]): [...], which is a
    scalar where one model speaks."""
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape).mean(dim=-1)


def soft_target_loss(logits: Tensor, states: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of the softened student, softmax(z / temperature), with soft targets, times temperature^2.

    logits: [B, S]; states: the states that have a target of their own, int64 [B, K]; targets: their probabilities at
    the same temperature, and that of all other states together, [B, K + 1]. The gradient of the bare cross-entropy
    shrinks as 1 / temperature^2 (paper, section 2.1); the factor keeps it on the scale of the hard labels' gradient.
    """
    return F.cross_entropy(kept_state_logits(logits / temperature, states), targets) * temperature**2


def kept_state_logits(logits: Tensor, states: Tensor) -> Tensor:
    """Logits [B, K + 1] of the kept `states` (int64 [B, K]) and of all others together, of logits [B, S]: their softmax
    gives the kept states what they had, and the last the sum of the others."""
    others = logits.scatter(1, states, LOG_OF_NOTHING).logsumexp(dim=1, keepdim=True)
    return torch.cat([logits.gather(1, states), others], dim=1)


def mixed_label_loss(logits: Tensor, labels: Tensor, partner_labels: Tensor, share: Tensor) -> Tensor:
    """`hard_label_loss` for a mixture of two frames: each one's cross-entropy, weighted by its share (float32 [B])."""
    own = F.cross_entropy(logits, labels, reduction="none")
    return (share * own + (1 - share) * F.cross_entropy(logits, partner_labels, reduction="none")).mean()


def distillation_loss(logits: Tensor, states: Tensor, targets: Tensor, hard_loss: Tensor, temperature: float,
                      soft_target_weight: float = 1.0, hard_label_weight: float = 0.5) -> Tensor:
    """The student's loss (paper, sections 2 and 4): soft targets at `temperature`, and with a smaller weight (0.5 in
    the paper's speech system) the hard labels' cross-entropy at temperature 1."""
    soft_loss = soft_target_loss(logits, states, targets, temperature)
    return soft_target_weight * soft_loss + hard_label_weight * hard_loss
