"""One training in several processes, which torchrun starts: each computes its share of every minibatch's gradient.

Synchronous data parallelism, for the paper's replicas and parameter servers (section 4): the weights after a step are
those that one process gets from the same minibatch, but for the order of sums. In one process all of this does nothing.
"""

import gc
import os
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

# How long processes wait for one that still works by itself, on checksums say. Lost ones are torchrun's to notice.
PATIENCE = timedelta(days=1)


def choose_device(name: str) -> torch.device:
    """cuda where there is one for "auto", each of torchrun's processes its own; ValueError where there are too few."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no GPU here; take --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if (needed := int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) > torch.cuda.device_count():
        raise ValueError(f"--processes {needed}: each needs a GPU, and torch finds {torch.cuda.device_count()} here")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def join(device: torch.device) -> None:
    """Joins the processes that torchrun started, if it did."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        on_gpu = device.type == "cuda"
        distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE,
                                       device_id=device if on_gpu else None)


def leave() -> None:
    """Leaves them again, at the end of a program."""
    if distributed.is_initialized():
        wait()
        distributed.destroy_process_group()
        gc.collect()  # what FSDP keeps in cycles would abort the process if it went at the very end


def num_processes() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This process's number; the one with 0 writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def spread(model: nn.Module, shard: bool, device: torch.device) -> nn.Module:
    """The model to call in place of `model`: every backward pass leaves the mean of all processes' gradients.

    shard: weights, gradients and what the optimizer keeps are divided among the processes (FSDP), for a model whose
    training one device has no room for; otherwise each has them all (DDP).
    """
    if num_processes() == 1:
        return model
    if not shard:
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
    from torch.distributed.device_mesh import init_device_mesh  # not above: see _divided
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (num_processes(),))
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)  # in place
    return model


def own_part(index: Tensor) -> tuple[Tensor, float]:
    """This process's frames of a minibatch (int64 [..., B]), and what their mean loss counts, so that the processes'
    mean is the minibatch's; where there are more processes than frames, some repeat a frame that counts nothing."""
    if num_processes() == 1:
        return index, 1.0
    own = index[..., rank()::num_processes()].contiguous()
    return (own, own.shape[-1] * num_processes() / index.shape[-1]) if own.numel() else (index[..., :1], 0.0)


def summed(x: Tensor) -> Tensor:
    """The sum of all processes' x."""
    if num_processes() > 1:
        x = x.clone()
        distributed.all_reduce(x)
    return x


def whole(x: Tensor) -> Tensor:
    """A divided tensor put together; every process has to call this."""
    return x.full_tensor() if _divided(x) else x


def divided_like(x: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, where `other` is, and divided among the processes as it is."""
    x = x.to(other.device)
    if not _divided(other):
        return x
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x, other.device_mesh, other.placements)


def all_finite(parameters: Iterable[Tensor]) -> bool:
    """Whether all weights that this process has are finite."""
    return all(bool((x.to_local() if _divided(x) else x).isfinite().all()) for x in parameters)


def wait() -> None:
    """Until every process is here."""
    if num_processes() > 1:
        distributed.barrier()


def _divided(x: Tensor) -> "TypeGuard[DTensor]":
    """Whether a tensor is divided among the processes. Importing what FSDP needs takes a core-second, a quarter of a
    stage's start, and is left to programs of several processes."""
    if num_processes() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(x, DTensor)
