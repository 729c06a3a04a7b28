"""Virtual exposures: where two shots are many stops apart, they fill the gap between them.

A virtual exposure is a shot sent through a tone curve, as if it had been exposed longer or shorter. It shows nothing
new, but at a brightness that the network can use: the under-exposed shot pushed has detail in the highlights, the
over-exposed one pulled has detail in the shadows, and both have the brightness of a shot in between.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from utils.pictures.pixels import smoothstep

GAMMA = 2.2  # approximates the camera's tone curve
NOISE = 8 / 255  # luminance below it is mostly sensor noise and JPEG's steps
DARK, BRIGHT = 12 / 255, 235 / 255  # luminance outside is noise or clipped: not used to measure a gap
WIDE_DARK, WIDE_BRIGHT = 3 / 255, 250 / 255  # second try, if too few pixels lie inside the first limits
ENOUGH = 0.02  # share of the pixels that a measurement needs: fewer are outliers
GAP_PIXELS = 32_768  # pixels of the copies on which a gap is measured: shrinking averages the noise away


@dataclass(frozen=True)
class Exposure:
    """One input of the network: a shot, or a virtual exposure made of it."""

    shot: int  # index in the stack
    stops: float = 0.0  # by which the shot is pushed (> 0) or pulled (< 0); 0 is the shot itself

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Returns the exposure made of its shot, or of a part of it, uint8 or uint16 of any shape."""
        return push(image, self.stops) if self.stops else image


def push(image: np.ndarray, stops: float) -> np.ndarray:
    """Returns uint8 or uint16 of any shape as if exposed `stops` stops more: linearised by GAMMA, scaled, clipped.

    If stops > 0, levels below NOISE are brightened less, down to not at all for black: they are mostly noise.
    """
    return cv2.LUT(image, _curve(stops, image.dtype))


@functools.lru_cache(maxsize=32)  # all strips of a picture need the same few curves
def _curve(stops: float, dtype: np.dtype) -> np.ndarray:
    """Returns the look-up table of `push`: the new value of every level of an integer type."""
    levels = np.iinfo(dtype).max
    value = np.linspace(0, 1, levels + 1)
    curve = value * 2.0 ** (stops / GAMMA)
    if stops > 0:
        curve *= smoothstep(0, NOISE, value)
    return np.rint(np.minimum(curve, 1) * levels).astype(dtype)


def gap_between(under: np.ndarray, over: np.ndarray) -> float | None:
    """Returns by how many stops `over` is brighter than `under`, both luminance (H, W) float32 in [0, 1].

    It is the median over the pixels that are well exposed in both shots; None if these are too few.
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
    """Returns the virtual exposures between two shots: at each position the darker one pushed, the brighter pulled."""
    steps = [gap * (i + 1) / (positions + 1) for i in range(positions)]
    return [Exposure(under, step) for step in steps] + [Exposure(over, -step) for step in steps]


def complete(lumas: Sequence[np.ndarray], max_gap: float, stops: Sequence[float] | None = None) -> list[Exposure]:
    """Returns the network's inputs for a stack: its shots, and virtual exposures where neighbours are far apart.

    A gap wider than max_gap is filled at one position, from 2 max_gap on at two. The gap is measured in the pixels, so
    it fits the curve of `push` whatever the camera's curve is.

    Args:
        lumas: luminance of the shots, (H, W) float32 in [0, 1], in any order, of any size.
        max_gap: in stops; infinity fills no gap.
        stops: exposures of the shots as the camera noted them, used if too few pixels are well exposed in both shots.
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
