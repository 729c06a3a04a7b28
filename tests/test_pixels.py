"""utils/pictures/pixels.py: shrinking against means of blocks, arithmetic against formulas and Pillow."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from utils.pictures import pixels
from utils.pictures.pixels import captioned, shrink


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_shrinking_is_by_area(rng, dtype):
    image = (rng.random((24, 40, 3)) * 255).astype(dtype)
    blocks = image.reshape(6, 4, 10, 4, 3).mean((1, 3))
    for limit in ({"side": 10}, {"width": 10}, {"pixels": 60}):
        small = shrink(image, **limit)
        np.testing.assert_allclose(small, blocks, atol=1e-4 if dtype == np.float32 else 0.5 + 1e-6)
        np.testing.assert_allclose(small[:, ::-1], shrink(image[:, ::-1], **limit), atol=1e-4)
    assert small.dtype == dtype
    assert shrink(image, side=40) is image and shrink(image, side=99, width=99, pixels=9999) is image  # never enlarged


def test_a_small_copy_is_bounded_and_keeps_the_proportions():
    for height, width in ((480, 500), (3000, 4000), (8400, 6000), (5000, 700), (513, 512)):
        image = np.empty((height, width), np.uint8)
        h, w = shrink(image, pixels=262_144).shape
        assert 0.99 * min(262_144, height * width) <= h * w < 1.002 * 262_144
        assert h / w == pytest.approx(height / width, rel=0.005)
        assert max(shrink(image, side=300).shape) == 300 and shrink(image, width=400).shape[1] == 400
    assert shrink(np.empty((1, 100_000), np.uint8), pixels=1000).shape[0] == 1


def test_integers_are_parts_of_their_largest_value_and_come_back():
    for dtype, largest in ((np.uint8, 255), (np.uint16, 65535)):
        levels = np.arange(largest + 1).astype(dtype)
        found = pixels.to_float(levels)
        assert found.dtype == np.float32 and pixels.to_float(found) is found
        np.testing.assert_allclose(found, np.arange(largest + 1) / largest, rtol=1e-6)
        np.testing.assert_array_equal(pixels.from_float(found, dtype), levels)
        around = np.float32([-0.1, 0.4 / largest, 0.6 / largest, 1 - 0.6 / largest, 1.2])
        assert pixels.from_float(around, dtype).tolist() == [0, 0, 1, largest - 1, largest]


def test_what_is_no_number_is_black_and_infinity_the_largest():
    values = np.float32([np.nan, -np.inf, -3, 0, 5, np.inf])
    assert pixels.finite(values).tolist() == [0, 0, -3, 0, 5, 5]
    assert pixels.finite(np.float32([np.inf, np.nan, -2])).tolist() == [0, 0, -2]
    assert pixels.finite(values[2:5]).tolist() == [-3, 0, 5]


def test_a_smooth_step_rises_between_its_ends():
    x = np.linspace(1, 6, 501)
    y = pixels.smoothstep(2, 5, x)
    assert (y[x <= 2] == 0).all() and (y[x >= 5] == 1).all() and (np.diff(y) >= 0).all()
    np.testing.assert_allclose(y + pixels.smoothstep(2, 5, 7 - x), 1)  # symmetric
    np.testing.assert_allclose(np.gradient(y, x).max(), 1.5 / 3, rtol=1e-3)  # the slope of 3 t^2 - 2 t^3 in its middle


def test_sizes_are_width_by_height_and_any_picture_has_eight_bits():
    assert pixels.size_of(np.zeros((669, 1024, 3))) == "1024x669"
    image = np.arange(256, dtype=np.uint8).reshape(4, 64)
    assert pixels.eight_bits(image) is image
    deep = np.minimum(image * np.int32(257) + 100, 65535).astype(np.uint16)  # 0.4 of a level more
    np.testing.assert_array_equal(pixels.eight_bits(deep), image)
    np.testing.assert_array_equal(pixels.eight_bits(np.float32(image) / 255 + np.float32(0.0015)), image)


def test_colour_is_full_range_bt_601(rng):
    image = rng.random((9, 11, 3), np.float32)
    b, g, r = np.moveaxis(image.astype(float), 2, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    np.testing.assert_allclose(pixels.luma(image), y, atol=1e-6)
    np.testing.assert_allclose(pixels.luma(np.dstack([image, 1 - image[..., 0]])), y, atol=1e-6)
    np.testing.assert_array_equal(pixels.luma(image[..., 0]), image[..., 0])
    neutral = pixels.NEUTRAL_CHROMA
    expected = np.dstack([y, (r - y) / (2 - 2 * 0.299) + neutral, (b - y) / (2 - 2 * 0.114) + neutral])
    np.testing.assert_allclose(cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb), expected, atol=1e-3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_as_pillow_turns(rng, orientation):
    image = rng.integers(0, 256, (5, 7, 3), np.uint8)
    picture = Image.fromarray(image)
    picture.getexif()[274] = orientation
    np.testing.assert_array_equal(pixels.upright(image, orientation), np.asarray(ImageOps.exif_transpose(picture)))


def test_a_caption_stands_in_a_bar_above_and_fits_it():
    picture = np.full((20, 160, 3), 7, np.uint8)
    widths = []
    for text in ("I", "IIIII", "a caption that is longer than the picture is wide"):
        shown = captioned(picture, text)
        bar = shown[:28]
        np.testing.assert_array_equal(shown[28:], picture)
        assert bar.min() == 32 and bar.max() > 200 and (bar == bar[..., :1]).all()  # white on gray
        inked = np.argwhere(bar[..., 0] > 60)
        assert inked[:, 0].min() > 3 and inked[:, 0].max() < 24 and 3 <= inked[:, 1].min() <= 8
        assert inked[:, 1].max() < 156
        widths.append(np.ptp(inked[:, 1]))
    assert 14 < widths[1] < 30 and widths[2] > 128  # of the usual size, and as large as fits
    assert captioned(picture, "").shape == (48, 160, 3)
    inked = np.argwhere(captioned(picture, "I")[:28, :, 0] > 60)  # a stroke 11 pixels high, on the line 9 above the end
    assert (inked.min(0).tolist(), inked.max(0).tolist()) == ([8, 5], [18, 6])
