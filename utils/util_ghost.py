"""Take out of a stack what moved between its shots: people, cars, animals, shadows."""

import functools
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

WORKING_PIXELS = 300_000  # of the size at which is decided what moved: people far off are still some pixels wide
ROUNDS = 2  # of matching two shots: the second leaves out what the first found to move
STIFFNESS = 30.0  # of a brightness curve: it is smoothed over about seven levels
DARK, WHITE = 6, 250  # levels of 255 below and above which a shot no longer tells what it saw
SOURCE_TOLERANCE, SHOT_TOLERANCE = 5, 10  # levels by which either shot may miss the curve: noise, JPEG
DEVIATIONS = 2  # times the spread around the curve, added to it
CLIPPED_TOLERANCE = 15  # more levels where another channel is clipped: cameras shift the hue there
CLEAR = 10  # levels, and another deviation, beyond all that start a moving region; connected pixels with less follow
WELL_EXPOSED = 20, 240  # levels, for the choice of the reference
MOVING_WEIGHT = 3  # how much more the exposure of the moving regions counts in it than that of the whole picture
TILE = 128  # pixels of a side, at full size: the only place where floats are made of the pictures
LEVELS = np.arange(256)
THIN, WIDE, GAP = (cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)) for side in (7, 9, 9))
SOFT = 1.5  # pixels at the working size, by which a replaced region is blurred: less than half of THIN


def remove_ghosts(images: Sequence[np.ndarray], reference: int | None = None) -> list[np.ndarray]:
    """Returns the exposures, in which everything that moved is where the reference shows it; the inputs stay as is.

    From the reference outwards, in the order of brightness, each shot is compared with its neighbour, which has been
    cleaned already. A monotone curve in each channel tells what the neighbour's levels became in the shot. Where the
    shot lies outside what the curve allows, it is replaced by the neighbour through the curve. The neighbours have most
    in common; and where the reference is clipped, the next shot that sees something takes its place.

    Where the shot before is clipped and something moves in this one, nobody knows what is behind it: the place is
    filled smoothly from its rim.

    Args:
        images: Two or more aligned (H, W), (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8 or uint16 of one shape, in
            any order. Alpha stays as it is.
        reference: Which of them tells where things are; None: `choose_reference`.

    Raises:
        ValueError: There is no exposure of this number.
    """
    smalls = [_small(image) for image in images]
    if reference is None:
        reference = _best_exposed(smalls)
    if not 0 <= reference < len(images):
        raise ValueError(
            f"reference is {reference}: expected 0 to {len(images) - 1}, there are {len(images)} exposures"
        )
    cleaned = list(images)
    order = _by_brightness(smalls)
    middle = order.index(reference)
    for chain in (order[middle:], order[middle::-1]):
        for source, shot in zip(chain, chain[1:], strict=False):
            curves, field, lost = _compare(smalls[source], smalls[shot])
            if field is not None:
                smalls[shot] = _replace(smalls[shot], smalls[source], curves, field, lost)
                cleaned[shot] = _replace(images[shot], cleaned[source], curves, field, lost)
    return cleaned


def choose_reference(images: Sequence[np.ndarray]) -> int:
    """Returns which exposure is best exposed, above all where something moves; `images` as of `remove_ghosts`."""
    return _best_exposed([_small(image) for image in images])


