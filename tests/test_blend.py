"""utils/fusing/blend.py: against loops in Python, and strips that change no bit."""

import numpy as np
import oracles
import pytest
import torch
import torch.nn.functional as F

from utils.fusing import blend
from utils.fusing.blend import along_edges, develop, enlarge, light_in_stops, unburnt
from utils.pictures.pixels import shrink
from utils.stack.response import Response

RESPONSE = Response(2.2, 0.3, (0.0, 3.0), ((0.0,) * 3,) * 2)
SHAPES = [(53, 70), (53, 70, 3), (53, 70, 4), (1, 1), (4, 1), (7, 300, 3), (65, 64, 4)]


def decision(rng, shape):
    """Returns made-up stops for each pixel of a small copy of full size `shape`, and its radiance."""
    small = shrink(np.empty(shape, np.uint8)[..., :3], pixels=200).shape
    return rng.uniform(-1, 4, small[:2]).astype(np.float32), rng.random(small, np.float32)


def pictures(rng, shape, dtype, count=2):
    return [rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True) for _ in range(count)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_strips_change_no_bit(rng, shape, dtype):
    images, decided = pictures(rng, shape, dtype), decision(rng, shape)
    whole = develop(images, RESPONSE, *decided, strip_pixels=10**9)
    assert whole.shape == shape and whole.dtype == dtype
    for strip_pixels in (1, 5 * shape[1], 17 * shape[1]):
        np.testing.assert_array_equal(develop(images, RESPONSE, *decided, strip_pixels=strip_pixels), whole)


