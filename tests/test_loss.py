"""The losses against another library, a loop over patches, and what must hold for any pictures."""

import numpy as np
import pytest
import torch

from utils.evaluation import metric
from utils.training.loss import (
    MEFLoss,
    ReconLoss,
    mef_ssim_lum,
    mef_ssim_map,
    mef_ssim_scales,
    ssim,
    window_mean,
)

pytestmark = pytest.mark.usefixtures("on_device")


def pictures(n: int, k: int, height: int, width: int, dtype=torch.float64, seed: int = 0) -> torch.Tensor:
    """Smooth random pictures in [0, 1] of different brightness, partly saturated, on 8-bit levels."""
    seeded = {"generator": torch.Generator().manual_seed(seed), "device": "cpu"}
    noise = torch.rand(n, k, height, width, **seeded, dtype=torch.float64).to(torch.get_default_device())
    smooth = torch.nn.functional.avg_pool2d(noise, 5, 1, 2) * 0.7 + noise * 0.3
    gain = torch.linspace(0.3, 2.5, k, dtype=torch.float64)[:, None, None]
    return ((smooth * gain).clamp(0, 1) * 255).round().to(dtype) / 255


def gaussian_window(sigma: float) -> np.ndarray:
    x = np.arange(11) - 5
    window = np.exp(-(x[:, None] ** 2 + x**2) / (2 * sigma**2))
    return window / window.sum()


def loop_over_patches(fused: np.ndarray, stack: np.ndarray) -> np.ndarray:
    """The 2015 map of (H, W) and (K, H, W) in 0..255, one patch after the other, by the paper's formulas."""
    eps, window, out = 2.2e-16, gaussian_window(1.5), np.empty((fused.shape[0] - 10, fused.shape[1] - 10))
    for y, x in np.ndindex(out.shape):
        patches = stack[:, y : y + 11, x : x + 11].astype(np.float64)
        patches = patches - patches.mean((1, 2), keepdims=True)
        norms = np.array([np.linalg.norm(p) for p in patches])
        strength = norms + 0.001
        consistency = (np.linalg.norm(patches.sum(0)) + eps) / (norms.sum() + eps)
        power = min(np.tan(np.pi / 2 * min(consistency, 1)), 10)
        power = power if power >= 0 else 10
        weights = (strength / 11) ** power + eps
        weights /= weights.sum()
        desired = sum(w * p / s for w, p, s in zip(weights, patches, strength, strict=True))
        if np.linalg.norm(desired) > 0:
            desired *= strength.max() / np.linalg.norm(desired)
        f = fused[y : y + 11, x : x + 11].astype(np.float64)
        desired, f = desired - (window * desired).sum(), f - (window * f).sum()
        numerator = 2 * (window * desired * f).sum() + 58.5225
        out[y, x] = numerator / ((window * desired**2).sum() + (window * f**2).sum() + 58.5225)
    return out


def test_window_mean_is_a_convolution():
    x = pictures(2, 3, 20, 23)
    window = torch.from_numpy(gaussian_window(1.5)).to(x)[None, None].expand(3, 1, 11, 11)
    for pad in (0, 5):
        expected = torch.nn.functional.conv2d(x, window, padding=pad, groups=3)
        torch.testing.assert_close(window_mean(x, 1.5, pad), expected)


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    x, y = pictures(2, 1, 50, 41), pictures(2, 1, 50, 41, seed=1)
    for data_range in (1.0, 255.0):
        for a, b, score in zip(x, y, ssim(x * data_range, y * data_range, data_range), strict=True):
            a, b = (picture[0].numpy(force=True) * data_range for picture in (a, b))
            options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
            assert score.item() == pytest.approx(
                metrics.structural_similarity(a, b, data_range=data_range, **options), abs=1e-6
            )
    assert (ssim(x, x) - 1).abs().max() < 1e-12


def test_the_loss_of_reconstruction_is_that_of_mirrored_pictures():
    metrics = pytest.importorskip("skimage.metrics")
    x, y = pictures(2, 3, 24, 31), pictures(2, 3, 24, 31, seed=1)
    for fused, photo, found in zip(x, y, ReconLoss()(x, y), strict=True):
        a, b = (np.pad(z.numpy(force=True), ((0, 0), (5, 5), (5, 5)), "reflect") for z in (fused, photo))
        options = {"gaussian_weights": True, "use_sample_covariance": False, "channel_axis": 0}
        assert found.item() == pytest.approx(1 - metrics.structural_similarity(a, b, data_range=1, **options), abs=1e-6)


@pytest.mark.parametrize("k", [2, 3, 7])
def test_mef_ssim_map_is_that_of_the_loop_over_patches(k):
    stack = pictures(1, k, 22, 27)
    stack[..., :13] = stack[..., :13].round()  # a saturated region
    fused = pictures(1, 1, 22, 27, seed=1)
    expected = loop_over_patches(fused[0, 0].numpy(force=True) * 255, stack[0].numpy(force=True) * 255)
    np.testing.assert_allclose(mef_ssim_map(fused, stack)[0].numpy(force=True), expected, atol=2e-6)
    single = mef_ssim_map(fused.float(), stack.float())[0].numpy(
        force=True
    )  # rounding shows where a patch is all but flat
    assert np.abs(single - expected).mean() < 1e-3


