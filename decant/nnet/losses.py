"""The losses of the paper (section 2), as functions of logits.

Logits may be in bfloat16. Losses are computed in float32 (float64 of float64), some rows at a time, and leave the
gradient in the logits' own type: of 14,000 states float32 logits, their softmax and its gradient would each be read
and written as a whole several times.

The letters: B batch, S pdf-ids, K of them with targets of their own.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx, once_differentiable

AT_A_TIME = 2**22  # logits: in float32 they stay in a processor's last cache (16 MB), or a GPU's


def hard_label_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy, in nats, of logits [..., B, S] with the aligned states (int64 [..., B]): [...], which is a
    scalar where one model speaks. smoothing: how much of every label all states have evenly (Szegedy et
    al. 2016).
    """
    return LabelCrossEntropy.apply(logits, labels[..., None], torch.ones_like(labels, dtype=torch.float32)[..., None],
                                   smoothing)


def soft_target_loss(logits: Tensor, states: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of the softened student, softmax(z / temperature), with soft targets, times temperature^2.

    logits: [B, S]; states: the states that have a target of their own, int64 [B, K]; targets: their probabilities at
    the same temperature, and that of all other states together, [B, K + 1]. The gradient of the bare cross-entropy
    shrinks as 1 / temperature^2 (paper, section 2.1); the factor keeps it on the scale of the hard labels' gradient.
    """
    return SoftCrossEntropy.apply(logits, states, targets, temperature) * temperature**2


LOG_OF_NOTHING = -1e4  # finite: -inf less -inf would be NaN where every state is kept


def plain_label_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """What LabelCrossEntropy computes, in three plain lines."""
    targets = (1 - smoothing) * torch.zeros_like(logits).scatter_add(-1, labels, weights)
    targets = targets + smoothing / logits.shape[-1]
    return -(targets * logits.log_softmax(dim=-1)).sum(dim=-1).mean(dim=-1)


class LabelCrossEntropy(torch.autograd.Function):
    """`plain_label_cross_entropy`, fused: the mean over B of -sum_k w_k log p_k, of logits [..., B, S], for labels k
    (int64 [..., B, K]) of weights w (float32 [..., B, K]) that add up to one; `smoothing` as in `hard_label_loss`. The
    gradient is softmax less targets.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        losses = []
        for z, states, own, by_logits in rows_at_a_time(logits, labels, weights, gradient):
            logs = z.log_softmax(dim=1)
            own = (1 - smoothing) * own.to(z.dtype)
            loss = -(own * logs.gather(1, states)).sum(dim=1)
            losses.append(loss - smoothing * logs.mean(dim=1) if smoothing else loss)
            difference = logs.exp_().scatter_add_(1, states, -own)
            by_logits.copy_(difference.sub_(smoothing / z.shape[1]) if smoothing else difference)
        ctx.save_for_backward(gradient)
        return torch.cat(losses).view(logits.shape[:-1]).mean(dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor | None, ...]:
        [by_logits] = ctx.saved_tensors
        scale = gradient[..., None, None] / by_logits.shape[-2]
        return by_logits * scale.to(by_logits.dtype), None, None, None


def rows_at_a_time(logits: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Some rows of logits [..., B, S] after others, as float32 [rows, S] (float64 of float64), and of what goes with
    them."""
    rows = max(1, AT_A_TIME // logits.shape[-1])
    for z, *parts in zip(*(x.flatten(0, -2).split(rows) for x in (logits, *others)), strict=True):
        yield (z.to(torch.promote_types(z.dtype, torch.float32)), *parts)


def plain_soft_cross_entropy(logits: Tensor, states: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """What SoftCrossEntropy computes, in three plain lines, where some states have no target of their own."""
    student = (logits / temperature).softmax(dim=1)
    student = torch.cat([student.gather(1, states), student.scatter(1, states, 0.0).sum(dim=1, keepdim=True)], dim=1)
    return -(targets * student.log()).sum(dim=1).mean()


class SoftCrossEntropy(torch.autograd.Function):
    """`plain_soft_cross_entropy`, fused: the mean of -sum_k t_k log p_k, where p is the softened student, the states
    without a target of their own as one.

    The gradient by a kept state's logit is (p_k - t_k) / temperature, as ever; by one of the others, of which p has P
    and t has t_P together, it is its share in P times (P - t_P) / temperature. Loss and gradient come from one buffer
    of the rows' size: chained operations would write and read a dozen of them, which 14,000 states make felt.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, states: Tensor, targets: Tensor, temperature: float) -> Tensor:
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        losses = []
        for z, states_here, targets_here, by_logits in rows_at_a_time(logits, states, targets, gradient):
            others = z / temperature
            kept = others.gather(1, states_here)
            highest = others.scatter_(1, states_here, LOG_OF_NOTHING).amax(dim=1, keepdim=True)
            total = others.sub_(highest).exp_().sum(dim=1, keepdim=True)
            student = torch.cat([kept, highest + total.log()], dim=1).log_softmax(dim=1)
            difference = (student.exp() - targets_here) / (temperature * len(logits))
            by_logits.copy_(others.mul_(difference[:, -1:] / total).scatter_(1, states_here, difference[:, :-1]))
            losses.append(-(targets_here * student).sum(dim=1))
        ctx.save_for_backward(gradient)
        return torch.cat(losses).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor | None, ...]:
        [by_logits] = ctx.saved_tensors
        return by_logits * gradient.to(by_logits.dtype), None, None, None


def mixed_label_loss(logits: Tensor, labels: Tensor, partner_labels: Tensor, weight: Tensor,
                     smoothing: float = 0.0) -> Tensor:
    """`hard_label_loss` for a mixture of two frames: each one's cross-entropy, weighted as its frame (float32 [B])."""
    return LabelCrossEntropy.apply(logits, torch.stack([labels, partner_labels], dim=1),
                                   torch.stack([weight, 1 - weight], dim=1), smoothing)


def distillation_loss(logits: Tensor, states: Tensor, targets: Tensor, hard_loss: Tensor, temperature: float,
                      soft_target_weight: float = 1.0, hard_label_weight: float = 0.5) -> Tensor:
    """The student's loss (paper, sections 2 and 4): soft targets at `temperature`, and with a smaller weight (0.5 in
    the paper's speech system) the hard labels' cross-entropy at temperature 1."""
    soft_loss = soft_target_loss(logits, states, targets, temperature)
    return soft_target_weight * soft_loss + hard_label_weight * hard_loss
