"""utils/device.py: devices by name, seeds."""

import random

import numpy as np
import pytest
import torch

from utils.device import device_on, seed_everything


def test_seeds_repeat_everything():
    draws = []
    for _ in range(2):
        seed_everything(7)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_devices():
    assert device_on("cpu") == torch.device("cpu")
    assert device_on("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("toaster", "meta"):
        with pytest.raises(ValueError, match="expected auto, cpu, cuda"):
            device_on(name)
    if torch.cuda.is_available():
        assert device_on("gpu") == torch.device("cuda")
    else:
        with pytest.raises(ValueError, match="finds 0 CUDA devices: use --device cpu"):
            device_on("gpu")
