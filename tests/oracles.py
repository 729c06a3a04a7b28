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


def recorded(light: float, power: float, shoulder: float) -> float:
    """Returns the value in [0, 1] that a camera of this curve makes of light, where 1 is white."""
    light = min(light, 1)
    return (light * (1 + shoulder) / (light + shoulder)) ** (1 / power)


def unburnt(light: float, stops: float, knee: float) -> float:
    """Returns the light that is shown of light at `stops`: bent towards white from the knee on, unless it is a sun."""
    shown = light * 2**stops
    if shown <= knee or stops <= 0:
        return shown
    bent = knee + (shown - knee) / (1 + (shown - knee) / (1 - knee))
    return max(shown + max(1 - light, 0) * (bent - shown), light)
