"""utils/fusing/colour.py: the paper's rule against a loop; hue, luminance and gamut of the pyramid's."""

import numpy as np
import pytest

from utils.fusing.colour import EDGE, SHOULDER, STEP, colour, fuse_chroma, into_gamut, shoulder, smooth_along
from utils.pictures.pixels import bgr_to_ycrcb, luma


def fused_colour(y, shots):
    """Returns `colour` of shots with equal weights."""
    weights = np.full((len(shots), *y.shape), 1 / len(shots), np.float32)
    return colour(y, shots, weights, [luma(np.ascontiguousarray(shot)) for shot in shots])


def chroma(bgr):
    return bgr_to_ycrcb(np.asarray(bgr, np.float32))[..., 1:] - 0.5


def angle(bgr, other):
    """Returns the largest angle between two pictures' chroma, in degrees, where there is some."""
    a, b = (chroma(x) @ (1, 1j) for x in (bgr, other))
    return np.abs(np.degrees(np.angle(a * b.conj())[(np.abs(a) > 0.02) & (np.abs(b) > 0.02)])).max()


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


def test_the_shoulder_leaves_alone_what_lies_below_it_and_never_turns():
    y = np.linspace(-0.5, 3, 3501).astype(np.float32)
    bent = shoulder(y)
    below = y <= SHOULDER
    np.testing.assert_array_equal(bent[below], np.maximum(y[below], 0))
    assert (np.diff(bent) >= 0).all() and bent.max() <= 1 and (np.diff(bent[(y > 0) & (y < 1.2)]) > 0).all()
    assert np.diff(bent).max() < 1.1 * 0.001  # no jump, and nowhere steeper than the light itself


def test_the_gamut_is_kept_and_the_hue_with_it(rng):
    y = rng.random((40, 50)).astype(np.float32)
    y[:, :2] = 0, 1
    bgr = y[..., None] + rng.normal(0, 0.4, (40, 50, 3)).astype(np.float32)
    bgr += (y - luma(bgr))[..., None]  # now its luminance is y
    inside = into_gamut(y, bgr)
    assert np.isfinite(inside).all() and inside.min() > -1e-5 and inside.max() < 1 + 1e-5
    assert np.abs(luma(inside) - y).max() < 1e-3
    assert angle(inside, bgr) < 0.5
    faint = y[..., None] + EDGE * 0.99 * (inside - y[..., None])
    np.testing.assert_allclose(into_gamut(y, faint), faint, atol=1e-6)  # far from the edge nothing changes


def test_a_scene_keeps_its_hue_and_gets_the_luminance(rng):
    """Shots of one scene in light: the hue stays, whatever luminance is decided."""
    reflectance = 0.3 + 0.4 * rng.random((40, 50, 3)).astype(np.float32)
    shots = [reflectance * gain for gain in (0.3, 0.6, 1.2)]
    for y in (0.1, 0.3, 0.6, 0.9, 1.4):
        y = np.full((40, 50), y, np.float32)
        fused = fused_colour(y, shots)
        assert fused.min() > -1e-5 and fused.max() < 1 + 1e-5
        assert np.abs(luma(fused) - shoulder(y)).max() < 1e-3
        assert y[0, 0] > 1 or angle(fused, reflectance) < 0.5  # white has no hue


def test_colours_fade_towards_white_as_a_camera_renders_them():
    """A curve that is steep in the middle and flat at both ends brings the channels together as they get brighter."""

    def rendered(luminance):
        exposures = np.geomspace(1e-3, 1e3, 20_000)[:, None] * (1.0, 0.95, 0.9)  # a bluish white, in light
        colours = (exposures**1.5 / (exposures**1.5 + 1)).astype(np.float32)
        return colours[np.abs(luma(colours[None])[0] - luminance).argmin()]

    for y, better in ((0.85, 0.5), (0.7, 0.8), (0.5, 0.95)):
        dark, expected = rendered(0.2), rendered(y)
        shot = np.full((40, 50, 3), dark)
        fused = fused_colour(np.full((40, 50), y, np.float32), [shot, shot])
        plain = y + (dark - 0.2) * (y + 0.05) / 0.25
        assert np.abs(fused[20, 20] - expected).max() < better * np.abs(plain - expected).max()


