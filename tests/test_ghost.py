"""utils/stack/ghost.py and --deghost: moving things go, still things stay; each step against a loop over pixels."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from configs import get_infer_args
from utils.fusing import fusion
from utils.fusing.fusion import fuse_scenes
from utils.pictures.image import list_images, read_image, write_image
from utils.pictures.scenes import Scene
from utils.stack import ghost
from utils.stack.ghost import remove_ghosts

DATA = Path(__file__).parents[1] / "data_test"
PATCH = slice(60, 100), slice(90, 130)  # where something stands in the over-exposed shot only


def scene(name="city"):
    return [read_image(path)[60:260, 400:640] for path in list_images(DATA / name)]  # dark, middle, bright


def freed(images, reference=None):
    """Returns the exposures without ghosts."""
    return remove_ghosts(images, reference)[0]


def moving_scene(name="courtyard"):
    """A scene, and the same scene with a thing that only the over-exposed shot shows."""
    still = scene(name)
    moved = [image.copy() for image in still]
    moved[2][PATCH] = cv2.GaussianBlur(still[2][140:180, 10:50], (0, 0), 2) // 2
    return still, moved


def distance(one, other):
    return np.abs(one.astype(float) - other)


def small_pair(rng, height=24, width=31):
    """A smooth picture and the same brighter, each (h, w, 3) uint8, with a dark thing and a speck in the second."""
    source = cv2.resize(rng.integers(20, 180, (5, 6, 3)).astype(np.uint8), (width, height))
    shot = np.minimum(source * 1.6 + rng.normal(0, 2, source.shape), 255).astype(np.uint8)
    shot[6:12, 8:15] = 10
    shot[20, 25] = 0
    return source, shot


def test_something_that_moves_goes_and_the_rest_stays():
    still, moved = moving_scene()
    cleaned = freed(moved, reference=1)
    assert cleaned[1] is moved[1]
    assert distance(cleaned[2], still[2])[PATCH].mean() < 0.15 * distance(moved[2], still[2])[PATCH].mean()
    outside = np.ones(still[0].shape[:2], bool)
    outside[50:110, 80:140] = False
    np.testing.assert_array_equal(cleaned[2][outside], still[2][outside])
    np.testing.assert_array_equal(cleaned[0], still[0])


def test_what_the_reference_shows_appears_in_all():
    still, moved = moving_scene()
    cleaned = freed(moved, reference=2)
    for k in (0, 1):
        dark = distance(cleaned[k], still[k])[PATCH].mean()
        assert dark > 0.2 * still[k][PATCH].mean()  # the thing is darker than the ground, in these shots too
        assert (cleaned[k][:40] == still[k][:40]).all()


def noisy(image, rng):
    return np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def shifted(image, rng):
    matrix = np.float32([[1, 0, rng.uniform(-0.7, 0.7)], [0, 1, rng.uniform(-0.7, 0.7)]])
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def vignetted(image, rng):
    y, x = np.mgrid[-1 : 1 : image.shape[0] * 1j, -1 : 1 : image.shape[1] * 1j]
    return np.rint(image * (1 - rng.uniform(0, 0.04) * (x**2 + y**2))[..., None]).astype(np.uint8)


def developed(image, rng):
    """The shot with a curve and a white balance of its own."""
    power, gain = rng.uniform(0.8, 1.25), rng.uniform(0.93, 1.07, 3)
    return np.rint(255 * np.clip((image / 255) ** power * gain, 0, 1)).astype(np.uint8)


def compressed(image, rng):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_COLOR)


@pytest.mark.parametrize("harm", [None, noisy, shifted, vignetted, developed, compressed])
@pytest.mark.parametrize("name", ["city", "sunset"])
def test_where_nothing_moves_no_bit_changes(name, harm):
    rng = np.random.default_rng(0)
    images = scene(name)
    if harm:
        images = [harm(image, rng) for image in images]
    for cleaned, image in zip(freed(images), images, strict=True):
        np.testing.assert_array_equal(cleaned, image)


def test_order_does_not_matter_and_inputs_stay():
    _, moved = moving_scene()
    copies = [image.copy() for image in moved]
    forward, backward = freed(moved), freed(moved[::-1])[::-1]
    for one, other, image, copy in zip(forward, backward, moved, copies, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(image, copy)


def test_gray_alpha_and_16_bits_agree_with_colour():
    _, moved = moving_scene()
    grays = [image[..., 1] for image in moved]
    cleaned = freed(grays, 1)
    tripled = freed([cv2.merge([gray] * 3) for gray in grays], 1)
    assert cleaned[2].shape == grays[2].shape and (cleaned[2] != grays[2]).any()
    assert distance(cleaned[2], tripled[2][..., 0])[PATCH].mean() < 2  # colour has one more tolerance

    colour = freed(moved, 1)
    alpha = np.random.default_rng(0).integers(0, 256, moved[0].shape[:2]).astype(np.uint8)
    with_alpha = freed([np.dstack([image, alpha]) for image in moved], 1)
    np.testing.assert_array_equal(with_alpha[2], np.dstack([colour[2], alpha]))

    deep = freed([image.astype(np.uint16) * 257 for image in moved], 1)
    assert deep[2].dtype == np.uint16
    assert distance(deep[2] / 257, colour[2]).max() < 0.51  # the rounding of 8 bits


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiles_change_no_bit(dtype, monkeypatch):
    images = [image.astype(dtype) * (257 if dtype == np.uint16 else 1) for image in moving_scene()[1]]
    monkeypatch.setattr(ghost, "WORKING_PIXELS", 20_000)  # so that the decision is enlarged
    whole = freed(images, 1)
    monkeypatch.setattr(ghost, "TILE", 37)
    assert (whole[2] != images[2]).any()
    for one, other in zip(whole, freed(images, 1), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_replacing_equals_a_loop_over_pixels(dtype):
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    shot, source = rng.integers(0, top + 1, (2, 14, 19, 3)).astype(dtype)
    curves = np.sort(rng.uniform(0, 255, (3, 256)), 1)
    lost = np.linspace(0, 1, 256) ** 2
    field = rng.uniform(0, 1, (5, 7, 4)).astype(np.float32) * [1, 9, 9, 9]
    result = ghost._replace(shot, source, curves, field, lost)

    for y in range(14):
        for x in range(19):
            v = min(max((y + 0.5) * 5 / 14 - 0.5, 0), 4)
            u = min(max((x + 0.5) * 7 / 19 - 0.5, 0), 6)
            own = 0
            for j in range(5):
                for i in range(7):
                    own = own + max(1 - abs(v - j), 0) * max(1 - abs(u - i), 0) * field[j, i]
            levels = source[y, x].astype(float) * 255 / top
            gate = max(np.interp(level, range(256), lost) for level in levels)
            for c in range(3):
                there = (np.interp(levels[c], range(256), curves[c]) + gate * own[1 + c]) * top / 255
                expected = shot[y, x, c] + own[0] * (there - shot[y, x, c])
                assert abs(result[y, x, c] - min(max(expected, 0), top)) < 0.51 + top * 1e-6


IDENTITY = np.arange(256, dtype=np.float32)[None]
SIDE, MIDDLE = 60, slice(20, 30)


def flat(level, channels=1):
    """A picture (60, 60, C) of one level, with black and white far from its middle, so that no level is an extreme."""
    picture = np.full((SIDE, SIDE, channels), level, np.uint8)
    picture[:, -6:-3], picture[:, -3:] = 0, 255
    return picture


def mask_of(source, shot, spread=0.0, lift=0):
    curves = np.repeat(IDENTITY + lift, source.shape[2], 0)
    return ghost._moving(source, shot, curves, np.full_like(curves, spread))[:, :-10]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "spread, off, moves",
    # at once: 5 levels of the source, 10 of the shot, 2 deviations, 10 to be clear, and one deviation
    [(0, 25, False), (0, 26, True), (4, 37, False), (4, 38, True), (8, 49, False), (8, 50, True)],
)
def test_a_thing_moves_from_a_known_difference_on(sign, spread, off, moves):
    source, shot = flat(120), flat(120)
    shot[MIDDLE, MIDDLE] = 120 + sign * off
    expected = np.zeros((SIDE, SIDE - 10), np.uint8)
    expected[MIDDLE, MIDDLE] = moves
    found = mask_of(source, shot, spread)
    inner = found[22:28, 22:28]
    assert (inner == moves).all() and not (found & (1 - cv2.dilate(expected, np.ones((3, 3), np.uint8)))).any()
    assert found.any() == moves


def test_a_channel_that_is_uncertain_does_not_hide_what_another_one_tells():
    source, shot = flat(120, 3), flat(120, 3)
    shot[MIDDLE, MIDDLE, 0] += 26
    curves, spreads = np.repeat(IDENTITY, 3, 0), np.zeros((3, 256), np.float32)
    spreads[2] = 12
    assert ghost._moving(source, shot, curves, spreads)[22:28, 22:28].all()


def test_what_moves_grows_over_all_that_differs_and_closes_its_gaps():
    source, shot = flat(120), flat(120)
    shot[MIDDLE, 20:30] = 150  # clear
    shot[MIDDLE, 30:40] = 138  # not clear, but more than is allowed: it belongs to its neighbour
    shot[45:55, 5:15] = 138  # alone it is noise
    shot[MIDDLE, 24:26] = 120  # a gap
    found = mask_of(source, shot)
    assert found[21:29, 21:39].all() and not found[40:].any() and not found[:, 42:].any() and not found[:, :18].any()


def disk(side):
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


@pytest.mark.parametrize("gap, one", [(6, True), (7, False)])
def test_parts_less_than_nine_pixels_apart_are_one(gap, one):
    source, shot = flat(120), flat(120)
    shot[10:30, 8:20] = shot[10:30, 20 + gap : 32 + gap] = 160  # of what moves a pixel all round may be a shift
    assert mask_of(source, shot)[12:28, 10 : 30 + gap].all() == one


def test_around_what_moves_nine_pixels_are_replaced_too_and_seven_where_the_source_is_lost():
    """Softly: as SciPy's blur of 1.5 pixels."""
    ndimage = pytest.importorskip("scipy.ndimage")
    source, shot = flat(120), flat(60)
    source[40:, :30], shot[40:, :30] = 255, 90  # clipped in the source
    shot[20:52, 20:32] = 5
    _, field, lost, mask = ghost._compare(source, shot, np.zeros((SIDE, SIDE), np.uint8))
    unknown = source[..., 0] > 245  # half lost and more
    assert mask[24:36, 22:30].all() and mask[:, :15].sum() == 0 and (mask & unknown).any()
    wide = np.where(unknown, *(ndimage.binary_dilation(mask, disk(side)) for side in (7, 9)))
    np.testing.assert_allclose(
        field[..., 0], ndimage.gaussian_filter(wide.astype(float), 1.5, mode="mirror"), atol=1e-3
    )


