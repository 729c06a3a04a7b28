"""utils/stack/align.py: known shifts and rotations of real pictures are found again."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.errors import UserError
from utils.pictures.image import list_images, read_image
from utils.stack import align
from utils.stack.align import align_exposures

SCENE = Path(__file__).parents[1] / "data_test" / "city"


def scene():
    return [read_image(path) for path in list_images(SCENE)]  # dark, middle, bright


def moved(image, matrix):
    """The picture whose pixel matrix @ p shows what `image` shows at p."""
    return cv2.warpPerspective(image, matrix, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def residual(found, true, height, width):
    """The largest distance in pixels between two maps on a grid over the picture."""
    grid = np.float64([[[x, y] for x in np.linspace(0, width - 1, 9) for y in np.linspace(0, height - 1, 9)]])
    distance = cv2.perspectiveTransform(grid, found) - cv2.perspectiveTransform(grid, true)
    return np.linalg.norm(distance, axis=2).max()


def shift(dx, dy):
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]], float)


def rotation(angle, scale, dx, dy, height, width):
    matrix = np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale), [0, 0, 1]])
    return shift(dx, dy) @ matrix @ np.array([[1, 0, 0], [0, 1, 0], [1e-5, -5e-6, 1]])


@pytest.mark.parametrize("other", [0, 2], ids=["darker", "brighter"])
def test_mtb_finds_whole_shifts(other):
    images = scene()
    for dx, dy in ((13, -7), (-25, 4)):
        true = shift(dx, dy)
        found = align._shift(align._gray(images[1]), align._gray(moved(images[other], true)))
        assert residual(found, true, *images[1].shape[:2]) < 0.5


@pytest.mark.long
@pytest.mark.parametrize("other", [0, 2], ids=["darker", "brighter"])
def test_homography_finds_rotations(other):
    images = scene()
    height, width = images[1].shape[:2]
    true = rotation(1.3, 1.006, 11.4, -6.7, height, width)
    found = align._homography(align._gray(images[1]), align._gray(moved(images[other], true)))
    assert residual(found, true, height, width) < 0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shifted_exposures_come_back_cropped(dtype):
    images = [image.astype(dtype) * (257 if dtype == np.uint16 else 1) for image in scene()]
    moved_ones = [moved(images[0], shift(8, -6)), images[1], moved(images[2], shift(-5, 3))]
    aligned = align_exposures(moved_ones, "mtb")
    height, width = images[0].shape[:2]
    assert {x.shape for x in aligned} == {(height - 9, width - 13, 3)} and aligned[0].dtype == dtype
    for one, image in zip(aligned, images, strict=True):
        np.testing.assert_array_equal(one, image[6 : height - 3, 5 : width - 8])


@pytest.mark.long
def test_a_rotated_bracket_comes_close_to_the_original():
    images = scene()
    height, width = images[0].shape[:2]
    tilted = [moved(images[0], rotation(-0.8, 1, 4.3, 2.6, height, width)), images[1], images[2]]
    aligned = align_exposures(tilted, "homography")
    h, w = aligned[1].shape[:2]
    before, after = (
        np.abs(cv2.matchTemplate(images[k].astype(np.float32), aligned[k].astype(np.float32), cv2.TM_SQDIFF)).min()
        for k in (0, 1)
    )
    assert h > height - 30 and w > width - 40
    assert after / aligned[1].size < 0.5  # not resampled by more than a rounding
    assert before / aligned[0].size < 20  # mean squared difference in grey levels


def test_shots_from_a_tripod_stay_bit_for_bit(rng):
    shots = [np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8) for image in scene()]
    for before, after in zip(shots, align_exposures(shots, "homography"), strict=True):
        np.testing.assert_array_equal(before, after)
    assert not align.unsteady(shots)


def test_a_shot_too_poor_for_points_stays_where_it_lies():
    """A smooth picture has no points to match; where it lies on the others, it is one of them."""
    middle = cv2.GaussianBlur(scene()[1], (0, 0), 40)
    smooth = [middle, (middle * 0.4).astype(np.uint8)]
    for before, after in zip(smooth, align_exposures(smooth, "homography"), strict=True):
        np.testing.assert_array_equal(before, after)
    away = [smooth[0], np.ascontiguousarray(smooth[1][::-1, ::-1])]
    with pytest.raises(ValueError, match="cannot be aligned"):
        align_exposures(away, "homography")


def test_shots_out_of_the_hand_are_noticed():
    dark, middle, bright = scene()
    height, width = dark.shape[:2]
    for matrix in (shift(6, -4), rotation(0.6, 1.0, 2, 1, height, width)):
        assert align.unsteady([dark, middle, moved(bright, matrix)])
    walker = bright.copy()
    walker[100:250, 400:480] = 40  # what moves is no unsteady hand
    assert not align.unsteady([dark, middle, walker])


def test_what_cannot_be_aligned_is_refused():
    flat = [np.full((200, 300, 3), value, np.uint8) for value in (20, 200)]
    with pytest.raises(ValueError, match="cannot be aligned"):
        align_exposures(flat, "homography")
    with pytest.raises(ValueError, match="mtb or homography"):
        align_exposures(flat, "magic")


def painted(height=96, width=128):
    """A sharp texture (height, width, 3) uint8 that every shift can be told by."""
    rng = np.random.default_rng(3)
    coarse = cv2.resize(rng.uniform(30, 200, (9, 12, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("dx, dy", [(0, 0), (3, 0), (0, 3), (-3, 0), (0, -3), (5, -2), (-4, 6)])
def test_the_rectangle_that_all_show_is_the_one_of_whole_pixels(dx, dy):
    """Pixel (x, y) of the fixed picture is (x + dx, y + dy) of the other: both are there for these x and y."""
    found = align._common_rectangle([np.eye(3), shift(dx, dy)], 96, 128)
    columns = [x for x in range(128) if 0 <= x + dx < 128]
    rows = [y for y in range(96) if 0 <= y + dy < 96]
    assert found == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


@pytest.mark.parametrize("off, lost", [(0.8e-6, 0), (1.2e-6, 1)])
def test_a_millionth_of_a_pixel_is_rounding(off, lost):
    """In a map that a solver found; what is farther outside would be made up."""
    for sign, expected in ((1, (0, 0, 128 - lost, 96 - lost)), (-1, (lost, lost, 128, 96))):
        assert align._common_rectangle([shift(sign * off, sign * off)], 96, 128) == expected


def test_the_rectangle_of_turned_pictures_lies_inside_them():
    for angle, scale in ((2, 1), (-3, 1.02), (1, 0.97)):
        m = rotation(angle, scale, 1.3, -2.6, 96, 128)
        left, top, right, bottom = align._common_rectangle([np.eye(3), m], 96, 128)
        corners = np.float64([[[x, y] for x in (left, right - 1) for y in (top, bottom - 1)]])
        x, y = cv2.perspectiveTransform(corners, m)[0].T
        assert x.min() >= -1e-6 and y.min() >= -1e-6 and x.max() <= 127 + 1e-6 and y.max() <= 95 + 1e-6
        wider = np.float64([[[x, y] for x in (left - 1, right) for y in (top - 1, bottom)]])
        x, y = cv2.perspectiveTransform(wider, m)[0].T
        assert min(x.min(), y.min()) < 0 or x.max() > 127 or y.max() > 95


@pytest.mark.parametrize("dx, dy, fits", [(64, 0, True), (65, 0, False), (0, 48, True), (0, -49, False)])
def test_half_of_the_picture_must_be_in_all(dx, dy, fits):
    if fits:
        align._common_rectangle([np.eye(3), shift(dx, dy)], 96, 128)
        return
    with pytest.raises(UserError, match="less than half"):
        align._common_rectangle([np.eye(3), shift(dx, dy)], 96, 128)


@pytest.mark.parametrize("dx, dy", [(0, 0), (1, 0), (2, 3), (-7, 5), (14, -11)])
def test_each_shift_is_found_in_any_picture(dx, dy):
    whole = painted(160, 200)
    fixed = whole[20:-20, 20:-20]
    moving = whole[20 - dy : 140 - dy, 20 - dx : 180 - dx] // 2 + 20  # what is at p in `fixed` is at p + (dx, dy)
    np.testing.assert_array_equal(align._shift(align._gray(fixed), align._gray(moving)), shift(dx, dy))
    for number, (one, other) in enumerate([(fixed, moving), (moving, fixed)]):
        aligned = align_exposures([one, other], "mtb")
        assert aligned[0].shape == (120 - abs(dy), 160 - abs(dx), 3)
        dark, bright = aligned[1 - number], aligned[number]  # sorted by `//`, not by order
        assert np.array_equal(bright // 2 + 20, dark)


def test_the_middle_exposure_stays_where_it_is(monkeypatch):
    steps = []
    monkeypatch.setattr(align, "step", lambda *told: steps.append(told))
    whole = painted(160, 200)
    shots = [np.clip(whole * gain, 0, 255).astype(np.uint8) for gain in (0.4, 0.7, 1)]
    moved_by = [(4, -3), (0, 0), (-2, 5)]
    cut = [s[20 - dy : 140 - dy, 20 - dx : 180 - dx] for s, (dx, dy) in zip(shots, moved_by, strict=True)]
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        aligned = align_exposures([cut[k] for k in order], "mtb")
        for k, one in zip(order, aligned, strict=True):
            np.testing.assert_array_equal(one, shots[k][23 : 140 - 5, 22 : 180 - 4])
    assert steps == [("aligning", 1, 3), ("aligning", 2, 3)] * 3


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_gray_of_any_layout(channels):
    image = np.random.default_rng(0).integers(0, 256, (9, 11, *channels)).astype(np.uint8)
    expected = image if not channels else cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY)
    np.testing.assert_array_equal(align._gray(image), expected)
    np.testing.assert_array_equal(align._gray(image.astype(np.uint16) * 257), expected)


def test_homography_is_found_to_a_tenth_of_a_pixel_at_full_size(monkeypatch):
    """Also where it is estimated on a smaller copy, whose pixels' centres lie elsewhere."""
    image = cv2.resize(painted(), (512, 384), interpolation=cv2.INTER_CUBIC)
    true = rotation(0.7, 1.004, 3.4, -2.3, 384, 512)
    moving = align._gray(moved(image, true)) // 2 + 10
    for side in (1600, 256):
        monkeypatch.setattr(align, "WORKING_SIDE", side)
        found = align._homography(align._gray(image), moving)
        assert residual(found / found[2, 2], true, 384, 512) < (0.15 if side == 1600 else 0.3)


