"""models/DeepFuse.py: the published sizes, and what K exposures do; what all networks share is in test_networks.py."""

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


@torch.inference_mode()
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_repetition_does_not_matter(network, name):
    model, exposures = network(name), torch.rand(2, 3, 1, 37, 50)
    fused = model(exposures)
    close = {"atol": 1e-5 * max(1, fused.abs().max().item()), "rtol": 0}
    torch.testing.assert_close(model(torch.cat([exposures, exposures], 1)), fused, **close)
    one = exposures[:, :1]
    torch.testing.assert_close(model(one), model(one.expand(-1, 2, -1, -1, -1)), **close)