@pytest.mark.parametrize("share, rounds", [(0.79, 2), (0.81, 1)])
def test_shots_are_matched_twice_unless_nearly_all_of_them_moves(monkeypatch, share, rounds):
    """The second time without what moved the first time."""
    stills, curves = [], ghost._curves
    moves = (np.arange(10_000).reshape(100, 100) < share * 10_000).astype(np.uint8)
    monkeypatch.setattr(ghost, "_curves", lambda *arguments: stills.append(arguments[2]) or curves(*arguments))
    monkeypatch.setattr(ghost, "_moving", lambda *_: moves)
    monkeypatch.setattr(ghost, "_whole", lambda mask: mask)
    mask = ghost._match(*(np.full((100, 100, 1), level, np.uint8) for level in (90, 120)), moves * 0)[1]
    np.testing.assert_array_equal(mask, moves)
    assert len(stills) == rounds and stills[0].all() and all((still != moves).all() for still in stills[1:])


def test_thin_things_and_shifts_of_a_pixel_are_no_motion():
    source, shot = flat(120), flat(120)
    shot[20:22, 5:40] = 220  # two pixels thin
    assert not mask_of(source, shot).any()
    shot[20:23, 5:40] = 220
    assert mask_of(source, shot).any()
    rng = np.random.default_rng(0)
    texture = rng.integers(20, 230, (SIDE, SIDE, 1)).astype(np.uint8)
    for shift in ((0, 1), (1, 0), (-1, -1)):
        assert not mask_of(texture, np.roll(texture, shift, (0, 1)))[2:-2, 2:-2].any()


