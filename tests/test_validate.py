"""Validation: scores, and the pictures that are shown."""

import math

import cv2
import numpy as np
import pytest
import torch

from models.DeepFuse import Architecture
from utils.evaluation.metric import combine_scales, mef_ssim_lum, mef_ssim_scales
from utils.fusing.fusion import Fuser
from utils.fusing.tiles import on_device
from utils.pictures.pixels import CAPTION
from utils.training import validate as validation
from utils.training.dataset import Sample
from utils.training.loss import MEFLoss


class Average(torch.nn.Module):
    """The plain average of the exposures, in place of a network."""

    halo = 0

    def __init__(self, channels=1):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.arch = Architecture(image_channels=channels)

    def forward(self, exposures):
        return exposures.mean(1)

    fuse = forward


def test_validation_of_pairs_shows_and_scores_the_fusion():
    y = np.random.default_rng(0).integers(0, 256, (64, 80), dtype=np.uint8)
    pairs = [("same", [y, y], [y, y, y]), ("other", [y // 2, y // 2 + 127], [y])]
    scores, pictures = validation.validate_pairs(Average(), pairs, MEFLoss(), shown=1)
    assert list(pictures) == ["validation/same"] and pictures["validation/same"].shape == (
        64 + CAPTION,
        240,
        3,
    )
    for i, y in enumerate((pairs[0][1][0],) * 3):  # under, over and fused are one picture
        shown = pictures["validation/same"][CAPTION:, 80 * i : 80 * (i + 1)]
        assert (shown == y[..., None]).all()
    assert scores["mef_ssim"] == pytest.approx((1 + scores["mef_ssim_worst"]) / 2, abs=1e-3)
    assert 0 < scores["mef_ssim_lum"] <= 1 and math.isfinite(scores["loss"])


def test_validation_of_photographs_scores_the_reconstruction():
    y = torch.rand(3, 1, 3, 32, 32)
    scores, pictures = validation.validate_recon(Average(3), [Sample(y.expand(-1, 2, -1, -1, -1), y)])
    assert scores == pytest.approx({"loss": 0, "ssim": 1}, abs=1e-5)
    above, below = np.split(pictures["reconstruction"], 2)
    assert above.shape == (32 + CAPTION, 96, 3) and np.array_equal(*(x[CAPTION:] for x in (above, below)))
    assert np.abs(above[CAPTION:, :32] / 255 - y[0, 0].permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6


def test_scores_of_pairs_are_those_of_the_evaluation():
    rng = np.random.default_rng(0)
    shots = [cv2.resize(rng.integers(0, 256, (9, 12), dtype=np.uint8), (101, 90)) for _ in range(3)]
    scores, _ = validation.validate_pairs(Average(), [("a", shots[:2], shots)], MEFLoss())
    fused = Fuser(on_device(Average())).fuse(shots[:2])
    profile = mef_ssim_scales(fused, np.stack(shots))
    profile = profile[np.isfinite(profile)]
    assert scores["mef_ssim"] == pytest.approx(combine_scales(profile), abs=1e-4)
    assert scores["mef_ssim_coarse"] == pytest.approx(profile[-3:].mean(), abs=1e-4)
    assert scores["mef_ssim_lum"] == pytest.approx(mef_ssim_lum(fused, np.stack(shots)), abs=1e-4)
    assert scores["mef_ssim_worst"] == scores["mef_ssim"]


def test_pictures_stand_beside_each_other_and_panoramas_below():
    for shape, expected in (((30, 40), (30 + CAPTION, 80, 3)), ((20, 60, 3), (2 * (20 + CAPTION), 60, 3))):
        pictures = {name: np.full(shape, value, np.uint8) for name, value in (("a", 10), ("b", 20))}
        joined = validation.side_by_side(pictures)
        assert joined.shape == expected and np.array_equal(joined[-shape[0] :, -shape[1] :, 0], np.full(shape[:2], 20))
