"""Training of one acoustic model, whatever its loss: stochastic gradient descent over shuffled frames, the epoch that
is best on dev kept, and checkpoints from which it goes on bit for bit.

Everything random is a function of (seed, epoch, step), so that a checkpoint needs no generator's state.

The letters: B batch, N frames, S pdf-ids.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import tee
from pathlib import Path

import torch
from torch import Tensor, nn

from decant.nnet import data_parallel
from decant.nnet.acoustic_model import AcousticModel, SideBySide
from decant.nnet.blocks import BLOCK, POOL
from decant.nnet.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from decant.nnet.frame_store import FrameStore
from decant.nnet.minibatches import FrameOrder, minibatches, read_ahead, read_to
from decant.nnet.objectives import Objective
from decant.nnet.precision import autocast, check_precision
from decant.progress import progress
from decant.settings import config_field

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingConfig:
    """The training of networks: stochastic gradient descent with AdamW."""

    seed: int = config_field(0, "Another one draws other models: first weights and the order of frames.")
    epochs: int = config_field(8, "Passes over the training frames.")
    batch_size: int = config_field(512, "Frames of a minibatch.")
    learning_rate: float = config_field(
        1e-3, "AdamW's highest learning rate; it rises linearly in the warm-up, then falls linearly to zero.")
    warmup: float = config_field(0.05, "Share of all steps in which the learning rate rises, from 0 to below 1.")
    weight_decay: float = config_field(0.01, "AdamW's decoupled weight decay.")
    label_smoothing: float = config_field(0.0, "Share of every hard label that all states have evenly.", paper=0.0)
    threads: int = config_field(1, "Threads of a model's training on a CPU.", changes="rounding")
    precision: str = config_field(
        "auto", "Of matrix products: float32, bfloat16, or auto, which is bfloat16 where the hardware has it.")
    shuffle_frames: int = config_field(
        POOL, "Frames shuffled together; of more, pools of so many are filled with random blocks of 65,536, shuffled, "
        "and held in memory one after the other.")
    dev_epochs: int = config_field(1, "Epochs between looks at dev; the weights that are best there are kept.")
    checkpoint_steps: int = config_field(
        1000, "Steps between checkpoints; there is one at the end of every epoch too.", changes="nothing")
    shard_weights: bool = config_field(
        False, "Several processes divide weights and optimizer among them (FSDP), not only the frames.",
        changes="rounding")

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.threads, self.dev_epochs, self.checkpoint_steps) < 1:
            raise ValueError("epochs, batch_size, threads, dev_epochs and checkpoint_steps have to be at least 1")
        if self.learning_rate <= 0 or not 0 <= self.warmup < 1 or self.weight_decay < 0:
            raise ValueError(f"learning_rate is {self.learning_rate:g}, warmup {self.warmup:g}, weight_decay "
                             f"{self.weight_decay:g}; the rate has to be positive, the warm-up a share of the steps "
                             "from 0 to below 1, the decay not negative")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed is {self.seed}; it has to be from 0 to {2**31 - 1}")
        if self.shuffle_frames < BLOCK:
            raise ValueError(f"shuffle_frames is {self.shuffle_frames}; it has to be at least {BLOCK}, a block")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing:g}; it has to be 0 or more, and less than 1")
        check_precision(self.precision)


DIVERGED = 2.0  # the first loss is that of a guess: no training that goes anywhere stays so far above it


def learning_rate(config: TrainingConfig, step: int, num_steps: int) -> float:
    """The rate of step 0 .. num_steps - 1: a linear rise, then a linear fall that would reach zero at num_steps."""
    warmup = max(1, round(config.warmup * num_steps))
    return config.learning_rate * min((step + 1) / warmup, (num_steps - step) / max(1, num_steps - warmup))


def logits_of(model: AcousticModel | SideBySide, store: FrameStore,
              batch_size: int = 4096) -> Iterator[tuple[Tensor, Tensor]]:
    """(indices int64 [B], their logits [B, S]; of M models side by side [M, B, S]) of all frames of a store in turn."""
    for first in range(0, len(store), batch_size):
        part = torch.arange(first, min(first + batch_size, len(store)), device=store.device)
        windows = store.windows(part, model.config.window)
        if isinstance(model, SideBySide):
            windows = windows.expand(model.num_models, *windows.shape)
        yield part, model(windows)


@torch.inference_mode()
def accuracy_and_loss(model: AcousticModel | SideBySide, store: FrameStore) -> Tensor:
    """The share of a store's frames whose most probable pdf-id is the aligned one, and the mean cross-entropy with
    the aligned ones in nats: float64 [2], of M models [2, M]. They compare, whatever loss a training has."""
    found = []
    for part, logits in logits_of(model, store):
        labels = store.labels(part).to(logits.device)
        right = (logits.argmax(dim=-1) == labels).double().sum(dim=-1)
        log_probs = logits.float().log_softmax(dim=-1)
        nats = -log_probs.gather(-1, labels.expand(logits.shape[:-1]).unsqueeze(-1)).double().sum(dim=(-2, -1))
        found.append(torch.stack([right, nats]))
    return torch.stack(found).sum(dim=0) / len(store)


History = list[dict[str, float]]
"""A record of every epoch that dev was looked at after: epoch; loss, the training's own; dev_loss and
dev_frame_accuracy (accuracy_and_loss); seconds since the last one."""


def train(models: Sequence[AcousticModel], orders: Sequence[FrameOrder], dev: FrameStore, objective: Objective,
          config: TrainingConfig, directory: Path, labels: Sequence[str]) -> list[History]:
    """Trains models in place, from the weights that they have; leaves each with those of its best epoch on dev.

    models: one, or several of one architecture side by side; orders: in which each of them sees its frames. directory:
    holds the checkpoint; an interrupted training goes on from there, to the same weights bit for bit on a CPU. Raises
    FloatingPointError, naming step and learning rate, if a weight is no longer finite or an epoch's mean loss is above
    `DIVERGED` times the first minibatch's, ValueError, naming the minibatch that fits, if one does not; the last
    checkpoint from before stays.
    """
    device, count = models[0].log_priors.device, data_parallel.num_processes()
    if len(models) > 1 and config.shard_weights and count > 1:
        raise ValueError("models side by side do not divide their weights; set ensemble.side_by_side to 1, or "
                         "shard_weights to false")
    model = models[0] if len(models) == 1 else SideBySide(models)
    spread = data_parallel.spread(model, config.shard_weights, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay,
                                  fused=True)
    num_frames = len(orders[0])
    steps_an_epoch = math.ceil(num_frames / config.batch_size)
    num_steps = config.epochs * steps_an_epoch
    state = load_checkpoint(directory, model, optimizer)
    # This process's parts of the sums, float64 [2, M]: of each model's loss in this epoch, and in the first minibatch.
    losses = torch.tensor(state.losses or [[0.0] * len(models)] * 2, dtype=torch.float64, device=device)
    losses *= data_parallel.rank() == 0
    histories, best = state.histories or [[] for _ in models], state.best
    started = time.monotonic() - state.epoch_seconds
    objective = replace(objective, read=partial(read_to, device, objective.read))
    plan, same_plan = tee(minibatches(orders, config.batch_size, config.epochs, state.step))
    reads = read_ahead(objective.read, ((index, epoch) for epoch, index, _ in same_plan), device.type == "cuda")
    steps = progress(range(state.step, num_steps), num_steps, ", ".join(labels), state.step)
    for step, (epoch, index, weight), read in zip(steps, plan, reads, strict=True):
        rate = learning_rate(config, step, num_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        precision = autocast(config.precision, device)
        loss = try_step(objective, spread, read, weight, optimizer, precision)
        if loss is None:
            reads.close()  # what was read ahead takes room
            raise ValueError(f"{', '.join(labels)}: minibatches of {config.batch_size} frames do not fit into memory; "
                             + what_fits(objective, model, index, epoch, optimizer, precision))
        before = config.batch_size * (step % steps_an_epoch)  # frames of this epoch
        seen = min(before + config.batch_size, num_frames)
        part = loss.detach().double() / count
        losses[0] += part * (seen - before)
        if step == 0:
            losses[1] = part
        ended = seen == num_frames
        if not ended and (step + 1) % config.checkpoint_steps:
            continue
        if not data_parallel.all_finite(model.parameters()):
            losses[0] = math.nan
        losses = data_parallel.summed(losses)
        mean_loss = losses[0] / seen
        check_converging(labels, mean_loss, losses[1], step, rate, state.step)
        if ended:
            if (epoch + 1) % config.dev_epochs == 0 or epoch + 1 == config.epochs:
                best = look_at_dev(model, dev, best, histories, labels, epoch + 1, mean_loss, started, config.epochs)
                started = time.monotonic()
            losses[0] = 0.0
        state = TrainingState(step + 1, histories, best, losses.tolist(), time.monotonic() - started)
        save_checkpoint(directory, model, optimizer, state)
        losses *= data_parallel.rank() == 0
    model.load_state_dict(best)
    if isinstance(model, SideBySide):
        model.copy_to(models)
    return histories


def look_at_dev(model: AcousticModel | SideBySide, dev: FrameStore, best: dict[str, Tensor],
                histories: Sequence[History], labels: Sequence[str], epoch: int, mean_loss: Tensor, started: float,
                num_epochs: int) -> dict[str, Tensor]:
    """Adds an epoch to each model's history, and returns the best weights so far."""
    on_dev = accuracy_and_loss(model, dev).view(2, len(labels))
    accuracy, dev_loss = data_parallel.summed(on_dev * (data_parallel.rank() == 0))  # so that all keep the same epoch
    highest = [max((record["dev_frame_accuracy"] for record in history), default=-1.0) for history in histories]
    best = better(best, model.state_dict(), accuracy > accuracy.new_tensor(highest))
    seconds = (time.monotonic() - started) / len(labels)
    for history, label, *figures in zip(histories, labels, mean_loss.tolist(), dev_loss.tolist(), accuracy.tolist(),
                                        strict=True):
        loss, loss_on_dev, right = figures
        history.append({"epoch": epoch, "loss": loss, "dev_loss": loss_on_dev, "dev_frame_accuracy": right,
                        "seconds": seconds})
        # The training loss is in the history alone: epochs on mixtures, and other temperatures, do not compare.
        logger.info("%s: epoch %d of %d, on dev cross-entropy %.4f, frame accuracy %.2f%%, %.0f s", label, epoch,
                    num_epochs, loss_on_dev, 100 * right, seconds)
    return best


