"""Files that hold more light than white: Ultra HDR JPEG, pictures coded as PQ, radiance maps.

An Ultra HDR JPEG is a JPEG that old viewers show as it is, and behind it a gain map, a JPEG too, that makes it brighter
on a screen that can. Where the map is and what its grey levels mean is said twice, since viewers read either: as XMP
(Adobe, Android) and as binary blocks (ISO 21496-1), beside the index of pictures that every JPEG with several pictures
has (MPF, CIPA DC-007).
"""

import io
import os
import struct
import warnings
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from utils.files import replacing
from utils.pictures import QUALITY
from utils.pictures.light import REC709, REC2020, Encoding, between, primaries_of, profile, to_pq
from utils.pictures.metadata import Metadata, add_to_tiff, exif_block

BITS = 10  # of numbers coded as PQ
OFFSET = 1 / 64  # added to the light of both renditions, so that black has a gain too
# Steps of the map's JPEG, for the frequencies (across + down) from 0: fine for skies, coarse for detail, of which the
# picture itself has enough.
MAP_STEPS = [min(6 + 26 * (across + down) // 4, 32) for down in range(8) for across in range(8)]
ISO = b"urn:iso:std:iso:ts:21496:-1\0"
BASE_COLOURS = 0x40  # flag of ISO 21496-1: the gain is meant in the base's primaries
PRIMARY = 0x030000  # MPF's type of the picture that everybody shows

PACKET = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\
<rdf:Description rdf:about="" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" {}\
</rdf:Description></rdf:RDF></x:xmpmeta>"""
NOTES = """hdrgm:GainMapMin="0" hdrgm:GainMapMax="{0}" hdrgm:Gamma="1" hdrgm:OffsetSDR="{1}" hdrgm:OffsetHDR="{1}" \
hdrgm:HDRCapacityMin="0" hdrgm:HDRCapacityMax="{0}" hdrgm:BaseRenditionIsHDR="False">"""
DIRECTORY = """xmlns:Container="http://ns.google.com/photos/1.0/container/" \
xmlns:Item="http://ns.google.com/photos/1.0/container/item/"><Container:Directory><rdf:Seq>\
<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="Primary" Item:Mime="image/jpeg"/></rdf:li>\
<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="GainMap" Item:Mime="image/jpeg" Item:Length="{}"/>\
</rdf:li></rdf:Seq></Container:Directory>"""


class GainMap(NamedTuple):
    """How much brighter than the picture each place is meant to be, in linear light."""

    levels: np.ndarray  # (h, w) uint8, of the picture's proportions: 0 is no gain, 255 `most`; the stops are linear
    most: float  # in stops, more than 0


def ultra_hdr(base: bytes, gain: GainMap) -> bytes:
    """Returns the bytes of an Ultra HDR JPEG, whose picture is that of `base`, bit for bit.

    Args:
        base: a JPEG in colour, with EXIF and colour profile as they shall be.
        gain: of any size.
    """
    file = io.BytesIO()
    Image.fromarray(gain.levels).save(file, "JPEG", qtables=[MAP_STEPS], optimize=True)
    encoded = file.getvalue()
    # headroom of the picture and of what the map makes of it; least and largest gain, its power, both offsets
    fractions = (0, gain.most, 0, gain.most, 1, OFFSET, OFFSET)
    whole = [part for number in fractions for part in (round(number * 2**16), 2**16)]
    noted = struct.pack(">HHB14I", 0, 0, BASE_COLOURS, *whole)
    segments = _xmp(NOTES.format(round(gain.most, 5), OFFSET)) + _segment(0xE2, ISO + noted)
    second = encoded[:2] + segments + encoded[2:]
    start = _end_of_notes(base)
    head = base[:start] + _xmp(DIRECTORY.format(len(second))) + _segment(0xE2, ISO + bytes(4))
    marked = len(head) + 4 + len(b"MPF\0")  # where offsets are counted from
    size = len(head) + len(_index(0, 0, 0)) + len(base) - start
    return head + _index(size, len(second), size - marked) + base[start:] + second


def _end_of_notes(jpeg: bytes) -> int:
    """Returns where the first segment of a JPEG starts that is no APPn: there more of them can be put."""
    at = 2
    while jpeg[at] == 0xFF and 0xE0 <= jpeg[at + 1] <= 0xEF:
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return at


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _xmp(attributes: str) -> bytes:
    return _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + PACKET.format(attributes).encode())


def _index(size: int, second: int, offset: int) -> bytes:
    """Returns the segment of MPF: a TIFF structure with the sizes in bytes of both pictures, and where the second is.

    Its tags are version, number of pictures, and the entries: type, size and offset of each, and two unused numbers.
    """
    tags = struct.pack(">HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(">HHII", 0xB001, 4, 1, 2)
    tags += struct.pack(">HHII", 0xB002, 7, 2 * 16, 8 + 2 + 3 * 12 + 4)
    entries = struct.pack(">IIIHHIIIHH", PRIMARY, size, 0, 0, 0, 0, second, offset, 0, 0)
    return _segment(0xE2, b"MPF\0MM\0*" + struct.pack(">IH", 8, 3) + tags + bytes(4) + entries)


def write_pq(path: str | os.PathLike, light: np.ndarray, metadata: Metadata, quality: int = QUALITY) -> None:
    """Writes a picture in the format of the path's suffix, coded as PQ with BITS bits and the primaries of Rec. 2020.

    Args:
        path: .heic or .heif (pillow-heif writes it), or .avif (imagecodecs, without EXIF).
        light: (H, W, 3) BGR float32 in the primaries of the metadata's colour profile; 1 is diffuse white.
        metadata: its EXIF is written too, with orientation 1.
    """
    wide = cv2.transform(light, between(primaries_of(metadata.icc), REC2020)[::-1, ::-1])
    rgb = np.rint(to_pq(wide[..., ::-1]) * (2**BITS - 1)).astype(np.uint16)
    if Path(path).suffix.lower() == ".avif":
        import imagecodecs

        finer = 100 - (100 - quality) // 8  # a step of PQ is more light than one of sRGB, and AV1 loses more of it
        data = imagecodecs.avif_encode(
            rgb, finer, speed=8, bitspersample=BITS, pixelformat="yuv444", primaries=9, transfer=16, matrix=9
        )
        if metadata.exif:
            warnings.warn(f"{path}: EXIF is left out of an AVIF with HDR: .heic and .jpg keep it", stacklevel=2)
    else:
        import pillow_heif

        height, width = rgb.shape[:2]
        codes = {"color_primaries": 9, "transfer_characteristics": 16, "matrix_coefficients": 9, "full_range_flag": 1}
        exif = {"exif": exif_block(metadata, width, height)} if metadata.exif else {}
        file = io.BytesIO()
        spread = (rgb << (16 - BITS)).tobytes()
        # fast as in `write_image`; x265 treats the difference from gray as less important, but in PQ it is much light
        encoder = {"preset": "ultrafast", "x265:cbqpoffs": "-12", "x265:crqpoffs": "-12"}
        options = {"quality": quality, "chroma": 444, "enc_params": encoder}
        pillow_heif.encode("RGB;16", (width, height), spread, file, **options, **codes, **exif)
        data = file.getbuffer()
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_radiance(path: str | os.PathLike, light: np.ndarray, metadata: Metadata, note: str) -> None:
    """Writes a radiance map, with the primaries of Rec. 709 and what 1 means noted in it.

    Args:
        path: .exr (16 bits, or 32 where those are too few; the package OpenEXR writes it), .hdr, .tif or .tiff.
        light: (H, W) or (H, W, 3) BGR float32, linear, in the primaries of the metadata's colour profile.
        metadata: its EXIF goes into TIFF; the others have no place for it.
        note: what 1 means.
    """
    height, width = light.shape[:2]
    if light.ndim == 3 and metadata.icc:
        light = cv2.transform(light, between(primaries_of(metadata.icc), REC709)[::-1, ::-1])
    suffix = Path(path).suffix.lower()
    with replacing(path) as temporary:
        if suffix == ".exr":
            import OpenEXR

            kind = np.float16 if light.max() < np.finfo(np.float16).max else np.float32
            names, planes = "BGR" if light.ndim == 3 else "Y", cv2.split(light)
            channels = {name: plane.astype(kind) for name, plane in zip(names, planes, strict=True)}
            header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
            OpenEXR.File(header | {"chromaticities": REC709, "comments": note}, channels).write(str(temporary))
        elif suffix == ".hdr":
            colour = light if light.ndim == 3 else cv2.merge([light] * 3)
            first, rest = cv2.imencode(".hdr", colour)[1].tobytes().split(b"\n", 1)
            noted = f"# {note}\nPRIMARIES= {' '.join(map(str, REC709))}\n"
            temporary.write_bytes(first + b"\n" + noted.encode() + rest)
        else:
            linear = replace(metadata, icc=profile(Encoding(curve=1.0)) if light.ndim == 3 else None)
            pieces = add_to_tiff(cv2.imencode(".tif", light)[1].data, linear, width, height, note)
            temporary.write_bytes(b"".join(pieces))
