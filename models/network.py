"""What all networks have in common, for those who load, train and run them."""

import dataclasses
from typing import Any

import torch
from torch import nn


class Network(nn.Module):
    """A network that fuses exposures: `forward` gives the picture, or, if it decides small, the picture and weights."""

    name: str  # its key in NETWORKS
    arch: Any  # its numbers, a frozen dataclass that its checkpoint stores; image_channels is one of them
    halo: int | None = None  # pixels to every side that an output pixel depends on; None: it decides on a small copy

    def fuse(self, exposures: torch.Tensor) -> torch.Tensor:
        """Returns the fused picture (N, C, H, W), not clamped, of exposures (N, K, C, H, W) in [0, 1].

        Raises:
            TypeError: `forward` returns something else.
        """
        out = self(exposures)
        picture = out[0] if self.halo is None else out
        n, _, *shape = exposures.shape
        if getattr(picture, "shape", None) != (n, *shape):
            what = "the picture alone, since `halo` is set" if self.halo is not None else "two, since `halo` is None"
            raise TypeError(f"{type(self).__name__}.forward must return {what}: expected a picture {(n, *shape)}")
        return picture


def lacking(network: nn.Module) -> str:
    """Returns what a network lacks of what CONTRIBUTING.md asks for, or an empty text."""
    if not isinstance(network, Network):
        return "is no Network: derive its class from models.network.Network"
    arch = getattr(network, "arch", None)
    if not dataclasses.is_dataclass(arch):
        return "has no `arch`, a frozen dataclass of its numbers: set self.arch = arch in __init__"
    needed = ["image_channels", *(["decision_pixels", "exposures"] if network.halo is None else [])]
    if missing := [name for name in needed if not hasattr(arch, name)]:
        small = ", since its halo is None: it decides on a small copy" * (network.halo is None)
        return f"has no {' and '.join(missing)} in its arch{small}"
    return ""
