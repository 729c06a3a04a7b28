"""Remove from a stack what moved between its shots: people, cars, animals, shadows."""

import functools
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from utils.errors import UserError
from utils.pictures.pixels import shrink
from utils.progress import counted

WORKING_PIXELS = 600_000  # pixels of the copies on which motion is found: heads of distant people are some pixels wide
ROUNDS = 2  # of matching two shots: the second ignores the pixels that the first found moving
STIFFNESS = 30.0  # of a brightness curve: smooths it over about seven levels
DARK, WHITE = 6, 250  # levels of 255: below and above, a shot is black or clipped and tells nothing
SOURCE_TOLERANCE, SHOT_TOLERANCE = 5, 10  # levels that each shot may be off the curve: noise, JPEG
DEVIATIONS = 2  # standard deviations around the curve, added to SHOT_TOLERANCE
CLIPPED_TOLERANCE = 15  # more levels where another channel is clipped: cameras shift the hue there
CLEAR = 10  # levels, plus a deviation, beyond all tolerances that start a moving region; it grows over all excess
SEEDS = 5  # clear pixels that a moving region needs, where it is three pixels wide
WELL_EXPOSED = 20, 240  # levels, for the choice of the reference
MOVING_WEIGHT = 3  # weight of the moving regions in that choice; the whole picture has 1
TILE = 128  # pixels, side of the blocks in which full-size pictures are changed: floats need memory for one block only
LEVELS = np.arange(256)
THIN, WIDE, GAP, INSIDE = (cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)) for side in (7, 9, 9, 25))
SOFT = 1.5  # pixels, sigma of the blur of a replaced region's edge, at working size: less than half of THIN


def remove_ghosts(images: Sequence[np.ndarray], reference: int | None = None) -> tuple[list[np.ndarray], int]:
    """Returns copies of the exposures in which everything that moved is where the reference shows it, and its index.

    From the reference outwards, in order of brightness, each shot is compared with its neighbour, which is already
    clean. A monotone curve per channel maps the neighbour's levels to the shot's. Where the shot is too far from the
    mapped neighbour, something moved: the mapped neighbour replaces it. Neighbours have most in common; and where the
    reference is clipped, the next shot that is not takes its place.

    Where the neighbour is clipped and something moves in the shot, the background is unknown: the region is filled
    smoothly from its rim. Where the shot is clipped, it cannot differ clearly from what was replaced in the neighbour:
    that is replaced in it too. Otherwise people on bright ground would lose their legs in the brighter shots.

    Args:
        images: Two or more aligned (H, W), (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8 or uint16 of one shape, in
            any order. Alpha stays as it is.
        reference: Index of the exposure that shows things where they shall stay; None: the best exposed one, above all
            where something moves.

    Raises:
        ValueError: There is no exposure of this index.
    """
    smalls = [_small(image) for image in images]
    if reference is None:
        reference = _best_exposed(smalls)
    if not 0 <= reference < len(images):
        raise UserError(f"reference is {reference}: expected 0 to {len(images) - 1}, there are {len(images)} exposures")
    cleaned = list(images)
    order = _by_brightness(smalls)
    middle = order.index(reference)
    chains = order[middle:], order[middle::-1]
    pairs = [pair for chain in chains for pair in zip(chain, chain[1:], strict=False)]
    moved = [np.zeros(small.shape[:2], np.uint8) for small in smalls]
    for source, shot in counted("looking for what moved", pairs, len(pairs)):
        curves, field, lost, moved[shot] = _compare(smalls[source], smalls[shot], moved[source])
        if field is not None:
            smalls[shot] = _replace(smalls[shot], smalls[source], curves, field, lost)
            cleaned[shot] = _replace(images[shot], cleaned[source], curves, field, lost)
    return cleaned, reference


def _small(image: np.ndarray) -> np.ndarray:
    """Returns a picture without alpha as (h, w, C) uint8, shrunk to at most WORKING_PIXELS."""
    small = shrink(np.atleast_3d(image)[..., :3], pixels=WORKING_PIXELS)
    return np.atleast_3d(cv2.convertScaleAbs(small, alpha=1 / 257) if small.dtype == np.uint16 else small)


def _by_brightness(smalls: Sequence[np.ndarray]) -> list[int]:
    return sorted(range(len(smalls)), key=lambda k: smalls[k].mean())


