"""Several processes that share the work: torchrun starts them, torch.distributed joins them.

With one process these functions do nothing: the share is the whole, the mean is the value.
"""

import os
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from utils.device import device_on


def join_processes(device: str, timeout: timedelta | None = None) -> torch.device:
    """Joins the processes that torchrun has started, if any; returns the device of this one.

    On CUDA (NCCL) each process gets its own GPU; on the CPU (gloo) they share it. `timeout` is the longest wait
    for the others (None: PyTorch's default), then there is an error.
    """
    chosen = device_on(device)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return chosen
    if chosen.type == "cuda":
        chosen = device_on(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timeout)
    return chosen


def leave_processes() -> None:
    """Leaves the group of processes, if `join_processes` made one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Returns this process's number; only process 0 writes files, logs and prints."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(items: Sequence) -> list:
    """Returns this process's share of the items."""
    return list(items)[rank() :: ranks()]


def gathered(rows: list) -> list:
    """Returns the rows of all processes, in one list."""
    if ranks() == 1:
        return rows
    parts: list[list] = [[] for _ in range(ranks())]
    dist.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def mean(value: torch.Tensor) -> torch.Tensor:
    """Returns the mean of the processes' values, which have one shape."""
    if ranks() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / ranks()


def average_gradients(model: nn.Module) -> None:
    """Replaces every gradient by its mean over the processes, in one exchange."""
    if ranks() == 1:
        return
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    flat = mean(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, averaged in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(averaged.view_as(gradient))


def any_of(condition: bool, device: torch.device) -> bool:
    """Returns whether the condition holds in any of the processes."""
    return bool(condition) if ranks() == 1 else mean(torch.tensor(float(condition), device=device)).item() > 0
