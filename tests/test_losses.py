import math

import pytest
import torch
from torch.nn import functional as F

import decant.nnet.losses
from decant.nnet.losses import (
    LabelCrossEntropy,
    distillation_loss,
    hard_label_loss,
    mixed_label_loss,
    plain_label_cross_entropy,
    plain_soft_cross_entropy,
    soft_target_loss,
)

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]], dtype=torch.float64)
TEACHER = torch.tensor([[1.0, 1.0, -2.0], [0.0, -1.0, 2.0]], dtype=torch.float64)


ALL = torch.arange(3).expand(2, 3)


def dense(logits, targets, temperature):
    """`soft_target_loss` with a target for every state."""
    return soft_target_loss(logits, ALL, torch.cat([targets, torch.zeros(2, 1)], dim=1), temperature)


def gradient(loss, *arguments):
    logits = LOGITS.clone().requires_grad_()
    loss(logits, *arguments).backward()
    return logits.grad


def test_hard_labels_at_temperature_one_are_soft_targets_of_one_and_zero():
    labels = torch.tensor([0, 2])
    one_hot = torch.eye(3, dtype=torch.float64)[labels]
    assert float(hard_label_loss(LOGITS, labels)) == pytest.approx(float(dense(LOGITS, one_hot, 1.0)))


def test_smoothed_labels_give_their_share_to_all_states_evenly():
    labels = torch.tensor([0, 2])
    smooth = 0.9 * torch.eye(3, dtype=torch.float64)[labels] + 0.1 / 3
    assert float(hard_label_loss(LOGITS, labels, 0.1)) == pytest.approx(float(dense(LOGITS, smooth, 1.0)))
    share = torch.ones(2, dtype=torch.float64)
    assert float(mixed_label_loss(LOGITS, labels, labels, share, 0.1)) == pytest.approx(
        float(dense(LOGITS, smooth, 1.0)))


def test_the_soft_gradient_is_temperature_times_the_difference_of_the_distributions():
    for temperature in (1.0, 2.0, 10.0):
        targets = (TEACHER / temperature).softmax(dim=1)
        expected = temperature * ((LOGITS / temperature).softmax(dim=1) - targets) / 2  # of a mean over two frames
        torch.testing.assert_close(gradient(dense, targets, temperature), expected)


def test_the_soft_gradient_keeps_its_scale_as_temperature_grows():
    """At high temperature it matches centred logits, divided by the number of classes (paper, equation 4)."""
    def centred(logits):
        return logits - logits.mean(dim=1, keepdim=True)

    limit = (centred(LOGITS) - centred(TEACHER)) / 3 / 2
    found = gradient(dense, (TEACHER / 1e4).softmax(dim=1), 1e4)
    torch.testing.assert_close(found, limit, rtol=1e-3, atol=1e-4)


def test_a_student_that_equals_its_teacher_has_no_soft_gradient():
    targets = (LOGITS / 5).softmax(dim=1)
    assert float(gradient(dense, targets, 5.0).abs().max()) < 1e-12


def test_states_without_a_target_of_their_own_share_one():
    """By hand: probabilities 0.5, 0.3, 0.2, of which the first state is kept, against targets 0.6 and 0.4."""
    logits = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log() * 2  # softened at temperature 2: those
    found = soft_target_loss(logits, torch.tensor([[0]]), torch.tensor([[0.6, 0.4]], dtype=torch.float64), 2.0)
    assert float(found) == pytest.approx(-4 * (0.6 * math.log(0.5) + 0.4 * math.log(0.5)))


@pytest.mark.parametrize("scale", [1.0, 1000.0], ids=["even", "peaked"])
def test_loss_and_gradient_are_those_of_the_plain_cross_entropy(scale):
    """Over the kept states and all others as one, by torch's own; peaked: a softmax that leaves most states nothing."""
    generator = torch.Generator().manual_seed(1)
    logits = (scale * torch.randn(5, 40, generator=generator)).requires_grad_()
    states = torch.stack([torch.randperm(40, generator=generator)[:7] for _ in range(5)])
    targets = torch.rand(5, 8, generator=generator).softmax(dim=1)
    temperature = 3.0
    logs = (logits / temperature).log_softmax(dim=1)
    of_others = logs.scatter(1, states, -1e4).logsumexp(dim=1, keepdim=True)
    plain = -(targets * torch.cat([logs.gather(1, states), of_others], dim=1)).sum(dim=1).mean() * temperature**2
    if scale == 1:  # the three lines that stand beside the function take logarithms of what may be 0
        torch.testing.assert_close(plain, plain_soft_cross_entropy(logits, states, targets, temperature) * 9)
    found = soft_target_loss(logits, states, targets, temperature)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(torch.autograd.grad(2 * found, logits), torch.autograd.grad(2 * plain, logits))


