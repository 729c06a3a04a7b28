"""Radiance maps: pictures with all the light of a scene, rendered to exposures that can be fused."""

import cv2
import numpy as np

HIGHLIGHT = 99.9  # percentile of the light that becomes white in the darkest exposure: the sun and lamps may clip
SHADOW = 2  # percentile of the light that becomes MIDDLE in the brightest exposure: darker pixels are noise
MIDDLE = 0.18  # of white: linear value that looks half as bright
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
    finite = np.isfinite(radiance)
    if not finite.all():
        largest = radiance[finite].max(initial=0)
        radiance = np.nan_to_num(radiance, nan=0, posinf=largest, neginf=0)
    radiance = _without_holes(radiance.astype(np.float32))
    pixels = radiance.reshape(radiance.shape[0] * radiance.shape[1], -1)
    pixels = pixels[:: max(1, len(pixels) // SAMPLES)]
    lit = pixels[pixels.max(1) > 0]
    if not len(lit):
        raise ValueError("the radiance map is black all over")
    darkest = -np.log2(np.percentile(lit.max(1), HIGHLIGHT))
    brightest = np.log2(MIDDLE / np.percentile(lit.mean(1), SHADOW))
    span = np.clip(brightest - darkest, STEP, WIDEST)
    stops = np.linspace(darkest, darkest + span, int(np.ceil(span / STEP)) + 1)
    return [_picture(radiance, 2.0**stop) for stop in stops], [float(stop) for stop in stops]


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
