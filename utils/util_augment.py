"""What makes samples of pictures: squares at random places and scales, simulated shots, stacks that are completed.

Pure functions of arrays: whatever is random comes from a generator or a seed that is handed in.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from utils.util_exposure import GAMMA, fill, gap_between, smoothstep
from utils.util_image import from_float, to_float

STACKS = (2, 2, 2, 2, 2, 2, 3, 4, 6)  # shots to fuse, each as likely as the others
FILLED = (0, 1, 1, 2, 2)  # of batches of up to three shots, each as likely as the others
FACTORS = (1, 2, 2, 4)  # each as likely as the others; small pictures are fused at 1 to 2, large ones at up to 20
VALIDATION_WIDTH = 512  # pixels of a picture to validate on, at most: a validation takes seconds per scene


class Shape(NamedTuple):
    """What the samples of a batch to fuse have in common, so that they can be stacked."""

    shots: int
    filled: int  # positions in the widest gap between the shots at which virtual exposures stand
    side: int  # of the squares, in pixels
    factor: int


def batch_shape(crop_size: int, batch_seed: int, pyramid: bool = True) -> Shape:
    """Returns what the samples of a batch to fuse have in common.

    The side is between half of crop_size and crop_size, log-uniformly, and divisible by every factor. For a pyramid it
    is half of that at factor 1: the network's work goes by the decision's size.

    Args:
        pyramid: The paper's networks have factor 1, and no gap is filled for them, as when they fuse.
    """
    rng = np.random.default_rng(batch_seed)
    shots, factor = int(rng.choice(STACKS)), int(rng.choice(FACTORS))
    largest = crop_size / 2 if pyramid and factor == 1 else crop_size
    side = max(FACTORS) * round(largest / 2 ** rng.random() / max(FACTORS))
    filled = int(rng.choice(FILLED)) if shots < 4 else 0
    return Shape(shots, filled, side, factor) if pyramid else Shape(shots, 0, side, 1)


def random_window(height: int, width: int, size: int, rng: np.random.Generator, zoom: bool) -> tuple[slice, slice]:
    """Returns a random square of a picture as (rows, columns), which lie on multiples of its `reduction` to `size`.

    Args:
        size: side of the square, or the picture's short side where that is smaller.
        zoom: let the side lie anywhere between that and the short side, log-uniformly.
    """
    short = min(height, width)
    side = min(size, short)
    if zoom:
        side = min(short, round(side * (short / side) ** rng.random()))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    step = reduction(side, size)
    top, left, side = (int(pixels) // step * step for pixels in (top, left, side))
    return slice(top, top + side), slice(left, left + side)


def reduction(side: int, size: int) -> int:
    """Returns 8, 4, 2 or 1: by so much a decoder may shrink a square that is to be shrunk from `side` to `size`."""
    return max(n for n in (1, 2, 4, 8) if n == 1 or n * size <= side)


def resize_square(image: np.ndarray, size: int) -> np.ndarray:
    """Returns a square picture (S, S[, C]), any dtype, at (size, size[, C]): by area when shrunk, cubic when grown."""
    side = image.shape[0]
    if side == size:
        return image
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)


def random_symmetry(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns one of the eight turns and flips of squares (..., S, S)."""
    if rng.random() < 0.5:
        image = image.swapaxes(-1, -2)
    if rng.random() < 0.5:
        image = image[..., ::-1]
    if rng.random() < 0.5:
        image = image[..., ::-1, :]
    return image


def simulate_shots(y: np.ndarray, stops: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Returns shots (K, H, W) of a photograph, exposed so many stops more, as a camera might have taken them. uint8.

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


def fill_widest_gap(shots: Sequence[np.ndarray] | np.ndarray, positions: int) -> list[np.ndarray]:
    """Returns shots (H, W) uint8 and the virtual exposures at so many positions in their widest gap.

    A gap that cannot be measured counts as none: they are then copies of its shots.
    """
    order = sorted(shots, key=np.mean)
    gaps = [gap_between(to_float(under), to_float(over)) or 0 for under, over in itertools.pairwise(order)]
    widest = int(np.argmax(gaps))
    virtual = fill(widest, widest + 1, max(gaps[widest], 0), positions)
    return [*shots, *(exposure.apply(order[exposure.shot]) for exposure in virtual)]


def narrow(image: np.ndarray) -> np.ndarray:
    """Returns a picture (H, W[, 3]) uint8, shrunk by area to at most VALIDATION_WIDTH of width."""
    height, width = image.shape[:2]
    if width <= VALIDATION_WIDTH:
        return image
    size = (VALIDATION_WIDTH, max(1, round(height * VALIDATION_WIDTH / width)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