@pytest.mark.parametrize("levels, flat", [(1, True), (2, False)])
def test_a_patch_is_flat_in_which_one_pixel_is_a_level_brighter(levels, flat):
    stack = torch.full((1, 2, 11, 11), 100 / 255, dtype=torch.float64)
    stack[0, 1, 5, 5] += levels / 255
    fused = pictures(1, 1, 11, 11)
    gray, shots = fused[0, 0].numpy(force=True) * 255, stack[0].numpy(force=True) * 255
    f = gray - (gaussian_window(1.5) * gray).sum()
    alone = 58.5225 / ((gaussian_window(1.5) * f**2).sum() + 58.5225)
    expected = alone if flat else loop_over_patches(gray, shots)[0, 0]
    assert mef_ssim_map(fused, stack).item() == pytest.approx(expected, abs=1e-6)
    assert abs(loop_over_patches(gray, shots)[0, 0] - alone) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["black", "white", "black and white", "the same", "all the same", "checkerboard"])
def test_no_score_is_above_one_or_not_finite(kind, dtype):
    """Rounding in saturated pictures could give scores above 1, which a training would then exploit."""
    stack, fused = pictures(1, 2, 48, 48, dtype), pictures(1, 1, 48, 48, dtype, seed=1)
    if kind == "black and white":
        stack[:, 0], stack[:, 1] = 0, 1
    elif kind == "checkerboard":
        stack[:] = (torch.arange(48)[:, None] + torch.arange(48)) % 2
    elif kind in ("black", "white"):
        stack[:] = float(kind == "white")
    else:
        stack[:, 1] = stack[:, 0]
        fused = stack[:, :1].clone() if kind == "all the same" else fused
    fused.requires_grad_()
    scores = torch.cat([mef_ssim_map(fused, stack).flatten(), mef_ssim_lum(fused, stack)])
    MEFLoss()(fused, stack).sum().backward()
    assert scores.isfinite().all() and fused.grad.isfinite().all()
    assert scores.max() <= 1 + 1e-6
    if kind == "all the same":
        assert mef_ssim_map(fused, stack).min() > 1 - 1e-3
        assert mef_ssim_lum(fused, stack).item() == pytest.approx(1, abs=1e-4)


def test_mef_ssim_lum_is_that_of_the_metric():
    stack, fused = (pictures(1, 3, 48, 52) * 255).round() / 255, (pictures(1, 1, 48, 52, seed=1) * 255).round() / 255
    expected = metric.mef_ssim_lum(fused[0, 0].numpy(force=True) * 255, stack[0].numpy(force=True) * 255)
    assert mef_ssim_lum(fused, stack).item() == pytest.approx(expected, abs=1e-9)


def test_mef_loss_weighs_six_scales_and_the_luminance():
    stack, fused = pictures(1, 2, 352, 341), pictures(1, 1, 352, 341, seed=1)
    gray, shots = fused[0, 0].numpy(force=True) * 255, stack[0].numpy(force=True) * 255
    scales, lum = metric.mef_ssim_scales(gray, shots), metric.mef_ssim_lum(gray, shots)
    np.testing.assert_allclose(mef_ssim_scales(fused, stack, 6)[0].numpy(force=True), scales, atol=1e-9)
    loss = MEFLoss((1, 2, 3, 4, 5, 6), 0.7)(fused, stack).item()
    assert loss == pytest.approx(1 - np.dot(scales, (1, 2, 3, 4, 5, 6)) / 21 + 0.7 * (1 - lum), abs=1e-9)
    small = MEFLoss((1, 2, 3, 4, 5, 6), 0)(fused[..., :48, :], stack[..., :48, :])
    scales = metric.mef_ssim_scales(gray[:48], shots[:, :48])[:3]
    assert small.item() == pytest.approx(1 - np.dot(scales, (1, 2, 3)) / 6, abs=1e-9)


def test_the_papers_loss_is_one_scale_of_the_original_metric_whatever_the_brightness():
    stack, fused = pictures(1, 2, 64, 64), pictures(1, 1, 64, 64, seed=1)
    loss = MEFLoss([1], 0, 0)
    expected = 1 - metric.mef_ssim_scales(fused[0, 0].numpy(force=True) * 255, stack[0].numpy(force=True) * 255, 1)[0]
    assert loss(fused, stack).item() == pytest.approx(expected, abs=1e-9)
    assert loss(fused + 3, stack).item() == pytest.approx(expected, abs=1e-9)  # nothing is clipped
    assert list(loss.parts(fused, stack)) == ["mef_ssim"]


def test_mef_loss_has_the_gradient_of_finite_differences():
    stack = pictures(1, 2, 22, 22)
    fused = (0.9 * pictures(1, 1, 22, 22, seed=1) + 0.05).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: MEFLoss()(f, stack), fused, fast_mode=True)


def test_mef_loss_does_not_depend_on_order_or_neighbours():
    stack, fused = pictures(3, 2, 45, 52), pictures(3, 1, 45, 52, seed=1)
    loss = MEFLoss()(fused, stack)
    assert loss.shape == (3,)
    torch.testing.assert_close(MEFLoss()(fused, stack.flip(1)), loss)
    singles = [MEFLoss()(fused[n : n + 1], stack[n : n + 1]) for n in range(3)]
    torch.testing.assert_close(torch.cat(singles), loss)


def test_mef_loss_forbids_leaving_the_range():
    stack = pictures(1, 2, 32, 32)
    white = torch.ones_like(stack[:, :1])
    assert MEFLoss()(white + 0.1, stack).item() == pytest.approx(MEFLoss()(white, stack).item() + 0.1)


def test_brightness_is_free_in_the_2015_metric_and_settled_by_the_luminance_term():
    stack, fused = pictures(1, 2, 64, 64), 0.5 * pictures(1, 1, 64, 64, seed=1)
    brighter = fused + 0.3
    torch.testing.assert_close(mef_ssim_scales(brighter, stack, 3), mef_ssim_scales(fused, stack, 3))
    assert (mef_ssim_lum(brighter, stack) - mef_ssim_lum(fused, stack)).abs() > 0.01
