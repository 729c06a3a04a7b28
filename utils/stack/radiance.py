"""Radiance maps: pictures with all the light of a scene, rendered to exposures that can be fused."""

import cv2
import numpy as np

from utils.errors import UserError
from utils.pictures.pixels import finite

HIGHLIGHT = 99.9  # percentile of the light that becomes white in the darkest exposure: the sun and lamps may clip
SHADOW = 2  # percentile of the light that becomes MIDDLE in the brightest exposure: darker pixels are noise
MIDDLE = 0.18  # of white: linear value that looks half as bright
NOISY = 0.25  # grain of one stop's pixels in their median, above which it is kept dark: noise alone has 0.5
STEP = 2  # largest distance between exposures, in stops
HOLE = 1024  # a pixel darker than its surroundings by this factor is an error: lenses have more glare than that
WIDEST = 16  # stops from the darkest to the brightest exposure: more would be noise, or a masked area
SAMPLES = 2**20  # pixels from which the percentiles are computed, at most


def expose(radiance: np.ndarray) -> tuple[list[np.ndarray], list[float]]:
    """Returns exposures of a radiance map, dark to bright, uint16 with the curve of sRGB, and their stops.

    There are two or more, at most STEP apart; the darkest does not clip the highlights, the brightest shows the shadows
    as grey.

    Args:
        radiance: (H, W) or (H, W, 3) BGR, linear float in any unit. NaN and negative values become black, infinity
            becomes the largest finite value.

    Raises:
        ValueError: The map is black everywhere.
    """
    radiance = _without_holes(finite(radiance).astype(np.float32))
    pixels = np.atleast_3d(radiance)
    lit = pixels.max(2) > 0
    if not lit.any():
        raise UserError("the radiance map is black all over")
    brightness = pixels.max(2)[lit]
    darkest = -np.log2(np.percentile(brightness[:: max(1, len(brightness) // SAMPLES)], HIGHLIGHT))
    brightest = np.log2(MIDDLE / _shadow(pixels, lit))
    span = np.clip(brightest - darkest, STEP, WIDEST)
    stops = np.linspace(darkest, darkest + span, int(np.ceil(span / STEP)) + 1)
    return [_picture(radiance, 2.0**stop) for stop in stops], [float(stop) for stop in stops]


def _shadow(pixels: np.ndarray, lit: np.ndarray) -> float:
    """Returns the light that the brightest exposure shows as MIDDLE: the percentile SHADOW, or more if that is noise.

    Grain is how much the channels' differences (of gray: the light) vary from pixel to pixel, per the light around.

    Args:
        pixels: (H, W, C), at least 0.
        lit: (H, W), which of them count.
    """
    mean = pixels.mean(2)
    offsets = pixels - mean[..., None] if pixels.shape[2] > 1 else pixels
    rough = np.abs(offsets - np.atleast_3d(cv2.blur(offsets, (3, 3)))).max(2)
    mean, around, rough = (x[lit][:: max(1, mean.size // SAMPLES)] for x in (mean, cv2.blur(mean, (3, 3)), rough))
    shadow, stops = np.percentile(mean, SHADOW), np.floor(np.log2(around))
    level = shadow
    for stop in np.unique(stops[around >= shadow]):
        grain = np.median((rough / around)[stops == stop])
        if grain < NOISY:
            break
        level = max(level, 2.0**stop * (grain / NOISY) ** 4)
    return level


def _without_holes(radiance: np.ndarray) -> np.ndarray:
    """Returns radiance of at least 0, with the black holes filled that resampling leaves around lamps."""
    around = np.maximum(cv2.morphologyEx(radiance, cv2.MORPH_CLOSE, np.ones((3, 3))), 0)  # holes are 1 or 2 pixels wide
    return np.where(radiance * HOLE < around, around, np.maximum(radiance, 0))


def _picture(radiance: np.ndarray, gain: float) -> np.ndarray:
    """Returns linear light of any shape, times `gain` and clipped at 1, as uint16 with sRGB's curve (IEC 61966-2-1)."""
    linear = np.minimum(radiance * np.float32(gain), 1)
    curved = cv2.pow(linear, 1 / 2.4)
    curved *= 1.055
    curved -= 0.055
    linear *= 12.92
    return np.rint(np.where(linear < 12.92 * 0.0031308, linear, curved) * 65535).astype(np.uint16)
