"""Read and write pictures: the only border to the disk.

On disk a picture is whatever its file holds. At this border it is OpenCV's (H, W, 3) BGR in uint8 or uint16; exposures
and fused pictures may also be (H, W) gray or (H, W, 4) BGR with alpha; a radiance map is linear float32 without an
upper limit. What they are inside, `pixels.py` says.
"""

import io
import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.errors import UserError
from utils.files import replacing
from utils.pictures import QUALITY
from utils.pictures.decoders import DECODERS, REDUCED, decode_any
from utils.pictures.hdr import GainMap, ultra_hdr
from utils.pictures.light import to_light
from utils.pictures.metadata import (
    RAW_SUFFIXES,
    Metadata,
    add_to_tiff,
    check_package,
    exif_block,
    named_errors,
    read_metadata,
)
from utils.pictures.overhear import HARMLESS, overhear
from utils.pictures.pixels import eight_bits, to_float, upright

WRITTEN_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".avif", ".heic", ".heif")
IMAGE_SUFFIXES = (*WRITTEN_SUFFIXES, ".hif", *RAW_SUFFIXES)  # photographs that can be read
HEIF_SUFFIXES = (".heic", ".heif")  # HEIF that can be written
RADIANCE_SUFFIXES = (".hdr", ".exr")  # linear float, read and written
HDR_SUFFIXES = (".jpg", ".jpeg", ".avif", *HEIF_SUFFIXES, ".tif", ".tiff", *RADIANCE_SUFFIXES)
FULL_CHROMA = 90  # least quality of a JPEG whose colours have every pixel; below, one of four, as others do
MAX_PIXELS = 2**28  # 268 million: two such pictures of 8 bits take 1.6 GB
# Photographs have at most 16 pixels per byte of their file; a file with more is flat colour, or was made to do harm.
FREE_BYTES, BYTES_PER_BYTE = 2**27, 128  # a file of n bytes may be decoded to 134 MB + 128 n bytes
USUAL_SCANS = 16  # of a progressive JPEG; each scan takes the decoding time again
SCAN = b"\xff\xda"  # begins each scan of a JPEG


def list_images(folder: str | os.PathLike, recursive: bool = False) -> list[Path]:
    """Returns the paths of the photographs in a folder, sorted; `recursive`: also below it, see `walk_images`.

    Raises:
        OSError: There is no such folder, or one cannot be read.
    """
    found = itertools.islice(walk_images(folder), None if recursive else 1)
    return sorted(path for _, files in found for path in files)


