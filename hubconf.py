"""For torch.hub: torch.hub.load("OWNER/REPOSITORY", "deepfuse") returns DeepFuse_pyramid with its weights."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
dependencies = ["torch", "numpy"]


def deepfuse(weights: str | None = None, pretrained: bool = True):
    """Returns a network in eval mode on the CPU; `network.fuse(exposures (N, K, 1, H, W) in [0, 1])` fuses luminance.

    Args:
        weights: a file that `run_infer.py --weights` takes; None: the shipped one.
        pretrained: False returns a DeepFuse_pyramid with random weights.
    """
    with own_modules():
        from models import fuse_model

        if not pretrained:
            return fuse_model("DeepFuse_pyramid")
        return fuse_model(weights=weights or ROOT / "runs/pretrained/deepfuse.pth")


@contextlib.contextmanager
def own_modules() -> Iterator[None]:
    """Makes `models` this folder's package in the block; a package of that name that the caller imported comes back."""
    theirs = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "models"}
    sys.path.insert(0, str(ROOT))
    try:
        yield
    finally:
        sys.path.remove(str(ROOT))
        for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
            del sys.modules[name]
        sys.modules.update(theirs)
