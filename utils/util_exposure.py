"""Virtual exposures: where two shots lie far apart, the stack is completed by shots between them.

A virtual exposure is a shot sent through a tone curve, as if it had been exposed longer or shorter. It shows nothing
new, but at a brightness at which the network can use it: the under-exposed shot pushed shows what the light is like in
the highlights, the over-exposed one pulled shows it in the shadows, and both have the brightness of a shot in between.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

GAMMA = 2.2  # of the camera's curve, near enough
NOISE = 8 / 255  # levels of sensor noise and JPEG's steps, in a shot's dark
DARK, BRIGHT = 12 / 255, 235 / 255  # luminance outside is noise or clipped, and says nothing of the gap
WIDE_DARK, WIDE_BRIGHT = 3 / 255, 250 / 255  # where too few pixels lie inside
ENOUGH = 0.02  # of the pixels: fewer are the outliers of a wider gap
GAP_PIXELS = 32_768  # of the copies that a gap is measured on: small enough to be without noise


@dataclass(frozen=True)
class Exposure:
    """What the network is shown: a shot as it is, or pushed by so many stops."""

    shot: int  # number in the stack
    stops: float = 0.0

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Returns the exposure of its shot (or of a part of it), uint8 or uint16 of any shape."""
        return push(image, self.stops) if self.stops else image


def push(image: np.ndarray, stops: float) -> np.ndarray:
    """Returns uint8 or uint16 of any shape as if exposed so many stops more: linearised by GAMMA, scaled, clipped.

    With more exposure, levels below NOISE are held back the more the lower they are: they hold little but noise.
    """
    return cv2.LUT(image, _curve(stops, image.dtype))


@functools.lru_cache(maxsize=32)  # the strips of a picture ask for the same few
def _curve(stops: float, dtype: np.dtype) -> np.ndarray:
    """Returns the table of `push`: the new value of every level of a type."""
    levels = np.iinfo(dtype).max
    value = np.linspace(0, 1, levels + 1)
    curve = value * 2.0 ** (stops / GAMMA)
    if stops > 0:
        curve *= smoothstep(0, NOISE, value)
    return np.rint(np.minimum(curve, 1) * levels).astype(dtype)


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Returns 0 below `low`, 1 above `high`, and a smooth rise between them."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def gap_between(under: np.ndarray, over: np.ndarray) -> float | None:
    """Returns by how many stops one shot is brighter than another, both luminance (H, W) float32 in [0, 1].

    The median over the pixels that are well exposed in both; None where too few are.
    """
    scale = min(1, (GAP_PIXELS / under.size) ** 0.5)
    size = [max(1, round(side * scale)) for side in under.shape[::-1]]
    under, over = (cv2.resize(y, size, interpolation=cv2.INTER_AREA) for y in (under, over))
    for dark, bright in ((DARK, BRIGHT), (WIDE_DARK, WIDE_BRIGHT)):
        inside = (under > dark) & (over < bright)
        if inside.mean() >= ENOUGH:
            return GAMMA * float(np.median(np.log2(np.maximum(over[inside], dark) / under[inside])))
    return None


def fill(under: int, over: int, gap: float, positions: int) -> list[Exposure]:
    """Returns the virtual exposures between two shots: the darker pushed and the brighter pulled to each position."""
    steps = [gap * (i + 1) / (positions + 1) for i in range(positions)]
    return [Exposure(under, step) for step in steps] + [Exposure(over, -step) for step in steps]


def complete(lumas: Sequence[np.ndarray], max_gap: float, stops: Sequence[float] | None = None) -> list[Exposure]:
    """Returns what the network is shown of a stack: its shots, and virtual ones where neighbours lie far apart.

    Between two neighbours more than max_gap apart one position is filled, or two from twice that gap on. The gap is
    measured in the pixels: it is then that of the curve by which they are pushed, whatever the camera's is.

    Args:
        lumas: of the shots, (H, W) float32 in [0, 1], in any order, at any size.
        max_gap: in stops; infinity completes nothing.
        stops: of the shots' exposures, as the camera noted them: for neighbours with too few pixels in common.
    """
    order = sorted(range(len(lumas)), key=lambda k: lumas[k].mean())
    exposures = [Exposure(k) for k in range(len(lumas))]
    for under, over in itertools.pairwise(order):
        gap = gap_between(lumas[under], lumas[over])
        if gap is None:
            gap = stops[over] - stops[under] if stops else 0.0
        if gap > max_gap:
            exposures += fill(under, over, gap, 1 if gap < 2 * max_gap else 2)
    return exposures
