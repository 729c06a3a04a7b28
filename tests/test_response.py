"""The response curve and the merged radiance, against cameras whose curve, gap and white balance are known."""

import math
import warnings

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from utils.pictures.pixels import from_float, luma, smoothstep
from utils.stack.response import (
    Response,
    _center,
    _error,
    _logarithm,
    _medians,
    _minimum,
    _Points,
    _quantile,
    _small,
    fit_response,
)


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def scene(seed=0, shape=(180, 240), stops=14):
    """Returns linear light (H, W, 3): patches and gradients whose brightness covers so many stops."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-stops, 0, (shape[0] // 12, shape[1] // 12, 1)) + rng.normal(0, 0.7, 3)
    return 2.0 ** np.kron(coarse, np.ones((12, 12, 1)))


def family(g, s):
    return lambda x: (x * (1 + s) / (x + s)) ** (1 / g)


def shoot(light, curve, stops, tint=(0, 0, 0), noise=0.0, dtype=np.uint8, seed=1):
    """Returns the shot (H, W, 3) that a camera of this curve takes, with a gain for each channel and with noise."""
    value = curve(np.minimum(light * 2.0 ** (stops + np.array(tint)), 1))
    return from_float(value + np.random.default_rng(seed).normal(0, noise / 255, value.shape), dtype)


CURVES = {"usual": family(2.2, 0.2), "shoulder": family(1.5, 0.06), "flat": family(1.8, 2.0)}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("dtype, tolerance", [(np.uint8, 5.0), (np.uint16, 5.0)])
def test_a_shot_between_is_what_the_camera_would_have_taken(name, dtype, tolerance):
    """Whatever the scale of the stops: the middle shot is found at one exposure, and equals the real one everywhere."""
    curve, light = CURVES[name], scene()
    under, middle, over = (shoot(light, curve, stops, dtype=dtype) for stops in (0, 3, 6))
    response = fit_response([under, over])
    radiance = response.merge([under, over])
    assert radiance.dtype == np.float32 and radiance.shape == light.shape
    target = middle / np.iinfo(dtype).max
    errors = [
        255 * np.abs(response.render(radiance, gain) - target) for gain in 2.0 ** np.linspace(0, response.stops[1], 81)
    ]
    best = min(errors, key=np.mean)
    seen = (under > np.iinfo(dtype).max * 8 / 255).all(2) | (over < np.iinfo(dtype).max * 0.85).all(2)
    assert best[seen].mean() < tolerance / 3 and np.percentile(best[seen], 99) < tolerance


@pytest.mark.parametrize("gap", [0.3, 2.0, 4.0, 6.5])
def test_noted_times_give_the_stops_and_the_curve(gap):
    curve, light = CURVES["usual"], scene()
    response = fit_response([shoot(light, curve, gap), shoot(light, curve, 0)], [gap - 3.0, -3.0])
    assert response.stops[1] == 0 and response.stops[0] == pytest.approx(gap, abs=0.08 * gap)
    value = np.linspace(0.1, 0.9, 20)
    ideal = (value**2.2 * 0.2) / (1.2 - value**2.2)
    if gap >= 2:
        np.testing.assert_allclose(np.log2(response.light(value)), np.log2(ideal), atol=0.35)


def test_what_is_flattened_by_its_luminance_keeps_the_ratios_of_its_light(rng):
    response = Response(2.2, 0.05, (0.0, 3.0), ((0.0,) * 3,) * 2)
    light = rng.uniform(0.01, 0.5, (20, 30, 3)).astype(np.float32)
    kept, own = response.render(light, 1.5, kept=1.0), response.render(light, 1.5)
    ratios, unclipped = (kept / kept[..., :1]) ** response.power, (kept < 1).all(2)
    np.testing.assert_allclose(ratios[unclipped], (light / light[..., :1])[unclipped], rtol=1e-4)
    n = 1.5 * luma(light)
    expected = np.minimum((1.5 * light * 1.05 / (0.7 * 1.5 * light + 0.3 * n[..., None] + 0.05)) ** (1 / 2.2), 1)
    np.testing.assert_allclose(response.render(light, 1.5, kept=0.3), expected, rtol=1e-4)
    assert (np.ptp(kept, 2) >= np.ptp(own, 2) - 1e-6)[unclipped].all()  # never paler than the camera's own way
    gray = np.repeat(light[..., :1], 3, 2)
    np.testing.assert_allclose(response.render(gray, kept=1.0), response.render(gray), rtol=1e-5)


def test_curve_and_light_undo_each_other():
    value = np.linspace(0.01, 1, 200, dtype=np.float32)
    for response in (
        Response(2.2, 0.1, (0.0, 3.0), ((0.0,), (0.0,))),
        Response(1.0, 9.0, (0.0, 1.0), ((0.0,), (0.0,))),
    ):
        np.testing.assert_allclose(response.render(response.light(value)[None]), value[None], atol=1e-5)
        np.testing.assert_allclose(
            response.render(np.full((2, 3, 3), 0.1, np.float32), np.full((2, 3), 4, np.float32)),
            response.render(np.full((2, 3, 3), 0.4, np.float32)),
            rtol=1e-6,
        )


def test_a_lying_time_loses_against_the_pixels_and_decides_without_them():
    light, curve = scene(), CURVES["usual"]
    under, over = shoot(light, curve, 0), shoot(light, curve, 4)
    honest, lying = fit_response([under, over], [0, 4]), fit_response([under, over], [9, -9])
    assert lying.stops[1] == pytest.approx(honest.stops[1], abs=0.5)
    white, black = np.full((50, 60, 3), 255, np.uint8), np.zeros((50, 60, 3), np.uint8)
    assert fit_response([white, black], [3.0, -3.0]).stops == pytest.approx((6, 0), abs=0.01)


def test_white_balance_is_found_and_undone():
    light, curve = scene(stops=10), CURVES["usual"]
    tint = np.array([-0.4, 0.0, 0.5])
    under, over = shoot(light, curve, 0, -tint / 2), shoot(light, curve, 2, tint / 2)
    response = fit_response([under, over], [0, 2])
    found = np.subtract(response.tints[1], response.tints[0])
    np.testing.assert_allclose(found - found.mean(), tint - tint.mean(), atol=0.12)
    np.testing.assert_allclose(np.mean(response.tints, 0), 0, atol=1e-6)
    rendered = response.render(response.merge([under, over]), 2.0)
    neutral = curve(np.minimum(light * 2, 1))
    seen = (under > 8).all(2) & (under < 240).all(2)
    assert 255 * np.abs(rendered - neutral)[seen].mean() < 3


def test_white_balance_of_few_pixels_is_not_believed():
    """Of two shots that share almost nothing, what little they share is false: their colours stay as they are."""
    under, over = np.zeros((90, 120, 3), np.uint8), np.full((90, 120, 3), 255, np.uint8)
    under[:9, :40] = np.linspace(20, 40, 40)[:, None] * (1, 0.5, 2)
    over[:9, :40] = np.linspace(200, 240, 40)[:, None]
    assert np.abs(fit_response([under, over]).tints).max() < 0.1


def test_few_pixels_that_move_do_not_matter():
    light, curve = scene(), CURVES["usual"]
    under, over = shoot(light, curve, 0), shoot(light, curve, 4)
    moved = over.copy()
    moved[:, :24] = over[:, ::-1][:, :24]
    found, expected = fit_response([under, moved]), fit_response([under, over])
    x = np.linspace(0.2, 0.8, 7)
    np.testing.assert_allclose(found.stops[1], expected.stops[1], rtol=0.1)
    np.testing.assert_allclose(found.light(x), expected.light(x), rtol=0.25)


def test_merging_takes_each_pixel_from_the_shot_that_knows_it():
    response = Response(2.0, 0.2, (0.0, 4.0), ((0.0,) * 3, (0.0,) * 3))
    light = np.array([[[0.002] * 3, [0.03] * 3, [0.4] * 3, [0.03, 0.5, 0.5]]])
    under, over = (from_float(family(2.0, 0.2)(np.minimum(light * gain, 1)), np.uint8) for gain in (1, 16))
    merged = response.merge([under, over])
    np.testing.assert_allclose(merged, light, rtol=0.06)
    noisy = under.copy()
    noisy[0, 0] += 3  # where the bright shot is well exposed, the dark one's noise hardly counts
    np.testing.assert_allclose(response.merge([noisy, over])[0, 0], merged[0, 0], rtol=0.02)
    assert tuple(over[0, 3, 1:]) == (255, 255)
    faint = under.copy()
    faint[0, 3, 0] = 2  # one channel alone: levels 1 to 5 of the dark shot lose against the bright one's
    np.testing.assert_allclose(response.merge([faint, over])[0, 3], light[0, 3], rtol=0.3)


def test_what_nearly_clips_is_taken_from_the_darker_shot():
    """However much longer the bright shot was exposed: cameras bend colours just below white."""
    response = Response(2.0, 0.2, (0.0, 10.0), ((0.0,) * 3,) * 2)
    under = np.array([[[5, 60, 105], [5, 60, 105], [1, 2, 2]]], np.uint8)
    over = np.array([[[70, 247, 246], [60, 255, 255], [120, 180, 190]]], np.uint8)
    bent, clipped, exposed = response.merge([under, over])[0]
    np.testing.assert_allclose(bent[1:], clipped[1:], rtol=0.1)
    np.testing.assert_allclose(exposed, response.light(over[0, 2] / 255) / 2**10, rtol=0.02)


def test_a_colour_that_two_channels_of_the_bright_shot_know_is_not_grayed():
    """A lens flare: the dark shot does not show it, and in the bright one red is clipped."""
    response = Response(2.0, 0.2, (0.0, 10.0), ((0.0,) * 3,) * 2)
    under, over = np.full((1, 1, 3), 1, np.uint8), np.array([[[40, 120, 255]]], np.uint8)
    blue, green, red = response.merge([under, over])[0, 0]
    assert green < 0.4 * red and blue < 0.3 * green


def test_two_shots_that_share_nothing_are_as_far_apart_as_where_the_brighter_one_clips():
    light, curve = scene(), CURVES["usual"]
    light = np.where(light > 2**-7.5, np.maximum(light, 2**-6), np.minimum(light, 2**-17))  # nothing between
    under, over = shoot(light, curve, 0), shoot(light, curve, 7)
    assert not ((under > 4) & (over < 250)).any() and (over > 250).any() and (under > 10).any()
    assert fit_response([under, over]).stops[1] == pytest.approx(7, abs=3.2)  # by the usual curve


def test_colours_of_a_nearly_black_shot_are_not_believed_where_nobody_else_knows():
    response = Response(2.0, 0.2, (0.0, 10.0), ((0.0,) * 3, (0.0,) * 3))
    over = np.full((1, 3, 3), 255, np.uint8)
    under = np.uint8([[[0, 2, 1], [28, 16, 18], [100, 50, 60]]])
    merged = response.merge([under, over])
    own = response.light(under / 255.0)
    saturation = [np.ptp(x, 1) / x.max(1) for x in (merged[0], own[0])]
    kept = saturation[0] / saturation[1]
    assert kept[0] < 0.3 and kept[1] > 0.85 and kept[2] > 0.98 and (np.diff(kept) > 0).all()


@pytest.mark.parametrize("level, kept", [(5, 1 / 17), (10, 1 / 2), (20, 16 / 17)])
def test_half_of_the_colour_is_left_where_the_largest_channel_is_10(level, kept):
    response = Response(2.0, 0.2, (0.0,), ((0.0,) * 3,))
    own = response.light(np.float32([[[level, level // 2, 1]]]) / 255)
    gray = luma(own.astype(np.float32))[..., None]
    merged = response.merge([np.array([[[level, level // 2, 1]]], np.uint8)])
    np.testing.assert_allclose(merged, gray + kept * (own - gray), rtol=1e-4)


@pytest.mark.parametrize(
    "level, gap, share",
    [(1, 3, 0.25), (30, 3, 0.25), (60, 3, 0.4576), (80, 3, 0.818), (1, 8, 0.593), (1, 10, 0.948), (1, 14, 1)],
)
def test_what_a_shot_clips_is_its_white_if_the_darker_one_would_show_that_as_noise_else_a_quarter(level, gap, share):
    """A darker shot that knows more than a quarter is right: the curve may be two stops off near white."""
    response = Response(2.0, 10.0, (0.0, gap), ((0.0,) * 3,) * 2)
    shots = [np.full((1, 2, 3), value, np.uint8) for value in (level, 255)]
    white = response.light(np.float32(0.95)) / 2**gap
    assert level == 1 or share == 0.25 or response.light(level / 255) / white == pytest.approx(share, rel=0.02)
    np.testing.assert_allclose(response.merge(shots), share * white, rtol=0.03)


@pytest.mark.parametrize("level, share", [(8, 0.71), (10, 0.5), (20, 0.06), (30, 0.01)])
def test_nearly_black_light_above_a_clipped_shots_white_is_nearer_to_that_white(level, share):
    """White noise of the dark shot would be speckles on what the bright one clips."""
    response = Response(2.0, 10.0, (0.0, 11.0), ((0.0,) * 3,) * 2)
    shots = [np.full((1, 2, 3), value, np.uint8) for value in (level, 255)]
    white, own = response.light(np.float32(0.95)) / 2**11, response.light(level / 255)
    np.testing.assert_allclose(response.merge(shots), own + share * (white - own), rtol=0.03)


def test_noise_of_a_dark_shot_does_not_tint_what_brighter_ones_show_black():
    """Leaves under a sodium lamp: their blue is 0 in all but the darkest shot, where JPEG makes it 6."""
    response = Response(1.5, 0.2, (0.0, 1.0, 2.0, 4.0), ((0.0,) * 3,) * 4)
    orange = [[(6, 2, 1)], [(0, 0, 3)], [(0, 0, 5)], [(0, 7, 33)]]
    blue, _, red = response.merge([np.uint8([colour]) for colour in orange])[0, 0]
    assert blue < 0.2 * red


def test_a_channel_beside_clipped_ones_wins_against_noise_of_the_next_darker_shot():
    """A desk under a lamp, in a stack: however much longer that shot was exposed than the darkest one."""
    for stops in (2.0, 4.0, 6.0):
        response = Response(1.5, 0.2, (0.0, stops, 10.0 + stops), ((0.0,) * 3,) * 3)
        shots = [np.full((1, 2, 3), colour, np.uint8) for colour in ((0, 0, 0), (5, 30, 43), (170, 255, 255))]
        blue = response.merge(shots)[0, 0, 0] * 2**stops
        noise, own = response.light(np.float32([5, 170]) / 255) * (1, 2**-10)
        assert noise > 2.5 * own and blue < 2 * own


def test_what_is_black_beside_others_in_the_darkest_shot_is_no_brighter_than_where_the_bright_shot_clips_it():
    """An orange cloth: its blue is nearly clipped in the bright shot since cameras bleach what is bright."""
    response = Response(1.75, 0.05, (0.0, 10.0), ((0.0,) * 3,) * 2)

    def blue_over_red(bright):
        shots = [np.full((1, 2, 3), colour, np.uint8) for colour in ((0, 26, 43), bright)]
        blue, _, red = response.merge(shots)[0, 0]
        return blue / red

    known = response.light(np.float32(180 / 255)) / 2**10 / response.light(np.float32(43 / 255))  # this far from white
    assert blue_over_red((252, 254, 255)) == pytest.approx(blue_over_red((254, 254, 255)), rel=0.02)
    assert blue_over_red((180, 254, 255)) == pytest.approx(known * 0.5 / 0.7, rel=0.1)


def test_no_difference_of_shots_makes_light_without_end():
    """What one channel shows 10 million times as bright in another shot, as lamps that were switched off."""
    response = Response(2.0, 0.05, (0.0, 12.0), ((0.0,) * 3,) * 2)
    shots = [np.full((1, 2, 3), colour, np.uint8) for colour in ((255, 200, 0), (8, 9, 30))]
    assert np.isfinite(response.merge(shots)).all()


@pytest.mark.parametrize("value, weight", [(0.5, 1.5), (8 / 255, 0.8), (0.885, 1), (0.92, 0.2085 + 0.4369)])
def test_a_value_counts_less_near_black_and_near_white(value, weight):
    """1 as the largest channel, fading from .8 to .97, and .5 on its own, fading from .9 to .99; at 8 .8."""
    response = Response(2.0, 0.2, (0.0, 0.0), ((0.0,),) * 2)
    shots = [np.full((2, 2), round(65535 * x), np.uint16) for x in (0.3, value)]
    expected = np.average(response.light(np.array([0.3, value])), weights=[1.5, weight])
    np.testing.assert_allclose(response.merge(shots), expected, rtol=1e-3)


def test_the_handover_is_the_value_beside_the_next_brighter_shots_white():
    response = Response(2.2, 0.3, (3.0, 0.0, 7.0), ((0.0,),) * 3)
    for shot, gap in ((0, 4), (1, 3)):
        assert response.light(np.array(response.handover(shot))) == pytest.approx(2.0**-gap, rel=1e-4)
    assert response.handover(2) == 1


def test_where_nobody_knows():
    response = Response(2.0, 0.2, (0.0, 4.0), ((0.0,) * 3, (0.0,) * 3))
    white, black = np.full((3, 4, 3), 255, np.uint8), np.zeros((3, 4, 3), np.uint8)
    np.testing.assert_allclose(response.merge([white, white]), 1, rtol=0.01)
    np.testing.assert_allclose(response.merge([black, black]), 0, atol=1e-6)
    assert np.isfinite(response.merge([white, black])).all() and np.isfinite(response.merge([black, white])).all()


@pytest.mark.parametrize("kind", ["equal", "black", "white", "other", "gray", "tiny", "alpha", "float"])
def test_any_pictures_give_a_response(kind):
    rng = np.random.default_rng(0)
    light, curve = scene(), CURVES["usual"]
    one, two = shoot(light, curve, 0), shoot(light, curve, 4)
    shots = {
        "equal": [two, two],
        "black": [one * 0, one * 0],
        "white": [one * 0 + 255, one * 0 + 255],
        "other": [rng.integers(0, 256, one.shape, np.uint8), two],
        "gray": [one[..., 1], two[..., 1]],
        "tiny": [one[:1, :1], two[:1, :1]],
        "alpha": [np.dstack([x, x[..., :1]]) for x in (one, two)],
        "float": [x.astype(np.float32) / 255 for x in (one, two)],
    }[kind]
    response = fit_response(shots)
    radiance = response.merge(shots)
    assert radiance.shape == shots[0][..., :3].shape if shots[0].ndim == 3 else shots[0].shape
    assert np.isfinite(radiance).all() and (radiance >= 0).all() and min(response.stops) == 0
    for stops in response.stops:
        picture = response.render(radiance, 2.0**stops)
        assert picture.dtype == np.float32 and 0 <= picture.min() and picture.max() <= 1
    if kind in ("equal", "black", "white"):
        np.testing.assert_allclose(response.stops, 0, atol=0.01)
        np.testing.assert_allclose(response.render(radiance), shots[0] / 255, atol=1.5 / 255)


def test_strips_equal_the_whole_and_the_order_of_shots_does_not_matter():
    light, curve = scene(), CURVES["usual"]
    shots = [shoot(light, curve, stops) for stops in (0, 2, 5)]
    response = fit_response(shots)
    whole = response.merge(shots)
    strips = np.vstack([response.merge([shot[top : top + 7] for shot in shots]) for top in range(0, len(whole), 7)])
    np.testing.assert_array_equal(strips, whole)
    turned = fit_response(shots[::-1])
    np.testing.assert_allclose(turned.stops[::-1], response.stops, rtol=1e-6)
    np.testing.assert_allclose(turned.merge(shots[::-1]), whole, rtol=1e-4)


@pytest.mark.parametrize("span, count", [(0.0, 5), (8.0, 5), (14.0, 5), (8.0, 2)])
def test_the_network_is_shown_exposures_from_the_darkest_to_the_brightest(rng, span, count):
    response = Response(2.0, 0.2, (span, 0.0), ((0.0,) * 3,) * 2)
    shots = [rng.integers(0, 256, (6, 7, 3), np.uint8) for _ in range(2)]
    seen = response.expose(shots, count)
    assert seen.shape == (count, 6, 7)
    for exposure, stop in zip(seen, np.linspace(0, span, len(seen)), strict=True):
        np.testing.assert_allclose(exposure, luma(response.render(response.merge(shots), 2.0**stop)), atol=1e-6)
    np.testing.assert_array_equal(response.expose(shots, 0), [luma(shot) for shot in shots])
    np.testing.assert_array_equal(response.expose(shots, count, response.merge(shots)), seen)


# The steps of the fit


def median_of_levels(values):
    """The point below which half of the values lie, each spread evenly over its level."""
    below = np.searchsorted(np.sort(values), np.arange(257))  # how many are below each edge between levels
    first = np.flatnonzero(below < len(values) / 2)[-1]
    return np.interp(len(values) / 2, below[first : first + 2], [first - 0.5, first + 0.5])


def test_medians_are_those_of_sorted_values(rng):
    joint = np.zeros((256, 256), int)
    rows = {0: [0], 7: [255, 255], 9: rng.integers(0, 256, 30), 255: rng.integers(90, 93, 41), 40: [3, 3, 9, 9]}
    for row, values in rows.items():
        np.add.at(joint[row], values, 1)
    medians, count = _medians(joint)
    for row, values in rows.items():
        assert count[row] == len(values) and medians[row] == pytest.approx(median_of_levels(values))
    assert not count[[*set(range(256)) - set(rows)]].any()

    for share in (0.1, 0.5, 0.93):
        values = rng.integers(0, 256, (30, 41), np.uint8)
        assert _quantile(values, share) * 255 == pytest.approx(np.quantile(values, share), abs=0.6)


def test_the_center_has_the_least_error_and_follows_no_stray_value(rng):
    points = np.stack([rng.normal(2.5, 0.1, (4, 60)), rng.uniform(5, 20, (4, 60)), rng.uniform(0.1, 1, (4, 60))])
    points[0, 1, :7] += 7
    for k, center in enumerate(_center(points)):
        least = minimize_scalar(lambda x, k=k: _error(points[:, k : k + 1], np.array([x]))[0], (1, 4), tol=1e-9)
        assert center == pytest.approx(least.x, abs=0.01) and 2.4 < center < 2.6


@pytest.mark.parametrize("floor", [0.0, 2**-9.0])
def test_nothing_jumps_when_the_gap_grows_until_no_level_is_in_both(floor):
    """The gap that is found grows evenly, then stays: as the light that the dark shot's least level stands for."""
    light, curve = np.maximum(scene(stops=16), floor), CURVES["usual"]
    over = shoot(light, curve, 6)
    found = [fit_response([shoot(light, curve, 6 - gap), over]).stops[1] for gap in np.arange(7, 17, 0.25)]
    assert np.ptp(found[-4:]) < 0.2 and found[-1] > 13
    assert -0.3 < np.diff(found).min() and np.diff(found).max() < 0.9


