"""Align hand-held exposures of one scene."""

import itertools
from collections.abc import Sequence

import cv2
import numpy as np

from utils.errors import UserError
from utils.pictures.pixels import shrink
from utils.progress import step
from utils.stack import METHODS

WORKING_SIDE = 1600  # pixels, longer side of the copies on which a homography is estimated
LYING = 0.5  # pixels of these copies: shots whose corners are nearer lie on each other
GAIN = 3e-4  # of correlation: a homography that adds less moved nothing, as on a tripod
STILL = 0.95  # least correlation of two shots that lie on each other, where no homography is found
INVERSE = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
NOTICE_SIDE = 640  # pixels, longer side of the copies on which `unsteady` looks
NOTICED = 2  # pixels of them by which the corners of hand-held shots are apart
MTB_BITS = range(3, 9)  # ranges to try: AlignMTB of n bits finds shifts below 2^n pixels


def align_exposures(
    images: Sequence[np.ndarray], method: str, leave_out: bool = False
) -> list[np.ndarray] | list[np.ndarray | None]:
    """Returns the exposures aligned to the one of middle brightness, cropped to the rectangle that all of them show.

    Each is aligned to its neighbour in brightness, which is most like it. "mtb" finds whole-pixel
    shifts (OpenCV's AlignMTB, Ward 2003). "homography" also finds rotation and perspective (SIFT matches, refined by
    ECC, Evangelidis and Psarakis 2008) and resamples bicubically; shots that lie on each other already, as from a
    tripod, stay as they are, bit for bit.

    Args:
        images: Two or more (H, W[, C]) uint8 or uint16 of one shape, in any order.
        method: One of METHODS.
        leave_out: Whether a shot that cannot be aligned becomes None, as long as two others can be aligned.

    Raises:
        ValueError: The method is unknown, or the pictures have too little in common.
    """
    if method not in METHODS:
        raise UserError(f"no alignment is called {method!r}: expected {' or '.join(METHODS)}")
    estimate = _shift if method == "mtb" else _homography
    grays = [_gray(image) for image in images]
    order = sorted(range(len(images)), key=lambda k: grays[k].mean())
    middle = len(order) // 2
    maps = {order[middle]: np.eye(3)}  # from pixels (x, y, 1) of the middle exposure to those of each exposure
    shape, tried = grays[0].shape, 0
    for chain in (order[middle:], order[middle::-1]):
        fixed = chain[0]
        for moving in chain[1:]:
            step("aligning", tried := tried + 1, len(images))
            try:
                found = estimate(grays[fixed], grays[moving]) @ maps[fixed]
                _common_rectangle([*maps.values(), found], *shape)
            except UserError:
                if not leave_out:
                    raise
                continue
            maps[moving] = found
            fixed = moving
    if len(maps) < 2 < len(images):  # no shot fits the middle one: leave that out
        rest = align_exposures([image for k, image in enumerate(images) if k != order[middle]], method, leave_out)
        return [*rest[: order[middle]], None, *rest[order[middle] :]]
    if len(maps) < 2:
        raise UserError(f"the exposures cannot be aligned ({method}): no two of them have enough in common")
    left, top, right, bottom = _common_rectangle(list(maps.values()), *shape)
    crop = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]], float)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return [
        cv2.warpPerspective(image, maps[k] @ crop, (right - left, bottom - top), flags=flags) if k in maps else None
        for k, image in enumerate(images)
    ]


def unsteady(images: Sequence[np.ndarray]) -> bool:
    """Returns whether exposures do not lie on each other, as when they were taken out of the hand, by small copies."""
    grays = sorted((_gray(shrink(image, side=NOTICE_SIDE)) for image in images), key=np.mean)
    for fixed, moving in itertools.pairwise(grays):
        try:
            if NOTICED < _apart(_homography(fixed, moving), fixed.shape) < NOTICE_SIDE / 4:  # farther is a mistake
                return True
        except UserError:
            continue
    return False


def _gray(image: np.ndarray) -> np.ndarray:
    """Returns a picture of any layout as gray (H, W) uint8."""
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=1 / 257)
    return image if image.ndim == 2 else cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY)


