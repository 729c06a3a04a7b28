"""The networks, and `fuse_model`: one of them by its name or from a file of weights."""

from .DeepFusePyramid import DeepFusePyramid
from .weights import ARCHITECTURES, build_network, fuse_model, read_checkpoint

__all__ = ["ARCHITECTURES", "DeepFusePyramid", "build_network", "fuse_model", "read_checkpoint"]
