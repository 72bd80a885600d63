"""What a training minimises: which minibatch belongs to some frames, and the loss on it.

The letters: M models side by side, B frames of a minibatch, W frames of a window, F features, S pdf-ids.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from decant.nnet.frame_store import FrameStore
from decant.nnet.losses import hard_label_loss


@dataclass(frozen=True)
class Objective:
    """What a training minimises.

    read: (frame indices int64 [B], epoch) -> a minibatch: what the loss needs of these frames, on any device. Where a
    GPU trains, this runs a step ahead in a thread of its own.
    loss: (model, *minibatch) -> their mean loss, a scalar.
    Of M models side by side the indices are [M, B], the losses [M].
    """

    read: Callable[[Tensor, int], tuple[Tensor, ...]]
    loss: Callable[..., Tensor]


def hard_labels(store: FrameStore, window: range, smoothing: float = 0.0) -> Objective:
    """A model learns the labels of a store. window, smoothing: as in FrameStore.windows and hard_label_loss."""
    def read(index: Tensor, epoch: int) -> tuple[Tensor, ...]:
        return store.windows(index, window), store.labels(index)

    def loss(model: Callable[[Tensor], Tensor], windows: Tensor, pdfs: Tensor) -> Tensor:
        return hard_label_loss(model(windows), pdfs, smoothing)

    return Objective(read, loss)
