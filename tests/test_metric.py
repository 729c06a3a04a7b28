"""The metrics against independent derivations: loops over patches, other libraries, algebra."""

import itertools
import sys
import types
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.ndimage import correlate
from scipy.signal import convolve2d

from utils.errors import UserError
from utils.evaluation import metric

DATA = Path(__file__).parents[1] / "data_test"


def natural(count, height, width):
    """Exposures of a sample scene, from whole-number gray; more than three are made brighter and darker ones."""
    scene = [metric.matlab_gray(cv2.imread(str(path))) for path in sorted((DATA / "courtyard").glob("*.jpg"))]
    crops = [gray[120 : 120 + height, 380 : 380 + width] for gray in scene]
    crops += [np.rint(np.clip(crops[1] * gain, 0, 255)) for gain in (0.3, 0.6, 1.7, 2.5)]
    return np.stack(crops[:count])


def random(count, height, width):
    return np.random.default_rng(count).uniform(0, 255, (count, height, width))


def saturated(count, height, width):
    """Mostly black or white, so that many patches are flat in one exposure or in all."""
    stack = np.clip((natural(count, height, width) - 100) * 6, 0, 255)
    stack[:, : height // 2, : width // 2] = 255
    return stack


def gaussian_window(size, sigma):
    x = np.arange(size) - size // 2
    window = np.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / (2 * sigma**2))
    return window / window.sum()


def patch_score(fused, exposures):
    """The 2015 paper's score of one patch, from the patches themselves: fused (121,), exposures (K, 121)."""
    eps, c, window = 2.0**-52, (0.03 * 255) ** 2, gaussian_window(11, 1.5).ravel()
    deviations = exposures - exposures.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(deviations, axis=1)
    total = exposures.sum(axis=0)
    r = (np.linalg.norm(total - total.mean()) + eps) / (norms.sum() + eps)
    p = min(np.tan(np.pi / 2 * min(r, 1 - eps)), 10)
    strengths = norms + 0.001
    weights = (strengths / 11) ** p + eps
    weights /= weights.sum()
    desired = (weights / strengths) @ deviations
    if np.linalg.norm(desired) > 0:
        desired = desired / np.linalg.norm(desired) * strengths.max()
    d, f = desired - window @ desired, fused - window @ fused
    return (2 * (window @ (d * f)) + c) / (window @ d**2 + window @ f**2 + c)


def loop_scores(fused, stack, scales):
    scores = []
    for _ in range(scales):
        height, width = fused.shape
        values = [
            patch_score(fused[i : i + 11, j : j + 11].ravel(), stack[:, i : i + 11, j : j + 11].reshape(len(stack), -1))
            for i in range(height - 10)
            for j in range(width - 10)
        ]
        scores.append(np.mean(values))
        fused, *stack = (half(x) for x in (fused, *stack))
        stack = np.stack(stack)
    return np.array(scores)


def half(x):
    """2x2 means by filtering with symmetric extension and keeping every second pixel, as the Matlab code does."""
    padded = np.pad(x, ((0, 1), (0, 1)), mode="symmetric")
    return convolve2d(padded, np.full((2, 2), 0.25), mode="valid")[::2, ::2]


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("kind", [random, natural, saturated])
@pytest.mark.parametrize("size", [(48, 52), (47, 45)])
def test_mef_ssim_is_the_patch_loop(kind, count, size):
    stack = kind(count, *size)
    fused = np.rint(stack.mean(axis=0) ** 0.9)
    scores = loop_scores(fused, stack, 3)
    expected = np.prod(scores ** (np.array([0.0448, 0.2856, 0.3001]) / (0.0448 + 0.2856 + 0.3001)))
    assert metric.mef_ssim(fused, stack) == pytest.approx(expected, abs=1e-9)
    assert metric.mef_ssim_scales(fused, stack)[:3] == pytest.approx(scores, abs=1e-9)


