"""Noise of nearly black values, which a merged picture shows many times brighter: it is smoothed before merging."""

import cv2
import numpy as np

from utils.pictures.pixels import from_float, smoothstep, to_float

GRAIN = 3 / 255  # standard deviation of values that counts as noise: of structure that varies as much, half is kept
DARK = 8 / 255, 24 / 255  # values of the largest channel between which smoothing ends
KNOWN = 20 / 255, 28 / 255  # the same for the value above which the next brighter shot clips: it knows what is darker
SAMPLES = 2.5  # pixels of the shot, along each side of a pixel of the small copy, that tell its variance; or a few more


def calming(shot: np.ndarray, handover: float, height: int, width: int) -> np.ndarray | None:
    """Returns (height, width, 1 + C) float32 for `calm`: slope, and offset of each channel, around places of a shot.

    None if no noise of the shot matters, since a brighter one shows the same in more light.

    Local statistics tell noise from structure (Lee, "Digital image enhancement and noise filtering by use of local
    statistics", 1980): x becomes m + (x - m) v / (v + GRAIN^2), with the mean m of each channel and the variance v, the
    channels' mean, of the pixels that become one of the small copy. So nothing is smoothed that the decision sees.
    Differs from it in that values above DARK stay as they are.

    Args:
        shot: (H, W), (H, W, 3) BGR or (H, W, 4) with alpha, which is ignored; uint8 or uint16.
        handover: as from `Response.handover`.
        height, width: of the small copy.
    """
    noise = GRAIN**2 * (1 - smoothstep(*KNOWN, handover))
    if not noise:
        return None
    tall, wide = shot.shape[:2]
    step = int(np.clip((tall * wide / (height * width)) ** 0.5 / SAMPLES, 1, min(tall, wide)))
    values = [to_float(plane) for plane in cv2.split(shot[step // 2 :: step, step // 2 :: step])[:3]]
    mean, square = (
        np.dstack([cv2.resize(x**power, (width, height), interpolation=cv2.INTER_AREA) for x in values])
        for power in (1, 2)
    )
    variance = np.maximum((square - mean * mean).mean(2), 1e-9)
    slope = variance / (variance + noise * (1 - smoothstep(*DARK, mean.max(2))))
    return np.dstack([slope, (1 - slope)[..., None] * mean]).astype(np.float32)


def calm(shot: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Returns a shot, or the same rows of it as of `calming` enlarged, without noise: uint16 (h, w) or (h, w, C)."""
    slope, *offsets = cv2.split(lines)
    planes = cv2.split(shot)[: len(offsets)]
    return cv2.merge([from_float(to_float(x) * slope + y, np.uint16) for x, y in zip(planes, offsets, strict=True)])
