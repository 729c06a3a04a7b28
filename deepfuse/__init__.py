"""The package, for other programs: deepfuse.fuse(["under.jpg", "over.jpg"]) returns the fused picture."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs import shipped_weights
from utils import __version__
from utils.errors import UserError
from utils.fusing.fusion import Fuser, as_array, check_exposures, improve, read_exposures
from utils.pictures.scenes import Scene

if TYPE_CHECKING:
    from utils.training.loss import MEFLoss

__all__ = ["Fuser", "MEFLoss", "__version__", "fuse", "fuser", "mef_ssim"]

File = str | os.PathLike


@functools.lru_cache(1)
def fuser(weights: File | None = None, device: str = "auto") -> Fuser:
    """Returns the Fuser of a file of weights (None: the shipped ones); the last one is kept in memory."""
    return Fuser.from_checkpoint(weights or shipped_weights(device), device)


def fuse(
    images: File | Sequence[File] | Sequence[np.ndarray],
    *,
    align: str | None = None,
    deghost: bool = False,
    reference: File | int | None = None,
    rgb: bool = False,
    hdr: bool = False,
) -> np.ndarray:
    """Returns the fused picture of two or more exposures, in any order: (H, W), (H, W, 3) BGR or (H, W, 4) with alpha.

    It has the dtype of the exposures, uint8 or uint16, and their shape unless `align` crops it. `fuser` is for other
    weights, a GPU, or a file with metadata.

    Args:
        images: Files, which must agree as for run_infer.py; one radiance map; or pictures, all of one shape and type:
            (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8 or uint16.
        align: "mtb" or "homography" aligns hand-held shots first, and crops to the area that all of them show.
        deghost: Whether to show what moved between the shots only once, as in the reference.
        reference: With `deghost`, the reference: one of the files, or its number in `images`; None: the best exposed.
        rgb: Whether pictures are RGB instead of BGR, given and returned; what is read from files is returned as RGB.
        hdr: Whether to return linear light (H, W, 3) float32 instead, in which the picture's white is 1, and what was
            brighter in the scene is up to 16; not of gray.

    Raises:
        FileNotFoundError, ValueError: A file that cannot be read, fewer than two, one given twice, or what differs.
    """
    if isinstance(images, np.ndarray):
        raise UserError(
            f"expected a list of pictures, got one array {images.shape}: if it is a stack, give list(stack)"
        )
    images = [images] if isinstance(images, File) else list(images)
    paths = [Path(image) for image in images if isinstance(image, File)]
    stops = None
    if 0 < len(paths) < len(images):
        raise UserError("expected files or pictures as arrays, not mixed")
    if paths:
        pictures, _, stops = read_exposures(paths)
    else:
        pictures = [as_array(image) for image in images]
        check_exposures(pictures)
        pictures = [_swapped(image) for image in pictures] if rgb else pictures
        paths = [Path(f"image {k}") for k in range(len(images))]
    if isinstance(reference, int):
        if not 0 <= reference < len(paths):
            raise UserError(f"reference is {reference}, expected 0 to {len(paths) - 1}")
        reference = paths[reference]
    if reference is not None and not deghost:
        raise UserError("reference works only together with deghost=True")
    if len(paths) > 1:  # exposures of one radiance map need neither
        scene = Scene("the stack", paths, reference=reference)
        pictures, stops, _ = improve(scene, pictures, stops, align, deghost)
    fused = fuser().fuse(pictures, stops, hdr)
    return _swapped(fused) if rgb else fused


def mef_ssim(fused: np.ndarray, exposures: Sequence[np.ndarray]) -> float:
    """Returns MEF-SSIM (Ma, Zeng and Wang, TIP 2015) of a fused picture and its exposures, at most 1: higher is better.

    Args:
        fused, exposures: (H, W, 3) BGR uint8, turned to gray as for published figures, or gray (H, W) in 0..255.

    Raises:
        ValueError: Other shapes or ranges, or a side under 44 pixels.
    """
    from utils.evaluation import metric

    pictures = map(as_array, (fused, *exposures))
    gray, *stack = (x if x.ndim == 2 else metric.matlab_gray(x) for x in pictures)
    return metric.mef_ssim(gray, np.stack(stack))


def __getattr__(name: str):
    if name == "MEFLoss":  # it imports PyTorch, which fusing does without
        from utils.training.loss import MEFLoss

        return MEFLoss
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _swapped(image: np.ndarray) -> np.ndarray:
    """Returns a picture with its red and blue channels exchanged."""
    return image if image.ndim == 2 else image[..., (2, 1, 0, 3)[: image.shape[2]]]
