"""Read and write pictures, and their colour: the only border to the disk.

On disk a picture is whatever its file holds. At this border it is OpenCV's (H, W, 3) BGR in uint8 or uint16; exposures
and fused pictures may also be (H, W) gray or (H, W, 4) BGR with alpha; a radiance map is linear float32 without an
upper limit. Inside, everything is float32 in [0, 1]; colour is full-range BT.601 Y, Cr, Cb in OpenCV's order, neutral
at NEUTRAL_CHROMA.
"""

import functools
import io
import os
import re
import struct
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import DTypeLike
from PIL import Image, TiffTags

from utils.util_metadata import (
    ORIENTATION,
    RAW_SUFFIXES,
    Metadata,
    add_to_tiff,
    check_package,
    exif_block,
    named_errors,
    read_metadata,
)
from utils.utils import replacing

WRITTEN_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".avif", ".heic", ".heif")
IMAGE_SUFFIXES = (*WRITTEN_SUFFIXES, ".hif", *RAW_SUFFIXES)  # photographs that can be read
HEIF_SUFFIXES = (".heic", ".heif")  # HEIF that can be written
RADIANCE_SUFFIXES = (".hdr", ".exr")
QUALITY = 95  # of lossy formats
NEUTRAL_CHROMA = 0.5
MAX_PIXELS = 2**28  # 268 million: two such pictures of 8 bits take 1.6 GB
# Photographs have at most 16 pixels per byte of their file; a file with more is flat colour, or was made to do harm.
FREE_PIXELS, PIXELS_PER_BYTE = 2**26, 64  # a file of n bytes may have 67 million + 64 n pixels
USUAL_SCANS = 16  # of a progressive JPEG; each scan takes the decoding time again
SCAN = b"\xff\xda"  # begins each scan of a JPEG
# Lines that the libraries behind OpenCV and Pillow write to stderr about a file; and those of them that mean no damage
# to the pixels: warnings, and a few extra bytes before a marker, which some cameras write.
LIBRARIES = re.compile(
    rb"(?:Corrupt JPEG data|Premature end of JPEG file|JPEGLib|libpng (?:error|warning)|tempfile\.tif"
    rb"|\w*(?:TIFF|[Cc]ode)\w*|Warning: unknown JFIF|unknown file)[: ][^\n]*\n"
)
HARMLESS = re.compile(
    rb"libpng warning[^\n]*\n|Warning: [^\n]*\n|TIFF\w*: Warning[^\n]*\n"
    rb"|[^\n]*: (?:\d extraneous bytes before marker 0xd9|\d+ extraneous bytes before marker 0x(?:[ce].|d[b-f]))\n"
)

