"""Arithmetic of pixels: float and integer, luminance, colour, orientation.

Inside the project pictures are float32 in [0, 1]; colour is full-range BT.601 Y, Cr, Cb in OpenCV's order, neutral at
NEUTRAL_CHROMA.
"""

import cv2
import numpy as np
from numpy.typing import DTypeLike

NEUTRAL_CHROMA = 0.5
CAPTION = 28  # pixels, height of the caption above a picture


def to_float(image: np.ndarray) -> np.ndarray:
    """Returns uint8 or uint16 of any shape as float32 in [0, 1]; float32 is returned as it is."""
    if image.dtype == np.float32:
        return image
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def finite(image: np.ndarray) -> np.ndarray:
    """Returns float of any shape with NaN and minus infinity as 0, and infinity as the largest finite value."""
    known = np.isfinite(image)
    return image if known.all() else np.nan_to_num(image, nan=0, posinf=image[known].max(initial=0), neginf=0)


def from_float(image: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Returns float of any shape, clamped to [0, 1] and rounded, as uint8 or uint16 (`dtype`)."""
    return np.rint(np.clip(image, 0, 1) * np.float32(np.iinfo(dtype).max)).astype(dtype)


def shrink(image: np.ndarray, *, pixels: float = np.inf, side: float = np.inf, width: float = np.inf) -> np.ndarray:
    """Returns a picture (H, W[, C]) of any dtype shrunk by area, in its proportions, to fit all limits.

    Args:
        pixels, side, width: the most pixels it may have, in all, along its longer side, and horizontally.
    """
    tall, wide = image.shape[:2]
    scale = min(1, (pixels / (tall * wide)) ** 0.5, side / max(tall, wide), width / wide)
    if scale == 1:
        return image
    return cv2.resize(image, (max(1, round(wide * scale)), max(1, round(tall * scale))), interpolation=cv2.INTER_AREA)


def size_of(image: np.ndarray) -> str:
    """Returns a picture's size in words, such as "1024x669", width x height."""
    return f"{image.shape[1]}x{image.shape[0]}"


def smoothstep(low: float, high: float, x: np.ndarray | float) -> np.ndarray:
    """Returns 0 below `low`, 1 above `high`, and a smooth rise between them."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def eight_bits(image: np.ndarray) -> np.ndarray:
    """Returns a picture of any shape, uint8, uint16 or float32, as uint8, clamped and rounded."""
    return image if image.dtype == np.uint8 else from_float(to_float(image), np.uint8)


def luma(image: np.ndarray) -> np.ndarray:
    """Returns the luminance (H, W) float32 in [0, 1] of (H, W), (H, W, 3) or (H, W, 4) BGR[A], as `to_float` takes it.

    0.299 R + 0.587 G + 0.114 B; gray is its own luminance.
    """
    return to_float(image) if image.ndim == 2 else cv2.cvtColor(to_float(image[..., :3]), cv2.COLOR_BGR2GRAY)


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """Returns a picture (H, W, 3) uint8 with a caption, which fits its width, in a bar of CAPTION pixels above it."""
    bar = np.full((CAPTION, picture.shape[1], 3), 32, np.uint8)
    font, width = cv2.FONT_HERSHEY_SIMPLEX, picture.shape[1] - 8
    scale = 0.5 * min(1, width / max(1, cv2.getTextSize(text, font, 0.5, 1)[0][0]))
    cv2.putText(bar, text, (4, 19), font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([bar, picture])


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns a picture (H, W[, C]) turned upright according to its EXIF orientation, 1 to 8."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