def _small(image: np.ndarray) -> np.ndarray:
    """Returns a picture without alpha as (h, w, C) uint8, at most WORKING_PIXELS."""
    image = np.atleast_3d(image)[..., :3]
    scale = min(1, (WORKING_PIXELS / (image.shape[0] * image.shape[1])) ** 0.5)
    size = [max(round(side * scale), 1) for side in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.atleast_3d(cv2.convertScaleAbs(small, alpha=1 / 257) if small.dtype == np.uint16 else small)


def _by_brightness(smalls: Sequence[np.ndarray]) -> list[int]:
    return sorted(range(len(smalls)), key=lambda k: smalls[k].mean())


def _best_exposed(smalls: Sequence[np.ndarray]) -> int:
    quarters = [np.ascontiguousarray(small[::2, ::2]) for small in smalls]
    order = _by_brightness(quarters)
    moving = np.zeros(quarters[0].shape[:2], bool)
    for a, b in zip(order, order[1:], strict=False):
        moving |= _match(quarters[a], quarters[b])[1] > 0
    low, high = WELL_EXPOSED
    shares = [((quarter > low) & (quarter < high)).mean(2) for quarter in quarters]  # of the channels
    return int(np.argmax([s.mean() + (MOVING_WEIGHT * s[moving].mean() if moving.any() else 0) for s in shares]))


def _compare(source: np.ndarray, shot: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Returns how a shot (h, w, C) uint8 follows from its neighbour and where it does not.

    Returns:
        curves: (C, 256), from the source's levels to the shot's.
        field: (h, w, 1 + C) float32, None where nothing moved: the share of the source in the result, in [0, 1], and
            levels to add where the source is lost.
        lost: (256,) float32 in [0, 1], for each level of the source how far it is lost: it is clipped, and the shot
            sees more.
    """
    curves, mask = _match(source, shot)
    brighter = shot.mean() > source.mean()
    lost = np.interp(LEVELS, *(([DARK, DARK + 10], [1, 0]) if brighter else ([WHITE - 10, WHITE], [0, 1])))
    lost = lost.astype(np.float32)
    if not mask.any():
        return curves, None, lost
    at = _most(lost, source)
    # round a moving thing nothing of the shot is given away where the source has nothing to put there
    mask = np.where(at > 0.5, cv2.dilate(mask, THIN), cv2.dilate(mask, WIDE))
    offset = _spread(shot - _look_up(source, curves), at * (mask == 0))
    return curves, np.dstack([cv2.GaussianBlur(mask.astype(np.float32), (0, 0), SOFT), offset]), lost


def _match(source: np.ndarray, shot: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the curves (C, 256) and where the shot does not follow them (h, w) uint8, 0 or 1."""
    mask = np.zeros(source.shape[:2], np.uint8)
    for _ in range(ROUNDS):
        curves, spreads = _curves(source, shot, mask == 0)
        mask = _moving(source, shot, curves, spreads)
        if mask.mean() > 0.8:  # too little is left to match again
            break
    return curves, mask


def _curves(source: np.ndarray, shot: np.ndarray, still: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns curves (C, 256) and how widely the shot spreads around them, as a standard deviation (C, 256).

    A curve runs through the shot's median at each level of the source, which motion of less than half of the pixels of
    a level leaves in place. It is monotone, and smooth where few pixels have a level or they disagree.
    """
    bend = np.diff(np.eye(256), 2, axis=0)
    bend = STIFFNESS * bend.T @ bend
    curves, spreads = [], []
    for a, b in zip(source[still].T, shot[still].T, strict=True):
        joint = np.bincount(a * np.int32(256) + b, minlength=1 << 16).reshape(256, 256)
        total = joint.cumsum(1)
        count = total[:, -1]
        low, median, high = (_quantile(joint, total, share) for share in (0.25, 0.5, 0.75))
        spread = np.minimum((high - low) / 1.35, 30)  # quartiles of a normal distribution are 1.35 deviations apart
        weight = count / (count + 50) / (1 + (spread / 4) ** 2) + 1e-3  # half for 50 pixels, half for a spread of 4
        seen = np.flatnonzero(count)
        median = np.interp(LEVELS, seen, _monotone(median[seen], weight[seen]))
        spread = np.interp(LEVELS, seen, spread[seen])
        values = np.stack([median, spread], 1)
        curve, spread = np.linalg.solve(np.diag(weight) + bend, weight[:, None] * values).T
        curves.append(np.maximum.accumulate(curve).clip(0, 255))
        spreads.append(spread.clip(0, 12))  # more would forgive everything
    return np.array(curves, np.float32), np.array(spreads, np.float32)


def _quantile(joint: np.ndarray, total: np.ndarray, share: float) -> np.ndarray:
    """Returns the quantile (256,) of each row of a histogram (256, 256), between levels; `total` is its cumulation."""
    wanted = share * total[:, -1]
    level = (total < wanted[:, None]).sum(1)
    here = joint[LEVELS, level]
    return level + (wanted - total[LEVELS, level] + here) / np.maximum(here, 1) - 0.5


def _monotone(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the values (n,) that never fall and are nearest to these by weighted squares."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length of those pooled so far
    for value, weight in zip(values, weights, strict=True):
        length = 1
        while blocks and blocks[-1][0] >= value:
            mean, more, others = blocks.pop()
            value = (mean * more + value * weight) / (more + weight)
            weight, length = weight + more, length + others
        blocks.append((value, weight, length))
    means, _, lengths = zip(*blocks, strict=True)
    return np.repeat(means, lengths)


def _moving(source: np.ndarray, shot: np.ndarray, curves: np.ndarray, spreads: np.ndarray) -> np.ndarray:
    """Returns where a shot cannot be the source at another exposure (h, w) uint8, 0 or 1; pictures (h, w, C) uint8.

    The source may lie a pixel aside, and the tolerances allow for noise. At its clipped ends it allows everything.
    """
    square = np.ones((3, 3), np.uint8)
    least, most = (np.atleast_3d(grow(source, square)) for grow in (cv2.erode, cv2.dilate))
    tolerance = SHOT_TOLERANCE + DEVIATIONS * spreads
    lows = curves[:, np.maximum(LEVELS - SOURCE_TOLERANCE, 0)] - tolerance
    highs = curves[:, np.minimum(LEVELS + SOURCE_TOLERANCE, 255)] + tolerance
    for c, channel in enumerate(source.reshape(-1, source.shape[2]).T):
        # a haze has no black, and a shot that was darkened after it was taken is clipped below 255
        lows[c, : max(DARK, channel.min() + SOURCE_TOLERANCE)] = -np.inf
        highs[c, min(WHITE, channel.max() - SOURCE_TOLERANCE) :] = np.inf
    excess = np.maximum(_look_up(least, lows) - shot, shot - _look_up(most, highs)).max(2)
    if source.shape[2] > 1:
        excess -= CLIPPED_TOLERANCE * (np.maximum(most, shot).max(2) >= WHITE)
    clear = (excess > CLEAR + _look_up(source, spreads).max(2)).astype(np.uint8)
    clear = cv2.morphologyEx(clear, cv2.MORPH_OPEN, square)
    number, regions = cv2.connectedComponents((excess > 0).astype(np.uint8))
    moving = np.zeros(number, np.uint8)
    moving[regions[clear > 0]] = 1
    return cv2.morphologyEx(moving[regions], cv2.MORPH_CLOSE, GAP)


def _look_up(image: np.ndarray, tables: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the entry of each channel's table (C, levels) for each value of (h, w, C)."""
    return np.dstack([table[image[..., c]] for c, table in enumerate(tables)])


def _most(lost: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Returns how far the channel that is lost most is lost (h, w), of (h, w, C); one end of the table loses."""
    extreme = np.maximum if lost[-1] > lost[0] else np.minimum
    return lost[functools.reduce(extreme, np.moveaxis(image, 2, 0))]


def _spread(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns values (h, w, C) that are known to a degree (h, w), smooth and spread over the whole picture."""
    return _pull(np.dstack([values * known[..., None], known]).astype(np.float32), 2)[..., :-1]


def _pull(sums: np.ndarray, rough: int) -> np.ndarray:
    """Returns values, and 1, of (h, w, C + 1): values times their weight, and the weight, at most 1.

    Half the size, filled, fills what has little weight; the finest `rough` levels count for nothing.
    """
    if max(sums.shape[:2]) == 1:
        return sums / max(sums[0, 0, -1], 1e-6)
    size = [(side + 1) // 2 for side in sums.shape[1::-1]]
    coarse = _pull(cv2.resize(sums, size, interpolation=cv2.INTER_AREA), rough - 1)
    filled = cv2.resize(coarse, sums.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return filled if rough > 0 else sums + (1 - sums[..., -1:]) * filled


def _replace(
    shot: np.ndarray, source: np.ndarray, curves: np.ndarray, field: np.ndarray, lost: np.ndarray
) -> np.ndarray:
    """Returns the shot with what moved replaced, of its shape and type; the other arguments as of `_compare`."""
    height, width = shot.shape[:2]
    top = np.iinfo(shot.dtype).max
    levels = np.linspace(0, 255, top + 1)
    *tables, lost = ((np.interp(levels, LEVELS, x) * top / 255).astype(np.float32) for x in (*curves, lost))
    result = shot.copy()
    pixels, others = (np.atleast_3d(image)[..., : len(curves)] for image in (result, source))
    rows, columns = _between(height, field.shape[0]), _between(width, field.shape[1])
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            box = slice(y, y + TILE), slice(x, x + TILE)
            own = _enlarged(field, [part[box[0]] for part in rows], [part[box[1]] for part in columns])
            if own[..., 0].any():
                here, other = pixels[box].astype(np.float32), others[box]
                there = _look_up(other, tables) + own[..., 1:] * _most(lost, other)[..., None]
                there -= here
                there *= own[..., :1]
                there += here
                pixels[box] = np.rint(np.clip(there, 0, top, out=there), out=there)
    return result


def _between(size: int, small: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns for each of `size` pixels its two neighbours among `small` ones and the share of the second."""
    at = ((np.arange(size) + 0.5) * (small / size) - 0.5).clip(0, small - 1)
    first = at.astype(int)
    return first, np.minimum(first + 1, small - 1), (at - first).astype(np.float32)


def _enlarged(field: np.ndarray, rows: Sequence[np.ndarray], columns: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the field (h, w, C) interpolated at rows and columns of `_between`; empty channels cost little."""
    (y0, y1, dy), (x0, x1, dx) = rows, columns
    near = field[y0[0] : y1[-1] + 1, x0[0] : x1[-1] + 1]
    if not near[..., 0].any():
        return near
    dy, dx = dy[:, None, None], dx[:, None]
    lines = near[y0 - y0[0]] * (1 - dy) + near[y1 - y0[0]] * dy
    return lines[:, x0 - x0[0]] * (1 - dx) + lines[:, x1 - x0[0]] * dx