# A file that OpenCV cannot read raises here; without this, OpenCV would print lines of its own too.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def list_images(
    folder: str | os.PathLike, recursive: bool = False, suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> list[Path]:
    """Returns the paths of the pictures in a folder by their suffix (any case), sorted.

    Camera raw is left out where another picture of the same name lies beside it: the same shot, developed.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    found = (
        Path(root) / name for root, _, names in os.walk(folder) for name in names if recursive or Path(root) == folder
    )
    found = [path for path in found if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    raw = {path for path in found if path.suffix.lower() in RAW_SUFFIXES}
    developed = {path.with_suffix("") for path in found if path not in raw}
    return sorted(path for path in found if path not in raw or path.with_suffix("") not in developed)


def read_image(path: str | os.PathLike, max_pixels: int | None = None, shrink: int = 1) -> np.ndarray:
    """Returns a picture as (H, W, 3) BGR, uint8 or uint16 as in its file, upright by its EXIF orientation.

    Args:
        max_pixels, shrink: As for `read_photo`.

    Raises:
        FileNotFoundError, ValueError: As `read_photo`.
    """
    image, _ = read_photo(path, max_pixels, shrink=shrink)
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else np.ascontiguousarray(image[..., :3])


def read_photo(
    path: str | os.PathLike,
    max_pixels: int | None = None,
    white: tuple[float, ...] | None = None,
    shrink: int = 1,
) -> tuple[np.ndarray, Metadata]:
    """Returns a picture, upright, and its metadata.

    The picture is (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8 or uint16, as in its file.

    Args:
        path: A file of a format in IMAGE_SUFFIXES; its suffix may be wrong, except for camera raw.
        max_pixels: Largest picture that is read; None is the default of `check_pixels`.
        white: White balance for camera raw, as `Metadata.white`; None is the file's own.
        shrink: 1, 2, 4 or 8. JPEGs are decoded at 1/shrink of their sides, rounded up, as BGR, which is faster for
            large ones; all other formats keep their full size.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a whole picture of 8 or 16 bits, is visibly damaged, is too large, or has a layout
            that cannot be fused (CMYK ...).
    """
    metadata = read_metadata(path)
    if metadata.radiance:
        raise ValueError(f"{path}: a radiance map (float) holds all exposures: fuse it alone, or save it with 16 bits")
    metadata = replace(metadata, white=white or metadata.white)
    return _read(path, metadata, max_pixels, (np.uint8, np.uint16), shrink), metadata


def read_radiance(path: str | os.PathLike, max_pixels: int | None = None) -> tuple[np.ndarray, Metadata]:
    """Returns a radiance map, upright, (H, W) gray or (H, W, 3) BGR, linear float32, and its metadata.

    Alpha is left out, and so is the colour profile, since it describes linear light.

    Raises:
        FileNotFoundError, ValueError: As for `read_photo`; or the file is no float TIFF, OpenEXR or Radiance RGBE.
    """
    metadata = read_metadata(path)
    if not metadata.radiance:
        raise ValueError(f"{path}: is no radiance map (float TIFF, OpenEXR, Radiance RGBE)")
    image = _read(path, metadata, max_pixels, (np.float32, np.float64))
    return image[..., :3] if image.ndim == 3 else image, metadata


def _read(
    path: str | os.PathLike, metadata: Metadata, max_pixels: int | None, dtypes: tuple[type, ...], shrink: int = 1
) -> np.ndarray:
    """Returns the picture in a file, upright, of one of these dtypes; arguments and errors as for `read_photo`."""
    data = Path(path).read_bytes()  # cv2.imread cannot open non-ASCII paths on Windows
    scans = data.count(SCAN) if metadata.format in ("JPEG", "MPO") else 1
    check_pixels(path, *metadata.size, len(data), max_pixels, scans)
    decode = DECODERS.get(metadata.format, _decode)
    if shrink > 1 and metadata.format == "JPEG":
        decode = REDUCED[shrink]
    with named_errors(path):
        image, said = _overhear(decode, data, metadata)
        if image is None or image.dtype not in dtypes or image.shape[2:] not in ((), (3,), (4,)):
            raise ValueError(said.decode(errors="replace") or "expected a whole one of 8 or 16 bits")
        if complaints := HARMLESS.sub(b"", said):
            raise ValueError(f"{complaints.decode(errors='replace')}: open and save it anew to use what is left of it")
    return upright(image, metadata.orientation)


def check_pixels(
    path: str | os.PathLike, width: int, height: int, size: int, max_pixels: int | None, scans: int
) -> None:
    """Raises ValueError if a picture has more than `max_pixels` (None: more than a file of `size` bytes may have).

    A few bytes can claim billions of pixels, which take all memory, or thousands of scans, which take minutes.
    """
    limit = max_pixels or min(MAX_PIXELS, FREE_PIXELS + PIXELS_PER_BYTE * size)
    if width * height * max(1, scans / USUAL_SCANS) > limit:
        scanned = f" in {scans} scans" if scans > USUAL_SCANS else ""
        raise ValueError(
            f"{path}: {width} x {height} pixels{scanned} in a file of {size:,} bytes, expected at most {limit:,}: "
            "if the file is right, allow more with --max_pixels"
        )


def _decode(data: bytes, metadata: Metadata) -> np.ndarray | None:
    """Returns the picture that OpenCV decodes from a file's bytes, not turned; None if it cannot."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def _decode_reduced(flag: int, data: bytes, metadata: Metadata) -> np.ndarray | None:
    """Returns a JPEG's picture at a fraction of its sides (`flag`), (H, W, 3) BGR uint8, not turned."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)


def _decode_tiff(data: bytes, metadata: Metadata) -> np.ndarray | None:
    """Returns a TIFF's picture, not turned; 8 bits by Pillow, since OpenCV hides damage and multiplies by alpha."""
    data = _without_orientation(data)
    if metadata.bits > 8:
        return _decode(data, metadata)
    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode in ("1", "L"):
            return np.asarray(picture.convert("L"))
        if picture.has_transparency_data:
            return cv2.cvtColor(np.asarray(picture.convert("RGBA")), cv2.COLOR_RGBA2BGRA)
        return cv2.cvtColor(np.asarray(picture.convert("RGB")), cv2.COLOR_RGB2BGR)


def _without_orientation(data: bytes) -> bytes:
    """Returns a TIFF's bytes with orientation 1, since decoders turn some layouts but not others."""
    order, big = "<" if data[:2] == b"II" else ">", 43 in data[2:4]  # BigTIFF
    first, counter, entry_size, value = ("Q", "Q", 20, 12) if big else ("I", "H", 12, 8)
    (start,) = struct.unpack_from(order + first, data, 8 if big else 4)
    (count,) = struct.unpack_from(order + counter, data, start)
    start += struct.calcsize(counter)
    for entry in range(start, start + count * entry_size, entry_size):
        if struct.unpack_from(order + "H", data, entry) == (ORIENTATION,):
            turned = bytearray(data)
            struct.pack_into(order + "H", turned, entry + 2, TiffTags.SHORT)
            struct.pack_into(order + "H", turned, entry + value, 1)
            return bytes(turned)
    return data


def _decode_raw(data: bytes, metadata: Metadata) -> np.ndarray:
    """Returns a camera's raw picture developed to sRGB, 16 bits, not turned, (H, W, 3) BGR.

    All settings are independent of the picture's content, so that the shots of a bracket agree: no automatic
    brightness, the camera's own white level, the white balance of `metadata` (daylight if it has none).
    """
    import rawpy

    with rawpy.imread(io.BytesIO(data)) as raw:
        image = raw.postprocess(
            user_wb=list(metadata.white) if metadata.white else None,
            no_auto_bright=True,
            adjust_maximum_thr=0,  # otherwise the brightest pixel counts as white
            gamma=(2.4, 12.92),  # of sRGB
            output_bps=16,
            user_flip=0,
        )
    return image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)