def walk_images(
    root: str | os.PathLike[str],
    suffixes: Sequence[str] = IMAGE_SUFFIXES,
    unreadable: Callable[[OSError], None] | None = None,
) -> Iterator[tuple[Path, list[Path]]]:
    """Yields a folder and all folders in it, each with its pictures by their suffix (any case), sorted.

    Links to folders are followed; a folder that several paths lead to is seen once. Hidden ones and a server's previews
    ("@eaDir") are left out. So is camera raw where another picture of the same name lies beside it: the same shot,
    developed.

    Args:
        unreadable: is called for each folder that cannot be read; None raises its error.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{root}: no such folder")

    def fail(error: OSError) -> None:
        raise error

    seen = set()
    for folder, inner, names in os.walk(os.fspath(root), onerror=unreadable or fail, followlinks=True):
        inner[:] = sorted(name for name in inner if name[0] not in ".@")
        if (real := os.path.realpath(folder)) in seen:  # links may lead back
            inner.clear()
            continue
        seen.add(real)
        found = [Path(folder, name) for name in names if Path(name).suffix.lower() in suffixes and name[0] != "."]
        raw = {path for path in found if path.suffix.lower() in RAW_SUFFIXES}
        developed = {path.with_suffix("") for path in found if path not in raw}
        yield Path(folder), sorted(path for path in found if path not in raw or path.with_suffix("") not in developed)


def read_image(path: str | os.PathLike, shrink: int = 1) -> np.ndarray:
    """Returns a picture (H, W, 3) BGR, uint8 or uint16, upright, without alpha; all else is as for `read_photo`."""
    image, _ = read_photo(path, shrink=shrink)
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else np.ascontiguousarray(image[..., :3])


def read_photo(
    path: str | os.PathLike, max_pixels: int | None = None, white: tuple[float, ...] | None = None, shrink: int = 1
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
        what = "a radiance map (float, or coded as PQ or HLG) holds all exposures"
        raise UserError(f"{path}: {what}: fuse it alone, or save it with 16 bits")
    metadata = replace(metadata, white=white or metadata.white)
    return _read(path, metadata, max_pixels, (np.uint8, np.uint16), shrink), metadata


def read_radiance(path: str | os.PathLike, max_pixels: int | None = None) -> tuple[np.ndarray, Metadata]:
    """Returns a radiance map, upright, (H, W) gray or (H, W, 3) BGR of Rec. 709, linear float32, and its metadata.

    Alpha is left out. The file's primaries, noted or those of its colour profile, are converted.

    Raises:
        FileNotFoundError, ValueError: As for `read_photo`; or the file is no float TIFF, OpenEXR, Radiance RGBE, and
            no picture coded as PQ or HLG.
    """
    metadata = read_metadata(path)
    if not metadata.radiance:
        raise UserError(f"{path}: is no radiance map (float TIFF, OpenEXR, Radiance RGBE, PQ, HLG)")
    image = _read(path, metadata, max_pixels, (np.float32, np.float64, np.uint8, np.uint16))
    image = image[..., :3] if image.ndim == 3 else image
    return to_light(image if image.dtype.kind == "f" else to_float(image), metadata.encoding), metadata


def _read(
    path: str | os.PathLike, metadata: Metadata, max_pixels: int | None, dtypes: tuple[type, ...], shrink: int = 1
) -> np.ndarray:
    """Returns the picture in a file, upright, of one of these dtypes; arguments and errors as for `read_photo`."""
    data = Path(path).read_bytes()  # cv2.imread cannot open non-ASCII paths on Windows
    scans = data.count(SCAN) if metadata.format in ("JPEG", "MPO") else 1
    check_pixels(path, *metadata.size, metadata.depth, len(data), max_pixels, scans)
    decode = DECODERS.get(metadata.format, decode_any)
    if shrink > 1 and metadata.format == "JPEG":
        decode = REDUCED[shrink]
    with named_errors(path):
        image, said = overhear(decode, data, metadata)
        if image is None or image.dtype not in dtypes or image.shape[2:] not in ((), (3,), (4,)):
            raise ValueError(said.decode(errors="replace") or "expected a whole one of 8 or 16 bits")
        if complaints := HARMLESS.sub(b"", said):
            raise ValueError(f"{complaints.decode(errors='replace')}: open and save it anew to use what is left of it")
    return upright(image, metadata.orientation)


def check_pixels(
    path: str | os.PathLike, width: int, height: int, depth: int, size: int, max_pixels: int | None, scans: int
) -> None:
    """Raises UserError if a picture has more than `max_pixels` (None: more than a file of `size` bytes may have).

    `depth` is the number of bytes that a decoded pixel takes.

    A few bytes can claim billions of pixels, which take all memory, or thousands of scans, which take minutes.
    """
    limit = max_pixels or min(MAX_PIXELS, (FREE_BYTES + BYTES_PER_BYTE * size) // depth)
    if width * height * max(1, scans / USUAL_SCANS) > limit:
        scanned = f" in {scans} scans" if scans > USUAL_SCANS else ""
        raise UserError(
            f"{path}: {width} x {height} pixels{scanned} in a file of {size:,} bytes, expected at most {limit:,}: "
            "if the file is right, allow more with --max_pixels"
        )


def write_image(
    path: str | os.PathLike,
    image: np.ndarray,
    metadata: Metadata | None = None,
    quality: int = QUALITY,
    gain: GainMap | None = None,
) -> None:
    """Writes a picture in the format of the path's suffix; the file appears whole or not at all.

    16 bits are rounded to 8 for JPEG, WebP, AVIF and BMP, and to 10 for HEIC; all but BMP are lossy. BMP holds no
    metadata.

    Args:
        path: Its suffix is one of WRITTEN_SUFFIXES; missing folders are made.
        image: (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8 or uint16.
        metadata: Written too, with orientation 1 and without a thumbnail.
        quality: Of lossy formats, 1 to 100.
        gain: Makes a JPEG Ultra HDR.

    Raises:
        ValueError: The suffix is unknown, or the format cannot hold this picture (alpha, size).
    """
    path = Path(path)
    suffix = check_suffix(path)
    if suffix in RADIANCE_SUFFIXES:
        raise UserError(f"{path}: {suffix} is for radiance maps, not for pictures")
    height, width = image.shape[:2]
    if suffix in (".jpg", ".jpeg", ".bmp") and image.shape[2:] == (4,):
        raise UserError(f"{path}: {suffix} cannot hold the picture's alpha: write .png, .tif or .webp")
    if suffix not in (".png", ".tif", ".tiff", *HEIF_SUFFIXES) and image.dtype == np.uint16:
        image = eight_bits(image)
    pieces, _ = overhear(_encode, suffix, image, quality, metadata)
    if suffix == ".bmp" and metadata and metadata.icc:
        warnings.warn(f"{path}: the colour profile does not fit into {suffix}, and was left out", stacklevel=2)
    if not pieces and metadata and (pieces := overhear(_encode, suffix, image, quality, None)[0]):
        warnings.warn(f"{path}: EXIF and colour profile do not fit into {suffix}, and were left out", stacklevel=2)
    if not pieces:
        raise UserError(f"{path}: {suffix} cannot hold {width} x {height} pixels: write .png or .tif")
    pieces = [ultra_hdr(b"".join(pieces), gain)] if gain else pieces
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.writelines(pieces)


def _encode(suffix: str, image: np.ndarray, quality: int, metadata: Metadata | None) -> list[bytes | memoryview]:
    """Returns the encoded file in pieces; [] if the format cannot hold the picture or its metadata."""
    height, width = image.shape[:2]
    tiff = suffix in (".tif", ".tiff")
    options = [cv2.IMWRITE_WEBP_QUALITY, quality] if suffix == ".webp" else []
    if suffix in (".jpg", ".jpeg"):
        kinds = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, kinds[quality >= FULL_CHROMA])
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling]
    try:
        if suffix in (".avif", *HEIF_SUFFIXES):
            return [_encode_modern(suffix, image, quality, metadata)]
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


def _encode_modern(suffix: str, image: np.ndarray, quality: int, metadata: Metadata | None) -> memoryview:
    """Returns a picture encoded as AVIF (by Pillow) or HEIC (by pillow-heif), in full chroma resolution."""
    height, width = image.shape[:2]
    options = {"quality": quality, "icc_profile": metadata and metadata.icc}
    if metadata and metadata.exif:
        options["exif"] = exif_block(metadata, width, height)
    file = io.BytesIO()
    if suffix == ".avif":
        rgb = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)[..., : image.shape[2]]
        Image.fromarray(rgb).save(file, "AVIF", subsampling="4:4:4", **options)
    else:
        import pillow_heif

        mode = {2: "L", 3: "BGR", 4: "BGRA"}[image.shape[2] if image.ndim == 3 else 2]
        if image.dtype == np.uint16:  # the encoder cuts off all but 10 bits: so it rounds
            mode, image = f"{mode};16", np.rint(image * np.float32(1023 / 65535)).astype(np.uint16) << 6
        pixels = np.ascontiguousarray(image).tobytes()
        fast = {"preset": "ultrafast"}  # 7 times as fast as the default, for files that are an eighth larger
        pillow_heif.encode(mode, (width, height), pixels, file, chroma=444, enc_params=fast, **options)
    return file.getbuffer()


def check_suffix(path: str | os.PathLike, hdr: bool = False) -> str:
    """Returns the suffix of a picture to be written, in lower case; with `hdr`, more than white is to be held.

    Raises:
        ValueError: It is none of WRITTEN_SUFFIXES and RADIANCE_SUFFIXES, or cannot hold HDR, or needs a package that
            is not installed; or a folder has this path.
    """
    if Path(path).is_dir():
        raise UserError(f"{path} is a folder: name a file, as in {Path(path, 'fused.jpg')}")
    suffix = Path(path).suffix.lower()
    if suffix not in (*WRITTEN_SUFFIXES, *RADIANCE_SUFFIXES):
        raise UserError(f"{path}: the suffix must be one of {', '.join((*WRITTEN_SUFFIXES, *RADIANCE_SUFFIXES))}")
    if hdr and suffix not in HDR_SUFFIXES:
        raise UserError(f"{path}: {suffix} cannot hold HDR, but {', '.join(HDR_SUFFIXES)} can")
    kinds = {".exr": "EXR", ".avif": "HDR AVIF" if hdr else "AVIF"} | dict.fromkeys(HEIF_SUFFIXES, "HEIF")
    check_package(path, kinds.get(suffix, ""))
    return suffix
