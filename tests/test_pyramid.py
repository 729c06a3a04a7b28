"""models/DeepFusePyramid.py: what the decision must and must not depend on, and how training meets full size."""

import pytest
import torch
from conftest import strong

from models import DeepFusePyramid, PyramidArchitecture, build_network, fuse_model

pytestmark = pytest.mark.usefixtures("on_device")
SIZES = [(1, 1), (7, 300), (65, 64), (83, 101)]


def close(a, b, atol=1e-5):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def test_parameters_are_those_of_three_levels():
    def of_level(c_in, c=24, depth=5):
        encoder = (c_in * 9 + 1) * c + (depth - 2) * (c * 9 + 1) * c + (c * 9 + 1) * (c + 1)
        return encoder + (depth - 1) * (c * 9 + 1) * c + c * 9 + 1

    expected = of_level(6) + of_level(5) + of_level(6, 8, 2)
    assert sum(p.numel() for p in fuse_model("DeepFuse_pyramid").parameters()) == expected


@torch.inference_mode()
@pytest.mark.parametrize("fine_levels", [0, 1, 3])
def test_the_small_network_serves_the_finest_levels(fine_levels):
    model = strong(build_network("DeepFuse_pyramid", PyramidArchitecture(4, 2, 4, fine_levels, 3, 2)))
    exposures = torch.rand(1, 3, 1, 48, 64)
    calls = []
    for name in ("level", "fine") if fine_levels else ("level",):
        module = getattr(model, name)
        module.register_forward_hook(lambda m, seen, _, name=name: calls.append((name, seen[0].shape[-1])))
    model(exposures)
    assert calls == [("level" if k > fine_levels else "fine", 64 // 2 ** (k - 1)) for k in range(4, 0, -1)]


def test_it_is_for_luminance_alone():
    with pytest.raises(ValueError, match="for gray"):
        fuse_model("DeepFuse_pyramid", image_channels=3)


@torch.inference_mode()
@pytest.mark.parametrize("size", SIZES)
def test_repetition_does_not_matter(pyramid, size):
    exposures = torch.rand(2, 3, 1, *size)
    fused, log_weights = pyramid(exposures)
    doubled, weights = pyramid(torch.cat([exposures, exposures], 1))
    close(doubled, fused)
    close(2 * weights[:, :3].exp(), log_weights.exp())


@torch.inference_mode()
def test_identical_exposures_weigh_the_same(pyramid):
    y = torch.rand(1, 1, 1, 40, 50)
    for k in (2, 5):
        fused, log_weights = pyramid(y.expand(-1, k, -1, -1, -1))
        close(log_weights.exp(), torch.full((1, k, 40, 50), 1 / k))
        close(fused, pyramid(y.expand(-1, 2, -1, -1, -1))[0])


@torch.inference_mode()
@pytest.mark.parametrize("size", SIZES)
def test_it_starts_as_a_weighted_mean_of_the_exposures(size):
    """Without corrections and with equal scores, the bands of the pyramid add up to the plain mean."""
    model = DeepFusePyramid(PyramidArchitecture())
    for level in (model.level, model.top, model.fine):
        for p in (*level.encoder[-1].parameters(), *level.decoder[-1].parameters()):
            torch.nn.init.zeros_(p)
    exposures = torch.rand(1, 3, 1, *size)
    fused, log_weights = model(exposures)
    close(fused, exposures.mean(1))
    close(log_weights.exp(), torch.full((1, 3, *size), 1 / 3))


@torch.inference_mode()
def test_a_fresh_network_is_near_the_mean_of_the_bands():
    """Otherwise most trainings would start from pictures far outside [0, 1]."""
    corrections = []
    for seed in range(9):
        torch.manual_seed(seed)
        model, exposures = fuse_model("DeepFuse_pyramid"), torch.rand(1, 3, 1, 83, 101)
        fused, _ = model(exposures)
        for level in (model.level, model.top, model.fine):
            torch.nn.init.zeros_(level.decoder[-1].weight)
        corrections.append((fused - model(exposures)[0]).abs().mean())
    assert 0.01 < torch.stack(corrections).median() < 0.3


def test_every_pixel_is_decided_by_the_whole_scene(pyramid):
    exposures = torch.rand(1, 2, 1, 120, 160, requires_grad=True)
    pyramid(exposures)[0][0, 0, 0, 0].backward()
    assert exposures.grad[..., -1, -1].abs().min() > 0
