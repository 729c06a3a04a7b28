"""utils/fusing/colour.py: the paper's rule against a loop; the pyramid's colours against the camera of the shots."""

import numpy as np
import pytest

from utils.fusing import colour
from utils.fusing.colour import fuse_chroma, stops_for
from utils.pictures.pixels import luma
from utils.stack.response import Response

RESPONSES = [Response(2.2, 0.2, (0.0, 5.0), ((0.0,) * 3,) * 2), Response(1.3, 0.04, (3.0, 0.0), ((0.0,) * 3,) * 2)]


def test_the_papers_chroma_equals_a_loop_over_pixels(rng):
    stack = rng.random((3, 6, 5, 2)).astype(np.float32)
    stack[:, 0, 0] = 0.5
    fused = fuse_chroma(list(stack))
    for index in np.ndindex(6, 5, 2):
        values = [float(c[index]) * 255 for c in stack]
        weights = [abs(c - 127.5) for c in values]
        total = sum(weights)
        expected = sum(c * w for c, w in zip(values, weights, strict=True)) / total if total else 127.5
        assert fused[index] * 255 == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_the_picture_has_the_luminance_that_was_decided(rng, response, channels):
    radiance = np.exp2(rng.uniform(-7, -2, (40, 50, *channels))).astype(np.float32)
    y = rng.uniform(0.2, 0.9, (40, 50)).astype(np.float32)
    stops = stops_for(y, radiance, response)
    assert stops.shape == y.shape and stops.dtype == np.float32
    within = (stops > -2 + 0.01) & (stops < max(response.stops) + 2 - 0.01)
    assert within.mean() > 0.3
    off = luma(response.render(radiance, 2**stops, 0.2)) - y
    assert 255 * np.abs(off[within]).max() < 0.5
    assert (off[~within & (stops < 0)] >= -1e-5).all() and (off[~within & (stops > 0)] <= 1e-5).all()


def test_a_shot_gives_itself(rng):
    """A picture at some exposure, given its own luminance as the decision, comes back: also where it is clipped."""
    response = RESPONSES[0]
    radiance = np.exp2(rng.uniform(-9, 1, (40, 50, 1)) + rng.normal(0, 0.5, 3)).astype(np.float32)
    for stop in (0.0, 2.5, 5.0):
        shot = response.render(radiance, 2**stop, 0.2)
        known = (luma(shot) > 0.02) & (luma(shot) < 0.9)
        found = response.render(radiance, 2 ** stops_for(luma(shot), radiance, response), 0.2)
        assert 255 * np.abs(found - shot)[known].max() < 1.5


@pytest.mark.parametrize("response", RESPONSES)
def test_of_gray_the_first_guess_is_right_and_of_colours_a_few_steps_are_enough(rng, response, monkeypatch):
    y = np.linspace(0.2, 0.88, 40, dtype=np.float32)[None]
    gray = np.exp2(rng.uniform(-6, -3, (1, 40))).astype(np.float32)
    for radiance, steps in ((gray, 0), (gray[..., None] * np.float32([0.6, 1, 1.3]), 4)):
        monkeypatch.setattr(colour, "STEPS", steps)
        stops = stops_for(y, radiance, response)
        within = (stops > -1.99) & (stops < max(response.stops) + 1.99)
        assert within.sum() >= 20
        np.testing.assert_allclose(luma(response.render(radiance, 2**stops, 0.2))[within], y[within], atol=1e-3)


def test_what_is_black_or_white_everywhere_gives_finite_stops_within_reach():
    for radiance in (np.zeros((4, 5, 3), np.float32), np.ones((4, 5, 3), np.float32)):
        for y in (-1.0, 0.0, 0.5, 1.0, 3.0):
            stops = stops_for(np.full((4, 5), y, np.float32), radiance, RESPONSES[0])
            assert np.isfinite(stops).all() and stops.min() >= -2 and stops.max() <= 5 + 2


def test_no_pixel_is_shown_farther_than_two_stops_beyond_the_shots():
    for y, light, expected in ((1.0, 0.0, 5 + 2), (0.0, 1.0, -2)):
        stops = stops_for(np.full((2, 3), y, np.float32), np.full((2, 3), light, np.float32), RESPONSES[0])
        np.testing.assert_allclose(stops, expected, atol=0.1)  # which halving the interval approaches


@pytest.mark.parametrize("response", RESPONSES)
def test_light_that_is_recorded_as_wanted_is_shown_as_it_is(response):
    y = np.float32([0.0012, 0.01, 0.2, 0.7, 0.9])
    assert np.abs(stops_for(y[None], response.light(y)[None], response)).max() < 0.01
