"""Independent references for the tests: slow and plain, one pixel at a time, in Python's floats."""

import os
from pathlib import Path

import cv2
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


GOLDEN = Path(__file__).parent / "golden"


def assert_golden(name: str, picture: np.ndarray, tolerance: int) -> None:
    """Compares an integer picture with the one of this name in tests/golden, which was recorded from this code.

    Where the change is meant: DEEPFUSE_GOLDEN=write python -m pytest ..., then look at the new picture.
    """
    path = GOLDEN / f"{name}.png"
    if os.environ.get("DEEPFUSE_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), picture)
    golden = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert (golden.shape, golden.dtype) == (picture.shape, picture.dtype)
    off = np.abs(golden.astype(int) - picture)
    assert off.max() <= tolerance, f"{name}: {off.max()} levels off at {np.argwhere(off == off.max())[0]}"