def test_the_logarithm_is_that_of_the_light_and_so_is_its_slope():
    values = np.linspace(0.05, 0.98, 30)
    for power, shoulder in ((2.2, 0.2), (1.0, 9.0), (3.3, 0.04)):
        light = Response(power, shoulder, (), ()).light
        logarithm, slope = _logarithm(values, power, shoulder)
        np.testing.assert_allclose(logarithm, np.log2(light(values)))
        steps = np.log2(light(values + 1e-6)) - np.log2(light(values - 1e-6))
        np.testing.assert_allclose(slope, steps / 2e-6, rtol=1e-5)


def test_the_least_cost_is_found_and_without_one_the_usual_camera():
    for power, shoulder in ((1.2, 0.05), (2.0, 0.3), (3.1, 4.0)):
        found = _minimum(lambda p, s, a=power, b=shoulder: 1e4 * (np.log(p / a) ** 2 + np.log(s / b) ** 2))
        assert found == pytest.approx((power, shoulder), rel=0.06)
    assert _minimum(lambda p, s: 0) == pytest.approx((2.0, 0.07), rel=0.06)
    # as sure as the usual camera is: in the middle between both, of logarithms
    found = _minimum(lambda p, s: (np.log(p / 2.6) / 0.15) ** 2 + (np.log(s / 0.5) / 0.5) ** 2)
    assert found == pytest.approx(((2.0 * 2.6) ** 0.5, (0.07 * 0.5) ** 0.5), rel=0.05)
    asked = []
    _minimum(lambda p, s: asked.append(len(p)) or np.zeros(len(p)))
    assert asked == [7 * 7] + [5 * 5] * 5  # it must be quick
    for far in (1e-3, 1e3):
        at = _minimum(lambda p, s, far=far: 1e4 * (np.log(p / far) ** 2 + np.log(s / far) ** 2))
        assert at == pytest.approx(((1.0, 3.4)[far > 1], (0.03, 10.0)[far > 1]))


