"""Take out of a stack what moved between its shots."""

from collections.abc import Sequence

import cv2
import numpy as np

WORKING_PIXELS = 300_000  # of the size at which is decided what moved
DARK, WHITE = 6, 250  # levels of 255 outside which a shot has lost what it saw
SOURCE_TOLERANCE, SHOT_TOLERANCE = 5, 10  # levels
CLIPPED_TOLERANCE = 30
CLEAR = 10  # levels beyond the tolerance
STIFFNESS = 30.0
ROUNDS = 2
TILE = 256
KERNEL = np.ones((3, 3), np.uint8)
REACH = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
LEVELS = np.arange(256)


def remove_ghosts(images: Sequence[np.ndarray], reference: int | None = None) -> list[np.ndarray]:
    smalls = [_small(image) for image in images]
    if reference is None:
        reference = _best_exposed(smalls)
    order = _by_brightness(smalls)
    middle = order.index(reference)
    cleaned = list(images)
    for chain in (order[middle:], order[middle::-1]):
        for source, shot in zip(chain, chain[1:], strict=False):
            curves, field = _compare(smalls[source], smalls[shot])
            if field[..., 0].any():
                smalls[shot] = _replace(smalls[shot], smalls[source], curves, field)
                cleaned[shot] = _replace(images[shot], cleaned[source], curves, field)
    return cleaned


def choose_reference(images):
    return _best_exposed([_small(image) for image in images])


def _small(image):
    image = image[..., :3] if image.ndim == 3 else image
    h, w = image.shape[:2]
    s = min(1, (WORKING_PIXELS / (h * w)) ** 0.5)
    small = cv2.resize(image, (max(round(w * s), 1), max(round(h * s), 1)), interpolation=cv2.INTER_AREA)
    if small.dtype == np.uint16:
        small = cv2.convertScaleAbs(small, alpha=1 / 257)
    return small.reshape(*small.shape[:2], -1)


def _by_brightness(smalls):
    return sorted(range(len(smalls)), key=lambda k: smalls[k].mean())


def _best_exposed(smalls):
    smalls = [np.ascontiguousarray(s[::2, ::2]) for s in smalls]
    order = _by_brightness(smalls)
    moving = sum(_compare(smalls[a], smalls[b])[1][..., 0] for a, b in zip(order, order[1:], strict=False)) > .5
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
        if still.mean() < .2:
            break
    if mask.any():
        offset = _spread(shot - _lut(source, curves), still)
        mask = cv2.GaussianBlur(mask, (0, 0), 2)
    else:
        offset = np.zeros(source.shape, np.float32)
    return curves, np.dstack([mask.astype(np.float32) / 255, offset])


def _lut(image, tables):
    return np.dstack([t.astype(np.float32)[image[..., c]] for c, t in enumerate(tables)])


def _spread(values, known):
    """Returns values (h, w, C), smooth, ..."""
    w = known.astype(np.float32)[..., None]
    return _pull(np.dstack([values * w, w]), 2)[..., :-1]


