"""EXIF and colour profiles: read from one picture file and prepared for writing into another, by Pillow.

EXIF is a TIFF structure: a header, a main directory of tags, and two more directories to which it points. A TIFF file
is itself this structure; JPEG, PNG and WebP hold it as one block.
"""

import contextlib
import io
import math
import numbers
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffTags, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

from utils.errors import UserError, optional
from utils.pictures.light import REC709, XYZ, Encoding, from_codes, from_profile, profile
from utils.pictures.overhear import overhear

OPENING = threading.Lock()
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "AVIF")  # read with Pillow; READERS has the others
RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".fff", ".iiq", ".mos", ".mrw", ".nef", ".nrw", ".orf"),
    *(".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
RAW_HEADERS = (b"II*\0", b"MM\0*", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")  # TIFF, also Olympus's and Panasonic's kinds
FLIPS = {3: 3, 5: 8, 6: 6}  # LibRaw's turn -> EXIF orientation
# Import name and name to install; needed only when such a file is read or written.
PACKAGES = {"RAW": "rawpy", "HEIF": "pillow-heif", "EXR": "OpenEXR", "HDR AVIF": "imagecodecs"}
REFUSED = ("CMYK", "LAB", "I")  # Pillow's modes of other than gray or RGB values
ADVICE = "convert it to RGB or gray, interleaved, of 8 or 16 bits"
FLOAT = "F"  # the kind of a radiance map
LINEAR = Encoding(curve=1.0)

MAIN, EXIF, GPS = 0, 0x8769, 0x8825  # the directories that are kept; EXIF and GPS are also their pointers' tags
BITS, PHOTOMETRIC, STRIP_OFFSETS, ORIENTATION, PLANAR, ICC = 258, 262, 273, 274, 284, 34675  # tags of MAIN
COLUMNS, ROWS, SAMPLES, RESOLUTION_UNIT, SAMPLE_FORMAT, TILE = 256, 257, 277, 296, 339, (322, 323)  # of MAIN
DESCRIPTION = 270  # of MAIN
LARGEST_TILE = 2**22  # pixels in a TIFF's tile that is larger than its picture
EXPOSURE_TIME, F_NUMBER, SENSITIVITY, CAPTURED, SUBSECOND = 33434, 33437, 34855, 36867, 37521  # tags of EXIF
MAKER_NOTE, WIDTH, HEIGHT, INTEROP = 37500, 40962, 40963, 40965  # of EXIF
# Tags of MAIN that describe the photograph; the others describe how the file stores its pixels. Description, make,
# model, resolution (3), software, date, artist, host, rating (2), copyright, Windows' title to subject (5).
DESCRIPTIVE = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
HEADER = b"II*\0\x08\0\0\0"  # little endian; MAIN follows at once


@dataclass(frozen=True)
class Metadata:
    """The information in a picture file beside its pixels."""

    exif: dict[int, Directory] = field(default_factory=dict)  # MAIN, EXIF and GPS, if present: the tags that are kept
    icc: bytes | None = None  # colour profile
    orientation: int = 1  # 1 to 8, as stored: `read_photo` has turned the pixels already
    size: tuple[int, int] = (0, 0)  # width and height, as stored or upright
    format: str = ""  # as Pillow calls it: JPEG, PNG, TIFF ...; or RAW, HEIF, EXR, HDR
    bits: int = 8  # of a TIFF's samples
    depth: int = 8  # bytes that a decoded pixel takes, at most
    radiance: bool = False  # light without an upper limit, to be rendered to exposures: float pixels, or PQ or HLG
    encoding: Encoding = LINEAR  # of a radiance map
    white: tuple[float, ...] | None = None  # white balance of camera raw: the camera's multipliers of R, G, B, G

    def tag(self, directory: int, tag: int) -> Any:
        """Returns the value of a tag of MAIN, EXIF or GPS, or None."""
        return self.exif[directory].get(tag) if directory in self.exif else None

    def number(self, tag: int) -> float | None:
        """Returns the finite value of a tag of EXIF, or None."""
        value = self.tag(EXIF, tag)
        return float(value) if isinstance(value, numbers.Real) and math.isfinite(value) else None

    def above_0(self, tag: int) -> float | None:
        """Returns the value of a tag of EXIF that can only be above 0, or None."""
        return value if (value := self.number(tag)) and value > 0 else None

    @property
    def exposure_time(self) -> float | None:
        """Exposure time in seconds, or None."""
        return self.above_0(EXPOSURE_TIME)

    @property
    def stops(self) -> float | None:
        """Exposure in stops, log2(time * ISO / aperture^2), or None unless the file notes all three."""
        time, aperture, iso = map(self.above_0, (EXPOSURE_TIME, F_NUMBER, SENSITIVITY))
        return math.log2(time) + math.log2(iso) - 2 * math.log2(aperture) if time and aperture and iso else None

    @property
    def captured(self) -> str | None:
        """Capture time "YYYY:MM:DD HH:MM:SS.sss", or None."""
        value, fraction = self.tag(EXIF, CAPTURED), self.tag(EXIF, SUBSECOND)
        return f"{value}.{str(fraction or '').strip() or 0}" if isinstance(value, str) else None


def read_metadata(path: str | os.PathLike) -> Metadata:
    """Returns the metadata of a picture file without decoding its pixels; leaves out damaged tags, with a warning.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a picture, has a layout that cannot be fused (CMYK, Lab ...), or needs a package
            that is not installed.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give its pictures, or use --input_dir for a folder of scenes")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with open(path, "rb") as file:
        kind = _format(path, file.read(64))
        file.seek(0)
        check_package(path, kind)
        with named_errors(path):
            header, _ = overhear(READERS.get(kind, _read_with_pillow), file)
            if not all(isinstance(side, int) and side > 0 for side in header.size):
                raise ValueError("it notes no width or height")
            if header.kind in REFUSED:
                raise UserError(f"{header.kind} pictures cannot be fused: {ADVICE}")
        exif, dropped = _read_directories(header.exif) if header.exif else ({}, [])
        if header.format == "RAW" and EXIF in exif:  # too large for a JPEG: it holds previews
            exif[EXIF].pop(MAKER_NOTE, None)
        icc = header.icc if isinstance(header.icc, bytes) and header.icc[36:40] == b"acsp" else None  # in every profile
        if header.icc and not icc:
            dropped.append("the colour profile")
        encoding = header.encoding
        with named_errors(path):
            if icc and header.kind == FLOAT:
                encoding, icc = from_profile(icc), None
            elif icc:
                encoding = None
            radiance = header.kind == FLOAT or bool(encoding and encoding.curve in ("PQ", "HLG"))
            if encoding and not radiance and not encoding.is_srgb:
                icc = profile(encoding)
    if radiance and header.format == "AVIF":
        check_package(path, "HDR AVIF")
    if dropped:
        warnings.warn(f"{path}: damaged, so not carried over: {', '.join(dict.fromkeys(dropped))}", stacklevel=2)
    orientation = header.orientation or (exif[MAIN].get(ORIENTATION) if MAIN in exif else None)
    orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    light = (radiance, encoding or LINEAR)
    kept = (header.size, header.format, header.bits, header.depth)
    return Metadata(exif, icc, orientation, *kept, *light, header.white)


def check_package(path: str | os.PathLike, kind: str) -> None:
    """Raises ValueError if a format needs a package (PACKAGES) that is not installed."""
    if kind in PACKAGES:
        optional(PACKAGES[kind], f"{path}: {'camera raw' if kind == 'RAW' else kind}")


def _format(path: Path, head: bytes) -> str:
    """Returns a key of READERS, or "" for Pillow. Camera raw is known by its suffix, since many kinds are TIFF."""
    if path.suffix.lower() in RAW_SUFFIXES:
        return "RAW"
    if head[4:8] == b"ftyp":  # the brands follow
        brands = head[8 : int.from_bytes(head[:4], "big")]
        return "" if b"avif" in brands or b"avis" in brands else "HEIF"
    starts = {b"RIFF": "WEBP", b"v/1\x01": "EXR", b"#?": "HDR"}
    return next((name for start, name in starts.items() if head.startswith(start)), "")


@contextlib.contextmanager
def named_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turns any exception of a decoder into a UserError that names the file; decoders document no list of theirs.

    What is read by this project raises a UserError for what it does not support, and a ValueError for damage.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except MemoryError as error:
        raise UserError(f"{path}: there is not enough memory to read it") from error
    except Exception as error:
        text = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)  # LibRaw's
        reason = "" if isinstance(error, UnidentifiedImageError) else f" ({' '.join(text.split())[:160]})"
        raise UserError(f"{path}: damaged, or not a picture{reason}") from error


@dataclass(frozen=True)
class _Header:
    """The header of a picture file, unchecked."""

    format: str
    size: tuple[int, int]
    kind: str  # Pillow's mode, or one of REFUSED
    exif: BinaryIO | None  # a TIFF structure
    icc: object
    bits: int = 8
    depth: int = 8  # as in Metadata
    orientation: int | None = None  # None: EXIF has it
    white: tuple[float, ...] | None = None  # as in Metadata
    encoding: Encoding | None = None  # as the file notes it outside a colour profile


def _read_with_pillow(file: BinaryIO) -> _Header:
    """Returns the header of any of FORMATS; finds a PNG's EXIF itself, since Pillow might decode the pixels first."""
    bits, depth = 8, 8
    if file.read(2) in (b"II", b"MM"):
        main = _directory(file)
        bits, floating = _layout(main)
        depth = max(bits // 8 * max(main.get(SAMPLES, 1), 1), 3)
        if floating:  # Pillow cannot open these in colour
            return _Header("TIFF", (main[COLUMNS], main[ROWS]), FLOAT, file, main.get(ICC), bits, depth)
    with open_picture(file, FORMATS) as picture:
        kind, block = picture.mode, picture.info.get("exif")
        encoding: Encoding | None = None
        icc = picture.info.get("icc_profile")
        if picture.format in ("JPEG", "MPO"):
            depth = 3
        elif picture.format == "BMP":
            depth = 4
        elif picture.format == "PNG":
            found = _chunks(file, 8, {b"IHDR": 13, b"eXIf": 2**32, b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32})
            block, encoding = found.get(b"eXIf", block), _png_encoding(found)
            depth = (1 if kind in ("1", "L") else 4) * (2 if found[b"IHDR"][8] == 16 else 1)
            icc = None if b"cICP" in found else icc
        elif picture.format == "AVIF":
            encoding = _avif_encoding(file)
        if not block and picture.format != "TIFF":
            others = Image.Image.getexif(picture)  # as older programs store it, or from XMP
            block = others.tobytes() if others else None
        exif = file if picture.format == "TIFF" else _exif_file(block)
        return _Header(picture.format or "", picture.size, kind, exif, icc, bits, depth, encoding=encoding)


def _layout(main: Directory) -> tuple[int, bool]:
    """Returns the bits of a TIFF's samples, and whether they are floats; refuses what decoders may read wrongly."""
    several, formats = (set(np.atleast_1d(main.get(tag, 1)).tolist()) for tag in (BITS, SAMPLE_FORMAT))
    bits, photometric, samples = max(several), main.get(PHOTOMETRIC, 1), main.get(SAMPLES, 1)
    floating = 3 in formats
    kinds = {0: "inverted", 5: "CMYK", 6: "YCbCr", 8: "LAB", 9: "LAB", 10: "LAB"}
    what = ""
    if formats - {1, 4} and formats != {3}:  # 4: undefined, as if not noted
        what = "signed or complex"
    elif len(several) > 1 or bits not in ((32, 64) if floating else (1, 2, 4, 8, 16)):
        what = f"{' and '.join(map(str, sorted(several)))}-bit{' float' * floating}"
    elif bits > 8 and main.get(PLANAR) == 2 and samples > 1:
        what = f"planar {bits}-bit"
    elif bits > 8 and photometric not in (1, 2):
        what = f"{bits}-bit {kinds.get(photometric, 'other')}"
    if what:
        raise UserError(f"{what} TIFFs cannot be fused: {ADVICE}")
    width, height = (main.get(tag, 1) for tag in TILE)
    if width * height > max(LARGEST_TILE, main[COLUMNS] * main[ROWS]):
        raise ValueError("its tiles are larger than the picture")
    return bits, floating


def _png_encoding(chunks: dict[bytes, bytes]) -> Encoding | None:
    """Returns what a PNG's chunks say of its colours, the first of cICP, sRGB, gAMA with cHRM; None without them."""
    if b"cICP" in chunks:
        primaries, curve, matrix, full = chunks[b"cICP"]
        if matrix or not full:
            raise UserError("expected a PNG of R, G, B in the full range, got another by its cICP chunk")
        return from_codes(primaries, curve)
    if b"sRGB" in chunks or b"gAMA" not in chunks:
        return None
    power = 100_000 / int.from_bytes(chunks[b"gAMA"], "big")
    if b"cHRM" not in chunks:
        return Encoding(curve=power)
    numbers = [number / 100_000 for number in struct.unpack(">8I", chunks[b"cHRM"])]  # white first
    return Encoding((*numbers[2:], *numbers[:2]), power)


def _avif_encoding(file: BinaryIO) -> Encoding | None:
    """Returns what an AVIF's first colour box says, that of the picture itself; None without one."""
    file.seek(0)
    found = re.search(rb"colrnclx(....)", file.read(2**16), re.DOTALL)
    return from_codes(*struct.unpack(">HH", found[1])) if found else None


def open_picture(file: BinaryIO, formats: tuple[str, ...]) -> Image.Image:
    """Returns a picture opened by Pillow, of any size: `image.check_pixels` is the limit, before pixels are decoded."""
    with OPENING:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _exif_file(block: bytes | None) -> BinaryIO | None:
    """Returns the TIFF structure in a block of EXIF as a file; None without a block."""
    return io.BytesIO(block.removeprefix(b"Exif\0\0")) if block else None


def _read_webp(file: BinaryIO) -> _Header:
    """Returns the header of a WebP file, read by itself since Pillow would allocate the whole picture, twice."""
    found = _chunks(file, 12, {b"VP8X": 10, b"VP8 ": 10, b"VP8L": 5, b"EXIF": 2**32, b"ICCP": 2**32})
    sizes = []
    if b"VP8X" in found:  # width - 1 and height - 1, of 24 bits
        sizes.append([int.from_bytes(found[b"VP8X"][start : start + 3], "little") + 1 for start in (4, 7)])
    if b"VP8 " in found:  # width and height, of 14 bits, after 6 bytes
        sizes.append([side & 0x3FFF for side in struct.unpack_from("<HH", found[b"VP8 "], 6)])
    if b"VP8L" in found:  # width - 1 and height - 1, of 14 bits, after 1 byte
        packed = int.from_bytes(found[b"VP8L"][1:5], "little")
        sizes.append([(packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1])
    width, height = max(sizes)
    return _Header("WEBP", (width, height), "RGB", _exif_file(found.get(b"EXIF")), found.get(b"ICCP"), depth=4)


def _read_raw(file: BinaryIO) -> _Header:
    """Returns the header of camera raw: EXIF is the file's own where it is a TIFF, otherwise its preview's."""
    import rawpy

    with rawpy.imread(file.name) as raw:
        sizes, white = raw.sizes, tuple(raw.camera_whitebalance)
        if (start := file.read(4)) in RAW_HEADERS:
            exif = io.BytesIO((b"II*\0" if start[:2] == b"II" else b"MM\0*") + file.read())
        else:
            exif = None
            with contextlib.suppress(rawpy.LibRawError, OSError):  # no preview, or a damaged one
                with open_picture(io.BytesIO(bytes(raw.extract_thumb().data)), ("JPEG",)) as preview:
                    exif = _exif_file(preview.info.get("exif"))
    known = white if min(white[:3]) > 0 else None
    return _Header("RAW", (sizes.width, sizes.height), "RGB", exif, None, 16, 6, FLIPS.get(sizes.flip, 1), known)


def _read_heif(file: BinaryIO) -> _Header:
    """Returns the header of HEIF, with orientation 1: its decoder turns the picture upright itself."""
    import pillow_heif

    heif = pillow_heif.open_heif(file)
    exif = _exif_file(heif.info.get("exif"))
    noted = heif.info.get("nclx_profile")
    encoding = from_codes(noted["color_primaries"], noted["transfer_characteristics"]) if noted else None
    return _Header("HEIF", heif.size, "RGB", exif, heif.info.get("icc_profile"), orientation=1, encoding=encoding)


def _read_exr(file: BinaryIO) -> _Header:
    """Returns the header of OpenEXR."""
    import OpenEXR

    header = OpenEXR.File(file, header_only=True).header()
    low, high = header["dataWindow"]
    width, height = map(int, high - low + 1)
    if height < 1:
        raise ValueError("it notes no width or height")
    names = [channel.name for channel in header["channels"]]  # raises where the decoder would crash: not UTF-8
    chunk = min(height, 256) / height * 4 * len(names)  # decoded at once: up to 256 lines of all channels
    depth = 24 + math.ceil(chunk)
    if "tiles" in header and header["tiles"].xSize * header["tiles"].ySize > max(LARGEST_TILE, width * height):
        raise ValueError("its tiles are larger than the picture")
    encoding = Encoding(tuple(map(float, header.get("chromaticities", REC709))), 1.0)
    return _Header("EXR", (width, height), FLOAT, None, None, 32, depth, encoding=encoding)


def _read_hdr(file: BinaryIO) -> _Header:
    """Returns the header of Radiance RGBE: lines of text, an empty line, the size."""
    head, end, rest = file.read(2**16).partition(b"\n\n")
    size = re.match(rb"-Y (\d+) \+X (\d+)\n", rest)
    if not size:
        raise ValueError("expected the size as -Y HEIGHT +X WIDTH")
    noted = re.search(rb"\nPRIMARIES=([-+.\de\s]+)", head)
    primaries = tuple(map(float, noted[1].split())) if noted else XYZ if b"rle_xyze" in head else REC709
    return _Header("HDR", (int(size[2]), int(size[1])), FLOAT, None, None, 32, 12, encoding=Encoding(primaries, 1.0))


READERS = {"RAW": _read_raw, "WEBP": _read_webp, "HEIF": _read_heif, "EXR": _read_exr, "HDR": _read_hdr}


def _chunks(file: BinaryIO, start: int, wanted: dict[bytes, int]) -> dict[bytes, bytes]:
    """Returns the first chunk of each wanted name in a PNG (start 8) or WebP (start 12).

    Args:
        wanted: name -> most bytes to read of the chunk.

    Raises:
        ValueError: A chunk is longer than the file; OpenCV would allocate the length that it claims.
    """
    found: dict[bytes, bytes] = {}
    png, end, name = start == 8, file.seek(0, os.SEEK_END), b""
    while start + 8 <= end and name != b"IEND":
        file.seek(start)
        first, second = struct.unpack(">I4s" if png else "<4sI", file.read(8))
        name, length = (second, first) if png else (first, second)
        start += 8 + length
        if start > end:
            raise ValueError("cut short")
        if name in wanted:
            found.setdefault(name, file.read(min(length, wanted[name])))
        start += 4 if png else length % 2  # PNG: a checksum; WebP: a byte to make the length even
    return found


def exif_block(metadata: Metadata, width: int, height: int) -> bytes:
    """Returns the EXIF block of a picture of this size for JPEG, PNG and WebP, with orientation 1, no thumbnail."""
    return _tiff_structure(*_kept(metadata, width, height))


def add_to_tiff(
    encoded: memoryview, metadata: Metadata, width: int, height: int, description: str = ""
) -> list[bytes | memoryview]:
    """Returns a TIFF encoded by OpenCV with metadata added, in two pieces: new directories, and the old file's rest.

    The orientation becomes 1; there is no thumbnail. A description replaces that of EXIF.
    """
    main, others = _kept(metadata, width, height)
    if description:
        _put(main, DESCRIPTION, description, TiffTags.ASCII)
    layout = _directory(io.BytesIO(encoded))
    for tag in layout:
        _put(main, tag, layout[tag], layout.tagtype[tag])
    offsets = tuple(offset - len(HEADER) for offset in np.atleast_1d(layout[STRIP_OFFSETS]).tolist())
    _put(main, STRIP_OFFSETS, offsets, TiffTags.LONG)
    if metadata.icc:
        _put(main, ICC, metadata.icc, TiffTags.UNDEFINED)
    return [_tiff_structure(main, others), encoded[len(HEADER) :]]


def _tiff_header(file: BinaryIO) -> bytes:
    """Returns the header of a TIFF: 8 bytes, or 16 of a BigTIFF."""
    file.seek(0)
    header = file.read(16)
    return header if 43 in header[2:4] else header[:8]


def _directory(file: BinaryIO) -> Directory:
    """Returns MAIN of a TIFF."""
    header = _tiff_header(file)
    if header.startswith(b"MM\0\x2b"):
        raise UserError("a BigTIFF of big-endian byte order is not supported: save it as an ordinary TIFF")
    directory = Directory(header)
    file.seek(directory.next)
    directory.load(file)
    return directory


def _read_directories(file: BinaryIO) -> tuple[dict[int, Directory], list[str]]:
    """Returns the kept tags of MAIN, EXIF and GPS of a TIFF structure, and the names of the damaged tags."""
    header = _tiff_header(file)
    found: dict[int, Directory] = {}
    dropped: list[str] = []
    starts: dict[int, int | None] = {}
    for pointer in (MAIN, EXIF, GPS):
        try:
            source = Directory(header, group=pointer or None)
            start = starts.get(pointer) if pointer else source.next
            if start is None:
                continue
            file.seek(start)
            source.load(file)
            if pointer == MAIN:
                starts = {directory: source.get(directory) for directory in (EXIF, GPS)}
        except Exception:  # see `named_errors`
            dropped.append("EXIF")
            continue
        found[pointer] = source
        for tag in list(source):
            kept = tag in (*DESCRIPTIVE, ORIENTATION) if pointer == MAIN else tag != INTEROP
            if not kept:
                del source[tag]
                continue
            try:
                if tag == RESOLUTION_UNIT and source[tag] not in (1, 2, 3):
                    raise ValueError("TIFF has no such unit")
                trial = Directory(HEADER, group=pointer or None)
                _put(trial, tag, source[tag], source.tagtype[tag])
                trial.tobytes()
            except Exception:  # the value has a type or range that its tag does not allow
                del source[tag]
                dropped.append(TiffTags.lookup(tag, pointer or None).name)
    return found, dropped


def _kept(metadata: Metadata, width: int, height: int) -> tuple[Directory, dict[int, Directory]]:
    """Returns the directories to write with a picture of this size: MAIN, and a dict of EXIF and GPS, if present."""
    kept = {MAIN: Directory(HEADER)}
    for pointer, source in metadata.exif.items():
        kept[pointer] = Directory(HEADER, group=pointer or None)
        for tag in source:
            _put(kept[pointer], tag, source[tag], source.tagtype[tag])
    _put(kept[MAIN], ORIENTATION, 1, TiffTags.SHORT)
    if EXIF in kept:
        _put(kept[EXIF], WIDTH, width, TiffTags.LONG)
        _put(kept[EXIF], HEIGHT, height, TiffTags.LONG)
    return kept.pop(MAIN), kept


def _put(directory: Directory, tag: int, value: object, kind: int) -> None:
    """Sets a tag to a value of TIFF type `kind`; text as the bytes that were read: Pillow would write ASCII only."""
    directory.tagtype[tag] = kind
    directory[tag] = value.encode("latin-1") if isinstance(value, str) else value


def _tiff_structure(main: Directory, others: dict[int, Directory]) -> bytes:
    """Returns header, MAIN and `others`, to which MAIN points, as bytes; strip offsets count from the end of them."""
    for pointer in others:
        _put(main, pointer, 0, TiffTags.LONG)
    start, tail = len(HEADER) + len(main.tobytes(len(HEADER))), b""
    for pointer, directory in others.items():
        main[pointer] = start + len(tail)
        tail += directory.tobytes(start + len(tail))
    if STRIP_OFFSETS in main:  # Pillow counts them from the end of MAIN
        main[STRIP_OFFSETS] = tuple(offset + len(tail) for offset in main[STRIP_OFFSETS])
    return HEADER + main.tobytes(len(HEADER)) + tail
