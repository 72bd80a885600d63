"""What a training step spends its time on, beside limits measured in the same run.

    PYTHONPATH=. .venv/bin/python tests/benchmarks/training_speed.py --model paper --threads 2

times steps of `decant.nnet.training.train`'s loop on random frames, with hard labels and with soft targets; and by
itself each part of a step, and the machine: its matrix products of these very shapes, and its copying of memory.
"""

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from decant.distill.mixing import Mixture
from decant.distill.soft_targets import (
    DistillationConfig,
    SoftTargetsConfig,
    finish_pass,
    made_from,
    read_soft_targets,
    write_shard,
)
from decant.distill.students import soft_labels
from decant.nnet.acoustic_model import AcousticModel, AcousticModelConfig, SideBySide
from decant.nnet.frame_store import FrameStore, pack
from decant.nnet.minibatches import read_to
from decant.nnet.objectives import hard_labels
from decant.nnet.precision import autocast, has_fast_bfloat16
from decant.nnet.training import TrainingConfig

MODELS = {"small": (AcousticModelConfig(hidden_layers=4, hidden_units=512), 2000, 256),
          "an4": (AcousticModelConfig(frame_step=4, hidden_layers=4, hidden_units=512, residual=True), 480, 256),
          "paper": (AcousticModelConfig(hidden_layers=8, hidden_units=2560), 14_000, 512)}
NUM_BINS, NUM_FRAMES = 40, 50_000


def seconds(work: Callable[[], object], device: torch.device, least: float = 2.0) -> float:
    """Of one call, the median of as many as take `least` seconds, after one that is not counted."""
    def once() -> float:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    once()
    taken: list[float] = []
    while sum(taken) < least or len(taken) < 3:
        taken.append(once())
    return float(np.median(taken))


def random_store(num_pdfs: int, device: torch.device) -> FrameStore:
    random = np.random.default_rng(0)
    lengths = random.multinomial(NUM_FRAMES, [0.01] * 100)
    return pack((f"utterance {n}", random.normal(size=(length, NUM_BINS)), random.integers(num_pdfs, size=length))
                for n, length in enumerate(lengths)).to(device)


def products(model: AcousticModel, batch_size: int, dtype: torch.dtype, device: torch.device) -> tuple[float, float]:
    """Seconds and operations of a step's matrix products alone: forward, and by inputs (but for the first layer's) and
    by weights backward."""
    total, operations = 0.0, 0.0
    weights = [layer.weight for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    for number, weight in enumerate(weights):
        x = torch.randn(batch_size, weight.shape[1], dtype=dtype, device=device)
        y = torch.randn(batch_size, weight.shape[0], dtype=dtype, device=device)
        w = weight.detach().to(dtype)
        parts = [lambda x=x, w=w: x @ w.T, lambda x=x, y=y: y.T @ x] + [lambda y=y, w=w: y @ w] * (number > 0)
        total += sum(seconds(part, device, 0.3) for part in parts)
        operations += len(parts) * 2.0 * batch_size * weight.numel()
    return total, operations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    device, config = torch.device(given.device), TrainingConfig()
    sizes, num_pdfs, batch_size = MODELS[given.model]
    batch_size = given.batch_size or batch_size
    dtype = torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    model = AcousticModel(sizes, NUM_BINS, num_pdfs).initialize(0).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)  # it is the same minibatch over and over
    store = random_store(num_pdfs, device)
    index = torch.randint(NUM_FRAMES, (batch_size,))
    objective = hard_labels(store, sizes.window, config.label_smoothing)
    read = partial(read_to, device, objective.read, index, 0)
    windows, labels = read()

    def step(loss_of: Callable[[], torch.Tensor], config: TrainingConfig = config) -> None:
        with autocast(config.precision, device):
            loss = loss_of()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def report(what: str, taken: float, beside: str = "") -> None:
        print(f"{what:<44}{1e3 * taken:9.2f} ms  {beside}", flush=True)

    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, minibatch {batch_size}, {dtype}, {device}, "
          f"{given.threads} threads")
    bare, operations = products(model, batch_size, dtype, device)

    def hard_loss() -> torch.Tensor:
        return objective.loss(model, *read())

    hard = seconds(lambda: step(hard_loss), device)
    report("the step's matrix products alone", bare, f"{operations / bare / 1e9:.0f} GFLOP/s")
    report("a step on hard labels", hard,
           f"{batch_size / hard:,.0f} frames/s; {bare / hard:.0%} of it the matrix products, measured alone")
    if dtype == torch.bfloat16:
        float32 = seconds(lambda: step(hard_loss, replace(config, precision="float32")), device)
        report("  the same in float32", float32, f"{float32 / hard:.2f} times as long")
    gather = seconds(read, device)
    report("  its windows and labels", gather, f"{gather / hard:.1%}")
    report("  its optimizer", taken := seconds(optimizer.step, device), f"{taken / hard:.1%}")
    logits = torch.randn(batch_size, num_pdfs, dtype=dtype, device=device, requires_grad=True)
    size = logits.nbytes
    copied = torch.empty_like(logits)
    copy = seconds(lambda: copied.copy_(logits.detach()), device)

    def loss_alone(loss_of: Callable[[torch.Tensor], torch.Tensor]) -> float:
        return seconds(lambda: torch.autograd.grad(loss_of(logits), logits), device)

    taken = loss_alone(lambda z: objective.loss(lambda windows: z, windows, labels))
    report("  its loss and the gradient by logits", taken,
           f"{taken / hard:.1%}; logits read and gradients written at {copy / taken:.0%} of the copy rate "
           f"({2 * size / copy / 1e9:.0f} GB/s)")
    if given.model != "paper":
        taken = ten_side_by_side(sizes, num_pdfs, store, index, config)
        report("a step of ten models side by side", taken, f"{10 * hard / taken:.2f} times as fast as ten steps of one")
    with TemporaryDirectory() as folder:
        measure_soft(Path(folder), model, store, step, report, loss_alone, batch_size)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else \
        1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory {peak / 1e9:.2f} GB; windows of the batch {windows.nbytes / 1e6:.1f} MB")


