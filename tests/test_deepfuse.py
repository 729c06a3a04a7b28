"""models/DeepFuse.py: the published sizes, and what the paper's networks must not depend on."""

import pytest
import torch

from models import fuse_model
from models.DeepFuse import ARCHITECTURES

pytestmark = pytest.mark.usefixtures("on_device")


def test_parameters_are_as_many_as_published():
    def count(name):
        return sum(p.numel() for p in fuse_model(name).parameters())

    assert count("DeepFuse_authors") == 316_976
    weights = 1 * 16 * 25 + 16 * 32 * 49 + 32 * 32 * 49 + 32 * 16 * 25 + 16 * 1 * 25
    assert count("DeepFuse") == weights + 16 + 32 + 32 + 16 + 1
    assert count("DeepFuse_bn") == count("DeepFuse") + 2 * (16 + 32 + 32 + 16 + 1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_halo_is_the_receptive_field(name):
    torch.manual_seed(0)
    model = fuse_model(name)
    side = 2 * model.halo + 9
    y = torch.rand(1, 1, 1, side, side, requires_grad=True)
    model(y.expand(-1, 2, -1, -1, -1))[0, 0, side // 2, side // 2].backward()
    rows = y.grad[0, 0, 0].abs().sum(1).nonzero()
    assert (rows.min(), rows.max()) == (side // 2 - model.halo, side // 2 + model.halo)


@torch.inference_mode()
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("channels", [1, 3])
def test_neither_order_nor_repetition_nor_neighbours_matter(network, name, channels):
    model = network(name, channels)
    exposures = torch.rand(2, 3, channels, 37, 50)
    fused = model(exposures)
    assert fused.shape == (2, channels, 37, 50)
    close = {"atol": 1e-5 * max(1, fused.abs().max().item()), "rtol": 0}
    torch.testing.assert_close(model(exposures.flip(1)), fused, **close)
    torch.testing.assert_close(model(torch.cat([exposures, exposures], 1)), fused, **close)
    one = exposures[:, :1]
    torch.testing.assert_close(model(one), model(one.expand(-1, 2, -1, -1, -1)), **close)
    torch.testing.assert_close(torch.cat([model(exposures[:1]), model(exposures[1:])]), fused, **close)
    assert fused.std() > 1e-3  # such a network tells pixels apart


@torch.inference_mode()
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 5), (16, 33), (65, 64)])
def test_any_size_works(name, size):
    fused = fuse_model(name)(torch.rand(1, 2, 1, *size))
    assert fused.shape == (1, 1, *size) and fused.isfinite().all()