@pytest.mark.parametrize("shape", [(13, 17), (1, 1), (4, 1), (3, 40)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_it_is_that_of_the_loop_over_pixels(rng, shape, dtype):
    images, (stops, radiance), levels = pictures(rng, shape, dtype), decision(rng, shape), np.iinfo(dtype).max
    result = develop(images, RESPONSE, stops, np.full_like(radiance, 0.1))  # no edges to follow
    radiance, stops = RESPONSE.merge(images), oracles.bilinear(stops, *shape)
    expected = np.array(
        [
            oracles.recorded(oracles.unburnt(float(x), float(stop), float(RESPONSE.light(np.float32(0.85)))), 2.2, 0.3)
            * levels
            for x, stop in zip(radiance.flat, stops.flat, strict=True)
        ]
    ).reshape(shape)
    assert np.abs(result - expected).max() <= 0.5 + 2e-5 * levels  # float32
    assert len(np.unique(result)) > min(10, result.size // 2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, off", [(np.uint8, 0), (np.uint16, 2)])
def test_shots_shown_as_they_were_taken_come_out_as_they_are(rng, shape, dtype, off, monkeypatch):
    monkeypatch.setattr(blend, "KEPT", 0)  # no colour beyond the camera's
    image = pictures(rng, shape, dtype, 1)[0] // 2 + np.iinfo(dtype).max // 3  # near black, colours are grayed
    response = Response(2.2, 0.3, (0.0,) * 3, ((0.0,) * 3,) * 3)
    picture = develop([image] * 3, response, np.zeros((3, 5), np.float32), rng.random((3, 5), np.float32))
    np.testing.assert_allclose(picture.astype(int), image, atol=off)


def test_alpha_is_the_mean_of_the_shots(rng):
    images = pictures(rng, (20, 30, 4), np.uint16, 2)
    alpha = develop(images, RESPONSE, *decision(rng, (20, 30)))[..., 3]
    expected = np.mean([image[..., 3].astype(float) for image in images], 0)
    assert np.abs(alpha - expected).max() <= 0.5


def test_views_are_as_good_as_copies(rng):
    base, decided = pictures(rng, (40, 50, 4), np.uint8), decision(rng, (40, 50, 3))
    views = [image[::-1, ::-1, :3] for image in base]
    copies = [np.ascontiguousarray(view) for view in views]
    np.testing.assert_array_equal(develop(views, RESPONSE, *decided), develop(copies, RESPONSE, *decided))


def test_lines_along_edges_are_those_of_least_squares(rng):
    """In windows of 5x5 the slope is NumPy's, with 0.3 more variance, and from -1 to 0.3; the line gives the stops."""
    stops, light = rng.uniform(-2, 4, (2, 9, 14)).astype(np.float32)
    stops[:, 7:] -= 2 * light[:, 7:]
    slope, offset = np.moveaxis(along_edges(stops, light), -1, 0)
    np.testing.assert_allclose(slope * light + offset, stops, atol=1e-5)
    windows = [np.lib.stride_tricks.sliding_window_view(np.pad(x, 2, "reflect"), (5, 5)) for x in (light, stops)]
    expected = np.empty_like(stops)
    for at in np.ndindex(stops.shape):
        x, y = (window[at].ravel() for window in windows)
        expected[at] = np.clip(np.polyfit(x, y, 1)[0] * x.var() / (x.var() + 0.3), -1, 0.3)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(expected, 2, "reflect"), (5, 5))
    np.testing.assert_allclose(slope, around.mean((2, 3)), atol=1e-4)


def test_highlights_approach_white_and_suns_stay_white():
    """Up to a quarter of white nothing changes; brightness stays in order; what the darkest shot clips is not bent."""
    dark, shown = np.full(6, 2.0**-20, np.float32), np.float32([0.01, 0.25, 0.5, 1, 4, 50])
    expected = [0.01, 0.25, 0.25 + 0.25 / (1 + 1 / 3), 0.25 + 0.75 / 2, 0.25 + 3.75 / 6, 0.25 + 49.75 * 0.75 / 50.5]
    bent = unburnt(dark[None], shown[None] / dark, np.float32(0.25))[0]
    np.testing.assert_allclose(bent, expected, rtol=1e-4)
    assert (np.diff(bent) > 0).all() and bent[-1] < 1
    np.testing.assert_allclose(unburnt(np.ones((1, 6), np.float32), shown[None], np.float32(0.25))[0], shown)


def test_no_highlight_is_shown_darker_than_in_the_darkest_shot_nor_brighter_than_decided(rng):
    light, gain = rng.uniform(0, 1.2, (40, 50, 3)).astype(np.float32), np.exp2(rng.uniform(-3, 3, (40, 50)))
    bent, shown = unburnt(light, gain.astype(np.float32), np.float32(0.25)), light * gain[..., None]
    assert (bent >= np.minimum(shown, light) - 1e-6).all() and (bent <= shown + 1e-6).all()
    assert (bent < shown - 0.01).mean() > 0.2 and (np.argsort(bent) == np.argsort(light)).mean() > 0.99


def test_bright_colours_pale_half_as_much_as_if_each_channel_were_bent_on_its_own():
    colour = np.float32([[[0.2, 0.6, 1.6]]]) / 2**20
    bent = unburnt(colour, np.full((1, 1), 2.0**20, np.float32), np.float32(0.25))[0, 0]
    gray = 0.114 * 0.2 + 0.587 * 0.6 + 0.299 * 1.6
    means = [(x + gray) / 2 for x in (0.2, 0.6, 1.6)]
    expected = [
        x * oracles.unburnt(2.0**-20, 20 + np.log2(y), 0.25) / y for x, y in zip((0.2, 0.6, 1.6), means, strict=True)
    ]
    np.testing.assert_allclose(bent, expected, rtol=1e-3)


def test_light_is_told_from_what_the_brightest_shot_shows_as_8_of_255(rng):
    radiance = np.exp2(rng.uniform(-22, 0, (9, 8, 1)) + rng.normal(0, 0.5, 3)).astype(np.float32)
    response = Response(2.2, 0.3, (0.0, 5.0, 2.0), ((0.0,) * 3,) * 3)
    raised = (8 / 255) ** 2.2
    darkest = 0.3 * raised / (1.3 - raised) / 2**5
    gray = radiance @ np.array([0.114, 0.587, 0.299])
    assert (gray < darkest).any() and (gray > darkest).any()
    np.testing.assert_allclose(light_in_stops(radiance, response), np.log2(np.maximum(gray, darkest)), atol=1e-5)


def test_beside_an_edge_there_is_no_rim(rng):
    """Where the stops go with the light, the picture is that of stops for each pixel of full size."""
    light = np.where(np.arange(96) < 41, 0.02, 0.4) * rng.uniform(0.9, 1.1, (64, 96))  # the edge cuts a small pixel
    image = np.rint(65535 * RESPONSE.render(light.astype(np.float32))).astype(np.uint16)
    response = Response(2.2, 0.3, (0.0, 0.0), ((0.0,) * 3,) * 2)
    small = response.merge([shrink(image, pixels=16 * 24)] * 2)
    stops, whole = -0.7 * light_in_stops(small, response), response.merge([image] * 2)
    light = light_in_stops(whole, response)
    expected = response.render(unburnt(whole, 2 ** (-0.7 * light), response.light(np.float32(0.85))), kept=0.2)

    def off(radiance):
        return np.abs(develop([image] * 2, response, stops, radiance) / 65535 - expected).max()

    assert off(small) < 0.05 < 0.2 < off(np.full_like(small, 0.1))  # the latter bilinearly


@pytest.mark.parametrize("small, large", [((9, 14), (31, 47)), ((9, 14), (9, 14)), ((1, 1), (5, 3)), ((2, 7), (64, 7))])
def test_enlarging_is_bilinear(rng, small, large):
    plane = rng.random(small, np.float32)
    whole = enlarge(plane, slice(0, large[0]), *large)
    np.testing.assert_allclose(whole, oracles.bilinear(plane, *large), atol=1e-5)
    expected = F.interpolate(torch.from_numpy(plane)[None, None], large, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(whole, expected[0, 0].numpy(), atol=1e-5)
    np.testing.assert_array_equal(enlarge(plane, slice(1, 3), *large), whole[1:3])
    colours = np.dstack([plane, 1 - plane, plane * plane])
    np.testing.assert_array_equal(enlarge(colours, slice(0, large[0]), *large)[..., 0], whole)
