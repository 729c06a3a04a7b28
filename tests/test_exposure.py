"""utils/stack/exposure.py: tone curves against their formula, gaps that are known, and which stacks are completed."""

import math

import numpy as np
import oracles
import pytest

from utils.pictures.pixels import luma
from utils.stack.exposure import Exposure, complete, gap_between, push


@pytest.mark.parametrize("stops", [-3.2, -1, 0.4, 2.5, 6])
def test_a_push_is_that_of_light(rng, stops):
    for dtype, image in (
        (np.uint8, np.arange(256).reshape(8, 32)),
        (np.uint16, rng.integers(0, 65536, (5, 7, 3))),
    ):
        levels = np.iinfo(dtype).max
        expected = np.array([oracles.pushed(x, levels, stops) for x in image.ravel().tolist()]).reshape(image.shape)
        result = push(image.astype(dtype), stops)
        assert result.dtype == dtype and np.abs(result - expected).max() <= 0.5 + 1e-6


def test_no_push_is_the_shot_itself(rng):
    image = rng.integers(0, 256, (5, 6, 3), np.uint8)
    assert Exposure(0).apply(image) is image
    np.testing.assert_array_equal(push(image, 0.0), image)


def scene(rng, dtype, darkest):
    """A shot of random pixels, uniform from `darkest` to white (1)."""
    levels = np.iinfo(dtype).max
    return rng.integers(round(darkest * levels), levels, (60, 80), dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("gap", [0.7, 2, 4.5])
def test_a_known_gap_is_measured(rng, dtype, gap):
    over = scene(rng, dtype, 0.3)
    under = push(over, -gap)
    under[:10], over[:10] = 0, np.iinfo(dtype).max  # clipped pixels say nothing
    assert gap_between(luma(under), luma(over)) == pytest.approx(gap, abs=0.1 if dtype == np.uint8 else 0.001)


def test_no_gap_is_made_up(rng):
    """No gap is found if no pixel is well exposed in both shots; the wider limits help if only few are."""
    assert gap_between(np.zeros((60, 80), np.float32), np.ones((60, 80), np.float32)) is None
    few = np.where(np.arange(4800).reshape(60, 80) < 40, 0.4, 0).astype(np.float32)
    assert gap_between(few, 1.2 * few) is None
    assert gap_between(np.full((1, 100_000), 0.4, np.float32), np.full((1, 100_000), 0.5, np.float32)) == pytest.approx(
        2.2 * math.log2(1.25), abs=1e-3
    )
    dark, half = np.full((60, 80), 6 / 255, np.float32), np.full((60, 80), 128 / 255, np.float32)
    assert gap_between(dark, half) == pytest.approx(2.2 * math.log2(128 / 6), abs=1e-3)


def test_from_twice_the_widest_gap_on_two_positions_are_filled(rng):
    over = scene(rng, np.uint16, 0.7)
    for gap, expected in ((4.8, [2.4, -2.4]), (6, [2, 4, -2, -4])):
        found = complete([luma(push(over, -gap)), luma(over)], 2.5)[2:]
        assert [x.stops for x in found] == pytest.approx(expected, abs=0.02)
        assert [x.shot for x in found] == [int(stops < 0) for stops in expected]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_wide_gap_is_filled_from_both_sides(rng, dtype):
    over = scene(rng, dtype, 0.5)
    under = push(over, -4)
    exposures = complete([luma(over), luma(under)], 2.5)
    assert exposures[:2] == [Exposure(0), Exposure(1)]
    assert [x.shot for x in exposures[2:]] == [1, 0]
    assert [x.stops for x in exposures[2:]] == pytest.approx([2, -2], abs=0.1)
    low, high = (x.apply((over, under)[x.shot]).astype(float) for x in exposures[2:])
    assert np.abs(low - high).max() <= 4 * np.iinfo(dtype).max / 255  # nothing clips: both show the shot in the middle


def test_only_neighbours_further_apart_than_asked_are_completed(rng):
    brightest = scene(rng, np.uint16, 0.8)
    lumas = [luma(push(brightest, -stops)) for stops in (0, 2, 4, 7)]
    assert complete(lumas[:3], 2.5) == [Exposure(k) for k in range(3)]
    assert complete(lumas, math.inf) == [Exposure(k) for k in range(4)]
    assert complete([lumas[0]] * 3, 0.5) == [Exposure(k) for k in range(3)]
    found = complete(lumas, 2.5)[4:]
    assert [x.shot for x in found] == [3, 2] and [x.stops for x in found] == pytest.approx([1.5, -1.5], abs=0.02)
    order = [2, 0, 3, 1]
    shuffled = complete([lumas[k] for k in order], 2.5)
    assert {(order[x.shot], x.stops) for x in shuffled} == {(x.shot, x.stops) for x in complete(lumas, 2.5)}


def test_noted_stops_count_where_the_pixels_say_nothing(rng):
    black, white = np.zeros((60, 80), np.float32), np.ones((60, 80), np.float32)
    assert complete([white, black], 2.5) == [Exposure(0), Exposure(1)]
    assert complete([white, black], 4, [3.0, -3.0])[2:] == [Exposure(1, 3.0), Exposure(0, -3.0)]
    over = scene(rng, np.uint16, 0.5)
    assert len(complete([luma(over), luma(push(over, -1))], 2.5, [9.0, -9.0])) == 2