def _pull(weighted, smooth):
    h, w = weighted.shape[:2]
    if min(h, w) > 1:
        half = cv2.resize(weighted, ((w + 1) // 2, (h + 1) // 2), interpolation=cv2.INTER_AREA)
        coarse = cv2.resize(_pull(half, smooth - 1), (w, h), interpolation=cv2.INTER_LINEAR)
    else:
        coarse = np.zeros_like(weighted)
        coarse[...] = weighted.sum((0, 1)) / max(weighted[..., -1].sum(), 1e-6)
    if smooth > 0:
        return coarse
    a = weighted[..., -1:]
    return np.dstack([weighted[..., :-1] + (1 - a) * coarse[..., :-1], a * 0 + 1])


def _match(source, shot, still):
    curves, spreads = [], []
    d2 = np.diff(np.eye(256), 2, axis=0)
    rough = STIFFNESS * d2.T @ d2
    for c in range(source.shape[2]):
        joint = np.bincount(source[..., c][still] * np.int32(256) + shot[..., c][still], minlength=65536).reshape(256, 256)
        total = joint.cumsum(1)
        n = total[:, -1]

        def quantile(q):
            at = (total < q * n[:, None]).sum(1).clip(0, 255)
            here = np.maximum(joint[LEVELS, at], 1)
            return at + (q * n - total[LEVELS, at] + joint[LEVELS, at]) / here - .5

        seen = np.flatnonzero(n)
        m, spread = quantile(.5), (quantile(.75) - quantile(.25)) / 1.35
        w = n / (n + 50.) / (1 + spread ** 2 / 16) + 1e-3
        m = np.interp(LEVELS, seen, _monotone(m[seen], w[seen]))
        s = np.interp(LEVELS, seen, np.minimum(spread[seen], 30))
        f, s = np.linalg.solve(np.diag(w) + rough, np.stack([w * m, w * s], 1)).T
        curves.append(np.maximum.accumulate(f).clip(0, 255))
        spreads.append(s.clip(0, 12))
    return curves, spreads


def _monotone(values, weights):
    blocks = []
    for value, weight in zip(values, weights):
        block = [value, weight, 1]
        while blocks and blocks[-1][0] >= block[0]:
            v, w, n = blocks.pop()
            total = w + block[1]
            block = [(v * w + block[0] * block[1]) / total, total, n + block[2]]
        blocks.append(block)
    return np.repeat([b[0] for b in blocks], [b[2] for b in blocks])


def _moving(source, shot, curves, spreads):
    least, most = cv2.erode(source, KERNEL).reshape(source.shape), cv2.dilate(source, KERNEL).reshape(source.shape)
    lows, highs = [], []
    for c, (f, spread) in enumerate(zip(curves, spreads)):
        tol = SHOT_TOLERANCE + 3 * spread
        low = f[np.maximum(LEVELS - SOURCE_TOLERANCE, 0)] - tol
        high = f[np.minimum(LEVELS + SOURCE_TOLERANCE, 255)] + tol
        low[:max(DARK, source[..., c].min() + 5)] = -999
        high[min(WHITE, source[..., c].max() - 5):] = 999
        lows.append(low)
        highs.append(high)
    shot_ = shot.astype(np.float32)
    excess = np.maximum(_lut(least, lows) - shot_, shot_ - _lut(most, highs)).max(2)
    if source.shape[2] > 1:
        clipped = np.maximum(most, shot).max(2) >= WHITE
        excess -= CLIPPED_TOLERANCE * clipped
    weak = (excess > 0).astype(np.uint8)
    strong = cv2.morphologyEx((excess > CLEAR).astype(np.uint8), cv2.MORPH_OPEN, KERNEL)
    n, labels = cv2.connectedComponents(weak)
    hit = np.zeros(n, np.uint8)
    hit[labels[strong > 0]] = 255
    mask = cv2.morphologyEx(hit[labels], cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    return cv2.dilate(mask, REACH)


def _replace(shot, source, curves, field):
    h, w = shot.shape[:2]
    top = np.iinfo(shot.dtype).max
    tables = [np.interp(np.arange(top + 1) / top * 255, LEVELS, f) / 255 * top for f in curves]
    tables = [t.astype(np.float32) for t in tables]
    out = shot.copy()
    n = len(tables)
    src, o = source.reshape(h, w, -1)[..., :n], out.reshape(h, w, -1)[..., :n]
    ys, xs = _positions(h, field.shape[0]), _positions(w, field.shape[1])
    for y in range(0, h, TILE):
        for x in range(0, w, TILE):
            box = slice(y, y + TILE), slice(x, x + TILE)
            (y0, y1, ty), (x0, x1, tx) = ([part[box[i]] for part in side] for i, side in enumerate((ys, xs)))
            near = field[y0[0]:y1[-1] + 1, x0[0]:x1[-1] + 1]
            if not near[..., 0].any():
                continue
            ty, tx = ty[:, None, None], tx[:, None]
            f = near[y0 - y0[0]] * (1 - ty) + near[y1 - y0[0]] * ty
            f = f[:, x0 - x0[0]] * (1 - tx) + f[:, x1 - x0[0]] * tx
            s = o[box].astype(np.float32)
            new = _lut(src[box], tables) + f[..., 1:] * np.float32(top / 255)
            o[box] = np.rint(np.clip(s + f[..., :1] * (new - s), 0, top))
    return out


def _positions(size, small):
    at = ((np.arange(size) + .5) * (small / size) - .5).clip(0, small - 1).astype(np.float32)
    low = at.astype(int)
    return low, np.minimum(low + 1, small - 1), at - low