def _shift(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Returns the shift from the fixed picture's pixels to the moving one's, 3x3; both (H, W) uint8.

    AlignMTB errs if its search range is much larger than the shift. So several ranges are tried, and the shift with the
    best correlation of the pictures is taken.
    """
    fixed, moving = cv2.equalizeHist(fixed), cv2.equalizeHist(moving)
    height, width = fixed.shape
    best, shift = -np.inf, (0, 0)
    for bits in MTB_BITS:
        if min(height, width) < 2**bits:
            break  # AlignMTB halves the picture `bits` times, and fails if no pixel is left
        dx, dy = cv2.createAlignMTB(bits).calculateShift(fixed, moving)
        if 2 * abs(dx) < width and 2 * abs(dy) < height:
            common = fixed[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
            own = moving[max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)]
            correlation = cv2.computeECC(common, own)
            if correlation > best:
                best, shift = correlation, (dx, dy)
    return np.array([[1, 0, -shift[0]], [0, 1, -shift[1]], [0, 0, 1]], float)


def _homography(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Returns the homography from the fixed picture's pixels to the moving one's, 3x3; both (H, W) uint8.

    It is the identity where no other fits better.

    Raises:
        ValueError: They do not lie on each other, and no homography is found.
    """
    width = fixed.shape[1]
    fixed, moving = shrink(fixed, side=WORKING_SIDE), shrink(moving, side=WORKING_SIDE)
    scale = fixed.shape[1] / width
    exposed = cv2.inRange(moving, 5, 250)  # mask for ECC: neither black nor clipped
    fixed, moving = cv2.equalizeHist(fixed), cv2.equalizeHist(moving)  # makes two exposures look nearly the same
    lying = _correlation(fixed, moving, exposed, np.eye(3))
    try:
        found = _estimated(fixed, moving, exposed)
    except UserError:
        if lying < STILL:
            raise
        return np.eye(3)
    if _apart(found, fixed.shape) < LYING or _correlation(fixed, moving, exposed, found) < lying + GAIN:
        return np.eye(3)
    to_copy = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]])  # from full size
    return np.linalg.inv(to_copy) @ found @ to_copy


def _apart(found: np.ndarray, shape: tuple[int, ...]) -> float:
    """Returns by how many pixels a homography moves the corners of a picture (H, W), at most."""
    height, width = shape
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], float)
    return float(np.abs(cv2.perspectiveTransform(corners, found) - corners).max())


def _correlation(fixed: np.ndarray, moving: np.ndarray, exposed: np.ndarray, warp: np.ndarray) -> float:
    """Returns how well the moving picture fits on the fixed one where it is `exposed`, at most 1; -1 if it is nowhere.

    Both are blurred: interpolation takes noise away, which alone makes a warp fit better than none.
    """
    fixed, moving = (cv2.GaussianBlur(x, (0, 0), 1.5) for x in (fixed, moving))
    warped, mask = (cv2.warpPerspective(x, warp, fixed.shape[::-1], flags=INVERSE) for x in (moving, exposed))
    inside = mask == 255
    if inside.mean() < 0.02 or not fixed[inside].std() * warped[inside].std():
        return -1.0
    return float(np.corrcoef(fixed[inside], warped[inside])[0, 1])


def _estimated(fixed: np.ndarray, moving: np.ndarray, exposed: np.ndarray) -> np.ndarray:
    """Returns the homography as `_homography` does, of two equalized copies, where the moving one is `exposed`."""
    sift = cv2.SIFT_create(4000)
    (points, a), (others, b) = sift.detectAndCompute(fixed, None), sift.detectAndCompute(moving, None)
    pairs = [] if a is None or b is None else cv2.BFMatcher().knnMatch(a, b, k=2)
    good = [pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < 0.75 * pair[1].distance]
    here = np.array([points[m.queryIdx].pt for m in good], np.float32)
    there = np.array([others[m.trainIdx].pt for m in good], np.float32)
    found = cv2.findHomography(here, there, cv2.RANSAC, 3)[0] if len(good) >= 12 else None
    if found is None:
        raise UserError(f"the exposures cannot be aligned (homography): {len(good)} points match, 12 are needed")
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-6)
    try:
        warp = found.astype(np.float32)
        return cv2.findTransformECC(fixed, moving, warp, cv2.MOTION_HOMOGRAPHY, criteria, exposed, 5)[1].astype(float)
    except cv2.error as error:
        raise UserError("the exposures cannot be aligned (homography): they have too little in common") from error


def _common_rectangle(maps: list[np.ndarray], height: int, width: int) -> tuple[int, int, int, int]:
    """Returns left, top, right, bottom (exclusive) of the rectangle that lies inside every mapped picture.

    Raises:
        ValueError: It has less than half of the width or of the height.
    """
    corners = np.array([[[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]], float)
    outlines = np.array([cv2.perspectiveTransform(corners, np.linalg.inv(m))[0] for m in maps])  # (K, 4, 2)
    (x0, x1, x2, x3), (y0, y1, y2, y3) = outlines[..., 0].T, outlines[..., 1].T
    left, top = np.ceil([np.maximum(x0, x3).max() - 1e-6, np.maximum(y0, y1).max() - 1e-6])
    right, bottom = np.floor([np.minimum(x1, x2).min() + 1e-6, np.minimum(y2, y3).min() + 1e-6]) + 1
    left, top, right, bottom = max(int(left), 0), max(int(top), 0), min(int(right), width), min(int(bottom), height)
    if right - left < width / 2 or bottom - top < height / 2:
        raise UserError("the exposures cannot be aligned: less than half of the picture is in all of them")
    return left, top, right, bottom
