"""Take out of a stack what moved between its shots."""

from collections.abc import Sequence

import cv2
import numpy as np

WORKING_PIXELS = 300_000  # of the size at which is decided what moved
DARK, WHITE = 6, 250  # levels of 255 outside which a shot has lost what it saw
SHOT_TOLERANCE = 10
SOURCE_TOLERANCE = 5
STIFFNESS = 30.0  
ROUNDS = 3


def remove_ghosts(images: Sequence[np.ndarray], reference: int | None = None) -> list[np.ndarray]:
    smalls = [_small(image) for image in images]
    if reference is None:
        reference = _choose(smalls)
    order = sorted(range(len(images)), key=lambda k: smalls[k].mean())
    middle = order.index(reference)
    cleaned = list(images)
    for chain in (order[middle:], order[middle::-1]):
        for source, shot in zip(chain, chain[1:], strict=False):
            curves, mask = _compare(smalls[source], smalls[shot])
            if mask.any():
                smalls[shot] = _replace(smalls[shot], smalls[source], curves, mask)
                cleaned[shot] = _replace(images[shot], cleaned[source], curves, mask)
    return cleaned


def choose_reference(images):
    return _choose([_small(image) for image in images])


def _small(image):
    if image.ndim == 2:
        image = image[..., None]
    image = image[..., :3]
    h, w = image.shape[:2]
    s = min(1, (WORKING_PIXELS / (h * w)) ** 0.5)
    small = cv2.resize(image, (max(round(w * s), 1), max(round(h * s), 1)), interpolation=cv2.INTER_AREA)
    small = small.reshape(*small.shape[:2], -1)
    return small if small.dtype == np.uint8 else cv2.convertScaleAbs(small, alpha=1 / 257).reshape(small.shape)


def _choose(smalls):
    order = sorted(range(len(smalls)), key=lambda k: smalls[k].mean())
    moving = np.zeros(smalls[0].shape[:2], bool)
    for a, b in zip(order, order[1:]):
        moving |= _compare(smalls[a], smalls[b])[1] > 127
    scores = []
    for s in smalls:
        good = ((s > 20) & (s < 240)).mean(2) # all channels
        scores.append(good.mean() + (3 * good[moving].mean() if moving.any() else 0))
    return int(np.argmax(scores))


def _compare(source, shot):
    still = np.ones(source.shape[:2], bool)
    for _ in range(ROUNDS):
        curves, spread = _match(source, shot, still)
        mask = _moving(source, shot, curves, spread)
        still = mask == 0
        if still.sum() < .2 * still.size: 
            break
    soft = cv2.GaussianBlur(mask, (0, 0), 2)
    return curves, soft


def _match(source, shot, still):
    curves, spreads = [], []
    levels = np.arange(256)
    d2 = np.diff(np.eye(256), 2, axis=0)
    rough = STIFFNESS * d2.T @ d2
    for c in range(source.shape[2]):
        joint = np.bincount(source[..., c][still] * np.int32(256) + shot[..., c][still], minlength=65536).reshape(256, 256)
        total = joint.cumsum(1)
        n = total[:, -1]

        def quantile(q):
            at = (total < q * n[:, None]).sum(1).clip(0, 255)
            here = np.maximum(joint[levels, at], 1)
            return at + (q * n - total[levels, at] + joint[levels, at]) / here - .5

        m, spread = quantile(.5), (quantile(.75) - quantile(.25)) / 1.35
        w = n / (n + 50.) / (1 + spread ** 2 / 16) + 1e-9
        f = np.linalg.solve(np.diag(w) + rough, w * m)
        curves.append(np.maximum.accumulate(f).clip(0, 255))
        s = np.linalg.solve(np.diag(w) + rough, w * np.minimum(spread,30))
        spreads.append(s.clip(0, 12))
    return np.float32(curves), np.float32(spreads)


def _moving(source, shot, curves, spreads):
    kernel = np.ones((3, 3), np.uint8)
    least, most = cv2.erode(source, kernel).reshape(source.shape), cv2.dilate(source, kernel).reshape(source.shape)
    excess = np.zeros(source.shape[:2], np.float32)
    levels = np.arange(256)
    for c, (f, spread) in enumerate(zip(curves, spreads)):
        tol = SHOT_TOLERANCE + 3 * spread
        low = f[np.maximum(levels - SOURCE_TOLERANCE, 0)] - tol
        high = f[np.minimum(levels + SOURCE_TOLERANCE, 255)] + tol
        low[:DARK] = -999
        high[WHITE:] = 999
        x = shot[..., c].astype(np.float32)
        excess = np.maximum(excess, np.maximum(low[least[..., c]] - x, x - high[most[..., c]]))
    weak = (excess > 0).astype(np.uint8)
    strong = cv2.morphologyEx((excess > 10).astype(np.uint8), cv2.MORPH_OPEN, kernel)
    n, labels = cv2.connectedComponents(weak)
    hit = np.zeros(n, bool)
    hit[np.unique(labels[strong > 0])] = True
    hit[0] = False
    mask = hit[labels].astype(np.uint8) * 255
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    return cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))


def _replace(shot, source, curves, mask):
    h, w = shot.shape[:2]
    top = np.iinfo(shot.dtype).max
    mask = cv2.resize(mask, (w, h), interpolation=cv2.INTER_LINEAR)
    tables = [np.interp(np.arange(top + 1) / top * 255, np.arange(256), f) / 255 * top for f in curves]
    out = shot.copy()
    src, o = source.reshape(h, w, -1), out.reshape(h, w, -1)
    for y in range(0, h, 64):
        m = mask[y:y + 64].astype(np.float32) / 255
        if not m.any():
            continue
        for c, t in enumerate(tables):
            s = o[y:y + 64, :, c].astype(np.float32)
            o[y:y + 64, :, c] = np.rint(s + m * (t.astype(np.float32)[src[y:y + 64, :, c]] - s))
    return out