@pytest.mark.parametrize("shape, n", [((90, 120), 1), ((700, 400), 2), ((2400, 2000), 9)])
def test_the_fit_looks_at_single_pixels(shape, n):
    """At about 65,536 of them, evenly spread: mixed ones follow no curve."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    small = _small(np.dstack([rows % 251, columns % 251, rows * 0]).astype(np.uint8))
    at = [np.arange(side)[n // 2 :: n] for side in shape]
    expected = np.dstack([*np.meshgrid(at[0] % 251, at[1] % 251, indexing="ij"), np.zeros([len(x) for x in at])])
    np.testing.assert_array_equal(small, expected)
    assert small.dtype == np.uint8 and (n == 1 or 0.9 < small[..., 0].size / 65_536 < 1.2)
    assert _small(np.zeros((4, 5), np.uint16)).shape == (4, 5, 1)


@pytest.mark.parametrize("power, shoulder", [(1.4, 0.06), (1.8, 0.3), (2.4, 1.0)])
def test_curve_and_gap_of_clean_shots_are_found(power, shoulder):
    light, curve = scene(), family(power, shoulder)
    response = fit_response([shoot(light, curve, 0), shoot(light, curve, 3)], [0, 3])
    assert response.stops[1] == pytest.approx(3, rel=0.07)
    value = np.linspace(0.2, 0.9, 30)
    expected = Response(power, shoulder, (), ()).light(value)
    np.testing.assert_allclose(np.log2(response.light(value)), np.log2(expected), atol=0.5)


def test_points_are_levels_that_both_shots_expose_with_the_medians_of_the_other(rng):
    dark = rng.integers(0, 120, (80, 90, 2)).astype(np.uint8)
    bright = np.clip(2.2 * dark + rng.normal(0, 4, dark.shape), 0, 255).astype(np.uint8)
    points = _Points(dark, bright, 1.5)
    for c, (one, other, weights) in enumerate(points.channels):
        a, b = dark[..., c].ravel(), bright[..., c].ravel()
        expected = [(v, median_of_levels(b[a == v]), (a == v).sum()) for v in range(256) if (a == v).any()]
        expected += [(median_of_levels(a[b == v]), v, (b == v).sum()) for v in range(256) if (b == v).any()]
        expected = [
            (x, y, n / (n + 30) * smoothstep(4, 12, np.float64(min(x, y))) * (1 - smoothstep(240, 250, max(x, y))))
            for x, y, n in expected
            if min(x, y) > 4 and max(x, y) < 250
        ]
        np.testing.assert_allclose(np.transpose([one * 255, other * 255, weights]), expected, rtol=1e-5)
    at = 1 - (bright >= 250).mean()
    np.testing.assert_allclose(points.border[:2, 0] * 255, [np.quantile(dark, at), 250], atol=0.6)


@pytest.mark.parametrize("noted", [None, 1.4])
def test_gaps_tints_and_errors_are_those_of_a_loop_over_points(rng, noted):
    """Each in Python's floats; slopes by differences of the light."""
    dark = rng.integers(10, 125, (60, 70, 3)).astype(np.uint8)
    bright = np.clip(1.9 * dark * [1.1, 1, 0.93] + rng.normal(0, 3, dark.shape), 0, 255).astype(np.uint8)
    points, curves = _Points(dark, bright, noted), ((2.0, 0.1), (1.5, 1.0))
    found = points.fit(*np.transpose(curves))

    def center(known):
        at = sum(w * s**2 * r for r, s, w in known) / sum(w * s**2 for _, s, w in known)
        for _ in range(5):
            near = [w * s**2 / math.sqrt(1 + (s * (r - at)) ** 2) for r, s, w in known]
            at = sum(n * r for n, (r, _, _) in zip(near, known, strict=True)) / sum(near)
        return at

    def error(known, at):
        return sum(w * (math.sqrt(1 + (s * (r - at)) ** 2) - 1) for r, s, w in known)

    for (power, shoulder), *own in zip(curves, *found, strict=True):

        def light(value, g=power, s=shoulder):
            return math.log2(s * value**g / (1 + s - value**g))

        def told(x, y, weight, light=light):
            steps = ((light(v + 1e-6) - light(v - 1e-6)) / 2e-6 for v in (x, y))
            return light(y) - light(x), 255 / math.hypot(*steps), weight

        parts = [[told(*map(float, point)) for point in channel.T] for channel in points.channels]
        border = [told(float(points.border[0, 0]), float(points.border[1, 0]), 20)]
        gap = center([*sum(parts, border), *([(noted, 50, 20)] if noted else [])])
        tints, errors = [], error(border, gap)
        for part in parts:
            many = sum(w for _, _, w in part) ** 2
            tint = (center(part) - gap) * many / (many + 100**2)
            tints.append(tint * tint**2 / (tint**2 + 0.05**2))
            errors += error(part, gap + tints[-1]) / 3
        assert own[0] == pytest.approx(errors, rel=1e-3) and own[1] == pytest.approx(gap, abs=1e-4)
        assert own[2] == pytest.approx(tints, abs=1e-4) and max(map(abs, tints)) > 0.02


