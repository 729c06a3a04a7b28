"""utils/pictures/pixels.py: what shrinking gives, against means of blocks."""

import numpy as np
import pytest

from utils.pictures.pixels import shrink


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_shrinking_is_by_area(rng, dtype):
    image = (rng.random((24, 40, 3)) * 255).astype(dtype)
    blocks = image.reshape(6, 4, 10, 4, 3).mean((1, 3))
    for limit in ({"side": 10}, {"width": 10}, {"pixels": 60}):
        small = shrink(image, **limit)
        np.testing.assert_allclose(small, blocks, atol=1e-4 if dtype == np.float32 else 0.5 + 1e-6)
        np.testing.assert_allclose(small[:, ::-1], shrink(image[:, ::-1], **limit), atol=1e-4)
    assert small.dtype == dtype
    np.testing.assert_array_equal(shrink(image, side=40), image)


def test_a_small_copy_is_bounded_and_keeps_the_proportions():
    for height, width in ((480, 500), (3000, 4000), (8400, 6000), (5000, 700), (513, 512)):
        image = np.empty((height, width), np.uint8)
        h, w = shrink(image, pixels=262_144).shape
        assert 0.99 * min(262_144, height * width) <= h * w < 1.002 * 262_144
        assert h / w == pytest.approx(height / width, rel=0.005)
        assert max(shrink(image, side=300).shape) == 300 and shrink(image, width=400).shape[1] == 400
    assert shrink(np.empty((1, 100_000), np.uint8), pixels=1000).shape[0] == 1
