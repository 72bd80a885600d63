"""The losses of the paper (section 2), as functions of logits.

The letters: B batch, S pdf-ids, K of them with targets of their own.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F


def hard_label_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy, in nats, of logits [..., B, S] with the aligned states (int64 [..., B]): [...], which is a
    scalar where one model speaks. smoothing: the share of every label that all states have evenly (Szegedy et
    al. 2016).
    """
    losses = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none", label_smoothing=smoothing)
    return losses.view(labels.shape).mean(dim=-1)


def soft_target_loss(logits: Tensor, states: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of the softened student, softmax(z / temperature), with soft targets, times temperature^2.

    logits: [B, S]; states: the states that have a target of their own, int64 [B, K]; targets: their probabilities at
    the same temperature, and that of all other states together, [B, K + 1]. The gradient of the bare cross-entropy
    shrinks as 1 / temperature^2 (paper, section 2.1); the factor keeps it on the scale of the hard labels' gradient.
    """
    return SoftCrossEntropy.apply(logits, states, targets, temperature) * temperature**2


LOG_OF_NOTHING = -1e4  # finite: -inf less -inf would be NaN where every state is kept


class SoftCrossEntropy(torch.autograd.Function):
    """The mean of -sum_k t_k log p_k, where p is the softened student, the states without a target of their own as one.

    The gradient by a kept state's logit is (p_k - t_k) / temperature, as ever; by one of the others, of which p has P
    and t has t_P together, it is its share in P times (P - t_P) / temperature. Loss and gradient come from one buffer
    of the logits' size: chained operations would write and read a dozen of them, which 14,000 states make felt.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, states: Tensor, targets: Tensor, temperature: float) -> Tensor:
        others = logits / temperature
        kept = others.gather(1, states)
        highest = others.scatter_(1, states, LOG_OF_NOTHING).amax(dim=1, keepdim=True)
        total = others.sub_(highest).exp_().sum(dim=1, keepdim=True)
        student = torch.cat([kept, highest + total.log()], dim=1).log_softmax(dim=1)
        difference = (student.exp() - targets) / (temperature * len(logits))
        others.mul_(difference[:, -1:] / total).scatter_(1, states, difference[:, :-1])
        ctx.save_for_backward(others)
        return -(targets * student).sum() / len(logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        [by_logits] = ctx.saved_tensors
        return by_logits * gradient, None, None, None


def mixed_label_loss(logits: Tensor, labels: Tensor, partner_labels: Tensor, share: Tensor,
                     smoothing: float = 0.0) -> Tensor:
    """`hard_label_loss` for a mixture of two frames: each one's cross-entropy, weighted by its share (float32 [B])."""
    logs = logits.log_softmax(dim=1)
    both = logs.gather(1, torch.stack([labels, partner_labels], dim=1))
    loss = -(both * torch.stack([share, 1 - share], dim=1)).sum(dim=1).mean()
    return torch.lerp(loss, -logs.mean(), smoothing) if smoothing else loss


def distillation_loss(logits: Tensor, states: Tensor, targets: Tensor, hard_loss: Tensor, temperature: float,
                      soft_target_weight: float = 1.0, hard_label_weight: float = 0.5) -> Tensor:
    """The student's loss (paper, sections 2 and 4): soft targets at `temperature`, and with a smaller weight (0.5 in
    the paper's speech system) the hard labels' cross-entropy at temperature 1."""
    soft_loss = soft_target_loss(logits, states, targets, temperature)
    return soft_target_weight * soft_loss + hard_label_weight * hard_loss
