"""The training losses: SSIM for reconstruction, MEF-SSIM for fusion. Pure functions of tensors, and a thin module.

Windows are separable, and all planes go through one depthwise convolution as its channels. On a CPU in channels-last
layout this is several times faster than one plane at a time, or than products with banded matrices.
"""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from utils.training import CLIP_WEIGHT, LUM_WEIGHT, SCALE_WEIGHTS

WINDOW = 11  # pixels, side
BOX, GAUSSIAN, GAUSSIAN_LUM = 0.0, 1.5, WINDOW / 6  # sigmas of the windows; 0 is the uniform one


def window_mean(x: torch.Tensor, sigma: float, pad: int = 0) -> torch.Tensor:
    """Returns the means (..., H + 2 pad - 10, W + 2 pad - 10) of x (..., H, W) in 11x11 windows.

    Args:
        sigma: of the Gaussian window, in pixels; 0 is the uniform window.
        pad: width of the border of zeros; 0 uses only windows inside the picture.
    """
    at = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    window = torch.exp(-(at**2) / (2 * sigma**2)) if sigma else torch.ones_like(at)
    window = (window / window.sum()).to(x)
    planes = x.reshape(1, -1, *x.shape[-2:])
    if x.device.type == "cpu":
        planes = planes.contiguous(memory_format=torch.channels_last)
    count = planes.shape[1]
    columns = F.conv2d(planes, window.expand(count, 1, WINDOW)[..., None], padding=(pad, 0), groups=count)
    means = F.conv2d(columns, window.expand(count, 1, 1, WINDOW), padding=(0, pad), groups=count)
    return means.reshape(*x.shape[:-2], *means.shape[-2:])