def test_a_thin_thing_moves_if_enough_of_it_is_clear():
    """Such as a leg: its core is clear; its soft edges differ by less, but by more than is allowed."""
    for height, moves in ((6, False), (7, True)):  # a pixel at each end may be a shift
        source, shot = flat(175), flat(175)
        source[20 : 20 + height, 20:25, 0] = 150, 100, 60, 100, 150
        assert mask_of(source, shot).any() == moves


def test_what_is_black_or_clipped_tells_nothing():
    """Below what is black the shot may show less than the curve says, above what is clipped more."""
    own = 60, 190  # the extremes of a hazy picture
    for extremes, cases in (
        ((0, 255), ((5, 1), (6, 0), (249, 0), (250, 1))),
        (own, ((64, 1), (65, 0), (184, 0), (185, 1))),
    ):
        for level, free in cases:
            source, up = flat(level), 1 if level < 128 else -1
            source[:, -6:-3], source[:, -3:] = extremes
            shot = np.full_like(source, level + 40 * up)
            shot[MIDDLE, MIDDLE] -= np.uint8(40 * up % 256)
            assert mask_of(source, shot, lift=40 * up).any() != free, level
            shot[MIDDLE, MIDDLE] = level + 80 * up
            assert mask_of(source, shot, lift=40 * up).any()  # to the other side it moves