def test_eleven_matches_are_too_few(monkeypatch):
    image = painted()
    with pytest.raises(UserError, match=r"\d points match, 12 are needed"):
        align._homography(align._gray(image)[:24, :24], align._gray(image)[-24:, -24:])


def test_corners_are_apart_by_what_the_farthest_moves():
    assert align._apart(shift(3, -4), (96, 128)) == pytest.approx(4)
    assert align._apart(np.diag([1.01, 1.02, 1]), (96, 128)) == pytest.approx(1.92)
    assert align._apart(np.diag([1.03, 1.02, 1]), (96, 128)) == pytest.approx(3.84)


def test_correlation_is_that_of_blurred_pictures_where_the_other_is_exposed(rng):
    fixed = align._gray(painted())
    everywhere = np.full(fixed.shape, 255, np.uint8)
    assert align._correlation(fixed, fixed, everywhere, np.eye(3)) == pytest.approx(1)
    assert align._correlation(fixed, 255 - fixed, everywhere, np.eye(3)) == pytest.approx(-1, abs=1e-3)
    away = align._gray(moved(painted(), shift(5, -3)))
    there, here = (align._correlation(fixed, away, everywhere, warp) for warp in (shift(5, -3), np.eye(3)))
    assert there > 0.99 and here < 0.9
    half = everywhere.copy()
    half[:, 40:] = 0
    noise = fixed.copy()
    noise[:, 50:] = rng.integers(0, 256, (96, 78))  # far from what counts
    assert align._correlation(fixed, noise, half, np.eye(3)) == pytest.approx(1)
    other = rng.integers(0, 256, fixed.shape).astype(np.uint8)
    a, b = (cv2.GaussianBlur(x, (0, 0), 1.5)[:, :40].astype(float).ravel() for x in (fixed, other))
    assert align._correlation(fixed, other, half, np.eye(3)) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-3)
    few = everywhere * 0
    few[:10, :20] = 255  # of 96 x 128: less than two hundredths
    flat = np.full_like(fixed, 7)
    assert align._correlation(fixed, fixed, few, np.eye(3)) == -1
    assert align._correlation(fixed, flat, everywhere, np.eye(3)) == -1
    few[:13, :20] = 255  # more
    assert align._correlation(fixed, fixed, few, np.eye(3)) == pytest.approx(1)