def test_mef_ssim_in_strips_is_the_whole(monkeypatch):
    stack = natural(3, 120, 160)
    whole = metric.mef_ssim(stack[1], stack)
    monkeypatch.setattr(metric, "STRIP_PIXELS", 160 * 17)
    assert metric.mef_ssim(stack[1], stack) == pytest.approx(whole, abs=1e-13)


@pytest.mark.parametrize("size", [(44, 44), (64, 81), (97, 50)])
def test_mef_ssim_of_the_only_input_is_one(size):
    stack = natural(1, *size)
    assert metric.mef_ssim(stack[0], stack) == pytest.approx(1, abs=1e-9)


def test_mef_ssim_ignores_a_constant_and_the_order():
    stack = natural(3, 64, 64)
    fused = stack.mean(axis=0) * 0.7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score = metric.mef_ssim(fused, stack)
    assert metric.mef_ssim(fused + 40, stack) == pytest.approx(score, abs=1e-12)
    assert metric.mef_ssim(fused, stack[::-1]) == pytest.approx(score, abs=1e-12)


def test_the_profile_has_six_scales_and_ends_where_patches_do():
    stack = natural(2, 200, 500)
    profile = metric.mef_ssim_scales(stack[0], stack)
    assert profile.shape == (6,)
    assert np.isfinite(profile[:5]).all() and np.isnan(profile[5])  # 200, 100, 50, 25, 13, 7


@pytest.mark.parametrize(
    ("under", "over", "fused"),
    [
        (0, 255, 100),
        (255, 255, 255),
        (0, 0, "noise"),
        ("noise", 255, 100),
        ("noise", 255, "noise"),
        ("noise", "inverse", 9),
    ],
)
def test_flat_and_saturated_pictures_score_at_most_one(under, over, fused):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60)).astype(float)
    planes = {"noise": noise, "inverse": 255 - noise}
    under, over, fused = (
        planes[x] if isinstance(x, str) else np.full((60, 60), float(x)) for x in (under, over, fused)
    )
    stack = np.stack([under, over])
    for function in (metric.mef_ssim, metric.mef_ssim_scales, metric.mef_ssim_lum, metric.q_abf):
        scores = np.atleast_1d(function(fused, stack))
        scores = scores[~np.isnan(scores)]
        assert len(scores) and (scores <= 1 + 1e-12).all() and (scores >= -1).all(), function.__name__
    assert np.isfinite(metric.viff(fused, stack))


def test_viff_where_patches_are_flat_is_the_pixel_loop():
    """Whole numbers of few bits: the sums of flat patches are exact enough in any order."""
    stack = np.rint(natural(3, 70, 90) / 32) * 31
    stack[0, :35], stack[1, :, :45], stack[2, 20:] = 124, 62, 186
    fused = np.rint(stack.mean(axis=0) / 31) * 31
    fused[:, 60:] = 124
    assert metric.viff(fused, stack) == pytest.approx(viff_by_statistics(fused, stack), abs=1e-9)
    flat = np.full((64, 64), 128.0)
    assert metric.viff(flat, flat[None]) == 1


def test_a_score_of_zero_has_no_power_either():
    for profile, warned in (([0, 0.5, 0.5], True), ([0.5, 0.5, -0.1], True), ([1e-9, 0.5, 0.5], False)):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            score = metric.combine_scales(np.array([*profile, -1]))
        expected = np.prod(np.maximum(profile, 2.0**-52) ** [0.0710547, 0.4529738, 0.4759715])
        assert bool(said) == warned and score == pytest.approx(expected, rel=1e-4)


def test_inverted_structure_is_warned_of():
    stack = natural(1, 64, 64)
    with pytest.warns(UserWarning, match="inverted structure"):
        assert 0 <= metric.mef_ssim(255 - stack[0], stack) < 1e-3


@pytest.mark.parametrize("size", [(43, 200), (200, 43)])
def test_small_pictures_are_refused(size):
    stack = np.zeros((2, *size))
    with pytest.raises(ValueError, match="at least 44x44 pixels, got"):
        metric.mef_ssim(stack[0], stack)


