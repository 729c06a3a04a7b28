"""What makes samples of pictures: windows at random places and scales, and simulated shots.

Pure functions of arrays: whatever is random comes from a generator or a seed that is handed in.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from utils.pictures.pixels import from_float, shrink, smoothstep
from utils.training import SHOTS

WHOLE = 0.8  # share of the samples to fuse that show the whole scene: the network's coarse levels need to know it
GAMMA = 2.2  # of the curve that photographs are simulated by
MULTIPLE = 32  # pixels, to which sides are rounded: the network pads them to 64, and equal shapes are stacked
MAX_RATIO = 2.0  # of the sides of a sample; of longer panoramas it shows a part
VALIDATION_WIDTH = 512  # pixels of a picture to validate on, at most: a validation takes seconds per scene


class Shape(NamedTuple):
    """What is drawn for a sample to fuse before its scene is looked at; the same for all samples of a batch."""

    shots: int
    side: float  # of the square that has as many pixels
    upright: bool  # the longer side is the vertical one
    patch: bool = False  # a square of a picture's own pixels, as the paper has them

    @property
    def multiple(self) -> int:
        """The number of pixels of which both sides of the sample are multiples."""
        return max(1, min(MULTIPLE, int(self.side / 6)))

    def window(self, height: int, width: int, rng: np.random.Generator) -> tuple[tuple[int, int], tuple[slice, slice]]:
        """Returns the sample's (height, width), and a window of a picture of height x width pixels that it shows."""
        side = int(self.side)
        size = (side, side) if self.patch else size_like(height, width, self.side, self.multiple)
        return size, random_window(height, width, size, rng, zoom=not self.patch)


def random_shape(crop_size: int, rng: np.random.Generator, shots: Sequence[int] = SHOTS, patch: bool = False) -> Shape:
    """Returns the shape of a sample to fuse, with one of the numbers of `shots`, each as likely as the others.

    A patch has crop_size x crop_size pixels, others have that many or fewer, but at least a quarter of them.
    """
    count, side, upright = int(rng.choice(shots)), crop_size / 2 ** rng.random(), bool(rng.integers(2))
    return Shape(count, crop_size if patch else side, upright, patch)


def size_like(height: int, width: int, side: float, multiple: int) -> tuple[int, int]:
    """Returns (height, width) in a picture's proportions, multiples of `multiple`, of about side x side pixels in all.

    A longer panorama gets the proportions MAX_RATIO.
    """
    stretch = min(max(height / width, 1 / MAX_RATIO), MAX_RATIO) ** 0.5
    tall, wide = (max(1, round(pixels / multiple)) * multiple for pixels in (side * stretch, side / stretch))
    return tall, wide


def random_window(
    height: int, width: int, size: tuple[int, int], rng: np.random.Generator, zoom: bool
) -> tuple[slice, slice]:
    """Returns a random window of a picture as (rows, columns), which lie on multiples of its `reduction` to `size`.

    Args:
        size: height and width of the window; where the picture is smaller, the window is the largest in proportion.
        zoom: whether the window may be larger than `size`: a share WHOLE of them is as large as possible, the others
            lie anywhere up to there, log-uniformly.
    """
    most = min(height / size[0], width / size[1])
    scale = min(1, most)
    if zoom:
        scale = most if rng.random() < WHOLE else scale * (most / scale) ** rng.random()
    tall, wide = min(height, round(size[0] * scale)), min(width, round(size[1] * scale))
    top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
    step = reduction(tall, size[0])
    top, left, tall, wide = (int(pixels) // step * step for pixels in (top, left, tall, wide))
    return slice(top, top + tall), slice(left, left + wide)


def reduction(pixels: int, target: int) -> int:
    """Returns by how much (8, 4, 2 or 1) a decoder may shrink what is then resized from `pixels` to `target` pixels."""
    return max(n for n in (1, 2, 4, 8) if n == 1 or n * target <= pixels)


def resize_to(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a picture (H, W[, C]), any dtype, at (height, width): by area when shrunk, cubic when grown."""
    if image.shape[:2] == size:
        return image
    shrunk = image.shape[0] > size[0]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrunk else cv2.INTER_CUBIC)


def random_symmetry(image: np.ndarray, rng: np.random.Generator, upright: bool | None = None) -> np.ndarray:
    """Returns one of the eight turns and flips of pictures (..., H, W).

    Args:
        upright: True makes the longer side the vertical one, False the horizontal one; None leaves it to chance.
    """
    height, width = image.shape[-2:]
    turn = rng.random() < 0.5 if upright is None else upright != (height > width)
    if turn:
        image = image.swapaxes(-1, -2)
    if rng.random() < 0.5:
        image = image[..., ::-1]
    if rng.random() < 0.5:
        image = image[..., ::-1, :]
    return image


def simulate_shots(y: np.ndarray, stops: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Returns shots (K, H, W) uint8 of a photograph, as a camera might have taken them with `stops` more exposure.

    The photograph is linearised, scaled, clipped by the sensor, sent through one camera curve for all (a power and a
    contrast), and given noise and 8 bits.

    Args:
        y: (H, W) luminance, float32 in [0, 1].
    """
    linear = y**GAMMA
    power, contrast, noise = 1 / rng.uniform(1.8, 2.6), rng.uniform(0, 0.5), rng.uniform(0, 0.01)
    shots = []
    for exposure in stops:
        shot = np.clip(linear * np.float32(2**exposure), 0, 1) ** np.float32(power)
        shot = shot + np.float32(contrast) * (smoothstep(0, 1, shot) - shot)
        shots.append(from_float(shot + np.float32(noise) * rng.standard_normal(y.shape, np.float32), np.uint8))
    return np.stack(shots)


def simulated_stops(count: int, rng: np.random.Generator) -> list[float]:
    """Returns the exposures of simulated shots: 0.5 to 4 stops less, 0.5 to 3 more, and others between these two."""
    extremes = (-rng.uniform(0.5, 4), rng.uniform(0.5, 3))
    return [*extremes, *rng.uniform(*extremes, count - 2)]


def narrow(image: np.ndarray) -> np.ndarray:
    """Returns a picture (H, W[, 3]) uint8, shrunk by area to at most VALIDATION_WIDTH of width."""
    return shrink(image, width=VALIDATION_WIDTH)