def test_the_three_plain_lines_are_the_label_loss():
    generator = torch.Generator().manual_seed(1)
    logits = (5 * torch.randn(3, 7, 40, generator=generator)).requires_grad_()
    labels = torch.stack([torch.randperm(40, generator=generator)[:2] for _ in range(21)]).view(3, 7, 2)
    weights = torch.rand(3, 7, 2, generator=generator).softmax(dim=-1)
    found, plain = (loss(logits, labels, weights, 0.2) for loss in (
        LabelCrossEntropy.apply, plain_label_cross_entropy))
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(*(torch.autograd.grad(x.sum(), logits) for x in (found, plain)))


def plain_hard_loss(logits, labels, smoothing):
    losses = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none", label_smoothing=smoothing)
    return losses.view(labels.shape).mean(dim=-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(7,), (3, 7)], ids=["one model", "three side by side"])
def test_hard_loss_and_gradient_are_torchs_cross_entropy(shape, smoothing):
    generator = torch.Generator().manual_seed(1)
    logits = (5 * torch.randn(*shape, 40, generator=generator)).requires_grad_()
    labels = torch.randint(40, shape, generator=generator)
    found, plain = (loss(logits, labels, smoothing) for loss in (hard_label_loss, plain_hard_loss))
    torch.testing.assert_close(found, plain)
    scales = torch.arange(1.0, 1 + found.numel()).view(found.shape)
    torch.testing.assert_close(*(torch.autograd.grad((scales * x).sum(), logits) for x in (found, plain)))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_losses_and_gradients_are_the_same_a_few_rows_at_a_time(kind, monkeypatch):
    """And of logits in bfloat16 those of the same numbers in float32, the gradient rounded once."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(8, 40, generator=generator).to(kind).requires_grad_()
    labels, partners = torch.randint(40, (2, 8), generator=generator)
    states = torch.stack([torch.randperm(40, generator=generator)[:7] for _ in range(8)])
    share, targets = torch.rand(8, generator=generator), torch.rand(8, 8, generator=generator).softmax(dim=1)

    def losses(logits):
        return (hard_label_loss(logits, labels, 0.1), mixed_label_loss(logits, labels, partners, share),
                soft_target_loss(logits, states, targets, 2.0))

    exact = logits.detach().float().requires_grad_()
    expected = [(loss, torch.autograd.grad(loss, exact)[0].to(kind)) for loss in losses(exact)]
    monkeypatch.setattr(decant.nnet.losses, "AT_A_TIME", 3 * 40)
    found = [(loss, torch.autograd.grad(loss, logits)[0]) for loss in losses(logits)]
    assert all(gradient.dtype == kind for _, gradient in found)
    torch.testing.assert_close(found, expected)


def test_the_students_loss_adds_half_the_hard_labels_cross_entropy():
    labels, targets = torch.tensor([0, 2]), (TEACHER / 2).softmax(dim=1)
    hard = hard_label_loss(LOGITS, labels)
    whole = torch.cat([targets, torch.zeros(2, 1)], dim=1)
    assert float(distillation_loss(LOGITS, ALL, whole, hard, 2.0)) == pytest.approx(
        float(dense(LOGITS, targets, 2.0)) + 0.5 * float(hard))
    assert float(distillation_loss(LOGITS, ALL, whole, hard, 2.0, 0.0, 1.0)) == pytest.approx(float(hard))


def test_a_mixtures_labels_count_by_their_shares():
    labels, partners, share = torch.tensor([0, 2]), torch.tensor([1, 0]), torch.tensor([0.75, 1.0])
    log_probs = LOGITS.log_softmax(dim=1)
    expected = -(0.75 * log_probs[0, 0] + 0.25 * log_probs[0, 1] + log_probs[1, 2]) / 2
    assert float(mixed_label_loss(LOGITS, labels, partners, share)) == pytest.approx(float(expected))