def test_wrong_shapes_and_ranges_are_refused():
    stack = natural(2, 64, 64)
    with pytest.raises(ValueError, match=r"got \(64, 64\) and \(64, 64\)"):
        metric.mef_ssim(stack[0], stack[0])
    with pytest.raises(ValueError, match="fused picture must have values 0..255, got -10..9"):
        metric.mef_ssim(np.linspace(-10, 9, 64 * 64).reshape(64, 64), stack)
    with pytest.raises(ValueError, match="nan"):
        metric.mef_ssim(stack[0] * np.nan, stack)


def test_gray_is_matlabs():
    # values that Matlab's rgb2gray gives for pure and mixed colours
    rgb = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (1, 2, 3), (200, 100, 50)]
    image = np.array([[colour[::-1] for colour in rgb]], np.uint8)
    assert metric.matlab_gray(image).tolist() == [[76, 150, 29, 255, 2, 124]]
    with pytest.raises(ValueError, match="uint8"):
        metric.matlab_gray(image.astype(np.uint16))


def lum_by_pixel(fused, stack):
    """MEFNet's metric pixel by pixel from zero-padded patches."""
    window = gaussian_window(11, 11 / 6)
    x, ys = np.pad(fused / 255, 5), np.pad(stack / 255, ((0, 0), (5, 5), (5, 5)))
    height, width = fused.shape
    local = [[[(window * y[i : i + 11, j : j + 11]).sum() for j in range(width)] for i in range(height)] for y in ys]
    global_weights = [np.exp(-((np.mean(m) - 0.5) ** 2) / 0.08) for m in local]
    luminances, structures = [], []
    for i in range(height):
        for j in range(width):
            f = x[i : i + 11, j : j + 11]
            patches = [y[i : i + 11, j : j + 11] for y in ys]
            means = [(window * patch).sum() for patch in patches]
            variances = [(window * (patch - m) ** 2).sum() for patch, m in zip(patches, means, strict=True)]
            best = int(np.argmax(variances))
            mean_f = (window * f).sum()
            cov = (window * (f - mean_f) * (patches[best] - means[best])).sum()
            var_f = (window * (f - mean_f) ** 2).sum()
            structures.append((2 * cov + 0.0009) / (var_f + variances[best] + 0.0009))
            weights = [g * np.exp(-((m - 0.5) ** 2) / 0.08) for g, m in zip(global_weights, means, strict=True)]
            wanted = np.average(means, weights=weights)
            luminances.append((2 * mean_f * wanted + 0.0001) / (mean_f**2 + wanted**2 + 0.0001))
    return np.mean(luminances) * np.mean(structures)


@pytest.mark.parametrize("count", [2, 3])
def test_mef_ssim_lum_is_the_pixel_loop(count):
    stack = natural(count, 31, 38)
    fused = np.rint(stack.mean(axis=0) * 0.9)
    assert metric.mef_ssim_lum(fused, stack) == pytest.approx(lum_by_pixel(fused, stack), abs=1e-9)


def q_abf_by_pixel(fused, stack):
    """Xydeas and Petrovic's sum over inputs and pixels, with Matlab's conv2 and atan."""

    def edges(x):
        dx = convolve2d(x, [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], mode="same")
        dy = convolve2d(x, [[1, 2, 1], [0, 0, 0], [-1, -2, -1]], mode="same")
        return [
            (np.sqrt(a * a + b * b), np.pi / 2 if a == 0 else np.arctan(b / a))
            for a, b in zip(dx.ravel(), dy.ravel(), strict=True)
        ]

    kept = total = 0
    for x in stack:
        for (g_x, a_x), (g_f, a_f) in zip(edges(x), edges(fused), strict=True):
            strength = 1 if g_x == g_f else min(g_x, g_f) / max(g_x, g_f)
            angle = 1 - abs(a_x - a_f) / (np.pi / 2)
            q_strength = 0.9994 / (1 + np.exp(-15 * (strength - 0.5)))
            kept += g_x * q_strength * 0.9879 / (1 + np.exp(-22 * (angle - 0.8)))
            total += g_x
    return kept / total