def ssim(x: torch.Tensor, y: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Returns the SSIM (N,) of two pictures (N, C, H, W) of at least 11x11 pixels, averaged over windows and channels.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", TIP 2004, eq. 13:
    11x11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, windows inside the picture only.
    """
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_x, mean_y, xx, yy, xy = window_mean(torch.stack([x, y, x * x, y * y, x * y]), GAUSSIAN)
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean((1, 2, 3))


def mef_ssim_map(fused: torch.Tensor, exposures: torch.Tensor) -> torch.Tensor:
    """Returns the MEF-SSIM map (N, H - 10, W - 10) of fused (N, 1, H, W) against exposures (N, K, H, W), in [0, 1].

    Ma, Zeng, Wang, "Perceptual quality assessment for multi-exposure image fusion", TIP 2015, as in the authors' code,
    at one scale. No patch is ever cut out: each norm of a mean-removed patch is a quadratic form in covariances. With
    B, the exposures' covariances under the uniform window, ||sum_k a_k x_k||^2 = 121 sum_ij a_i a_j B_ij. The plain
    loop over patches, to read beside it and to test it by, is `patch_score` in `tests/test_metric.py`.
    """
    n, eps, c2 = WINDOW**2, 2.2e-16, (0.03 * 255) ** 2
    x, f = (exposures - 0.5) * 255, (fused - 0.5) * 255  # centred: float32 keeps the small variances
    i, j = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
    count = torch.where(i == j, 1, 2)[:, None, None]  # a pair i < j counts twice, for (j, i) too

    def covariances(products: torch.Tensor, means: torch.Tensor, sigma: float) -> torch.Tensor:
        return window_mean(products, sigma) - means[:, i] * means[:, j]

    def variance(a: torch.Tensor | float, pairs: torch.Tensor) -> torch.Tensor:
        """Returns the variance of sum_k a_k x_k from the covariances of the pairs."""
        return (count * a * pairs).sum(1).clamp(min=0)

    mean_x, mean_f = window_mean(x, GAUSSIAN), window_mean(f, GAUSSIAN)
    with torch.no_grad():
        products = x[:, i] * x[:, j]
        box = n * covariances(products, window_mean(x, BOX), BOX)
        norm = box[:, i == j].clamp(min=0).sqrt()  # ||x_k||
        strength = norm + 0.001
        consistency = ((variance(1, box).sqrt() + eps) / (norm.sum(1) + eps)).clamp(0, 1)
        power = torch.tan(torch.pi / 2 * consistency).clamp(0, 10)[:, None]
        weight = (strength / WINDOW) ** power + eps
        a = weight / weight.sum(1, keepdim=True) / strength
        # The desired patch is sum_k a_k x_k, scaled to the strength of the strongest input. It is flat where all inputs
        # are flat, and where they cancel each other up to rounding.
        length = variance(a[:, i] * a[:, j], box).sqrt()
        known = (norm.amax(1) > 1) & (length > 30 * torch.finfo(x.dtype).eps ** 0.5)
        a = a * torch.where(known, strength.amax(1) / length, 0)[:, None]
        var_r = variance(a[:, i] * a[:, j], covariances(products, mean_x, GAUSSIAN))
    cov = (a * (window_mean(x * f, GAUSSIAN) - mean_x * mean_f)).sum(1)
    var_f = (window_mean(f * f, GAUSSIAN) - mean_f**2)[:, 0].clamp(min=0)
    bound = (var_r + var_f) / 2  # |cov| is never larger, except by rounding
    return (2 * torch.minimum(torch.maximum(cov, -bound), bound) + c2) / (2 * bound + c2)


def mef_ssim_scales(fused: torch.Tensor, exposures: torch.Tensor, scales: int) -> torch.Tensor:
    """Returns the means (N, scales) of `mef_ssim_map` at dyadic scales, finest first; 2x2 means lead to the next.

    The scales end where a side is smaller than the window, so there may be fewer.
    """
    means: list[torch.Tensor] = []
    while len(means) < scales and min(fused.shape[-2:]) >= WINDOW:
        means.append(mef_ssim_map(fused, exposures).mean((1, 2)))
        fused, exposures = (F.avg_pool2d(y, 2, ceil_mode=True) for y in (fused, exposures))
    return torch.stack(means, 1)


def mef_ssim_lum(fused: torch.Tensor, exposures: torch.Tensor) -> torch.Tensor:
    """Returns MEFNet's MEF-SSIM (N,) of fused (N, 1, H, W) against exposures (N, K, H, W), in [0, 1].

    Ma, Duanmu, Zhu, Fang, Wang, "Deep guided learning for fast multi-exposure image fusion", TIP 2020: structure
    compared with the exposure of largest variance, times luminance compared with a mean of the well-exposed ones. The
    windows reach over the border into zeros, as in their code.
    """
    c1, c2 = 0.01**2, 0.03**2
    pad = WINDOW // 2
    mean_x = window_mean(exposures, GAUSSIAN_LUM, pad)
    mean_f = window_mean(fused, GAUSSIAN_LUM, pad)[:, 0]
    var_x = window_mean(exposures**2, GAUSSIAN_LUM, pad) - mean_x**2
    var_f = (window_mean(fused**2, GAUSSIAN_LUM, pad)[:, 0] - mean_f**2).clamp(min=0)
    cov = window_mean(fused * exposures, GAUSSIAN_LUM, pad) - mean_f[:, None] * mean_x
    var_best, best = var_x.max(1, keepdim=True)
    structure = (2 * cov.gather(1, best)[:, 0] + c2) / (var_f + var_best[:, 0].clamp(min=0) + c2)
    sigma_g, sigma_l = 0.2, 0.2  # brightness: the mean of shots, by how near to 0.5 each is here, and as a whole
    weight = torch.exp(-((mean_x.mean((2, 3), keepdim=True) - 0.5) ** 2) / (2 * sigma_g**2))
    weight = weight * torch.exp(-((mean_x - 0.5) ** 2) / (2 * sigma_l**2))
    desired = (weight * mean_x).sum(1) / weight.sum(1).clamp(min=1e-12)
    luminance = (2 * mean_f * desired + c1) / (mean_f**2 + desired**2 + c1)
    return luminance.mean((1, 2)) * structure.mean((1, 2))


class Loss(nn.Module):
    """A loss (N,) of each fused picture (N, C, H, W) against what it should show: the sum of its `parts`."""

    def parts(self, fused: torch.Tensor, judges: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the parts (N,) of the loss by name."""
        raise NotImplementedError

    def total(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        return functools.reduce(torch.add, parts.values())

    def forward(self, fused: torch.Tensor, judges: torch.Tensor) -> torch.Tensor:
        return self.total(self.parts(fused, judges))


class ReconLoss(Loss):
    """1 - SSIM (N,) of each reconstructed picture (N, C, H, W) and its photograph, of the same shape, in [0, 1].

    Both are mirrored outwards, so that the windows of SSIM weigh the pixels at the border like all others.
    """

    def parts(self, fused: torch.Tensor, judges: torch.Tensor) -> dict[str, torch.Tensor]:
        fused, judges = (F.pad(x, [WINDOW // 2] * 4, mode="reflect") for x in (fused, judges))
        return {"ssim": 1 - ssim(fused, judges)}


class MEFLoss(Loss):
    """The loss (N,) of each fused picture (N, 1, H, W) against its judges (N, J, H, W), all in [0, 1].

    The sum of three parts:
    - 1 - MEF-SSIM, averaged over dyadic scales with `scale_weights`, finest first: the fine ones keep detail, the
      coarse ones prevent halos and veils. By default half and quarter size weigh most, as they do in the metric. Six
      scales need 321 pixels; a smaller picture is judged at fewer.
    - `lum_weight` times 1 - MEFNet's MEF-SSIM, whose luminance term fixes the brightness that MEF-SSIM leaves free. It
      lowers large-scale contrast; larger weights of the coarsest scales in the first part counteract that.
    - `clip_weight` times the mean distance of the picture's values from [0, 1], since a display clips them. With
      weight 0 they may lie anywhere: the first part is then that of the values as they are.

    The paper's loss is the first part at one scale: MEFLoss([1], 0, 0).
    """

    def __init__(
        self,
        scale_weights: Sequence[float] = SCALE_WEIGHTS,
        lum_weight: float = LUM_WEIGHT,
        clip_weight: float = CLIP_WEIGHT,
    ):
        super().__init__()
        self.scale_weights, self.lum_weight, self.clip_weight = scale_weights, lum_weight, clip_weight

    def parts(self, fused: torch.Tensor, judges: torch.Tensor) -> dict[str, torch.Tensor]:
        shown = fused.clamp(0, 1)
        scores = mef_ssim_scales(shown if self.clip_weight else fused, judges, len(self.scale_weights))
        weights = scores.new_tensor(self.scale_weights[: scores.shape[1]])
        parts = {"mef_ssim": 1 - (scores * weights).sum(1) / weights.sum()}
        if self.lum_weight:
            parts["mef_ssim_lum"] = self.lum_weight * (1 - mef_ssim_lum(shown, judges))
        if self.clip_weight:
            parts["clipped"] = self.clip_weight * (fused - shown).abs().mean((1, 2, 3))
        return parts
