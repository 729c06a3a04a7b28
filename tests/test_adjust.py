"""Brightness, local contrast and warmth: nothing by default, and each what it says."""

import cv2
import numpy as np
import pytest

from utils.fusing import adjust as module
from utils.fusing.adjust import Adjustment, Look, adjust, surroundings
from utils.pictures.pixels import luma

WINDOW = 41  # pixels of the copy of at most 512, side of the surroundings
KINDS = [((60, 80), np.uint8), ((60, 80, 3), np.uint8), ((60, 80, 4), np.uint16)]


@pytest.mark.parametrize("shape, dtype", KINDS)
def test_by_default_nothing_changes_also_where_it_is_computed(rng, shape, dtype):
    image = rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    assert adjust(image, Look()) is image
    np.testing.assert_array_equal(Adjustment(image, Look()).apply(image), image)


@pytest.mark.parametrize("shape, dtype", KINDS)
def test_a_part_is_changed_as_in_the_whole(rng, shape, dtype, monkeypatch):
    monkeypatch.setattr("utils.fusing.adjust.STRIP_PIXELS", 800)  # ten rows
    image = rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    look = Look(0.3, 0.8, -0.5)
    whole = adjust(image, look)
    assert whole.shape == image.shape and whole.dtype == image.dtype and (whole != image).any()
    part = Adjustment(image, look).apply(image[13:40, 7:31], 13, 7)
    np.testing.assert_array_equal(part, whole[13:40, 7:31])
    np.testing.assert_array_equal(Adjustment(image, look).apply(image), whole)
    if shape[2:] == (4,):
        np.testing.assert_array_equal(whole[..., 3], image[..., 3])  # alpha


def test_brightness_moves_the_middle_and_keeps_black_and_white():
    ramp = np.arange(256, dtype=np.uint8)[None]
    brighter, darker = adjust(ramp, Look(brightness=1)), adjust(ramp, Look(brightness=-1))
    np.testing.assert_array_equal(brighter[0], np.rint(255 * np.sqrt(np.arange(256) / 255)))
    np.testing.assert_array_equal(darker[0], np.rint(255 * (np.arange(256) / 255) ** 2))


def test_warmth_raises_red_lowers_blue_and_keeps_the_luminance_of_gray():
    gray = np.full((4, 4, 3), 40000, np.uint16)
    for warmth in (-1, 0.5, 1):
        changed = adjust(gray, Look(warmth=warmth))
        np.testing.assert_allclose(luma(changed), luma(gray), atol=2 / 65535)
        blue, _, red = changed[0, 0].astype(float)
        assert np.log2(red / blue) == pytest.approx(2 * 0.15 * warmth, abs=1e-3)


def test_contrast_is_what_a_loop_over_pixels_adds(rng):
    """He et al.'s guided filter by its definition: a line fitted in each window, averaged over the windows."""
    image = cv2.resize(rng.integers(26000, 39000, (12, 16), np.uint16), (64, 48))
    y, half = image / 65535.0, WINDOW // 2
    padded = np.pad(y, 2 * half, "reflect")  # as OpenCV continues a picture, but twice as far
    a, b = (np.zeros((48 + 2 * half, 64 + 2 * half)) for _ in range(2))
    for i, j in np.ndindex(a.shape):
        window = padded[i : i + WINDOW, j : j + WINDOW]
        a[i, j] = window.var() / (window.var() + 0.1**2)
        b[i, j] = (1 - a[i, j]) * window.mean()
    expected = y.copy()
    for i, j in np.ndindex(y.shape):
        rows, columns = slice(i, i + WINDOW), slice(j, j + WINDOW)
        expected[i, j] += 0.6 * 0.75 * (y[i, j] - (a[rows, columns].mean() * y[i, j] + b[rows, columns].mean()))
    changed = adjust(image, Look(contrast=0.6)) / 65535.0
    middle = (slice(half, 48 - half), slice(half, 64 - half))  # where the border plays no part
    assert np.abs(changed - y)[middle].max() > 0.02
    np.testing.assert_allclose(changed[middle], expected[middle], atol=2e-5)


def test_contrast_keeps_edges_and_the_picture_without_it_is_flat(rng):
    step = np.full((80, 120), 0.2, np.float32)
    step[:, 60:] = 0.8
    noisy = step + rng.normal(0, 0.02, step.shape).astype(np.float32)
    slope, offset = surroundings(noisy)
    flat = slope * noisy + offset
    far = np.s_[:, : 60 - WINDOW]  # from the edge
    assert np.abs(flat - step)[far].mean() < 0.2 * np.abs(noisy - step)[far].mean()
    assert flat[:, 62].mean() - flat[:, 57].mean() > 0.5


def test_surroundings_are_8_percent_of_a_picture_of_any_size():
    """Of stripes narrower than that the contrast grows, by three quarters; wider ones are things, and stay."""
    for size in (400, 1500):
        for stripes, least, most in ((50, 1.7, 1.75), (3, 1.0, 1.25)):
            wave = np.cos(np.arange(size) * (2 * np.pi * stripes / size))
            image = np.rint(32768 + 1500 * np.tile(wave, (64, 1))).astype(np.uint16)
            changed = adjust(image, Look(contrast=1)).astype(float) - 32768
            assert least < 2 * (changed * wave).mean() / 1500 < most


def test_surroundings_are_measured_on_a_copy_of_512_pixels(rng, monkeypatch):
    sizes = []
    monkeypatch.setattr(module, "surroundings", lambda y: sizes.append(y.shape) or (np.zeros_like(y), y))
    for shape in ((600, 1024, 3), (1024, 300), (512, 10)):
        adjust(np.full(shape, 90, np.uint8), Look(contrast=1))
    assert sizes == [(300, 512), (512, 150), (512, 10)]


def test_gray_has_no_warmth(rng):
    image = rng.integers(0, 256, (9, 11), np.uint8)
    np.testing.assert_array_equal(adjust(image, Look(0.2, 0.3, 0.9)), adjust(image, Look(0.2, 0.3)))


@pytest.mark.parametrize("look", [{"brightness": 1.5}, {"warmth": -1.01}, {"contrast": float("nan")}, {"warmth": "1"}])
def test_what_is_no_look_is_refused(look):
    (name,) = look
    with pytest.raises(ValueError, match=f"{name} is .*: expected a number from -1 to 1"):
        Look(**look)
