"""What the numbers in a file mean as light: primaries, curves, and the colour profiles that say so.

Inside the project light is linear with the primaries of Rec. 709 (as of sRGB), white is 1.
"""

import functools
import io
import struct
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageCms

from utils.errors import UserError
from utils.pictures.pixels import finite

D50 = np.array([0.9642, 1, 0.8249])  # X, Y, Z of the white of colour profiles
D65 = (0.3127, 0.329)
REC709 = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, *D65)
REC2020 = (0.708, 0.292, 0.17, 0.797, 0.131, 0.046, *D65)
XYZ = (1.0, 0, 0, 1, 0, 0, 1 / 3, 1 / 3)  # of files that store X, Y, Z; their white is no light, and not adapted to
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])  # XYZ to cones
PAPER = 203 / 10000  # diffuse white in PQ, of 10,000 cd/m2 (ITU-R BT.2408)
PQ = (2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32)  # m1, m2, c1, c2, c3 (ST 2084)
HLG = (0.17883277, 0.28466892, 0.55991073)  # a, b, c (ITU-R BT.2100)
# Code points of ITU-T H.273, as HEIC, AVIF and PNG note them; 2: unspecified
PRIMARIES = {1: REC709, 2: REC709, 5: REC709, 6: REC709, 9: REC2020, 12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, *D65)}
CURVES: dict[int, float | str] = {
    **dict.fromkeys((1, 2, 6, 13, 14, 15), "sRGB"),  # television's curves are shown with it, too
    **{4: 2.2, 5: 2.8, 8: 1.0, 16: "PQ", 18: "HLG"},
}


@dataclass(frozen=True)
class Encoding:
    """How light became the numbers of a file."""

    primaries: tuple[float, ...] = REC709  # x and y of red, green, blue, white
    curve: float | str = "sRGB"  # the power that makes light of a number; or sRGB, PQ, HLG

    @property
    def is_srgb(self) -> bool:
        """Whether it is sRGB, or as near to it as a power of 2.2."""
        usual = self.curve == "sRGB" or isinstance(self.curve, float) and abs(self.curve - 2.2) < 0.05
        return usual and np.allclose(self.primaries, REC709, atol=2e-3)


def from_codes(primaries: int, curve: int) -> Encoding:
    """Returns the encoding that two code points of ITU-T H.273 name; raises UserError for others."""
    if primaries not in PRIMARIES or curve not in CURVES:
        raise UserError(f"its colours are coded in a way that is not known here (H.273: {primaries}, {curve})")
    return Encoding(PRIMARIES[primaries], CURVES[curve])


