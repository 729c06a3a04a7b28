"""Colour: the paper's rule, for its networks; for the pyramid, colour that follows the network's weights.

Colours are float32 BGR in [0, 1], or offsets of Cr and Cb from neutral; luminance is full-range BT.601.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from utils.pictures.pixels import NEUTRAL_CHROMA, bgr_to_ycrcb, smoothstep, ycrcb_to_bgr

EDGE = 0.8  # of the way from gray to the gamut's edge: colours below stay unchanged, those above are bent inside
SHOULDER = 0.9  # luminance below stays unchanged, luminance above is bent to end in white
NOISY = 0.3  # luminance of a shot below which its chroma is smoothed, the more the darker it is
GUIDED = 33  # pixels of the small copy, side of the guided filter's window: 17 left blotches in skies
STEP = 0.1  # of luminance: larger ones count as edges between colours, smaller ones can be the grain of a pushed shot
MAX_GAIN = 3.0  # largest factor by which an exposure's chroma is raised: more would show its noise
NEAR = 0.5  # of luminance: how far an exposure's may be from the fused one without losing most of its weight
FADE = 0.95  # share of the chroma that is gone at white


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
    """Returns the fused picture (h, w, 3) BGR in [0, 1], from its luminance y (h, w) and the exposures' chroma.

    Each exposure's chroma is scaled from its own luminance to the fused one, as `chroma_at` says. Its weight is the
    root of the network's weight, times how near the two luminances are; clipped and dark pixels get almost none. Chroma
    from a shot's dark areas, whose few levels show as blotches when pushed, is smoothed along the luminance. Differs
    from the paper, which averages chroma without regard to brightness.

    Args:
        exposures: shots and virtual exposures, K of (h, w, 3) BGR in [0, 1].
        weights: the network's, of the exposures, (K, h, w).
        origins: for each exposure, the luminance (h, w) of the shot that it is made of.
    """
    y = shoulder(y)
    strength = chroma_at(y)
    chroma, light, total = np.zeros((*y.shape, 2), np.float32), np.zeros_like(y), np.zeros_like(y)
    for exposure, decided, origin in zip(exposures, weights, origins, strict=True):
        ycrcb = bgr_to_ycrcb(exposure)
        own = ycrcb[..., 0]
        ordered = np.sort(exposure, 2)
        unclipped = 1 - smoothstep(0.85, 1, (ordered[..., 2] + ordered[..., 1]) / 2)  # of the two largest of B, G, R
        near = np.exp(-(((own - y) / NEAR) ** 2))
        weight = (unclipped * smoothstep(0, 0.25, own) * near + 1e-4) * np.sqrt(decided + 0.02)
        gain = np.minimum(strength / chroma_at(own), MAX_GAIN)
        chroma += (weight * gain)[..., None] * (ycrcb[..., 1:] - np.float32(NEUTRAL_CHROMA))
        light += weight * origin
        total += weight
    chroma /= total[..., None]
    dark = (1 - smoothstep(0, NOISY, light / total))[..., None]
    chroma += dark * (smooth_along(y, chroma) - chroma)
    return into_gamut(y, ycrcb_to_bgr(np.dstack([y, chroma + np.float32(NEUTRAL_CHROMA)])))


def chroma_at(y: np.ndarray) -> np.ndarray:
    """Returns how strong the chroma of one surface is at luminance y in [0, 1], compared with other luminances.

    It grows with y and fades again towards white, where a camera's curve is flat and the channels meet. FADE and the
    power were chosen on real brackets and by eye (runs/pretrained/README.md): without fading, white clouds turn
    lavender; with a lower power, blue skies turn gray.
    """
    return (y + 0.05) * (1 - FADE * y**5)


def smooth_along(y: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """Returns planes (h, w, C) float32 smoothed, but not across edges of y (h, w): He et al.'s guided filter, 2010."""

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (GUIDED, GUIDED))

    mean_y, mean_planes = mean(y), mean(planes)
    slope = mean(y[..., None] * planes) - mean_y[..., None] * mean_planes
    slope /= (np.maximum(mean(y * y) - mean_y**2, 0) + STEP**2)[..., None]
    return mean(slope) * y[..., None] + mean(mean_planes - slope * mean_y[..., None])


def shoulder(y: np.ndarray) -> np.ndarray:
    """Returns luminance in [0, 1]: unchanged up to SHOULDER, above it bent to approach white smoothly."""
    room = 1 - SHOULDER
    bent = SHOULDER + room * np.tanh(np.maximum(y - SHOULDER, 0) / room)
    return np.where(y > SHOULDER, bent, np.maximum(y, 0)).astype(np.float32)


def into_gamut(y: np.ndarray, bgr: np.ndarray) -> np.ndarray:
    """Returns the colours (h, w, 3) with saturation reduced into the gamut; hue and luminance y (h, w) are kept."""
    offset = bgr - y[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        used = np.where(offset > 0, offset / (1 - y)[..., None], -offset / y[..., None]).max(2)  # 1: at the edge
    used = np.nan_to_num(used, nan=0, posinf=1e6)
    room = 1 - EDGE
    bent = np.where(used > EDGE, EDGE + room * (1 - np.exp(-(used - EDGE) / room)), used)
    return y[..., None] + offset * (bent / np.maximum(used, 1e-6))[..., None].astype(np.float32)
