"""Read and write pictures, and their colour: the only border to the disk.

On disk a picture is whatever its file holds. At this border it is OpenCV's (H, W, 3) BGR in uint8 or uint16; of
photographs that are fused also (H, W) gray and (H, W, 4) BGR with alpha. Inside, everything is float32 in [0, 1];
colour is full-range BT.601 Y, Cr, Cb in OpenCV's order, neutral at NEUTRAL_CHROMA.
"""

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.util_metadata import BITS, Metadata, add_to_tiff, exif_block, read_metadata
from utils.utils import replacing

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
NEUTRAL_CHROMA = 0.5

# A file that OpenCV cannot read becomes an exception here; the library's own lines would come on top.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


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
        ValueError: The file is not a whole picture of 8 or 16 bits.
    """
    return _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)


def read_photo(path: str | os.PathLike) -> tuple[np.ndarray, Metadata]:
    """Returns a picture, upright, as its file holds it, and its metadata.

    The picture is (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8 or uint16.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a whole picture of 8 or 16 bits, or of a layout that cannot be fused (CMYK ...).
    """
    metadata = read_metadata(path)
    tiff = metadata.tiff_layout
    if tiff and tiff.get(BITS) == (8, 8, 8, 8):  # OpenCV would multiply the colours by alpha
        with Image.open(path) as picture:
            image = cv2.cvtColor(np.asarray(picture.convert("RGBA")), cv2.COLOR_RGBA2BGRA)
    else:
        image = _decode(path, cv2.IMREAD_UNCHANGED)
    return image if tiff else upright(image, metadata.orientation), metadata  # both libraries turn TIFF themselves


def _decode(path: str | os.PathLike, flags: int) -> np.ndarray:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    data = np.fromfile(path, np.uint8)  # cv2.imread cannot open non-ASCII paths on Windows
    image = cv2.imdecode(data, flags) if data.size else None
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{path}: damaged, or not a picture of 8 or 16 bits ({', '.join(IMAGE_SUFFIXES)})")
    return image


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns a picture (H, W[, C]) turned as the EXIF orientation 1 to 8 says."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def write_image(path: str | os.PathLike, image: np.ndarray, metadata: Metadata | None = None) -> None:
    """Writes a picture in the format of the path's suffix; the file appears whole or not at all.

    JPEG, WebP (both of quality 95) and BMP hold 8 bits: 16 are rounded to them. BMP holds no metadata.

    Args:
        path: Its suffix is one of IMAGE_SUFFIXES; missing folders are made.
        image: (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8 or uint16.
        metadata: To go with it; the orientation becomes 1, a thumbnail is left out.

    Raises:
        ValueError: The suffix is unknown, or the format cannot hold such a picture.
    """
    path = Path(path)
    suffix = check_suffix(path)
    height, width = image.shape[:2]
    if suffix in (".jpg", ".jpeg", ".bmp") and image.shape[2:] == (4,):
        raise ValueError(f"{path}: {suffix} cannot hold the picture's alpha: write .png, .tif or .webp")
    if suffix not in (".png", ".tif", ".tiff") and image.dtype == np.uint16:
        image = from_float(to_float(image), np.uint8)
    options = []
    if suffix in (".jpg", ".jpeg"):
        full_chroma = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
        options = [cv2.IMWRITE_JPEG_QUALITY, 95, *full_chroma]
    elif suffix == ".webp":
        options = [cv2.IMWRITE_WEBP_QUALITY, 95]
    try:
        if metadata is None or suffix in (".tif", ".tiff", ".bmp"):
            done, data = cv2.imencode(suffix, image, options)
        else:
            exif = metadata.exif and exif_block(metadata, width, height)
            blocks = {cv2.IMAGE_METADATA_EXIF: exif, cv2.IMAGE_METADATA_ICCP: metadata.icc}
            blocks = {kind: np.frombuffer(block, np.uint8) for kind, block in blocks.items() if block}
            done, data = cv2.imencodeWithMetadata(suffix, image, list(blocks), list(blocks.values()), options)
    except cv2.error:
        done = False
    if not done:
        raise ValueError(f"{path}: {suffix} cannot hold {width} x {height} pixels: write .png or .tif")
    pieces = [data.data]
    if metadata and suffix in (".tif", ".tiff"):
        pieces = add_to_tiff(pieces[0], metadata, width, height)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.writelines(pieces)


def check_suffix(path: str | os.PathLike) -> str:
    """Returns the suffix of a picture to be written, in small letters.

    Raises:
        ValueError: It is none of IMAGE_SUFFIXES.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise ValueError(f"{path}: the suffix must be one of {', '.join(IMAGE_SUFFIXES)}")
    return suffix


def to_float(image: np.ndarray) -> np.ndarray:
    """Returns uint8 or uint16 of any shape as float32 in [0, 1]; float32 is so already."""
    if image.dtype == np.float32:
        return image
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def from_float(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns float of any shape, clamped to [0, 1] and rounded, as uint8 or uint16 (`dtype`)."""
    return np.rint(np.clip(image, 0, 1) * np.float32(np.iinfo(dtype).max)).astype(dtype)


def luma(image: np.ndarray) -> np.ndarray:
    """Returns the luminance (H, W) float32 in [0, 1] of (H, W), (H, W, 3) or (H, W, 4) BGR[A], as `to_float` takes it.

    0.299 R + 0.587 G + 0.114 B; gray is its own luminance.
    """
    return to_float(image) if image.ndim == 2 else cv2.cvtColor(to_float(image[..., :3]), cv2.COLOR_BGR2GRAY)


def bgr_to_ycrcb(image: np.ndarray) -> np.ndarray:
    """Returns Y, Cr, Cb (H, W, 3) of BGR (H, W, 3), both float32 in [0, 1], chroma around NEUTRAL_CHROMA."""
    return cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)


def ycrcb_to_bgr(image: np.ndarray) -> np.ndarray:
    """Returns BGR (H, W, 3) of Y, Cr, Cb (H, W, 3), both float32; it can leave [0, 1] where no such colour exists."""
    return cv2.cvtColor(image, cv2.COLOR_YCrCb2BGR)
