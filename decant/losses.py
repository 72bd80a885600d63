"""The losses of the paper (section 2), as functions of logits.

The letters: B batch, S pdf-ids.
"""

from torch import Tensor
from torch.nn import functional as F


def hard_label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy, in nats, of logits [B, S] with the aligned states (int64 [B]): a scalar."""
    return F.cross_entropy(logits, labels)


def soft_target_loss(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of the softened student, softmax(z / temperature), with soft targets, times temperature^2.

    logits: [B, S]; targets: probabilities [B, S] at the same temperature. The gradient of the bare cross-entropy
    shrinks as 1 / temperature^2 (paper, section 2.1); the factor keeps it on the scale of the hard labels' gradient.
    """
    return F.cross_entropy(logits / temperature, targets) * temperature**2


def mixed_label_loss(logits: Tensor, labels: Tensor, partner_labels: Tensor, share: Tensor) -> Tensor:
    """`hard_label_loss` for a mixture of two frames: each one's cross-entropy, weighted by its share (float32 [B])."""
    own = F.cross_entropy(logits, labels, reduction="none")
    return (share * own + (1 - share) * F.cross_entropy(logits, partner_labels, reduction="none")).mean()


def distillation_loss(logits: Tensor, targets: Tensor, hard_loss: Tensor, temperature: float,
                      soft_target_weight: float = 1.0, hard_label_weight: float = 0.5) -> Tensor:
    """The student's loss (paper, sections 2 and 4): soft targets at `temperature`, and with a smaller weight (0.5 in
    the paper's speech system) the hard labels' cross-entropy at temperature 1."""
    return soft_target_weight * soft_target_loss(logits, targets, temperature) + hard_label_weight * hard_loss
