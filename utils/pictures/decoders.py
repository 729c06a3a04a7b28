"""Decoders: the pixels in a file's bytes, by the best library for its format.

A decoder takes (bytes, metadata) and returns a picture as it is in the file: (H, W), (H, W, 3) BGR or (H, W, 4) BGR
with alpha, not turned unless it says so; or None if it cannot.
"""

import functools
import io
import struct
from typing import Any

import cv2
import numpy as np
from PIL import TiffTags

from utils.errors import UserError
from utils.pictures.light import to_xyz, white
from utils.pictures.metadata import ORIENTATION, Metadata, open_picture


def decode_any(data: bytes, metadata: Metadata, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray | None:
    """Returns the picture that OpenCV decodes from a file's bytes, not turned; None if it cannot."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)


def decode_png(data: bytes, metadata: Metadata) -> np.ndarray | None:
    """Returns a PNG's picture, not turned, of the chunks that make its pixels: others may claim any length."""
    chunks, start = [data[:8]], 8
    while chunks[-1][4:8] != b"IEND" and start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            chunks.append(data[start:end])
        start = end
    return decode_any(b"".join(chunks), metadata)


def decode_tiff(data: bytes, metadata: Metadata) -> np.ndarray | None:
    """Returns a TIFF's picture, not turned; 8 bits by Pillow, since OpenCV hides damage and multiplies by alpha."""
    data = _without_orientation(data)
    if metadata.bits > 8:
        return decode_any(data, metadata)
    with open_picture(io.BytesIO(data), ("TIFF",)) as picture:
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


def decode_raw(data: bytes, metadata: Metadata) -> np.ndarray:
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


def decode_heif(data: bytes, metadata: Metadata) -> np.ndarray:
    """Returns the picture in a HEIF file, upright; 10 and 12 bits become 16."""
    import pillow_heif

    heif = pillow_heif.open_heif(data, convert_hdr_to_8bit=False, bgr_mode=True)
    image = np.asarray(heif)
    return image if image.dtype == np.uint8 else image | image >> heif.info["bit_depth"]  # so that white stays white


def decode_avif(data: bytes, metadata: Metadata) -> np.ndarray:
    """Returns the picture in an AVIF file, not turned: 8 bits, by Pillow; of PQ and HLG all bits, spread to 16."""
    if metadata.radiance:
        import imagecodecs

        image = imagecodecs.avif_decode(data)
        bits = data[data.index(b"pixi") + 9]  # after the box's name, version and number of channels
        image = (image.astype(np.uint32) * 65535 // (2**bits - 1)).astype(np.uint16)
        return image if image.ndim == 2 else np.ascontiguousarray(image[..., 2::-1])
    with open_picture(io.BytesIO(data), ("AVIF",)) as picture:
        picture.load()
        if picture.mode == "RGBA":
            return cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGBA2BGRA)
        return cv2.cvtColor(np.asarray(picture.convert("RGB")), cv2.COLOR_RGB2BGR)


def decode_exr(data: bytes, metadata: Metadata) -> np.ndarray:
    """Returns the colour (H, W, 3) BGR, or the luminance (H, W), float32, of an OpenEXR file."""
    import Imath
    import OpenEXR

    file = OpenEXR.InputFile(io.BytesIO(data))
    channels = file.header()["channels"]
    width, height = metadata.size

    def plane(name: str) -> np.ndarray:  # one at a time, since there may be hundreds
        values = np.frombuffer(file.channel(name, Imath.PixelType(Imath.PixelType.FLOAT)), np.float32)
        return values.reshape(-(-height // channels[name].ySampling), -(-width // channels[name].xSampling))

    if channels.keys() >= {"R", "G", "B"}:
        return np.stack([plane(name) for name in "BGR"], -1)
    if channels.keys() >= {"Y", "RY", "BY"}:
        y = plane("Y")
        blue, red = (y * (1 + _spread(plane(name), channels[name], y.shape)) for name in ("BY", "RY"))
        primaries = metadata.encoding.primaries
        of_red, of_green, of_blue = to_xyz(primaries, white(primaries))[1].astype(np.float32)  # luminance
        return np.stack([blue, (y - of_red * red - of_blue * blue) / of_green, red], -1)
    if "Y" in channels and not {"RY", "BY"} & channels.keys():
        return plane("Y")
    raise UserError(f"expected the channels R, G, B, or Y, RY, BY, or Y, got {', '.join(channels)}")


def _spread(plane: np.ndarray, channel: Any, shape: tuple[int, int]) -> np.ndarray:
    """Returns an OpenEXR's subsampled plane at full size, cubically; its samples lie on every second pixel or so."""
    steps = np.array([[1 / channel.xSampling, 0, 0], [0, 1 / channel.ySampling, 0]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(plane, steps, shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


# `decode_any` decodes all others
DECODERS = {
    "PNG": decode_png,
    "TIFF": decode_tiff,
    "RAW": decode_raw,
    "HEIF": decode_heif,
    "AVIF": decode_avif,
    "EXR": decode_exr,
}
# of a JPEG: at a fraction of its sides, as BGR
REDUCED = {n: functools.partial(decode_any, flags=getattr(cv2, f"IMREAD_REDUCED_COLOR_{n}")) for n in (2, 4, 8)}