def test_shots_are_unsteady_from_two_pixels_on(monkeypatch):
    image = cv2.resize(painted(), (320, 240), interpolation=cv2.INTER_CUBIC)
    for dx, dy, said in ((0, 0, False), (1.5, 0, False), (2.6, 0, True), (0, -3, True)):
        assert align.unsteady([image, moved(image, shift(dx, dy)) // 2]) == said
    monkeypatch.setattr(align, "NOTICE_SIDE", 160)  # half of its size
    for dx, said in ((3, False), (6, True)):
        assert align.unsteady([image, moved(image, shift(dx, 0)) // 2]) == said


def test_what_seems_to_lie_far_away_is_a_mistake(monkeypatch):
    shots = [painted(), painted() // 2]
    for dx, said in ((2, False), (3, True), (159, True), (161, False)):
        monkeypatch.setattr(align, "_homography", lambda *_, dx=dx: shift(dx, 0))
        assert align.unsteady(shots) == said


def test_half_a_pixel_is_left_and_more_is_found():
    image = cv2.resize(painted(), (320, 240), interpolation=cv2.INTER_CUBIC)
    for dx, found in ((0.35, False), (0.8, True)):
        estimate = align._homography(align._gray(image), align._gray(moved(image, shift(dx, 0))))
        assert (estimate == np.eye(3)).all() != found
        assert not found or residual(estimate / estimate[2, 2], shift(dx, 0), 240, 320) < 0.2


@pytest.mark.parametrize(
    "apart, gain, moves", [(0.49, 1, False), (0.51, 1, True), (9, 2e-4, False), (9, 4e-4, True), (9, -0.5, False)]
)
def test_shots_moved_if_half_a_pixel_lies_between_and_they_fit_better_after(monkeypatch, apart, gain, moves):
    """By stand-ins for the estimate and the correlations, on a copy of half the size."""
    fixed = align._gray(painted())
    given = []
    monkeypatch.setattr(align, "WORKING_SIDE", 64)
    monkeypatch.setattr(align, "_estimated", lambda *pictures: given.extend(pictures) or shift(apart, 0))
    fits = {0: 0.4, apart: 0.4 + gain}
    monkeypatch.setattr(align, "_correlation", lambda *arguments: fits[arguments[3][0, 2]])
    found = align._homography(fixed, fixed)
    np.testing.assert_allclose(found, shift(2 * apart, 0) if moves else np.eye(3), atol=1e-9)
    assert [picture.shape for picture in given] == [(48, 64)] * 3


@pytest.mark.parametrize("correlation, lies", [(0.949, False), (0.951, True)])
def test_a_shot_without_points_lies_on_the_other_if_they_look_alike(monkeypatch, correlation, lies):
    def none(*_):
        raise UserError("no points")

    monkeypatch.setattr(align, "_estimated", none)
    monkeypatch.setattr(align, "_correlation", lambda *_: correlation)
    picture = align._gray(painted())
    if lies:
        np.testing.assert_array_equal(align._homography(picture, picture), np.eye(3))
        return
    with pytest.raises(UserError, match="no points"):
        align._homography(picture, picture)


def test_only_what_is_neither_black_nor_clipped_is_compared(monkeypatch):
    masks = []
    monkeypatch.setattr(align, "_correlation", lambda *arguments: masks.append(arguments[2]) or 1.0)
    moving = np.tile(np.uint8([0, 4, 5, 6, 249, 250, 251, 255]), (8, 1))
    align._homography(moving, moving)
    assert masks[0][0].tolist() == [0, 0, 255, 255, 255, 255, 0, 0]


@pytest.mark.parametrize(
    "sides, bits", [((63, 90), 5), ((64, 90), 6), ((600, 255), 7), ((256, 600), 8), ((700, 600), 8)]
)
def test_shifts_of_all_ranges_are_tried_that_fit_into_the_picture(monkeypatch, rng, sides, bits):
    """The best of 3 bits to 8, by correlation; none of half the picture or more."""
    tried = []
    picture = rng.integers(0, 256, sides).astype(np.uint8)
    height, width = sides

    class StandIn:
        def __init__(self, bits):
            tried.append(bits)

        def calculateShift(self, *_):  # noqa: N802 # OpenCV's name
            half = [(width + 1) // 2, 0], [0, (height + 1) // 2], [3, -2]
            return half[len(tried) - 1] if len(tried) < 4 else (9, 9)

    monkeypatch.setattr(align.cv2, "createAlignMTB", StandIn)
    moving = cv2.warpAffine(picture, np.float32([[1, 0, -3], [0, 1, 2]]), (width, height))
    np.testing.assert_array_equal(align._shift(picture, moving), shift(-3, 2))
    assert tried == list(range(3, bits + 1))


@pytest.mark.parametrize(
    "levels, left",
    [
        ([40, 80, 120], [1, 1, 1]),
        ([40, 81, 120], [1, 0, 1]),  # the middle one fits none: the others stay
        ([41, 80, 120], [0, 1, 1]),
        ([120, 80, 41], [1, 1, 0]),
        ([120, 81, 40, 160], [1, 0, 1, 1]),
        ([81, 80, 40, 121], [0, 1, 1, 0]),
        ([41, 81, 121], None),
        ([40, 81], None),
    ],
)
def test_shots_that_cannot_be_aligned_are_left_out_while_two_are_left(monkeypatch, levels, left):
    """By a stand-in that cannot align shots of an odd level."""

    def estimate(fixed, moving):
        if fixed[0, 0] % 2 or moving[0, 0] % 2:
            raise UserError("strange")
        return np.eye(3)

    monkeypatch.setattr(align, "_homography", estimate)
    shots = [np.full((8, 9, 3), level, np.uint8) for level in levels]
    if left != [1] * len(levels):
        with pytest.raises(UserError, match="strange"):
            align_exposures(shots, "homography")
    if left is None:
        with pytest.raises(UserError, match="no two of them have enough in common"):
            align_exposures(shots, "homography", leave_out=True)
        return
    for shot, one, its in zip(shots, align_exposures(shots, "homography", leave_out=True), left, strict=True):
        assert np.array_equal(one, shot) if its else one is None


@pytest.mark.parametrize("count, ratio, found", [(12, 0.74, True), (11, 0.74, False), (40, 0.76, False)])
def test_twelve_points_are_needed_that_match_clearly_better_than_the_next(monkeypatch, count, ratio, found):
    """By a stand-in for SIFT: each point of the one picture has two in the other that are more or less alike."""
    picture = align._gray(painted())
    places = np.random.default_rng(0).uniform(5, 90, (count, 2))
    first = 1000 * np.eye(count, 2 * count, dtype=np.float32)
    aside = 100 * np.eye(2 * count, dtype=np.float32)[count:]
    second = np.vstack([first + ratio * aside, first - aside])

    class StandIn:
        def __init__(self, most):
            assert most == 4000  # for its time
            self.known = iter([(places, first), (np.vstack([places, places + 9]), second)])

        def detectAndCompute(self, *_):  # noqa: N802 # OpenCV's name
            points, descriptors = next(self.known)
            return [cv2.KeyPoint(float(x), float(y), 1) for x, y in points], descriptors

    monkeypatch.setattr(align.cv2, "SIFT_create", StandIn)
    everywhere = np.full_like(picture, 255)
    if found:
        np.testing.assert_allclose(align._estimated(picture, picture, everywhere), np.eye(3), atol=1e-3)
        return
    with pytest.raises(UserError, match=f": {count if ratio < 0.75 else 0} points match, 12 are needed"):
        align._estimated(picture, picture, everywhere)