def test_colour_may_shift_where_another_channel_is_clipped():
    for clipped, off, moves in ((0, 25, False), (249, 26, True), (250, 40, False), (252, 41, True)):
        source, shot = flat(120, 3), flat(120, 3)
        source[MIDDLE, MIDDLE, 2] = shot[MIDDLE, MIDDLE, 2] = clipped or 120
        source[19:31, 19:31, 2] = clipped or 120
        shot[MIDDLE, MIDDLE, 0] += off
        assert mask_of(source, shot)[22:28, 22:28].all() == moves, (clipped, off)


def walk(places, dtype=np.uint8, noise=0.006):
    """Three exposures (72, 96, 3) of a smooth scene with a lamp; a dark thing stands at `places` (columns) in them."""
    rng = np.random.default_rng(7)
    light = cv2.resize(rng.uniform(0.02, 0.5, (5, 7, 3)), (96, 72), interpolation=cv2.INTER_CUBIC).clip(0.01)
    light[8:24, 60:84] = (1.6, 1.2, 0.9)  # the lamp, clipped in the brighter two
    shots = []
    for place, gain in zip(places, (0.4, 1.0, 2.6), strict=True):
        own = light.copy()
        own[30:58, place : place + 12] = (0.03, 0.05, 0.08)
        own = np.clip(own * gain, 0, 1) ** (1 / 2.2) + rng.normal(0, noise, own.shape)
        shots.append(np.rint(own.clip(0, 1) * np.iinfo(dtype).max).astype(dtype))
    return shots


