"""The networks, and `fuse_model`, which makes one by its name or from a file of weights."""

from .DeepFusePyramid import DeepFusePyramid, PyramidArchitecture
from .weights import ARCHITECTURES, Network, WeightsError, build_network, fuse_model, read_checkpoint

__all__ = [
    "ARCHITECTURES",
    "DeepFusePyramid",
    "Network",
    "PyramidArchitecture",
    "WeightsError",
    "build_network",
    "fuse_model",
    "read_checkpoint",
]
