"""Colour: the paper's rule, for its networks; for the pyramid, the colour that the camera would have recorded.

Luminance is full-range BT.601, float32 in [0, 1].
"""

from collections.abc import Sequence

import numpy as np

from utils.pictures.pixels import NEUTRAL_CHROMA, luma
from utils.stack.response import Response

KEPT = 0.2  # of the colour that a camera's shoulder takes from bright light; a picture then has the scene's saturation
BEYOND = 2.0  # stops by which a pixel may be shown darker or brighter than in any shot: farther is noise
STEPS = 8  # of the secant method: after it the luminance is right to a fraction of a level
CLOSE = 1 / 1024  # stops: where a step is shorter, it is the last


def fuse_chroma(exposures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the chroma (...) of two or more exposures (...), float32 around NEUTRAL_CHROMA.

    Weighted per value by the distance from neutral (the paper's equation for Cb and Cr, tau = 128 of 256, for K
    exposures): sum_k c_k |c_k - tau| / sum_k |c_k - tau|; tau where every exposure is neutral.
    """
    offsets = [c - np.float32(NEUTRAL_CHROMA) for c in exposures]
    total = sum(np.abs(offset) for offset in offsets)
    return NEUTRAL_CHROMA + sum(np.abs(offset) * offset for offset in offsets) / np.where(total > 0, total, 1)


def stops_for(y: np.ndarray, radiance: np.ndarray, response: Response) -> np.ndarray:
    """Returns for each pixel the stops (h, w) float32 at which the camera would have recorded the luminance y (h, w).

    So the picture `response.render(radiance, 2**stops, KEPT)` has the luminance y, and of each pixel the colour that
    the camera gives to its light at this brightness, but a little less pale. Differs from the paper, which averages
    chroma whatever its brightness.

    Args:
        radiance: (h, w) or (h, w, 3), as from `Response.merge`. Where it is nearly black, y may be out of reach.
    """
    low, high = np.float32(-BEYOND), np.float32(max(response.stops) + BEYOND)
    pixels, light = np.arange(y.size), radiance.reshape(-1, 1, *radiance.shape[2:])
    goal = _log_light(y.reshape(-1, 1), response)
    stops = last = np.clip(goal - np.log2(np.maximum(luma(light), 1e-9)), low, high)
    found = stops.copy()
    least, most, last_step = np.full_like(goal, low), np.full_like(goal, high), np.full_like(goal, np.inf)
    for _ in range(STEPS):
        step = goal - _log_light(luma(response.render(light, 2**stops, KEPT)), response)
        least, most = np.where(step > 0, stops, least), np.where(step > 0, most, stops)
        moved = stops - last
        slope = np.clip((last_step - step) / np.where(moved, moved, 1), 0.1, 1)  # below 1 where a channel clips
        nearer = stops + step / slope
        last, stops = stops, np.where((nearer >= least) & (nearer <= most), nearer, (least + most) / 2)
        found[pixels] = stops
        far = np.abs(step[:, 0]) > CLOSE
        known = pixels, light, goal, stops, last, least, most, step
        pixels, light, goal, stops, last, least, most, last_step = (x[far] for x in known)
        if not len(pixels):
            break
    return found.reshape(y.shape)


def _log_light(y: np.ndarray, response: Response) -> np.ndarray:
    """Returns in stops the light of a gray of luminance y."""
    return np.log2(response.light(np.clip(y, 1e-3, 0.999))).astype(np.float32)