def test_a_shot_that_is_clipped_does_not_lose_what_was_replaced_in_its_neighbour():
    """The third shot alone differs too little from the thing, 237 instead of 255, to tell that something moved."""

    def shots(standing):
        rng = np.random.default_rng(0)
        for gain, stands in zip((1, 1.3, 1.7), standing, strict=True):
            light = np.tile(np.linspace(0, 0.6, 96), (72, 1))
            light[20:60, 20:76] = 0.8
            light[30:50, 30:50] = 0.5 if stands else 0.8
            levels = 255 * np.clip(light * gain, 0, 1) ** (1 / 2.2) + rng.normal(0, 1, light.shape)
            yield np.rint(levels.clip(0, 255)).astype(np.uint8)

    still = list(shots((1, 1, 1)))
    for cleaned, truth in zip(freed(list(shots((1, 0, 0))), 0), still, strict=True):
        assert distance(cleaned, truth)[32:48, 32:48].max() < 8
        np.testing.assert_array_equal(cleaned[:15], truth[:15])


@pytest.mark.parametrize("source, shot, kept", [(200, 250, 1), (200, 249, 0), (40, 6, 1), (40, 7, 0)])
def test_what_was_replaced_in_the_neighbour_is_replaced_where_the_shot_is_clipped_or_black(source, shot, kept):
    replaced = np.zeros((SIDE, SIDE), np.uint8)
    replaced[MIDDLE, MIDDLE] = 1
    pictures = [np.full((SIDE, SIDE, 3), level, np.uint8) for level in (source, shot)]
    np.testing.assert_array_equal(ghost._match(*pictures, replaced)[1], ghost._whole(replaced) * kept)
    pictures[0][:] = 245 if shot < source else 11  # where the source is lost too, it has nothing to offer
    assert not ghost._match(*pictures, replaced)[1].any()


@pytest.mark.parametrize("dtype, reference", [(np.uint8, 0), (np.uint8, 1), (np.uint8, 2), (np.uint16, None)])
def test_shots_of_a_walk_become_those_of_a_thing_that_stands(dtype, reference):
    """The thing goes to where the reference shows it, at the brightness of each shot; what moved nowhere stays."""
    shots = walk((14, 40, 66), dtype)
    cleaned, chosen = remove_ghosts(shots, reference)
    assert chosen == (reference or 0)  # the darkest shows all of it between 20 and 240
    still = walk(((14, 40, 66)[chosen],) * 3, dtype, noise=0)
    changed = np.zeros((72, 96), bool)
    for left in (14, 40, 66):
        changed[18:70, left - 12 : left + 24] = True
    for shot, one, truth in zip(shots, cleaned, still, strict=True):
        np.testing.assert_array_equal(one[~changed], shot[~changed])
        off = distance(one, truth) * 255 / np.iinfo(dtype).max
        assert off[changed].mean() < 1.9 and off.max() < 31  # the noise is 1.5; the most where 20 levels become 170


def test_curves_are_those_of_the_camera():
    """From level a of one gain to b of another: b = (a^2.2 * gain)^(1/2.2), wherever both shots tell."""
    shots = [ghost._small(shot) for shot in walk((14, 14, 14))]
    for source, shot, gain in ((0, 1, 2.5), (1, 0, 0.4), (1, 2, 2.6), (2, 1, 1 / 2.6)):
        curves, spreads = ghost._curves(shots[source], shots[shot], np.ones((72, 96), bool))
        for c, curve in enumerate(curves):
            levels = np.unique(shots[source][..., c])
            expected = (255 * ((levels / 255) ** 2.2 * gain) ** (1 / 2.2)).clip(0, 255)
            known = (expected < 245) & (levels > 30) & (levels < 245) & (levels < levels.max() - 10)
            off = np.abs(curve[levels] - expected)[known]
            assert known.sum() > 50 and off.max() < 3 and off.mean() < 0.5
            assert (np.abs(spreads[c][levels[known]] - 2.1) < 1.2).all()  # the noise of both shots, 1.5 each


