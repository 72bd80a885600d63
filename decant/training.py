"""Training of one acoustic model, whatever its loss: stochastic gradient descent over shuffled frames, the epoch that
is best on dev kept, and checkpoints from which it goes on bit for bit.

Everything random is a function of (seed, epoch, step), so that a checkpoint needs no generator's state.

The letters: B batch, N frames, S pdf-ids.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from decant.acoustic_model import AcousticModel
from decant.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from decant.frame_store import FrameStore
from decant.progress import progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingConfig:
    seed: int = 0  # added to a model's own number, for another draw of the whole experiment
    epochs: int = 8  # passes over the training frames
    batch_size: int = 512  # frames of a minibatch
    learning_rate: float = 1e-3  # AdamW's highest; it rises linearly in the warm-up, then falls linearly to zero
    warmup: float = 0.05  # share of all steps in which the learning rate rises
    weight_decay: float = 0.01  # AdamW's decoupled weight decay
    threads: int = 1  # of a model's training on a CPU; in the config because rounding depends on it
    precision: str = "auto"  # of matrix products: float32, bfloat16, or auto: bfloat16 where the hardware has it
    checkpoint_steps: int = 1000  # steps between checkpoints; there is one at the end of every epoch too

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.threads, self.checkpoint_steps) < 1:
            raise ValueError("epochs, batch_size, threads and checkpoint_steps have to be at least 1")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision is {self.precision!r}; known are auto, float32 and bfloat16")


@dataclass(frozen=True)
class RealignmentConfig(TrainingConfig):
    rounds: int = 0  # of training a network (of default sizes) on the labels, and aligning again with it
    epochs: int = 2  # few: a network that knows its frames by heart repeats their labels

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 0:
            raise ValueError(f"rounds is {self.rounds}; it may not be negative (0: the mixtures' labels are kept)")


BatchLoss = Callable[[AcousticModel, Tensor, int], Tensor]
"""(model, frame indices int64 [B], epoch) -> the loss to minimise, a scalar."""


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products in bfloat16; elsewhere they are many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def autocast(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """The context in which matrix products run in the configured precision."""
    wanted = config.precision == "bfloat16" or (config.precision == "auto" and has_fast_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def learning_rate(config: TrainingConfig, step: int, num_steps: int) -> float:
    """The rate of step 0 .. num_steps - 1: a linear rise, then a linear fall that would reach zero at num_steps."""
    warmup = max(1, round(config.warmup * num_steps))
    return config.learning_rate * min((step + 1) / warmup, (num_steps - step) / max(1, num_steps - warmup))


def frame_order(num_frames: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch visits the frames: int64 [N], a function of seed and epoch alone."""
    return torch.randperm(num_frames, generator=torch.Generator().manual_seed((seed << 20) + epoch))


@torch.inference_mode()
def predictions(model: AcousticModel, store: FrameStore, batch_size: int = 4096) -> Tensor:
    """The most probable pdf-id of every frame of a store: int64 [N]."""
    index = torch.arange(len(store), device=store.frames.device)
    return torch.cat([model(model.windows(store, part)).argmax(dim=1) for part in index.split(batch_size)])


def frame_accuracy(predicted: Tensor, store: FrameStore) -> float:
    """Share of a store's frames whose predicted pdf-id (int64 [N]) is the aligned one."""
    return float((predicted == store.pdfs).double().mean())


def train(model: AcousticModel, store: FrameStore, dev: FrameStore, batch_loss: BatchLoss, config: TrainingConfig,
          seed: int, directory: Path, label: str) -> list[dict[str, float]]:
    """Trains `model` in place and leaves it with the weights of the epoch that was best on dev.

    store, dev: on the model's device. directory: holds the checkpoint; an interrupted training goes on from there, to
    the same weights bit for bit on a CPU. Returns a record of every epoch: epoch, loss, dev_frame_accuracy, seconds.
    Raises FloatingPointError if the loss is no longer finite, naming step and learning rate.
    """
    device = store.frames.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay,
                                  fused=True)
    steps_an_epoch = math.ceil(len(store) / config.batch_size)
    num_steps = config.epochs * steps_an_epoch
    state = load_checkpoint(directory, model, optimizer)
    history, best = state.history, state.best
    epoch_loss, started = state.epoch_loss.to(device), time.monotonic() - state.epoch_seconds
    for step in progress(range(state.step, num_steps), num_steps, label, state.step):
        epoch, position = divmod(step, steps_an_epoch)
        if position == 0 or step == state.step:
            order = frame_order(len(store), seed, epoch).to(device)
        index = order[position * config.batch_size:(position + 1) * config.batch_size]
        rate = learning_rate(config, step, num_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with autocast(config, device):
            loss = batch_loss(model, index, epoch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        epoch_loss += loss.detach().double() * len(index)
        if position + 1 == steps_an_epoch or (step + 1) % config.checkpoint_steps == 0:
            if not torch.isfinite(epoch_loss):
                raise FloatingPointError(f"{label}: the loss is not finite by step {step + 1} (learning rate "
                                         f"{rate:.2g}); lower learning_rate")
            if position + 1 == steps_an_epoch:
                accuracy = frame_accuracy(predictions(model, dev), dev)
                if accuracy > max((record["dev_frame_accuracy"] for record in history), default=-1.0):
                    best = {name: x.detach().clone() for name, x in model.state_dict().items()}
                history.append({"epoch": epoch + 1, "loss": float(epoch_loss) / len(store),
                                "dev_frame_accuracy": accuracy, "seconds": time.monotonic() - started})
                logger.info("%s: epoch %d of %d, loss %.4f, dev frame accuracy %.2f%%, %.0f s", label, epoch + 1,
                            config.epochs, history[-1]["loss"], 100 * accuracy, history[-1]["seconds"])
                epoch_loss.zero_()
                started = time.monotonic()
            save_checkpoint(directory, model, optimizer, TrainingState(
                step + 1, history, best, epoch_loss, time.monotonic() - started))
    model.load_state_dict(best)
    return history
