"""EXIF and colour profiles: read from a picture file, and made ready for writing into another, by Pillow.

EXIF is a TIFF structure: a header, a main directory of tags, and two more that it points to. In a TIFF file that
structure is the file itself; JPEG, PNG and WebP hold it as one block.
"""

import io
import math
import os
import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from PIL import Image, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

Image.MAX_IMAGE_PIXELS = None  # large photographs are welcome; OpenCV, which decodes them, stops at 2^30 pixels

MAIN, EXIF, GPS = 0, 0x8769, 0x8825  # the directories that are kept
BITS, PHOTOMETRIC, STRIP_OFFSETS, ORIENTATION, PLANAR, ICC = 258, 262, 273, 274, 284, 34675  # tags of MAIN
EXPOSURE_TIME, F_NUMBER, SENSITIVITY, CAPTURED, SUBSECOND = 33434, 33437, 34855, 36867, 37521  # tags of EXIF
WIDTH, HEIGHT, INTEROP = 40962, 40963, 40965
# What MAIN says of the photograph; the rest of it is how the file stores its pixels. Description, make, model,
# resolution (3), software, date, artist, host, rating (2), copyright, Windows' title to subject (5).
DESCRIPTIVE = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
HEADER = b"II*\0\x08\0\0\0"  # little endian; MAIN follows at once


@dataclass(frozen=True)
class Metadata:
    """What a picture file says beside its pixels."""

    exif: dict[int, Directory] = field(default_factory=dict)  # MAIN, EXIF and GPS, as far as present
    icc: bytes | None = None  # colour profile
    orientation: int = 1  # 1 to 8, as stored: `read_photo` has turned the pixels already
    size: tuple[int, int] = (0, 0)  # width, height, as stored
    tiff_layout: Directory | None = None  # of a TIFF: its main directory

    @property
    def exposure_time(self) -> float | None:
        """Seconds."""
        value = self.exif.get(EXIF, {}).get(EXPOSURE_TIME)
        return float(value) if value else None

    @property
    def stops(self) -> float | None:
        """The exposure in stops, log2(time * ISO / aperture^2), where the file notes all three."""
        directory = self.exif.get(EXIF, {})
        values = [directory.get(tag) for tag in (EXPOSURE_TIME, F_NUMBER, SENSITIVITY)]
        try:
            time, aperture, iso = (float(value) for value in values)
        except (TypeError, ValueError, ZeroDivisionError):
            return None
        return math.log2(time * iso / aperture**2) if min(time, aperture, iso) > 0 else None

    @property
    def captured(self) -> str | None:
        """Capture time, "YYYY:MM:DD HH:MM:SS.sss"."""
        directory = self.exif.get(EXIF, {})
        value = directory.get(CAPTURED)
        return f"{value}.{str(directory.get(SUBSECOND, '')).strip() or 0}" if value else None