def test_a_shot_counts_by_its_exposure():
    """Where shots disagree, the radiance is their mean, weighted by 2^stops: as the light that they caught."""
    stops, levels = np.array([0.0, 1.0, 3.0]), np.array([40_000, 13_000, 40_000], np.uint16)
    for chosen in ([0, 1, 2], [0, 1], [2]):
        response = Response(2.0, 0.2, tuple(stops[chosen]), ((0.0,) * 3,) * len(chosen))
        lights = response.light(levels[chosen] / 65535) / 2 ** stops[chosen]
        expected = np.average(lights, weights=2 ** stops[chosen] + 0.5)
        merged = response.merge([np.full((2, 2, 3), level, np.uint16) for level in levels[chosen]])
        np.testing.assert_allclose(merged, expected, rtol=2e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_clean_shots_of_a_known_camera_give_the_radiance_itself(channels):
    """With white balance and all: where one shot at least exposes all channels, and beyond the last the white."""
    light = scene()[..., :channels].squeeze()
    stops, tints = (0.0, 2.5, 6.0), ((0.3, -0.1, -0.2), (0.0,) * 3, (-0.3, 0.1, 0.2))
    tints = tuple(tint[:channels] if channels == 3 else (0.0,) for tint in tints)
    response, curve = Response(2.2, 0.2, stops, tints), family(2.2, 0.2)
    shots = [shoot(light, curve, *x, dtype=np.uint16) for x in zip(stops, tints, strict=True)]
    if channels == 1:
        shots = [np.squeeze(shot) for shot in shots]
    merged = response.merge(shots)
    within = (light > 2.0**-14) & (light < 0.5)
    within = within if channels == 1 else within.all(2)
    np.testing.assert_allclose(merged[within], light[within], rtol=0.01)
    for shot, stop, tint in zip(shots, stops, tints, strict=True):
        again = response.render(merged * np.exp2(np.float32(tint)), 2**stop)
        off = np.abs(again - shot / 65535)
        assert off[within].max() < 0.005
