"""Colour: the paper's rule for its networks, and colour that follows the decision for the pyramid.

Colours are float32 BGR in [0, 1], or offsets of Cr and Cb from neutral; luminance is full-range BT.601.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from utils.util_exposure import smoothstep
from utils.util_image import NEUTRAL_CHROMA, bgr_to_ycrcb, ycrcb_to_bgr

EDGE = 0.8  # share of the way from gray to the gamut's edge up to which a colour is left alone
SHOULDER = 0.9  # luminance from which on what would pass white is bent into it
NOISY = 0.2  # luminance below which a shot's colour is the less certain the darker it is
GUIDED = 17  # pixels of the guided filter's window: JPEG's blocks of chroma are 16 wide
MAX_GAIN = 3.0  # of chroma, by which a darker exposure's colour is lifted: more would show its noise


def fuse_chroma(exposures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the chroma (...) of two or more exposures (...), float32 around NEUTRAL_CHROMA.

    Weighted per value by the distance from neutral (the paper's equation for Cb and Cr, tau = 128 of 256, for K
    exposures): sum_k c_k |c_k - tau| / sum_k |c_k - tau|; tau where every exposure is neutral.
    """
    offsets = [c - np.float32(NEUTRAL_CHROMA) for c in exposures]
    total = sum(np.abs(offset) for offset in offsets)
    return NEUTRAL_CHROMA + sum(np.abs(offset) * offset for offset in offsets) / np.where(total > 0, total, 1)


def colour(
    y: np.ndarray, exposures: Sequence[np.ndarray], weights: np.ndarray, origins: Sequence[np.ndarray]
) -> np.ndarray:
    """Returns the fused picture (h, w, 3) BGR in [0, 1] of its luminance y (h, w) and what the network was shown.

    An exposure's chroma is scaled to the fused luminance, as light is. It counts by the root of the network's weight,
    and the more the nearer its own luminance is, unless it clips or lies in the dark. Where it comes from a shot's
    dark, whose few levels show as blotches when pushed, it is smoothed along the luminance. Differs from the paper,
    which adds chroma of any brightness as it is.

    Args:
        exposures: (h, w, 3) BGR in [0, 1], virtual ones among them.
        weights: of the exposures, (K, h, w).
        origins: the luminance (h, w) of the shots that they come from.
    """
    y = shoulder(y)
    chroma, light, total = np.zeros((*y.shape, 2), np.float32), np.zeros_like(y), np.zeros_like(y)
    for exposure, decided, origin in zip(exposures, weights, origins, strict=True):
        ycrcb = bgr_to_ycrcb(exposure)
        own = ycrcb[..., 0]
        ordered = np.sort(exposure, 2)
        unclipped = 1 - smoothstep(0.85, 1, (ordered[..., 2] + ordered[..., 1]) / 2)  # of the two largest of B, G, R
        near = np.exp(-(((own - y) / 0.4) ** 2))
        weight = (unclipped * smoothstep(0, 0.25, own) * near + 1e-4) * np.sqrt(decided + 0.02)
        gain = np.clip((y + 0.05) / (own + 0.05), 1 / MAX_GAIN, MAX_GAIN)
        chroma += (weight * gain)[..., None] * (ycrcb[..., 1:] - np.float32(NEUTRAL_CHROMA))
        light += weight * origin
        total += weight
    chroma /= total[..., None]
    dark = (1 - smoothstep(0, NOISY, light / total))[..., None]
    chroma += dark * (smooth_along(y, chroma) - chroma)
    return into_gamut(y, ycrcb_to_bgr(np.dstack([y, chroma + np.float32(NEUTRAL_CHROMA)])))


def smooth_along(y: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """Returns planes (h, w, C) float32 smoothed, but not across edges of y (h, w): He et al.'s guided filter, 2010."""

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (GUIDED, GUIDED))

    mean_y, mean_planes = mean(y), mean(planes)
    slope = mean(y[..., None] * planes) - mean_y[..., None] * mean_planes
    slope /= (np.maximum(mean(y * y) - mean_y**2, 0) + 0.03**2)[..., None]  # steps of .03 in y count as an edge
    return mean(slope) * y[..., None] + mean(mean_planes - slope * mean_y[..., None])


def shoulder(y: np.ndarray) -> np.ndarray:
    """Returns luminance in [0, 1] that ends smoothly in white: left alone up to SHOULDER, bent above it."""
    room = 1 - SHOULDER
    bent = SHOULDER + room * np.tanh(np.maximum(y - SHOULDER, 0) / room)
    return np.where(y > SHOULDER, bent, np.maximum(y, 0)).astype(np.float32)


def into_gamut(y: np.ndarray, bgr: np.ndarray) -> np.ndarray:
    """Returns colours (h, w, 3) of luminance y (h, w) in [0, 1]: same hue, saturation bent smoothly into the gamut."""
    offset = bgr - y[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        used = np.where(offset > 0, offset / (1 - y)[..., None], -offset / y[..., None]).max(2)  # 1: at the edge
    used = np.nan_to_num(used, nan=0, posinf=1e6)
    room = 1 - EDGE
    bent = np.where(used > EDGE, EDGE + room * (1 - np.exp(-(used - EDGE) / room)), used)
    return y[..., None] + offset * (bent / np.maximum(used, 1e-6))[..., None].astype(np.float32)