def test_curves_are_those_of_least_squares(rng):
    """Each level's quantiles by NumPy's interpolation; the curve by its solver of a stack of equations."""
    source = rng.integers(40, 90, (60, 70, 2)).astype(np.uint8)
    source[0, 0] = (200, 3)
    shot = np.clip(1.5 * source + rng.normal(0, 3, source.shape), 0, 255).astype(np.uint8)
    still = rng.random((60, 70)) < 0.9
    still[0, 0] = True
    curves, spreads = ghost._curves(source, shot, still)
    bend = [[30**0.5 * {j - 1: 1, j: -2, j + 1: 1}.get(k, 0) for k in range(256)] for j in range(1, 255)]
    for c in range(2):
        seen, medians, ranges, weights = [], [], [], []
        for level in np.unique(source[still][:, c]):
            values = shot[still & (source[..., c] == level)][:, c]
            below = np.searchsorted(np.sort(values), np.arange(257))  # how many are below each edge between levels
            low, median, high = (
                np.interp(share * len(values), below[k:], np.arange(k, 257) - 0.5)
                for share in (0.25, 0.5, 0.75)
                for k in [np.flatnonzero(below < share * len(values))[-1]]
            )
            spread = min((high - low) / 1.35, 30)
            seen.append(level)
            medians.append(median)
            ranges.append(spread)
            weights.append(len(values) / (len(values) + 50) / (1 + (spread / 4) ** 2) + 1e-3)
        medians = ghost._monotone(np.array(medians), np.array(weights))
        weight = np.full(256, 1e-3)
        weight[seen] = weights
        for found, values, curve in ((curves[c], medians, True), (spreads[c], ranges, False)):
            values = np.interp(np.arange(256), seen, values)
            rows = np.vstack([np.diag(weight**0.5), bend])
            expected = np.linalg.lstsq(rows, np.r_[weight**0.5 * values, np.zeros(254)], rcond=None)[0]
            expected = np.maximum.accumulate(expected).clip(0, 255) if curve else expected.clip(0, 12)
            np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("shape, small", [((600, 1000, 3), (600, 1000, 3)), ((1200, 2000), (600, 1000, 1))])
def test_motion_is_looked_for_on_600000_pixels(shape, small):
    assert ghost._small(np.zeros(shape, np.uint16)).shape == small


def test_the_best_exposed_shot_is_the_reference():
    gradient = np.linspace(0.2, 1, 120 * 160).reshape(120, 160)
    shots = [np.rint(np.clip(gradient * gain, 0, 1) * 255).astype(np.uint8) for gain in (0.07, 0.6, 3)]
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        assert remove_ghosts([shots[k] for k in order])[1] == order.index(1)
    for good, other in ((21, 20), (239, 240)):  # strictly between the two levels
        pair = [np.full((40, 40), level, np.uint8) for level in (good, other)]
        assert ghost._best_exposed([np.atleast_3d(one) for one in pair]) == 0
        assert ghost._best_exposed([np.atleast_3d(one) for one in pair[::-1]]) == 1


def test_monotone_is_the_best_by_the_min_max_formula():
    rng = np.random.default_rng(0)
    values, weights = np.arange(12) / 4 + rng.normal(0, 1, 12), rng.uniform(0.1, 2, 12)

    def mean(i, j):
        return np.average(values[i : j + 1], weights=weights[i : j + 1])

    expected = [max(min(mean(i, j) for j in range(k, 12)) for i in range(k + 1)) for k in range(12)]
    np.testing.assert_allclose(ghost._monotone(values, weights), expected)


def test_curves_are_found_through_noise_and_motion():
    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, (300, 300, 1)).astype(np.uint8)
    true = 255 * np.clip((np.arange(256) / 255) ** 2.2 * 3, 0, 1) ** (1 / 2.2)
    shot = np.clip(true[source] + rng.normal(0, 2, source.shape), 0, 255).astype(np.uint8)
    shot[:90] = rng.integers(0, 256, (90, 300, 1))  # three tenths know nothing of the source
    curves, spreads = ghost._curves(source, shot, np.ones((300, 300), bool))
    assert np.abs(curves[0] - true)[5:].max() < 4 and np.abs(curves[0] - true).mean() < 1.5
    assert (np.diff(curves[0]) >= 0).all() and spreads.max() <= 12


