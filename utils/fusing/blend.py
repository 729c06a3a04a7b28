"""Full size: applies the network's decision on a small copy to the full pictures, by arithmetic in strips.

fused = up(F - sum_k w_k q_k) + sum_k up(w_k) x_k

q_k are the exposures at the decision's size, F and w_k the fused picture and the weights there, x_k the exposures at
full size, and `up` enlarges bilinearly. If the decision has the full size already, the result is F.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from utils.progress import counted
from utils.stack.exposure import Exposure

STRIP_PIXELS = 1 << 17  # pixels per strip: its float planes fit in a core's cache


def blend(
    images: Sequence[np.ndarray],
    exposures: Sequence[Exposure],
    small: Sequence[np.ndarray],
    weights: np.ndarray,
    fused: np.ndarray,
    strip_pixels: int = STRIP_PIXELS,
) -> np.ndarray:
    """Returns the fused picture at full size, of the images' shape and dtype.

    Args:
        images: the shots, (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8 or uint16. Alpha is averaged.
        exposures: the K exposures that the network was shown: shots and virtual ones.
        small: the same at the decision's size, (h, w[, 3]) float32 in [0, 1].
        weights: of the exposures, (K, h, w) float32 of sum 1.
        fused: the decision's picture, (h, w[, 3]) float32, not clamped.
        strip_pixels: pixels per strip; the result does not depend on it.
    """
    image = images[0]
    height, width = image.shape[:2]
    levels = np.iinfo(image.dtype).max
    colours = image.shape[2:] and 3
    base = fused - sum(w[..., None] * q if colours else w * q for w, q in zip(weights, small, strict=True))
    base = (base * levels).astype(np.float32)
    shots = sorted({exposure.shot for exposure in exposures})
    out = np.empty_like(image)
    kind = cv2.CV_8U if image.dtype == np.uint8 else cv2.CV_16U

    def blend_rows(top: int) -> None:
        rows = slice(top, min(top + step, height))
        total = enlarge(base, rows, height, width)
        parts = {k: np.ascontiguousarray(images[k][rows, :, :3] if colours else images[k][rows]) for k in shots}
        for weight, exposure in zip(weights, exposures, strict=True):
            weight = enlarge(weight, rows, height, width)
            if colours:
                weight = cv2.merge([weight] * 3)
            total = cv2.add(total, cv2.multiply(weight, exposure.apply(parts[exposure.shot]), dtype=cv2.CV_32F))
        part = cv2.add(total, 0, dtype=kind)  # rounds, and clips at black and white
        if image.shape[2:] == (4,):
            alpha = np.sum([x[rows, :, 3] for x in images], 0, np.uint32)
            part = np.dstack([part, ((alpha + len(images) // 2) // len(images)).astype(image.dtype)])
        out[rows] = part

    step = max(1, strip_pixels // width)
    tops = range(0, height, step)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(counted("blending", pool.map(blend_rows, tops), len(tops)))
    return out


def enlarge(plane: np.ndarray, rows: slice, height: int, width: int) -> np.ndarray:
    """Returns the given rows of a plane (h, w[, C]) float32 enlarged bilinearly to (height, width).

    Vertically first, then each row on its own: so a row's bits do not depend on the strip that it is in.
    """
    h = plane.shape[0]
    y = np.clip((np.arange(rows.start, rows.stop) + 0.5) * (h / height) - 0.5, 0, h - 1)
    above = y.astype(int)
    share = (y - above).astype(np.float32).reshape(-1, *[1] * (plane.ndim - 1))
    mixed = plane[above] * (1 - share) + plane[np.minimum(above + 1, h - 1)] * share
    if len(mixed) == 1:
        mixed = np.repeat(mixed, 2, 0)  # OpenCV rounds differently for a single row
    return cv2.resize(mixed, (width, len(mixed)), interpolation=cv2.INTER_LINEAR)[: len(y)]
