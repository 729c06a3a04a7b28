"""Read and write pictures, and their colour: the only border to the disk.

On disk a picture is whatever its file holds. At this border it is OpenCV's (H, W, 3) BGR in uint8 or uint16. Inside,
everything is float32 in [0, 1]; colour is full-range BT.601 Y, Cr, Cb in OpenCV's order, neutral at NEUTRAL_CHROMA.
"""

import os
from pathlib import Path

import cv2
import numpy as np

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
NEUTRAL_CHROMA = 0.5


def list_images(folder: str | os.PathLike, recursive: bool = False) -> list[Path]:
    """Returns the pictures in a folder by their suffix (IMAGE_SUFFIXES, any case), sorted by path.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    found = (
        Path(root) / name for root, _, names in os.walk(folder) for name in names if recursive or Path(root) == folder
    )
    return sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."))


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Returns a picture as (H, W, 3) BGR, uint8 or uint16 as the file holds it, upright by its EXIF orientation.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a picture that can be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    data = np.fromfile(path, np.uint8)  # cv2.imread cannot open non-ASCII paths on Windows
    image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data.size else None
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{path}: not a picture of 8 or 16 bits that can be read ({', '.join(IMAGE_SUFFIXES)})")
    return image


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Writes (H, W, 3) BGR uint8 or uint16 in the format of the path's suffix; the file appears whole or not at all.

    Raises:
        ValueError: The suffix is no format of IMAGE_SUFFIXES.
    """
    path = Path(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise ValueError(f"{path}: the suffix must be one of {', '.join(IMAGE_SUFFIXES)}")
    data = cv2.imencode(path.suffix, image)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        data.tofile(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def to_float(image: np.ndarray) -> np.ndarray:
    """Returns uint8 or uint16 of any shape as float32 in [0, 1]."""
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def from_float(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns float of any shape, clamped to [0, 1] and rounded, as uint8 or uint16 (`dtype`)."""
    return np.rint(np.clip(image, 0, 1) * np.float32(np.iinfo(dtype).max)).astype(dtype)


def luma(image: np.ndarray) -> np.ndarray:
    """Returns the luminance (H, W) float32 in [0, 1] of (H, W, 3) BGR uint8 or uint16: 0.299 R + 0.587 G + 0.114 B."""
    return cv2.cvtColor(to_float(image), cv2.COLOR_BGR2GRAY)


def bgr_to_ycrcb(image: np.ndarray) -> np.ndarray:
    """Returns Y, Cr, Cb (H, W, 3) of BGR (H, W, 3), both float32 in [0, 1], chroma around NEUTRAL_CHROMA."""
    return cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)


def ycrcb_to_bgr(image: np.ndarray) -> np.ndarray:
    """Returns BGR (H, W, 3) of Y, Cr, Cb (H, W, 3), both float32; it can leave [0, 1] where no such colour exists."""
    return cv2.cvtColor(image, cv2.COLOR_YCrCb2BGR)