def _decode_heif(data: bytes, metadata: Metadata) -> np.ndarray:
    """Returns the picture in a HEIF file, upright; 10 and 12 bits become 16."""
    import pillow_heif

    heif = pillow_heif.open_heif(data, convert_hdr_to_8bit=False, bgr_mode=True)
    return np.asarray(heif)


def _decode_avif(data: bytes, metadata: Metadata) -> np.ndarray:
    """Returns the picture in an AVIF file, not turned, by Pillow: 8 bits."""
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        if picture.mode == "RGBA":
            return cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGBA2BGRA)
        return cv2.cvtColor(np.asarray(picture.convert("RGB")), cv2.COLOR_RGB2BGR)


def _decode_exr(data: bytes, metadata: Metadata) -> np.ndarray:
    """Returns the colour (H, W, 3) BGR, or the luminance (H, W), float32, of an OpenEXR file."""
    import OpenEXR

    channels = OpenEXR.File(io.BytesIO(data), separate_channels=True).channels()
    names = next((names for names in ("BGR", "Y") if all(name in channels for name in names)), None)
    if not names or {"RY", "BY"} & channels.keys():
        raise ValueError(f"expected the channels R, G, B or Y alone, got {', '.join(channels)}")
    planes = [channels[name].pixels.astype(np.float32) for name in names]
    return np.stack(planes, -1) if len(planes) == 3 else planes[0]


