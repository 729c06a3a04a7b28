"""utils/fusing/blend.py: against torch, against loops in Python, and strips that change no bit."""

import numpy as np
import oracles
import pytest
import torch
import torch.nn.functional as F

from utils.fusing.blend import blend, enlarge
from utils.pictures.pixels import shrink, to_float
from utils.stack.exposure import Exposure

EXPOSURES = [Exposure(0), Exposure(1), Exposure(0, 1.3), Exposure(1, -1.3)]
SHAPES = [(53, 70), (53, 70, 3), (53, 70, 4), (1, 1), (4, 1), (7, 300, 3), (65, 64, 4)]


def decision(rng, shape, count=4):
    """Returns made-up small exposures, weights and fused picture for full size `shape`."""
    height, width = shrink(np.empty(shape, np.uint8), pixels=200).shape[:2]
    inner = (height, width, *([3] if shape[2:] else []))
    weights = rng.random((count, height, width)).astype(np.float32)
    small = [rng.random(inner, np.float32) for _ in range(count)]
    return small, weights / weights.sum(0), rng.random(inner, np.float32)


def pictures(rng, shape, dtype, count=2):
    return [rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True) for _ in range(count)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_strips_change_no_bit(rng, shape, dtype):
    images, decided = pictures(rng, shape, dtype), decision(rng, shape)
    whole = blend(images, EXPOSURES, *decided, strip_pixels=10**9)
    assert whole.shape == shape and whole.dtype == dtype
    for strip_pixels in (1, 5 * shape[1], 17 * shape[1]):
        np.testing.assert_array_equal(blend(images, EXPOSURES, *decided, strip_pixels=strip_pixels), whole)


@pytest.mark.parametrize("shape", [(13, 17), (1, 1), (4, 1), (3, 40)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_it_is_that_of_the_loop_over_pixels(rng, shape, dtype):
    images = pictures(rng, shape, dtype)
    small, weights, fused = decision(rng, shape)
    fused = 1.6 * fused - 0.3  # also beyond black and white
    shots, stops = [x.shot for x in EXPOSURES], [x.stops for x in EXPOSURES]
    expected = oracles.blended(images, small, weights, fused, shots, stops)
    result = blend(images, EXPOSURES, small, weights, fused)
    assert np.abs(result - np.clip(expected, 0, np.iinfo(dtype).max)).max() <= 0.5 + 0.02  # float32 of 16 bits


@torch.inference_mode()
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_torch_and_numpy_agree(rng, pyramid, factor):
    """On 16 bits: what training computes, within half a step (7.6e-6) and the rounding of floats."""
    # Pixels are multiples of factor^2, so block means are whole numbers and both sides decide on the same copy.
    steps = rng.integers(0, 65536 // factor**2, (3, 12 * factor, 20 * factor), np.uint16)
    images = list(steps * np.uint16(factor**2))
    x = torch.from_numpy(np.stack(images).astype(np.float32) / 65535)[None, :, None]
    expected = pyramid.fuse(x, factor)[0, 0].numpy()

    shots = [to_float(shrink(image, side=20)) for image in images]
    fused, log_weights = pyramid(torch.from_numpy(np.stack(shots))[None, :, None])
    exposures = [Exposure(k) for k in range(3)]
    result = blend(images, exposures, shots, log_weights[0].exp().numpy(), fused[0, 0].numpy())
    assert np.abs(result / 65535 - expected.clip(0, 1)).max() < 1e-5
    assert expected.std() > 0.05 and ((expected > 0) & (expected < 1)).mean() > 0.5  # not trivial


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_colour_is_blended_as_a_gray(rng, dtype):
    images, (small, weights, fused) = pictures(rng, (40, 50, 3), dtype), decision(rng, (40, 50, 3))
    result = blend(images, EXPOSURES, small, weights, fused)
    for c in range(3):
        alone = [image[..., c] for image in images], EXPOSURES, [q[..., c] for q in small], weights, fused[..., c]
        np.testing.assert_array_equal(result[..., c], blend(*alone))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_identical_exposures_decided_as_they_are_come_out_as_they_are(rng, shape, dtype):
    image = pictures(rng, shape, dtype, 1)[0]
    _, weights, _ = decision(rng, shape, 3)
    q = to_float(shrink(image[..., :3] if shape[2:] else image, pixels=200))
    np.testing.assert_array_equal(blend([image] * 3, [Exposure(k) for k in range(3)], [q] * 3, weights, q), image)


def test_alpha_is_the_mean_of_the_shots_and_virtual_ones_do_not_count(rng):
    images = pictures(rng, (20, 30, 4), np.uint16, 3)
    alpha = blend(images, EXPOSURES, *decision(rng, (20, 30, 4)))[..., 3]
    expected = np.mean([image[..., 3].astype(float) for image in images], 0)
    assert np.abs(alpha - expected).max() <= 0.5


def test_views_are_as_good_as_copies(rng):
    base, decided = pictures(rng, (40, 50, 4), np.uint8), decision(rng, (40, 50, 3))
    views = [image[::-1, ::-1, :3] for image in base]
    copies = [np.ascontiguousarray(view) for view in views]
    np.testing.assert_array_equal(blend(views, EXPOSURES, *decided), blend(copies, EXPOSURES, *decided))


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