def to_light(image: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Returns light (H, W[, 3]) float32 BGR of Rec. 709 from numbers (H, W[, 3]) BGR, float, of an encoding.

    Its curve is 1, PQ or HLG. Diffuse white becomes 1 from PQ, the largest number from HLG.
    """
    if encoding.curve == "PQ":
        m1, m2, c1, c2, c3 = PQ
        root = np.maximum(image, 0) ** (1 / m2)
        image = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) / PAPER
    elif encoding.curve == "HLG":
        a, b, c = HLG
        image = np.where(image <= 0.5, image * image / 3, (np.exp((image - c) / a) + b) / 12)
    with np.errstate(over="ignore"):  # infinite where float64 holds more than float32 can: see `finite`
        image = image.astype(np.float32, copy=False)
    matrix = between(encoding.primaries, REC709)[::-1, ::-1]  # of B, G, R
    if image.ndim == 2 or np.allclose(matrix, np.eye(3), atol=2e-4):  # a profile's numbers are rounded
        return image
    return cv2.transform(finite(image), matrix)


def from_srgb(values: np.ndarray) -> np.ndarray:
    """Returns light in [0, 1] of any shape from sRGB's numbers in [0, 1] (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(values.dtype)


def to_pq(light: np.ndarray) -> np.ndarray:
    """Returns PQ's numbers in [0, 1], float32, of light of any shape whose diffuse white is 1."""
    m1, m2, c1, c2, c3 = PQ
    power = np.clip(light * PAPER, 0, 1) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


@functools.lru_cache
def between(source: tuple[float, ...], target: tuple[float, ...]) -> np.ndarray:
    """Returns the matrix (3, 3) from linear R, G, B of one set of primaries to another's; white stays white.

    Only the white of XYZ does not, as OpenEXR has it.
    """
    goal = white(source if np.allclose(source[6:], XYZ[6:], atol=1e-3) else target)
    return np.linalg.inv(to_xyz(target, white(target))) @ to_xyz(source, goal)


def white(primaries: tuple[float, ...]) -> np.ndarray:
    """Returns X, Y, Z of white, Y is 1."""
    x, y = primaries[6:]
    return np.array([x / y, 1, (1 - x - y) / y])


def to_xyz(primaries: tuple[float, ...], goal: np.ndarray) -> np.ndarray:
    """Returns the matrix (3, 3) from linear R, G, B to X, Y, Z, adapted so that white becomes `goal` (Bradford)."""
    xy = np.reshape(primaries[:6], (3, 2))
    columns = np.column_stack([xy, 1 - xy.sum(1)]).T
    own = white(primaries)
    adapted = np.linalg.inv(BRADFORD) @ np.diag(BRADFORD @ goal / (BRADFORD @ own)) @ BRADFORD
    return adapted @ (columns * np.linalg.solve(columns, own))


def profile(encoding: Encoding) -> bytes:
    """Returns the colour profile (ICC, version 4) of an encoding with a power or sRGB's curve."""

    def numbers(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    def text(words: str) -> bytes:
        return b"mluc" + struct.pack(">III4sII", 0, 1, 12, b"enUS", 2 * len(words), 28) + words.encode("utf-16-be")

    srgb = encoding.curve == "sRGB"
    powers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045) if srgb else (float(encoding.curve),)
    curve = b"para" + struct.pack(">IHH", 0, 3 if srgb else 0, 0) + numbers(*powers)
    matrix = to_xyz(encoding.primaries, D50)
    adaptation = matrix @ np.linalg.inv(to_xyz(encoding.primaries, white(encoding.primaries)))
    tags = {b"desc": text("RGB as the file notes it"), b"cprt": text("CC0"), b"wtpt": b"XYZ \0\0\0\0" + numbers(*D50)}
    tags[b"chad"] = b"sf32\0\0\0\0" + numbers(*adaptation.ravel())
    for name, column in zip((b"r", b"g", b"b"), matrix.T, strict=True):
        tags |= {name + b"XYZ": b"XYZ \0\0\0\0" + numbers(*column), name + b"TRC": curve}
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data.ljust(-(-len(data) // 4) * 4, b"\0")
    head = struct.pack(">I4xI4s4s4s12x4s28x", start + len(body), 0x04300000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return head + numbers(*D50) + bytes(48) + table + body


def primaries_of(icc: bytes | None) -> tuple[float, ...]:
    """Returns the primaries that a colour profile notes, as of `Encoding`; Rec. 709 without one, or if it has none."""
    if icc:
        noted = ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile
        columns = [column for column in (noted.red_colorant, noted.green_colorant, noted.blue_colorant) if column]
        if len(columns) == 3:
            corners = [number for column in columns for number in column[1][:2]]  # x, y, Y
            return (*corners, float(D50[0] / D50.sum()), float(D50[1] / D50.sum()))
    return REC709


def from_profile(icc: bytes) -> Encoding:
    """Returns the encoding that the colour profile of float pixels notes, with the power 1.

    Raises:
        UserError: Its curves are not straight, so that the pixels are no linear light, or it is none of R, G, B.
    """
    encoding = Encoding(primaries_of(icc), 1.0)
    if same_colours(icc, profile(encoding)):
        return encoding
    raise UserError("expected linear light, got floats whose colour profile has another curve, or is not of R, G, B")


def same_colours(one: bytes | None, other: bytes | None) -> bool:
    """Returns whether two colour profiles show the same numbers as the same colours; None is sRGB."""
    if one == other:
        return True
    levels = np.linspace(0, 255, 5, dtype=np.uint8)
    cube = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(5, 25, 3))
    srgb = ImageCms.createProfile("sRGB")
    try:
        source, target = (ImageCms.ImageCmsProfile(io.BytesIO(icc)) if icc else srgb for icc in (one, other))
        shown = ImageCms.profileToProfile(cube, source, target, ImageCms.Intent.RELATIVE_COLORIMETRIC)
    except (ImageCms.PyCMSError, OSError):  # of gray, of CMYK, damaged
        return False
    return bool(np.abs(np.asarray(shown, int) - np.asarray(cube)).max() <= 2)
