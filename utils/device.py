"""The device that a user names, and the seeds of everything random."""

import random

import numpy as np
import torch

from utils.errors import UserError


def device_on(name: str | torch.device = "auto") -> torch.device:
    """Returns the device called `name`: "auto" is CUDA where there is one, "gpu" is "cuda".

    Raises:
        ValueError: the name is unknown, or this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device("cuda" if name == "gpu" else name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"no device is called {name!r}: expected auto, cpu, cuda, cuda:N, gpu or mps")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"device {name} was asked for, PyTorch finds {count} CUDA devices: use --device cpu")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device mps was asked for, PyTorch finds none: use --device cpu")
    return device


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