def check_converging(labels: Sequence[str], losses: Tensor, first: Tensor, step: int, rate: float, saved: int) -> None:
    """Raises FloatingPointError if a model's mean loss in this epoch ([M]) is not finite, or far above its first ([M]).
    saved: the step of the last checkpoint."""
    for label, now, at_first in zip(labels, losses.tolist(), first.tolist(), strict=True):
        if not now <= DIVERGED * at_first:
            raise FloatingPointError(f"{label}: training diverged by step {step + 1}: loss {now:.3g}, {at_first:.3g} "
                                     f"at first, learning rate {rate:.2g}; lower learning_rate "
                                     f"(the checkpoint, if any, is still step {saved}'s)")


CPU_LACKS_MEMORY = ("can't allocate memory", "could not create a primitive")  # torch's words, oneDNN's (in bfloat16)


def try_step(objective: Objective, model: nn.Module, read: Callable[[], tuple[Tensor, ...]], weight: float,
             optimizer: torch.optim.Optimizer, precision: torch.autocast) -> Tensor | None:
    """Goes a step down the gradient of a minibatch's loss times `weight`, and returns that; None if memory lacked."""
    optimizer.zero_grad(set_to_none=True)
    try:
        minibatch = read()
        with precision:
            loss = objective.loss(model, *minibatch) * weight
        loss.sum().backward()
        optimizer.step()
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not any(text in str(error) for text in CPU_LACKS_MEMORY):
            raise
        logger.warning("%s", str(error).splitlines()[0])
        return None
    return loss


def what_fits(objective: Objective, model: nn.Module, index: Tensor, epoch: int, optimizer: torch.optim.Optimizer,
              precision: torch.autocast) -> str:
    """What to do about a minibatch that did not fit, by trying its halves. The model is not to be used afterwards."""
    if data_parallel.num_processes() > 1:  # they would have to try together
        return "set a smaller batch_size in its table of the config, or shard_weights if it does not divide them yet"
    size = index.shape[-1] // 2
    while size and try_step(objective, model, partial(objective.read, index[..., :size], epoch), 1.0, optimizer,
                            precision) is None:
        size //= 2
    return f"{size} do: set batch_size in its table of the config" if size else "nor does one: make the model smaller"


def better(best: dict[str, Tensor], now: dict[str, Tensor], improved: Tensor) -> dict[str, Tensor]:
    """The weights `now` of the models that improved (bool [M]), the best so far of the others."""
    if improved.all():
        return {name: x.detach().clone() for name, x in now.items()}
    if not improved.any():
        return best
    return {name: torch.where(improved.view(-1, *[1] * (x.ndim - 1)), x, best[name]) for name, x in now.items()}
