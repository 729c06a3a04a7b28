"""The response curve and the merged radiance, against cameras whose curve, gap and white balance are known."""

import warnings

import numpy as np
import pytest

from utils.pictures.pixels import from_float
from utils.stack.response import Response, fit_response


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
    assert fit_response([white, black], [3.0, -3.0]).stops == (6.0, 0.0)


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