# `_decode` for all others
DECODERS = {
    "TIFF": _decode_tiff,
    "RAW": _decode_raw,
    "HEIF": _decode_heif,
    "AVIF": _decode_avif,
    "EXR": _decode_exr,
}
REDUCED = {n: functools.partial(_decode_reduced, getattr(cv2, f"IMREAD_REDUCED_COLOR_{n}")) for n in (2, 4, 8)}


class _Overhear:
    """Calls decoders written in C and captures their lines on stderr, their only way to report a damaged picture."""

    def __init__(self):
        self.free, self.callers, self.said = threading.Condition(), 0, b""

    def __call__(self, decode: Callable[..., np.ndarray | None], *args: object) -> tuple[np.ndarray | None, bytes]:
        """Returns (decode(*args), the lines that it wrote).

        Several threads may decode at the same time. If any line appears meanwhile, each of them decodes again, alone,
        to learn whose line it was.
        """
        with self.free:
            start = self._begin()
        try:
            picture = decode(*args)
        finally:
            with self.free:
                said = self._end()[start:]
        if said:
            with self.free:
                self.free.wait_for(lambda: not self.callers)
                self._begin()
                try:
                    decode(*args)
                finally:
                    said = self._end()
        return picture, said

    def _begin(self) -> int:
        """Replaces stderr by a pipe, unless it is one already; returns the length of the lines captured so far."""
        if not self.callers:
            self.stderr, self.said = os.dup(2), b""
            self.ours, self.pipe = os.pipe()
            os.dup2(self.pipe, 2)
        self.callers += 1
        return len(self.said)

    def _end(self) -> bytes:
        """Returns the decoders' captured lines, passes other lines on, and restores stderr after the last caller."""
        os.write(self.pipe, b"\0")  # so that the read below does not block
        heard = os.read(self.ours, 2**16).replace(b"\0", b"")
        os.write(self.stderr, LIBRARIES.sub(b"", heard))
        self.said += b"".join(match[0] for match in LIBRARIES.finditer(heard))
        self.callers -= 1
        if not self.callers:
            os.dup2(self.stderr, 2)
            for handle in (self.stderr, self.ours, self.pipe):
                os.close(handle)
            self.free.notify_all()
        return self.said


_overhear = _Overhear()


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns a picture (H, W[, C]) turned upright according to its EXIF orientation, 1 to 8."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def write_image(path: str | os.PathLike, image: np.ndarray, metadata: Metadata | None = None) -> None:
    """Writes a picture in the format of the path's suffix; the file appears whole or not at all.

    16 bits are rounded to 8 for JPEG, WebP, AVIF and BMP, and to 10 for HEIC; all but BMP are lossy, of QUALITY. BMP
    holds no metadata.

    Args:
        path: Its suffix is one of WRITTEN_SUFFIXES; missing folders are made.
        image: (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8 or uint16.
        metadata: Written too, with orientation 1 and without a thumbnail.

    Raises:
        ValueError: The suffix is unknown, or the format cannot hold this picture (alpha, size).
    """
    path = Path(path)
    suffix = check_suffix(path)
    height, width = image.shape[:2]
    if suffix in (".jpg", ".jpeg", ".bmp") and image.shape[2:] == (4,):
        raise ValueError(f"{path}: {suffix} cannot hold the picture's alpha: write .png, .tif or .webp")
    if suffix not in (".png", ".tif", ".tiff", *HEIF_SUFFIXES) and image.dtype == np.uint16:
        image = from_float(to_float(image), np.uint8)
    options = []
    if suffix in (".jpg", ".jpeg"):
        full_chroma = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
        options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, *full_chroma]
    elif suffix == ".webp":
        options = [cv2.IMWRITE_WEBP_QUALITY, QUALITY]
    pieces = _encode(suffix, image, options, metadata)
    if not pieces and metadata and (pieces := _encode(suffix, image, options, None)):
        warnings.warn(f"{path}: EXIF and colour profile do not fit into {suffix}, and were left out", stacklevel=2)
    if not pieces:
        raise ValueError(f"{path}: {suffix} cannot hold {width} x {height} pixels: write .png or .tif")
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.writelines(pieces)