def test_the_reference_is_well_exposed_where_something_moves():
    shots = [np.full((120, 160), level, np.uint8) for level in (60, 120, 200)]
    for shot, level in zip(shots, (10, 20, 45), strict=True):  # little light on the right
        shot[:, 100:] = level
    for number, shot in enumerate(shots):
        shot[20:80, 105 + 15 * number : 120 + 15 * number] = (1, 4, 90)[number]
    assert remove_ghosts(shots)[1] == 2


def test_where_the_source_is_clipped_the_rim_fills():
    bright = np.full((100, 120, 3), 255, np.uint8)
    bright[:, :30] = np.linspace(20, 220, 30)[:, None]
    dark = np.full((100, 120, 3), (140, 100, 60), np.uint8)
    dark[:, :30] = bright[:, :30] // 4
    still = dark.copy()
    dark[40:60, 70:90] = 5  # behind it the bright shot is white
    cleaned = freed([dark, bright], reference=1)[0]
    assert distance(cleaned, still)[40:60, 70:90].max() <= 6


def test_a_neighbour_is_lost_where_it_is_black_or_clipped_and_half_lost_beside():
    dark = np.tile(np.arange(100, dtype=np.uint8), (40, 1))[..., None]
    nothing = np.zeros(dark.shape[:2], np.uint8)
    _, field, lost, _ = ghost._compare(dark, dark * 2, nothing)
    np.testing.assert_allclose(lost[[0, 6, 7, 11, 16, 17, 255]], [1, 1, 0.9, 0.5, 0, 0, 0], atol=1e-6)
    _, _, lost, mask = ghost._compare(dark * 2, dark, nothing)
    np.testing.assert_allclose(lost[[0, 240, 241, 245, 250, 255]], [0, 0, 0.1, 0.5, 1, 1], atol=1e-6)
    assert field is None and not mask.any()
    levels = np.uint8([[[3, 90, 200], [245, 10, 250]]])
    np.testing.assert_array_equal(ghost._most(lost, levels), [[0, 1]])
    np.testing.assert_array_equal(ghost._most(lost[::-1], levels), [[1, 0.5]])


def test_what_is_known_spreads_smoothly_to_the_whole_picture(rng):
    known = np.zeros((37, 50), np.float32)
    known[:10] = 1
    values = np.dstack([np.full(known.shape, 7.0), rng.choice([-3.0, 5.0], known.shape)])  # even, and noise around 1
    values[10:] = 1e4  # what is not known does not count
    spread = ghost._spread(values, known)
    np.testing.assert_allclose(spread[..., 0], 7, rtol=1e-5)
    assert np.abs(spread[..., 1] - 1).max() < 2.5 and spread[..., 1].std() < 1
    assert not ghost._spread(values, known * 0).any()
    slope = np.tile(np.linspace(0, 10, 50), (37, 1))[..., None]
    assert np.abs(ghost._spread(slope, np.ones_like(known)) - slope)[..., 0][:, 4:-4].max() < 1


def test_a_reference_that_is_none_of_them_is_refused():
    with pytest.raises(ValueError, match="reference is 3: expected 0 to 2"):
        freed(scene(), 3)


class Recorder:
    """A stand-in for a Fuser that keeps the shots it was given."""

    def fuse(self, images, stops=None):
        self.images, self.stops = list(images), stops  # the list itself is emptied
        return images[0]


def fused_by(paths, out, **options):
    recorder = Recorder()
    reference = options.pop("reference", None)
    scene = Scene("scene", paths, out=out, reference=reference)
    [(_, error, recorder.reference)] = fuse_scenes([scene], lambda: recorder, **options)
    if error:
        raise error
    return recorder


def written(folder, images):
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        write_image(path, image)
    return paths


