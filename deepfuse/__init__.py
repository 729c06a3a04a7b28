"""The installed package, for other programs: deepfuse.fuse(["under.jpg", "over.jpg"])."""

import functools
import os
from collections.abc import Sequence

import numpy as np

from configs import shipped_weights
from utils import __version__
from utils.fusing.fusion import Fuser
from utils.pictures.image import read_photo

__all__ = ["Fuser", "__version__", "fuse", "fuser", "mef_ssim"]


@functools.lru_cache(1)
def fuser(weights: str | os.PathLike | None = None, device: str = "auto") -> Fuser:
    """Returns the Fuser of a file of weights (None: the shipped ones); the last one is kept in memory."""
    return Fuser.from_checkpoint(weights or shipped_weights(device), device)


def fuse(images: Sequence[str | os.PathLike | np.ndarray]) -> np.ndarray:
    """Returns the fused picture of two or more exposures, in any order; it has their shape and dtype.

    `fuser(weights, device)` offers more: other weights, a GPU, alignment, files with their metadata.

    Args:
        images: files, or pictures: (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8 or uint16.

    Raises:
        FileNotFoundError, ValueError: A file that cannot be read, fewer than two, shapes or types that differ.
    """
    return fuser().fuse([read_photo(x)[0] if isinstance(x, str | os.PathLike) else x for x in images])


def mef_ssim(fused: np.ndarray, exposures: Sequence[np.ndarray]) -> float:
    """Returns MEF-SSIM (Ma, Zeng and Wang, TIP 2015) of a fused picture and its exposures, at most 1: higher is better.

    Args:
        fused, exposures: (H, W, 3) BGR uint8, turned to gray as for published figures, or gray (H, W) in 0..255.

    Raises:
        ValueError: Other shapes or ranges, or a side under 44 pixels.
    """
    from utils.evaluation import metric

    gray, *stack = (x if x.ndim == 2 else metric.matlab_gray(x) for x in (fused, *exposures))
    return metric.mef_ssim(gray, np.stack(stack))
