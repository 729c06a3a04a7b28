"""Independent references for the tests: slow and plain, one pixel at a time, in Python's floats."""

import numpy as np


def bilinear(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a plane (h, w) enlarged bilinearly to (height, width); pixel centres at .5, border pixels repeated."""
    h, w = plane.shape
    out = np.empty((height, width))
    for i, j in np.ndindex(height, width):
        y = min(max((i + 0.5) * h / height - 0.5, 0), h - 1)
        x = min(max((j + 0.5) * w / width - 0.5, 0), w - 1)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
        upper = plane[top, left] * (1 - (x - left)) + plane[top, right] * (x - left)
        lower = plane[bottom, left] * (1 - (x - left)) + plane[bottom, right] * (x - left)
        out[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return out


def pushed(value: int, levels: int, stops: float) -> float:
    """Returns a pixel of 0..levels as if exposed `stops` more, with its noise held back, not rounded."""
    light = (value / levels) ** 2.2 * 2**stops
    noisy = value / levels * 255 / 8
    if stops > 0 and noisy < 1:
        light *= (3 * noisy**2 - 2 * noisy**3) ** 2.2
    return min(light, 1) ** (1 / 2.2) * levels


def blended(images, small, weights, fused, shots, stops) -> np.ndarray:
    """Returns the full-size picture (H, W) of gray exposures by the definition of the blend, in float64, not rounded.

    Args:
        images: the shots (H, W), whole numbers.
        small, weights: (K, h, w), in [0, 1]; fused: (h, w).
        shots, stops: of the K exposures.
    """
    height, width = images[0].shape
    levels = np.iinfo(images[0].dtype).max
    total = levels * bilinear(fused - sum(w * q for w, q in zip(weights, small, strict=True)), height, width)
    for weight, shot, stop in zip(weights, shots, stops, strict=True):
        exposure = [[round(pushed(x, levels, stop)) if stop else x for x in row] for row in images[shot].tolist()]
        total += bilinear(weight, height, width) * np.array(exposure)
    return total