def test_files_are_aligned_then_freed_of_ghosts_then_fused(tmp_path, monkeypatch):
    moved = [shot[40:120, 70:150] for shot in moving_scene()[1]]
    paths = written(tmp_path, moved)
    np.testing.assert_array_equal(fused_by(paths, tmp_path / "out.png").images[2], moved[2])
    for reference in (None, tmp_path / "." / "2.png", "2.png"):
        given = fused_by(paths, tmp_path / "out.png", deghost=True, reference=reference)
        number = 2 if reference else remove_ghosts(moved)[1]
        assert given.reference == paths[number]
        for one, other in zip(given.images, freed(moved, number), strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="out.png is none of the exposures .* such as .*0.png"):
        fused_by(paths, tmp_path / "out.png", deghost=True, reference=tmp_path / "out.png")

    steps = []
    monkeypatch.setattr(fusion, "align_exposures", lambda x, *_, **__: steps.append("align") or x)
    monkeypatch.setattr(fusion, "remove_ghosts", lambda x, _: (steps.append("deghost") or x, 0))
    fused_by(paths, tmp_path / "out.png", align="mtb", deghost=True)
    assert steps == ["align", "deghost"]


def test_a_shot_that_cannot_be_aligned_is_left_out_where_ghosts_are_unwanted(tmp_path, monkeypatch):
    still = scene()
    strange = np.full_like(still[1], 140)
    paths = written(tmp_path, [still[1], strange, still[2]])
    with pytest.raises(ValueError, match="cannot be aligned"):
        fused_by(paths, tmp_path / "out.png", align="homography")
    monkeypatch.setattr(ghost, "_best_exposed", lambda smalls: 1)  # the second of the two that are left
    with pytest.warns(UserWarning, match="1.png: left out, since it cannot be aligned"):
        given = fused_by(paths, tmp_path / "out.png", align="homography", deghost=True)
    assert len(given.images) == 2 and given.images[0].mean() < given.images[1].mean()
    assert given.reference == paths[2]
    with pytest.raises(ValueError, match="reference .*1.png cannot be aligned"), pytest.warns(UserWarning):
        fused_by(paths, tmp_path / "out.png", align="homography", deghost=True, reference=paths[1])
    flat = written(tmp_path, [strange, strange // 2])
    with pytest.raises(ValueError, match="cannot be aligned"):
        fused_by(flat, tmp_path / "out.png", align="homography", deghost=True)


def test_shots_out_of_the_hand_are_not_freed_of_ghosts_without_a_word(tmp_path):
    dark, middle, bright = scene()
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, image in zip(paths, (dark, middle, np.roll(bright, (5, 8), (0, 1))), strict=True):
        write_image(path, image)
    with pytest.warns(UserWarning, match="its shots do not lie on each other: align them, as --handheld does"):
        fusion.improve(Scene("a", paths), [read_image(path) for path in paths], None, None, True)


def test_a_thing_found_in_parts_is_taken_whole(rng):
    """Against SciPy's morphology; two parts 20 pixels apart become one, a hole is filled, and far things stay apart."""
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = (cv2.resize(rng.random((12, 15), np.float32), (150, 120)) > 0.75).astype(np.uint8)
    reach = np.pad(mask, 25)
    expected = ndimage.binary_fill_holes(ndimage.binary_closing(reach, disk(25)), np.ones((3, 3)))[25:-25, 25:-25]
    assert (ghost._whole(mask) != expected).mean() < 0.002  # OpenCV joins holes and outlines that touch at a corner
    parts = np.zeros((100, 160), np.uint8)
    parts[40:60, 20:40] = parts[40:60, 58:78] = parts[40:60, 120:140] = 1
    whole = ghost._whole(parts)
    assert whole[50, 20:78].all() and not whole[50, 82:116].any()
    ring = cv2.circle(np.zeros((200, 200), np.uint8), (100, 100), 60, 1, 3)
    assert ghost._whole(ring)[100, 100] == 1


def test_the_command_line():
    args = get_infer_args(["a", "b", "--deghost", "--reference", "b"])
    assert args.deghost and args.reference == "b" and not get_infer_args([]).deghost
    for bad in (["--reference", "b"], ["--input_dir", "x", "--output_dir", "y", "--deghost", "--reference", "b"]):
        with pytest.raises(SystemExit):
            get_infer_args(bad)
