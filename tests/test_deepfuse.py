"""The networks: their published sizes, what they must not depend on, and the tiles that must equal the whole."""

import pytest
import torch

from models import ARCHITECTURES, fuse_model
from models.DeepFuse import DeepFusePyramid, PyramidArchitecture

CONVOLUTIONAL = [name for name in ARCHITECTURES if name != "DeepFuse_pyramid"]


def test_parameters_are_as_many_as_published():
    def count(name):
        return sum(p.numel() for p in fuse_model(name).parameters())

    assert count("DeepFuse_authors") == 316_976
    weights = 1 * 16 * 25 + 16 * 32 * 49 + 32 * 32 * 49 + 32 * 16 * 25 + 16 * 1 * 25
    assert count("DeepFuse") == weights + 16 + 32 + 32 + 16 + 1
    assert count("DeepFuse_pyramid") == 100_544
    assert count("DeepFuse_bn") == count("DeepFuse") + 2 * (16 + 32 + 32 + 16 + 1)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_halo_is_the_receptive_field(name):
    torch.manual_seed(0)
    model = fuse_model(name)
    side = 2 * model.halo + 9
    y = torch.rand(1, 1, side, side, requires_grad=True)
    model(y, y)[0, 0, side // 2, side // 2].backward()
    rows = y.grad[0, 0].abs().sum(1).nonzero()
    assert (rows.min(), rows.max()) == (side // 2 - model.halo, side // 2 + model.halo)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("channels", [1, 3])
def test_order_and_repetition_do_not_matter(name, channels):
    torch.manual_seed(0)
    model = fuse_model(name, image_channels=channels)
    exposures = torch.rand(3, 2, channels, 37, 50)
    with torch.inference_mode():
        fused = model(*exposures)
        assert fused.shape == exposures[0].shape
        torch.testing.assert_close(model(*exposures.flip(0)), fused, atol=1e-5, rtol=0)
        torch.testing.assert_close(model(*exposures, *exposures), fused, atol=1e-5, rtol=0)
        alone = model(*exposures[:, :1])
        torch.testing.assert_close(alone, fused[:1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 5), (16, 33), (65, 64)])
def test_any_size_works(name, size):
    with torch.inference_mode():
        fused = fuse_model(name)(torch.rand(1, 1, *size), torch.rand(1, 1, *size))
    assert fused.shape == (1, 1, *size) and fused.isfinite().all()


def test_pyramid_starts_as_a_weighted_mean_of_the_exposures():
    """Without corrections and with equal scores, Laplacian bands add up to the plain mean."""
    model = DeepFusePyramid(PyramidArchitecture())
    for level in (*model.levels, model.top):
        for p in (*level.encoder[-1].parameters(), *level.decoder[-1].parameters()):
            torch.nn.init.zeros_(p)
    a, b = torch.rand(2, 1, 1, 83, 101)
    with torch.inference_mode():
        torch.testing.assert_close(model(a, b), (a + b) / 2)


def test_a_tile_of_a_pyramid_level_equals_the_whole():
    torch.manual_seed(0)
    model = DeepFusePyramid(PyramidArchitecture()).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, 0, 0.1)
    exposures = torch.rand(2, 1, 1, 83, 101)
    with torch.inference_mode():
        means = [y.mean((2, 3), keepdim=True) for y in exposures]
        levels = list(zip(*(model.pyramid(model.moments(y)) for y in exposures), strict=True))
        whole = model(*exposures)
        state = model.fuse_top(levels[-1], means)
        for i in range(len(levels) - 2, 0, -1):
            state = model.fuse_level(levels[i], levels[i + 1], state, means, i)
        fine = [y[..., 20:83, 30:70] for y in levels[0]]
        coarse = [y[..., 10:42, 15:35] for y in levels[1]]
        tile = model.fuse_level(fine, coarse, state[..., 10:42, 15:35], means, 0)[:, :1]
    h = model.level_halo(0)
    torch.testing.assert_close(tile[..., h:, h:-h], whole[..., 20 + h :, 30 + h : 70 - h])
    assert (tile - whole[..., 20:, 30:70]).abs().max() > 1e-3  # the halo is needed