def test_one_shot_repeated_is_itself(rng):
    shot = 0.35 + 0.3 * rng.random((30, 40, 3)).astype(np.float32)
    np.testing.assert_allclose(
        fused_colour(luma(shot), [shot] * 3), shot, atol=2e-3
    )  # OpenCV's chroma has three digits


def test_a_clipped_shot_has_no_say_in_the_colour(rng):
    under = np.broadcast_to(np.float32([0.1, 0.3, 0.5]), (10, 10, 3))  # an orange, as it is
    over = np.clip(under * 4, 0, 1)  # red and green clip: a false yellow
    assert angle(over, under) > 10
    fused = fused_colour(np.full((10, 10), 0.6, np.float32), [under, over])
    assert angle(fused, under) < 1 and np.abs(chroma(fused)).max() > 0.1


def test_order_and_gray_do_not_matter(rng):
    shots = list(rng.random((3, 20, 30, 3)).astype(np.float32))
    y = rng.random((20, 30)).astype(np.float32)
    np.testing.assert_allclose(fused_colour(y, shots[::-1]), fused_colour(y, shots), atol=1e-5)
    gray = fused_colour(y, [np.dstack([y] * 3)] * 2)
    np.testing.assert_allclose(gray, np.dstack([shoulder(y)] * 3), atol=1e-5)


def test_what_the_network_prefers_has_more_say(rng):
    red, green = (np.broadcast_to(np.float32(x), (10, 10, 3)) for x in ([0.3, 0.3, 0.6], [0.3, 0.6, 0.3]))
    y = np.full((10, 10), 0.45, np.float32)
    weights = np.stack([np.full_like(y, 0.9), np.full_like(y, 0.1)])
    lumas = [luma(np.ascontiguousarray(x)) for x in (red, green)]
    assert angle(colour(y, [red, green], weights, lumas), red) < angle(
        colour(y, [red, green], weights[::-1], lumas), red
    )


def test_the_dark_is_smoothed_but_not_across_edges(rng):
    y = np.repeat([0.2, 0.8], 40)[None].repeat(60, 0).astype(np.float32)
    clean = np.dstack([y - 0.5, 0.5 - y])
    noisy = clean + rng.normal(0, 0.05, clean.shape).astype(np.float32)
    smooth = smooth_along(y, noisy)
    assert np.abs(smooth - clean).max() < 0.07 < np.abs(noisy - clean).max()
    assert np.abs(smooth - clean)[:, 10:30].max() < 0.02
    shots = [np.clip(0.1 + rng.normal(0, 0.01, (60, 80, 3)), 0, 1).astype(np.float32)] * 2  # gray, noisy and dark
    weights = np.full((2, 60, 80), 0.5, np.float32)
    y = np.full((60, 80), 0.3, np.float32)
    spread = [chroma(colour(y, shots, weights, [np.full_like(y, own)] * 2)).std() for own in (0.01, 0.5)]
    assert spread[0] < 0.3 * spread[1]


def test_shots_without_any_weight_still_give_a_colour(rng):
    y = np.full((20, 30), 0.5, np.float32)
    shot = (y[..., None] * (0.6, 0.9, 1.2)).astype(np.float32)
    weights = np.stack([np.zeros_like(y), np.ones_like(y)])
    fused = colour(y, [shot, np.ones_like(shot)], weights, [luma(shot), np.ones_like(y)])  # the other one is clipped
    assert np.isfinite(fused).all() and angle(fused, shot) < 0.5


def test_smoothing_halves_the_contrast_of_the_smallest_edge():
    """Of steps of STEP to either side, by He et al.'s variance / (variance + STEP^2)."""
    y = (0.5 + STEP * (-1) ** np.add.outer(np.arange(80), np.arange(80))).astype(np.float32)
    inner = slice(30, 50), slice(30, 50)
    smoothed = smooth_along(y, y[..., None])[..., 0]
    np.testing.assert_allclose((smoothed - 0.5)[inner], 0.5 * (y - 0.5)[inner], atol=1e-3)