def test_q_abf_is_the_pixel_loop():
    stack = natural(3, 50, 60)
    fused = np.rint(stack.mean(axis=0))
    assert metric.q_abf(fused, stack) == pytest.approx(q_abf_by_pixel(fused, stack), abs=1e-9)
    assert metric.q_abf(stack[0], stack[:1]) == pytest.approx(0.9994 * 0.9879, abs=0.02)


def viff_by_statistics(fused, stack):
    """Han's measure from scipy's correlation and a loop over pixels."""
    ratios = []
    for scale in range(1, 5):
        size = 2 ** (5 - scale) + 1
        window, cut = gaussian_window(size, size / 5), slice(size // 2, -(size // 2))

        def means(x, window=window, cut=cut):
            return correlate(x, window)[cut, cut]

        if scale > 1:
            fused, *stack = (means(x)[::2, ::2] for x in (fused, *stack))
        kept = full = 0
        f_mean, f_square = means(fused), means(fused**2)
        planes = [(means(x), means(x**2), means(x * fused)) for x in stack]
        for at in np.ndindex(f_mean.shape):
            choices = []
            for mean, square, product in planes:
                var, cov = square[at] - mean[at] ** 2, product[at] - mean[at] * f_mean[at]
                var_f = f_square[at] - f_mean[at] ** 2
                gain = cov / (var + 1e-10) if cov > 0 and min(var, var_f) > 1e-10 else 0
                rest = var_f - gain * cov
                choices.append((gain, var, max(rest, 1e-10)))
            gain, var, rest = min(choices, key=lambda choice: choice[0])
            kept += np.log10(1 + gain**2 * var / (rest + 325.125)) + 1e-7
            full += np.log10(1 + var / 325.125) + 1e-7
        ratios.append(kept / full)
    return (ratios[0] + 0.15 * ratios[2] + ratios[3]) / 2.15


def test_viff_is_the_pixel_loop():
    rng = np.random.default_rng(1)
    stack = np.clip(natural(3, 70, 90) * 0.8 + rng.uniform(1, 40, (3, 70, 90)), 0, 255)
    fused = stack.mean(axis=0)
    for shots in (stack, np.stack([255 - stack[0], stack[1], 200 - stack[1] / 2])):  # two with a gain of 0
        assert metric.viff(fused, shots) == pytest.approx(viff_by_statistics(fused, shots), abs=1e-9)
    assert metric.viff(stack[0], stack[:1]) == pytest.approx(1, abs=1e-4)


def test_the_simple_ones():
    ramp = np.tile(np.arange(256.0), (10, 1))
    assert metric.entropy(ramp) == pytest.approx(8)
    assert metric.entropy(np.zeros((9, 9))) == 0
    assert metric.average_gradient(ramp) == pytest.approx(np.sqrt(0.5) * 2560 / (9 * 255))
    assert metric.average_gradient(3 * ramp[:, :80].T) == pytest.approx(3 * np.sqrt(0.5) * 800 / (79 * 9))
    assert metric.spatial_frequency(ramp) == pytest.approx(np.sqrt(2550 / 2560))
    assert metric.standard_deviation(ramp) == pytest.approx(np.sqrt((256**2 - 1) / 12))
    assert metric.clipped_share(ramp) == pytest.approx(2 / 256)
    halves = np.zeros((2, 2, 3), np.uint8)
    halves[0] = (0, 0, 200)  # red above, black below: rg and yb are 200, 100 or 0
    assert metric.colourfulness(halves) == pytest.approx(np.hypot(100, 50) + 0.3 * np.hypot(100, 50))
    assert metric.colourfulness(np.full((4, 4, 3), 90, np.uint8)) == 0


def test_reference_metrics():
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    other = np.where(image > 127, image - 10, image + 10).astype(np.uint8)
    assert metric.psnr(other, image) == pytest.approx(20 * np.log10(255 / 10))
    assert metric.psnr(image, image) == np.inf
    gray = metric.matlab_gray(image)
    assert metric.ssim(gray, gray) == pytest.approx(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 0.9 < metric.ssim(metric.matlab_gray(other), gray) < 1


def test_ssim_is_the_loop_over_windows():
    """Wang et al., equation 13, with K1 = 0.01 and K2 = 0.03 of 255."""
    gray, other = natural(2, 16, 19) / 4
    window, values = gaussian_window(11, 1.5), []
    for i, j in np.ndindex(6, 9):
        x, y = (plane[i : i + 11, j : j + 11] for plane in (gray, other))
        mean_x, mean_y = (window * x).sum(), (window * y).sum()
        x, y = x - mean_x, y - mean_y
        structure = (2 * (window * x * y).sum() + 7.65**2) / ((window * (x * x + y * y)).sum() + 7.65**2)
        values.append(structure * (2 * mean_x * mean_y + 2.55**2) / (mean_x**2 + mean_y**2 + 2.55**2))
    assert metric.ssim(gray, other) == pytest.approx(np.mean(values), abs=1e-9)


def patches(*colours):
    """A picture of 20x20 squares of these RGB colours, side by side, in BGR."""
    return np.repeat(np.repeat(np.array([[rgb[::-1] for rgb in colours]], np.uint8), 20, 0), 20, 1)


def lab_ab(rgb):
    """CIELAB a, b of an sRGB colour of 0..255, from the standards' formulas."""
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in np.asarray(rgb) / 255]
    to_xyz = [(0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041)]
    ratios = [np.dot(row, linear) / white for row, white in zip(to_xyz, (0.95047, 1, 1.08883), strict=True)]
    x, y, z = (t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in ratios)
    return np.array([500 * (x - y), 200 * (y - z)])


def test_colour_of_another_exposure_is_true():
    shot = patches((160, 100, 60), (60, 120, 80), (70, 80, 180))
    darker = patches((80, 50, 30), (30, 60, 40), (35, 40, 90))  # the same colours at half the brightness
    for picture in (shot, darker):
        difference, hue, saturation = metric.colour_errors(picture, [shot])
        assert difference == pytest.approx(0, abs=1e-9) and hue == pytest.approx(0, abs=1e-4)
        assert saturation == pytest.approx(1)


def test_colour_errors_are_the_formulas():
    true, shown = (160, 100, 60), (140, 110, 65)
    luma = np.array((0.299, 0.587, 0.114))
    truth = lab_ab(np.array(true) * (luma @ shown) / (luma @ true))
    got = lab_ab(shown)
    angle = np.degrees(np.arccos(got @ truth / np.hypot(*got) / np.hypot(*truth)))
    expected = np.hypot(*(got - truth)), angle, np.hypot(*got) / np.hypot(*truth)
    assert metric.colour_errors(patches(shown), [patches(true)]) == pytest.approx(expected, rel=1e-3)
    exact, half_wrong = (metric.colour_errors(patches(a, b), [patches(b, b)]) for a, b in ((true, true), (shown, true)))
    assert exact[0] == pytest.approx(0, abs=1e-9)
    assert half_wrong[0] == pytest.approx(metric.colour_errors(patches(shown), [patches(true)])[0] / 2)


def test_gray_pictures_lose_saturation_and_have_no_hue():
    difference, hue, saturation = metric.colour_errors(patches((105, 105, 105)), [patches((160, 90, 60))])
    assert saturation == pytest.approx(0, abs=1e-3) and np.isnan(hue) and difference > 20


def test_hues_are_compared_the_short_way_round():
    turned = [(60, 130, x) for x in range(40, 140, 8)] + [(60, x, 130) for x in range(130, 40, -8)]
    turned += [(x, 60, 130) for x in range(60, 130, 8)] + [(130, 60, x) for x in range(130, 40, -8)]
    ab = [lab_ab(rgb) for rgb in turned]
    assert {(a > 0, b > 0) for a, b in ab} == {(x, y) for x in (True, False) for y in (True, False)}  # all round
    luma = np.array((0.299, 0.587, 0.114))
    for shown, true in itertools.pairwise(turned):
        truth, got = lab_ab(np.array(true) * (luma @ shown) / (luma @ true)), lab_ab(shown)
        angle = np.degrees(np.arccos(got @ truth / np.hypot(*got) / np.hypot(*truth)))
        assert metric.colour_errors(patches(shown), [patches(true)])[1] == pytest.approx(angle, abs=0.05)


def test_hues_are_of_coloured_pixels_alone():
    shown, true, gray = (140, 110, 65), (160, 100, 60), (120, 121, 120)
    hue = metric.colour_errors(patches(shown), [patches(true)])[1]
    assert metric.colour_errors(patches(shown, gray), [patches(true, gray[::-1])])[1] == pytest.approx(hue)


def test_the_best_exposed_shot_of_each_pixel_is_the_truth():
    true = patches((160, 100, 60), (60, 120, 80))
    wrong = (240, 200, 210), (12, 20, 9)  # each farther from mid-gray, the second clipped too
    bright, dark = patches(wrong[0], (60, 120, 80)), patches((160, 100, 60), wrong[1])
    for shots in ([bright, dark], [dark, bright], [true, bright, dark]):
        assert metric.colour_errors(true, shots)[0] == pytest.approx(0, abs=1e-9)
    clipped = patches((255, 100, 60), (60, 120, 2))
    assert np.isnan(metric.colour_errors(true, [clipped])).all()
    assert metric.colour_errors(true, [clipped, true]) == pytest.approx((0, 0, 1), abs=1e-4)


@pytest.mark.parametrize("level, known", [(12, False), (13, True), (242, True), (243, False)])
@pytest.mark.parametrize("channel", range(3))
def test_a_channel_tells_its_colour_from_5_to_95_percent(level, known, channel):
    colour = [128, 128, 128]
    colour[channel] = level
    assert np.isfinite(metric.colour_errors(patches((60, 60, 60)), [patches(colour)])[0]) == known


def test_a_hue_is_one_from_a_chroma_of_10_on():
    strong, luma = (160, 100, 60), np.array((0.299, 0.587, 0.114))
    for off in range(6, 22):
        colour = np.array((120 + off, 120, 120 - off))
        chroma = np.hypot(*lab_ab(colour)), np.hypot(*lab_ab(colour * (luma @ strong) / (luma @ colour)))
        for one, other, its in ((colour, strong, chroma[0]), (strong, colour, chroma[1])):
            known = np.isfinite(metric.colour_errors(patches(one), [patches(other)])[1])
            assert known == (its >= 10), (off, its)


def test_colours_beyond_the_gamut_are_not_compared():
    white = patches((250, 250, 250))
    assert np.isnan(metric.colour_errors(white, [patches((200, 60, 60))])).all()  # so bright a red does not exist


def test_colour_errors_in_strips_are_the_whole(monkeypatch):
    rng = np.random.default_rng(3)
    image, *shots = rng.integers(0, 256, (4, 60, 50, 3)).astype(np.uint8)
    whole = metric.colour_errors(image, shots)
    monkeypatch.setattr(metric, "STRIP_PIXELS", 50 * 7)
    assert metric.colour_errors(image, shots) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("level, nearer", [(100, True), (99, False)])
def test_the_truth_is_the_shot_nearest_to_the_middle_of_the_range(level, nearer):
    shots = patches((level,) * 3), patches((160, 156, 140))  # the latter's luma is 27.9 above 127.5
    for order in (shots, shots[::-1]):
        assert (metric.colour_errors(patches((128,) * 3), order)[0] < 0.1) == nearer


@pytest.mark.parametrize(
    "values, fine", [([0, 255], 1), ([0, 255.5], 0), ([-0.5, 9], 0), ([0.5, 1], 0), ([0.5, 1.5], 1), ([0, 1], 1)]
)
def test_values_are_of_0_to_255(values, fine):
    if fine:
        assert metric.standard_deviation(np.array([values])) == pytest.approx(np.ptp(values) / 2)
        return
    with pytest.raises(UserError, match=f"must have values 0..255, got {values[0]:g}..{values[1]:g}"):
        metric.standard_deviation(np.array([values]))


@pytest.mark.parametrize("row", [0, 7, 19])
def test_each_row_counts_alike(row):
    true, shown = patches((160, 100, 60)), patches((160, 100, 60))
    shown[row] = (65, 110, 140)
    whole = metric.colour_errors(patches((140, 110, 65)), [true])
    difference, hue, _ = metric.colour_errors(shown, [true])
    assert (difference, hue) == pytest.approx((whole[0] / 20, whole[1] / 20), rel=1e-3)


def test_pictures_of_one_are_refused():
    stack = natural(2, 64, 64)
    for function in (metric.mef_ssim, metric.mef_ssim_scales, metric.mef_ssim_lum, metric.q_abf, metric.viff):
        with pytest.raises(ValueError, match="stack must have values 0..255, got 0.*..1: multiply it by 255"):
            function(stack[0], stack / stack.max())
        with pytest.raises(ValueError, match="fused picture must have values 0..255"):
            function(stack[0] / 255, stack)
    plain = (metric.entropy, metric.average_gradient, metric.spatial_frequency)
    for function in (*plain, metric.standard_deviation, metric.clipped_share):
        with pytest.raises(ValueError, match="multiply it by 255"):
            function(stack[0] / 255)
    with pytest.raises(ValueError, match="multiply it by 255"):
        metric.ssim(stack[0] / 255, stack[0])
    for function in (metric.psnr, lambda a, b: metric.colour_errors(a, [b]), lambda a, b: metric.colourfulness(a)):
        with pytest.raises(ValueError, match="uint8"):
            function(patches((1, 2, 3)) / 255, patches((1, 2, 3)) / 255)
    black = np.zeros((64, 64))
    black[5, 5] = 1  # of 255: a nearly black picture
    assert metric.mef_ssim(black, stack) < 1


def test_measures_of_other_packages():
    """The packages' own code, through stand-ins: what they are given, and what is made of it."""
    seen = []

    class Network:
        lower_better = False

        def __call__(self, tensor):
            seen.append(tensor)
            return tensor.mean()

    stand_in = types.SimpleNamespace(
        list_models=lambda metric_mode: ["musiq"], create_metric=lambda name, device: Network()
    )
    metric.load_iqa.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pyiqa", stand_in)
        assert metric.load_iqa("musiq")[1] is False
        assert metric.load_iqa("musiq")[0](patches((255, 0, 51))) == pytest.approx(0.4)
        with pytest.raises(ValueError, match="pyiqa has no measure psnr without a reference, only musiq"):
            metric.load_iqa("psnr")
    metric.load_iqa.cache_clear()
    assert seen[0].shape == (1, 3, 20, 20) and seen[0][0, :, 0, 0].tolist() == pytest.approx([1, 0, 0.2])  # RGB


def test_lpips_is_given_rgb_from_minus_1_to_1():
    class Network:
        def eval(self):
            return self

        def __call__(self, one, other):
            assert (one.min(), one.max(), other.min()) == (1, 1, -1)
            return (one - other)[:, 0].mean()  # of red

    def stand_in(net, verbose):
        assert (net, verbose) == ("alex", False)
        return Network()

    metric.load_lpips.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=stand_in))
        assert metric.load_lpips()(patches((255, 255, 255)), patches((0, 7, 7))) == pytest.approx(2)
    metric.load_lpips.cache_clear()


def test_ntires_score():
    assert metric.ntire_score(50, 1, 0) == 30 + 22.5 + 30
    assert metric.ntire_score(25, 0.75, 0.2) == pytest.approx(15 + 11.25 + 15)