def _best_exposed(smalls: Sequence[np.ndarray]) -> int:
    quarters = [np.ascontiguousarray(small[::2, ::2]) for small in smalls]
    order = _by_brightness(quarters)
    moving = np.zeros(quarters[0].shape[:2], bool)
    for a, b in zip(order, order[1:], strict=False):
        moving |= _match(quarters[a], quarters[b], np.zeros(moving.shape, np.uint8))[1] > 0
    low, high = WELL_EXPOSED
    shares = [((quarter > low) & (quarter < high)).mean(2) for quarter in quarters]  # of the channels
    return int(np.argmax([s.mean() + (MOVING_WEIGHT * s[moving].mean() if moving.any() else 0) for s in shares]))


def _compare(
    source: np.ndarray, shot: np.ndarray, replaced: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """Returns (curves, field, lost, mask): how a shot follows from its neighbour `source`, and where it does not.

    Args:
        source, shot: (h, w, C) uint8.
        replaced: (h, w) uint8, 1 where something moved in the source before it was cleaned.

    Returns:
        curves: (C, 256), from the source's levels to the shot's.
        field: (h, w, 1 + C) float32, None if nothing moved: the source's share in the result, in [0, 1], and the levels
            to add to it where the source is lost.
        lost: (256,) float32 in [0, 1], by level of the source: 1 where it is clipped while the shot is not, so that the
            curve knows nothing.
        mask: (h, w) uint8, 1 where something moves in the shot.
    """
    curves, mask, lost = _match(source, shot, replaced)
    if not mask.any():
        return curves, None, lost, mask
    at = _most(lost, source)
    # a margin around the moving thing is replaced too; a thin one where the source is lost and has nothing to offer
    wide = np.where(at > 0.5, cv2.dilate(mask, THIN), cv2.dilate(mask, WIDE))
    offset = _spread(shot - _look_up(source, curves), at * (wide == 0))
    return curves, np.dstack([cv2.GaussianBlur(wide.astype(np.float32), (0, 0), SOFT), offset]), lost, mask


def _match(source: np.ndarray, shot: np.ndarray, replaced: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (curves, mask, lost): the first and the last as `_compare` does.

    The mask, (h, w) uint8 of 0 and 1, is 1 where the shot does not follow the curves, and where it is clipped and
    something was `replaced` in the source.
    """
    brighter = shot.mean() > source.mean()
    lost = np.interp(LEVELS, *(([DARK, DARK + 10], [1, 0]) if brighter else ([WHITE - 10, WHITE], [0, 1])))
    lost = lost.astype(np.float32)
    known = _most(lost, source) < 0.5  # elsewhere the source has nothing to offer for what lies between
    clipped = shot.max(2) >= WHITE if brighter else shot.min(2) <= DARK
    mask = kept = np.where(known & clipped, replaced, 0)
    for _ in range(ROUNDS):
        curves, spreads = _curves(source, shot, mask == 0)
        mask = _moving(source, shot, curves, spreads)
        mask = np.where(known, _whole(mask | kept), mask)
        if mask.mean() > 0.8:  # too little is left to match again
            break
    return curves, mask, lost


def _curves(source: np.ndarray, shot: np.ndarray, still: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns curves (C, 256), and the standard deviation (C, 256) of the shot around them.

    A curve follows the median of the shot at each level of the source, so that motion of less than half of a level's
    pixels does not matter. It is monotone, and smoother where few pixels have a level or they disagree.
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
        spreads.append(spread.clip(0, 12))  # a larger tolerance would hide all motion
    return np.array(curves, np.float32), np.array(spreads, np.float32)


def _quantile(joint: np.ndarray, total: np.ndarray, share: float) -> np.ndarray:
    """Returns the quantile (256,) of each row of a histogram (256, 256), interpolated; `total`: its cumsum by row."""
    wanted = share * total[:, -1]
    level = (total < wanted[:, None]).sum(1)
    here = joint[LEVELS, level]
    return level + (wanted - total[LEVELS, level] + here) / np.maximum(here, 1) - 0.5


def _monotone(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the non-decreasing values (n,) nearest to these by weighted squares (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length of each pooled run
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
    """Returns a mask (h, w) uint8, 1 where the shot cannot be the source at another exposure; both (h, w, C) uint8.

    A shift of one pixel and noise within the tolerances are allowed; where the source is clipped, everything is.
    """
    square = np.ones((3, 3), np.uint8)
    least, most = (np.atleast_3d(grow(source, square)) for grow in (cv2.erode, cv2.dilate))
    tolerance = SHOT_TOLERANCE + DEVIATIONS * spreads
    lows = curves[:, np.maximum(LEVELS - SOURCE_TOLERANCE, 0)] - tolerance
    highs = curves[:, np.minimum(LEVELS + SOURCE_TOLERANCE, 255)] + tolerance
    for c, channel in enumerate(source.reshape(-1, source.shape[2]).T):
        # relative to the extremes: haze is never black, and a shot darkened by an editor clips below 255
        lows[c, : max(DARK, channel.min() + SOURCE_TOLERANCE)] = -np.inf
        highs[c, min(WHITE, channel.max() - SOURCE_TOLERANCE) :] = np.inf
    excess = np.maximum(_look_up(least, lows) - shot, shot - _look_up(most, highs))
    if source.shape[2] > 1:
        excess -= CLIPPED_TOLERANCE * (np.maximum(most, shot).max(2, keepdims=True) >= WHITE)
    some = (excess > 0).any(2).astype(np.uint8)
    clear = (excess > CLEAR + _look_up(source, spreads)).any(2) & (cv2.morphologyEx(some, cv2.MORPH_OPEN, square) > 0)
    number, regions = cv2.connectedComponents(some)
    moving = (np.bincount(regions[clear], minlength=number) >= SEEDS).astype(np.uint8)
    return cv2.morphologyEx(moving[regions], cv2.MORPH_CLOSE, GAP)


def _whole(moving: np.ndarray) -> np.ndarray:
    """Returns a mask (h, w) uint8 of 0 and 1 with its gaps closed, as far as INSIDE reaches, and its holes filled.

    Parts of a thing look like what is behind them; taken from another shot than the rest, they would tear it.
    """
    border = len(INSIDE)
    padded = cv2.copyMakeBorder(moving, border, border, border, border, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, INSIDE)
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(closed, outlines, -1, 1, cv2.FILLED)[border:-border, border:-border]


def _look_up(image: np.ndarray, tables: Iterable[np.ndarray]) -> np.ndarray:
    """Returns (h, w, C) with each value looked up in its channel's table (C, levels)."""
    return np.dstack([table[image[..., c]] for c, table in enumerate(tables)])


def _most(lost: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Returns the largest `lost` over the channels (h, w), of (h, w, C); `lost` rises or falls with the level."""
    extreme = np.maximum if lost[-1] > lost[0] else np.minimum
    return lost[functools.reduce(extreme, np.moveaxis(image, 2, 0))]


def _spread(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns values (h, w, C), smoothed, and spread to the whole picture from where they are `known` (h, w), 0..1."""
    return _pull(np.dstack([values * known[..., None], known]).astype(np.float32), 2)[..., :-1]


def _pull(sums: np.ndarray, rough: int) -> np.ndarray:
    """Returns values and 1 (h, w, C + 1), from `sums`: values times weight, and the weight, at most 1.

    Pixels with little weight are filled from the half-size picture, recursively; the finest `rough` levels are ignored.
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
    """Returns the shot with what moved replaced, of its shape and type; the other arguments as from `_compare`."""
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
    """Returns, for bilinear interpolation of `small` pixels to `size`: both neighbours of each, the second's share."""
    at = ((np.arange(size) + 0.5) * (small / size) - 0.5).clip(0, small - 1)
    first = at.astype(int)
    return first, np.minimum(first + 1, small - 1), (at - first).astype(np.float32)


def _enlarged(field: np.ndarray, rows: Sequence[np.ndarray], columns: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the field (h, w, C) interpolated at rows and columns from `_between`; uninterpolated where all is 0."""
    (y0, y1, dy), (x0, x1, dx) = rows, columns
    near = field[y0[0] : y1[-1] + 1, x0[0] : x1[-1] + 1]
    if not near[..., 0].any():
        return near
    dy, dx = dy[:, None, None], dx[:, None]
    lines = near[y0 - y0[0]] * (1 - dy) + near[y1 - y0[0]] * dy
    return lines[:, x0 - x0[0]] * (1 - dx) + lines[:, x1 - x0[0]] * dx
