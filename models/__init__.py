"""The networks, and `fuse_model`, which makes one by its name or from a file of weights."""

from .DeepFusePyramid import DeepFusePyramid, PyramidArchitecture
from .network import Network
from .weights import NETWORKS, WeightsError, build_network, fuse_model, read_checkpoint

__all__ = [
    "NETWORKS",
    "DeepFusePyramid",
    "Network",
    "PyramidArchitecture",
    "WeightsError",
    "build_network",
    "fuse_model",
    "read_checkpoint",
]
