"""utils/stack/noise.py: against a loop over areas, and pictures of ten stops that come out calm."""

import cv2
import numpy as np
import pytest

from utils.fusing.blend import develop
from utils.stack import noise
from utils.stack.noise import calm, calming
from utils.stack.response import Response

WIDE = Response(1.4, 0.1, (0.0, 10.0), ((0.0,) * 3,) * 2)


def colours(picture: np.ndarray) -> np.ndarray:
    return np.atleast_3d(picture)[..., :3].astype(float)


def flat(rng, level: float, sigma: float, shape=(96, 120, 3)) -> np.ndarray:
    return np.clip(np.rint(rng.normal(level, sigma, shape)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(24, 36), (24, 36, 3), (24, 36, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lines_are_those_of_a_loop_over_areas(rng, shape, dtype):
    shot = rng.integers(0, 13, shape, np.uint8)
    shot[:12, :12] += 8  # half smoothed
    shot = shot.astype(dtype) * (257 if dtype == np.uint16 else 1)
    lines = calming(shot, 0, 8, 12)
    for i, j in np.ndindex(8, 12):
        area = np.atleast_3d(shot)[3 * i : 3 * i + 3, 3 * j : 3 * j + 3, :3].astype(float) / np.iinfo(dtype).max
        mean, variance = area.mean((0, 1)), area.var((0, 1)).mean()
        t = np.clip((mean.max() * 255 - 8) / 16, 0, 1)
        slope = variance / (variance + (3 / 255) ** 2 * (1 - t * t * (3 - 2 * t)))
        np.testing.assert_allclose(lines[i, j], [slope, *(1 - slope) * mean], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("handover, share", [(5, 1), (20, 1), (22, 27 / 32), (24, 0.5), (28, 0), (255, 0)])
def test_smoothing_fades_where_a_brighter_shot_shows_what_is_dark(rng, handover, share):
    """A smooth step from 20 to 28, since a picture must not jump when the gap between shots grows a little."""
    shot = flat(rng, 4, 1)
    lines, whole = calming(shot, handover / 255, 12, 15), calming(shot, 0, 12, 15)
    if not share:
        assert lines is None
    else:  # slope is v / (v + n)
        np.testing.assert_allclose((1 / lines[..., 0] - 1), share * (1 / whole[..., 0] - 1), rtol=0.05, atol=1e-4)


@pytest.mark.parametrize("level, left", [(4, 0.4), (12, 0.5), (40, 1)])
def test_noise_of_dark_values_is_smoothed_their_mean_and_brighter_ones_stay(rng, level, left):
    shot = flat(rng, level, 1)
    lines = cv2.resize(calming(shot, 0, 12, 15), (120, 96))
    smooth = calm(shot, lines) / 257
    assert smooth.mean() == pytest.approx(shot.mean(), abs=0.02)
    assert smooth.std() < left * shot.std() if left < 1 else np.array_equal(smooth, shot)


def test_edges_of_dark_things_stay(rng):
    shot = flat(rng, 2, 0.5)
    shot[:, 60:] += 14
    lines = cv2.resize(calming(shot, 0, 12, 15), (120, 96))
    smooth = calm(shot, lines) / 257
    assert smooth[:, 60:].mean() - smooth[:, :60].mean() == pytest.approx(14, abs=0.2)
    assert (smooth[:, 60] - smooth[:, 59]).mean() > 11


def test_it_follows_the_pixels_of_large_pictures_of_which_it_sees_a_part(rng):
    shot = np.repeat(np.repeat(rng.integers(0, 9, (10, 12, 3), np.uint8), 6, 0), 6, 1)
    lines = calming(shot, 0, 10, 12)
    np.testing.assert_allclose(lines[..., 1:], shot[::6, ::6] / 255, atol=1e-5)
    shot[::2], shot[:, ::2] = 99, 0  # every second row and column is enough
    np.testing.assert_array_equal(calming(shot, 0, 10, 12), lines)


@pytest.mark.parametrize("shape", [(90, 120), (90, 120, 3), (90, 120, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pairs_of_eleven_stops_are_calm_and_strips_change_no_bit(rng, shape, dtype, monkeypatch):
    dark, bright = flat(rng, 9, 1, shape).astype(dtype), np.full(shape, np.iinfo(dtype).max, dtype)
    dark *= 257 if dtype == np.uint16 else 1
    radiance = np.full((9, 12) if len(shape) == 2 else (9, 12, 3), 1e-3, np.float32)
    decided = np.full((9, 12), 8, np.float32), radiance
    picture = develop([dark, bright], WIDE, *decided)
    for strip_pixels in (1, 17 * 120):
        np.testing.assert_array_equal(develop([dark, bright], WIDE, *decided, strip_pixels=strip_pixels), picture)
    monkeypatch.setattr(noise, "GRAIN", 0)
    assert 0.5 < colours(picture).std() < 0.6 * colours(develop([dark, bright], WIDE, *decided)).std()
