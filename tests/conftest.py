"""Fixtures for several test files: synthetic stacks, small networks, the device."""

from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch

from models import PyramidArchitecture, build_network, fuse_model

TINY = PyramidArchitecture(channels=4, depth=2, halvings=3, decision_pixels=3000)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def stack(rng):
    """A function that returns exposures (H, W[, C]) of one smooth scene of full range, dark to bright."""

    def make(count=2, shape=(90, 117, 3), dtype=np.uint8, darkest=0.3, brightest=1.6):
        scene = cv2.resize(rng.random((12, 15, *shape[2:]), np.float32), shape[1::-1])
        top = np.iinfo(dtype).max
        return [np.clip(scene * top * gain, 0, top).astype(dtype) for gain in np.geomspace(darkest, brightest, count)]

    return make


@pytest.fixture
def device(monkeypatch):
    """The device for networks, losses and fusion: the GPU if there is one (in full float32), otherwise the CPU."""
    if not torch.cuda.is_available():
        return "cpu"
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return "cuda"


@pytest.fixture
def on_device(device):
    """Makes new tensors and networks on this device."""
    with torch.device(device):
        yield


def strong(model: torch.nn.Module, scale: float = 0.1) -> torch.nn.Module:
    """Returns the network with larger random weights, since freshly initialised ones hardly change the plain mean."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.copy_(torch.empty(parameter.shape, device="cpu").normal_(0, scale))  # the same on every device
    return model


@pytest.fixture
def pyramid():
    """A small pyramid network, never trained."""
    return strong(build_network("DeepFuse_pyramid", TINY))


@pytest.fixture
def network():
    """A function that returns the untrained network of a name."""
    return lambda name="DeepFuse_3x3", channels=1: strong(fuse_model(name, image_channels=channels))


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """The file of a small pyramid network, never trained."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    model = strong(build_network("DeepFuse_pyramid", TINY))
    torch.save({"name": model.name, "arch": asdict(model.arch), "model": model.state_dict()}, path)
    return path
