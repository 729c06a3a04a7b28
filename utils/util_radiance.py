"""Radiance maps: one picture of all the light of a scene, rendered to the exposures that are fused."""

import cv2
import numpy as np

HIGHLIGHT = 99.9  # percentile of the brightest channel that the darkest exposure just holds: the sun and lamps may clip
SHADOW = 2  # percentile of the luminance that the brightest exposure shows as MIDDLE: below it is noise
MIDDLE = 0.18  # of white: grey that looks halfway
STEP = 2  # stops between exposures, at most
HOLE = 1024  # times brighter surroundings: no lens has so little glare from one pixel to the next
WIDEST = 16  # stops from the darkest exposure to the brightest: more is noise, or a mask
SAMPLES = 2**20  # pixels that are enough for percentiles


def expose(radiance: np.ndarray) -> tuple[list[np.ndarray], list[float]]:
    """Returns exposures of a radiance map, dark to bright, uint16 with the curve of sRGB, and their stops.

    Two or more, at most STEP apart: in the darkest the highlights do not clip, in the brightest the shadows are grey.

    Args:
        radiance: (H, W) or (H, W, 3) BGR, linear float in any unit. Below 0 and NaN are black, infinity is the largest.

    Raises:
        ValueError: It is black all over.
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
    """Returns radiance of at least 0. Resampling leaves black holes around lamps: those take what surrounds them."""
    around = np.maximum(cv2.morphologyEx(radiance, cv2.MORPH_CLOSE, np.ones((3, 3))), 0)  # a hole is 1 or 2 pixels wide
    return np.where(radiance * HOLE < around, around, np.maximum(radiance, 0))


def _picture(radiance: np.ndarray, gain: float) -> np.ndarray:
    """Returns linear light of any shape times `gain`, clipped at 1, as uint16 with sRGB's curve (IEC 61966-2-1)."""
    linear = np.minimum(radiance * np.float32(gain), 1)
    curved = cv2.pow(linear, 1 / 2.4)
    curved *= 1.055
    curved -= 0.055
    linear *= 12.92
    return np.rint(np.where(linear < 12.92 * 0.0031308, linear, curved) * 65535).astype(np.uint16)
