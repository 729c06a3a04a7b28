"""The networks, and `fuse_model`: one of them by its name or from a file of weights."""

from .DeepFusePyramid import DeepFusePyramid, PyramidArchitecture
from .weights import ARCHITECTURES, build_network, fuse_model, read_checkpoint

__all__ = ["ARCHITECTURES", "DeepFusePyramid", "PyramidArchitecture", "build_network", "fuse_model", "read_checkpoint"]