def read_metadata(path: str | os.PathLike) -> Metadata:
    """Returns the metadata of a picture file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a picture, or of a layout that fusing has no meaning for (CMYK, Lab, float ...).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with Image.open(path) as picture:
            tiff = picture.tag_v2 if picture.format == "TIFF" else None
            block = None if tiff else picture.getexif() and (picture.info.get("exif") or picture.getexif().tobytes())
            exif = {}
            try:
                if tiff or block:
                    exif = _read_directories(picture.fp if tiff else io.BytesIO(block.removeprefix(b"Exif\0\0")))
            except (SyntaxError, struct.error, KeyError, TypeError, ValueError, OSError):
                warnings.warn(f"{path}: its EXIF is damaged and will not be carried over", stacklevel=2)
            mode, size, icc = picture.mode, picture.size, picture.info.get("icc_profile")
    except PermissionError:
        raise
    except (OSError, SyntaxError, struct.error) as error:
        raise ValueError(f"{path}: damaged, or not a picture") from error
    if mode in ("CMYK", "LAB", "F", "I") or (tiff and mode == "YCbCr" and 16 in tiff.get(BITS, ())):
        raise ValueError(f"{path}: {mode} pictures cannot be fused: convert it to RGB or gray of 8 or 16 bits")
    if tiff and 16 in tiff.get(BITS, ()) and (tiff.get(PHOTOMETRIC) == 0 or tiff.get(PLANAR) == 2):
        raise ValueError(f"{path}: a 16-bit TIFF must be interleaved and not inverted: save it anew")
    orientation = exif.get(MAIN, {}).get(ORIENTATION, 1)
    return Metadata(exif, icc or None, orientation if orientation in range(1, 9) else 1, size, tiff)


def exif_block(metadata: Metadata, width: int, height: int) -> bytes:
    """Returns EXIF for a picture of this size, for JPEG, PNG and WebP: orientation 1, no thumbnail."""
    return _tiff_structure(*_kept(metadata, width, height))


def add_to_tiff(encoded: memoryview, metadata: Metadata, width: int, height: int) -> list[bytes | memoryview]:
    """Returns a TIFF, as encoded by OpenCV, with metadata: in two pieces, new directories and the rest of the old file.

    Orientation is 1; there is no thumbnail.
    """
    main, others = _kept(metadata, width, height)
    with Image.open(io.BytesIO(encoded)) as picture:
        layout = picture.tag_v2
        for tag in layout:
            _put(main, tag, layout[tag], layout.tagtype[tag])
        offsets = tuple(offset - len(HEADER) for offset in layout[STRIP_OFFSETS])
    _put(main, STRIP_OFFSETS, offsets, TiffTags.LONG)
    if metadata.icc:
        _put(main, ICC, metadata.icc, TiffTags.UNDEFINED)
    return [_tiff_structure(main, others), encoded[len(HEADER) :]]


def _read_directories(file: BinaryIO) -> dict[int, Directory]:
    """Returns MAIN, EXIF and GPS of a TIFF structure."""
    file.seek(0)
    header = file.read(8)
    if 43 in header[2:4]:  # BigTIFF
        header += file.read(8)
    main = Directory(header)
    directories = {MAIN: main}
    file.seek(main.next)
    main.load(file)
    for pointer in (EXIF, GPS):
        if pointer in main:
            directories[pointer] = Directory(header, group=pointer)
            file.seek(main[pointer])
            directories[pointer].load(file)
    return directories


def _kept(metadata: Metadata, width: int, height: int) -> tuple[Directory, dict[int, Directory]]:
    """Returns what is carried over to a picture of this size: MAIN, and those of EXIF and GPS that there are."""
    kept = {MAIN: Directory(HEADER)}
    for pointer, source in metadata.exif.items():
        kept[pointer] = Directory(HEADER, group=pointer or None)
        for tag in source:
            if tag != INTEROP if pointer else tag in DESCRIPTIVE:
                _put(kept[pointer], tag, source[tag], source.tagtype[tag])
    _put(kept[MAIN], ORIENTATION, 1, TiffTags.SHORT)
    if EXIF in kept:
        _put(kept[EXIF], WIDTH, width, TiffTags.LONG)
        _put(kept[EXIF], HEIGHT, height, TiffTags.LONG)
    return kept.pop(MAIN), kept


def _put(directory: Directory, tag: int, value: object, kind: int) -> None:
    """Sets a value of a TIFF type; text goes as the very bytes that were read, since Pillow would write ASCII only."""
    directory.tagtype[tag] = kind
    directory[tag] = value.encode("latin-1") if isinstance(value, str) else value


def _tiff_structure(main: Directory, others: dict[int, Directory]) -> bytes:
    """Returns header, MAIN and those that it points to; its strip offsets, if any, count from the end of this."""
    for pointer in others:
        _put(main, pointer, 0, TiffTags.LONG)
    start, tail = len(HEADER) + len(main.tobytes(len(HEADER))), b""
    for pointer, directory in others.items():
        main[pointer] = start + len(tail)
        tail += directory.tobytes(start + len(tail))
    if STRIP_OFFSETS in main:  # Pillow counts them from the end of MAIN
        main[STRIP_OFFSETS] = tuple(offset + len(tail) for offset in main[STRIP_OFFSETS])
    return HEADER + main.tobytes(len(HEADER)) + tail