def _encode(suffix: str, image: np.ndarray, options: list[int], metadata: Metadata | None) -> list[bytes | memoryview]:
    """Returns the encoded file in pieces; [] if the format cannot hold the picture or its metadata."""
    height, width = image.shape[:2]
    tiff = suffix in (".tif", ".tiff")
    try:
        if suffix in (".avif", *HEIF_SUFFIXES):
            return [_encode_modern(suffix, image, metadata)]
        if metadata is None or tiff or suffix == ".bmp":
            done, data = cv2.imencode(suffix, image, options)
        else:
            exif = metadata.exif and exif_block(metadata, width, height)
            blocks = {cv2.IMAGE_METADATA_EXIF: exif, cv2.IMAGE_METADATA_ICCP: metadata.icc}
            blocks = {kind: np.frombuffer(block, np.uint8) for kind, block in blocks.items() if block}
            done, data = cv2.imencodeWithMetadata(suffix, image, list(blocks), list(blocks.values()), options)
        if not done:
            return []
        return add_to_tiff(data.data, metadata, width, height) if metadata and tiff else [data.data]
    except MemoryError:
        raise
    except Exception:  # see `named_errors`
        return []


def _encode_modern(suffix: str, image: np.ndarray, metadata: Metadata | None) -> memoryview:
    """Returns a picture encoded as AVIF (by Pillow) or HEIC (by pillow-heif), in full chroma resolution."""
    height, width = image.shape[:2]
    options = {"quality": QUALITY, "icc_profile": metadata and metadata.icc}
    if metadata and metadata.exif:
        options["exif"] = exif_block(metadata, width, height)
    file = io.BytesIO()
    if suffix == ".avif":
        rgb = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)[..., : image.shape[2]]
        Image.fromarray(rgb).save(file, "AVIF", subsampling="4:4:4", **options)
    else:
        import pillow_heif

        mode = {2: "L", 3: "BGR", 4: "BGRA"}[image.shape[2] if image.ndim == 3 else 2]
        mode += ";16" if image.dtype == np.uint16 else ""
        pillow_heif.encode(mode, (width, height), np.ascontiguousarray(image).tobytes(), file, chroma=444, **options)
    return file.getbuffer()


def check_suffix(path: str | os.PathLike) -> str:
    """Returns the suffix of a picture to be written, in lower case.

    Raises:
        ValueError: It is none of WRITTEN_SUFFIXES, or needs a package that is not installed; or a folder has this path.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: name a file, as in {Path(path, 'fused.jpg')}")
    suffix = Path(path).suffix.lower()
    if suffix not in WRITTEN_SUFFIXES:
        raise ValueError(f"{path}: the suffix must be one of {', '.join(WRITTEN_SUFFIXES)}")
    if suffix in HEIF_SUFFIXES:
        check_package(path, "HEIF")
    return suffix


def to_float(image: np.ndarray) -> np.ndarray:
    """Returns uint8 or uint16 of any shape as float32 in [0, 1]; float32 is returned as it is."""
    if image.dtype == np.float32:
        return image
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def from_float(image: np.ndarray, dtype: DTypeLike) -> np.ndarray:
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
    """Returns BGR (H, W, 3) of Y, Cr, Cb (H, W, 3), both float32; outside [0, 1] where no such colour exists."""
    return cv2.cvtColor(image, cv2.COLOR_YCrCb2BGR)