def ten_side_by_side(sizes: AcousticModelConfig, num_pdfs: int, store: FrameStore, index: torch.Tensor,
                     config: TrainingConfig) -> float:
    """Seconds of a step of ten models in batched matrix products."""
    device, objective = store.device, hard_labels(store, sizes.window, config.label_smoothing)
    ten = SideBySide([AcousticModel(sizes, NUM_BINS, num_pdfs).initialize(seed).to(device) for seed in range(10)])
    optimizer, index = torch.optim.AdamW(ten.parameters(), fused=True), index.expand(10, -1).contiguous()

    def step() -> None:
        with autocast(config.precision, device):
            loss = objective.loss(ten, *read_to(device, objective.read, index, 0)).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return seconds(step, device)


def measure_soft(folder: Path, model: AcousticModel, store: FrameStore, step: Callable, report: Callable,
                 loss_alone: Callable, batch_size: int) -> None:
    """Soft targets: writing and reading them, and a student's step on mixtures."""
    config = SoftTargetsConfig()
    part = replace(store, frames=store.frames[:4096], pdfs=store.pdfs[:4096], offsets=torch.tensor([0, 4096]))
    part = part.to(store.device)
    started = time.perf_counter()
    write_shard(folder, [model], part, config, 0, 0)
    forward = time.perf_counter() - started
    finish_pass(folder, 0, made_from([model], part, config))
    targets = read_soft_targets(folder, 0, 5.0, made_from([model], part, config), check=True)
    size = (folder / "pass_0" / "shard_0.npy").stat().st_size
    index, mixed, device = torch.randint(4096, (batch_size,)), Mixture(4096, 1), store.device
    objective = soft_labels(part, model.config.window, lambda epoch: (mixed, targets), 5.0, DistillationConfig())
    read = partial(read_to, device, objective.read, index, 0)
    minibatch = read()
    whole = seconds(lambda: step(lambda: objective.loss(model, *read())), device)
    report("a student's step on a mixture's soft targets", whole, f"{batch_size / whole:,.0f} frames/s")
    gather = seconds(lambda: mixed.windows(part, index, model.config.window), device)
    report("  its windows", gather, f"{gather / whole:.1%}")
    taken = seconds(lambda: targets.batch(index), device)
    report("  its soft targets, read", taken, f"{taken / whole:.1%}; {size / 4096:.0f} bytes a frame")
    taken = loss_alone(lambda z: objective.loss(lambda windows: z, *minibatch))
    report("  its loss and the gradient by logits", taken, f"{taken / whole:.1%}")
    print(f"soft targets of one model written: {4096 / forward:,.0f} frames/s, forward pass included")


if __name__ == "__main__":
    main()
