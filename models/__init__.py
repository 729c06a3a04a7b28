"""The networks, and `fuse_model`: one of them by its name or from a file of weights."""

from .weights import ARCHITECTURES, build_network, fuse_model, read_checkpoint

__all__ = ["ARCHITECTURES", "build_network", "fuse_model", "read_checkpoint"]
