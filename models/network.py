"""What all networks have in common, for those who load, train and run them."""

from typing import Any

import torch
from torch import nn


class Network(nn.Module):
    """A network that fuses exposures: `forward` gives the picture, or, if it decides small, the picture and weights."""

    name: str  # its key in NETWORKS
    arch: Any  # its numbers, a frozen dataclass that its checkpoint stores; image_channels is one of them
    halo: int | None = None  # pixels to every side that an output pixel depends on; None: it decides on a small copy

    def fuse(self, exposures: torch.Tensor) -> torch.Tensor:
        """Returns the fused picture (N, C, H, W), not clamped, of exposures (N, K, C, H, W) in [0, 1]."""
        fused = self(exposures)
        return fused if self.halo is not None else fused[0]
