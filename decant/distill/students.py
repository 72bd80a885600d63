"""Students: what they learn from soft targets and hard labels together (paper, section 2).

The letters: B frames of a minibatch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from decant.distill.mixing import Mixture, pass_of
from decant.distill.soft_targets import DistillationConfig, LiveTargets, SoftTargets
from decant.nnet.blocks import POOL
from decant.nnet.frame_store import FrameStore
from decant.nnet.losses import distillation_loss, mixed_label_loss
from decant.nnet.objectives import Objective

Targets = SoftTargets | LiveTargets


@dataclass(frozen=True)
class Lessons:
    """What an epoch teaches: its mixture of the frames, and the targets on it.

    num_passes: different mixtures, which the epochs go through in turn; targets: of a pass; pool: how many frames a
    training shuffles together.
    """

    num_frames: int
    num_epochs: int
    num_passes: int
    targets: Callable[[int], Targets]
    pool: int = POOL

    def __call__(self, epoch: int) -> tuple[Mixture, Targets]:
        number = pass_of(epoch, self.num_epochs, self.num_passes)
        return Mixture(self.num_frames, number, self.pool), self.targets(number)


def soft_labels(store: FrameStore, window: range, lessons: Callable[[int], tuple[Mixture, Targets]], temperature: float,
                config: DistillationConfig, smoothing: float = 0.0) -> Objective:
    """A student learns soft targets at a temperature, and hard labels beside them; lessons: an epoch's mixture of the
    store's frames, and the targets on it. smoothing: of the hard labels."""
    now: dict[int, tuple[Mixture, Targets]] = {}

    def read(index: Tensor, epoch: int) -> tuple[Tensor, ...]:
        if epoch not in now:
            now.clear()  # there is room for one
            now[epoch] = lessons(epoch)
        mixed, targets = now[epoch]
        windows = mixed.windows(store, index, window)
        partner, weight = mixed.partners(index)
        labels = store.labels(torch.stack([index, partner], dim=1))
        return (windows, *targets.batch(index, windows), labels[:, 0], labels[:, 1], weight)

    def loss(model: Callable[[Tensor], Tensor], windows: Tensor, states: Tensor, probabilities: Tensor, labels: Tensor,
             partners: Tensor, weight: Tensor) -> Tensor:
        logits = model(windows)
        hard_loss = logits.new_zeros(())
        if config.hard_label_weight:
            hard_loss = mixed_label_loss(logits, labels, partners, weight, smoothing)
        return distillation_loss(logits, states, probabilities, hard_loss, temperature, config.soft_target_weight,
                                 config.hard_label_weight)

    return Objective(read, loss)
