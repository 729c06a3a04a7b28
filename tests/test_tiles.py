"""utils/fusing/tiles.py: layouts and colours on the way through tiles; that tiles equal the whole: test_networks.py."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.DeepFuse import ARCHITECTURES
from utils.fusing.fusion import Fuser
from utils.fusing.tiles import on_device


class Mean(torch.nn.Module):
    """A stand-in for a network of the paper that returns the mean of the exposures."""

    arch, halo, name = ARCHITECTURES["DeepFuse"], 0, "mean"

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))  # says where the network is

    def forward(self, exposures):
        return exposures.mean(1)


def test_an_rgb_network_is_shown_red_first_and_its_picture_is_bgr(device):
    class Rgb(Mean):
        arch = replace(ARCHITECTURES["DeepFuse"], image_channels=3)

        def forward(self, exposures):
            seen.append(exposures[0, 0, :, 0, 0].tolist())
            return super().forward(exposures)

    seen, image = [], np.full((8, 9, 3), (10, 100, 250), np.uint8)  # B, G, R
    np.testing.assert_array_equal(Fuser(on_device(Rgb(), device)).fuse([image, image]), image)
    assert seen[0] == pytest.approx([250 / 255, 100 / 255, 10 / 255])


def test_the_authors_inference_clips_a_hundredth_of_the_pixels_at_either_end(rng):
    """Of what it stretches; that is the default of Matlab's imadjust, which they call."""

    class Stretched(Mean):
        arch = ARCHITECTURES["DeepFuse_authors"]

    image = (20_000 + rng.permutation(10_000)).reshape(100, 100).astype(np.uint16)
    fused = Fuser(on_device(Stretched())).fuse([image, image])
    assert ((fused == 0).mean(), (fused == 65535).mean()) == pytest.approx((0.01, 0.01), abs=5e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_identical_exposures_give_themselves_where_the_network_does(rng, dtype):
    image = rng.integers(0, np.iinfo(dtype).max, (40, 50, 4), dtype, endpoint=True)
    difference = np.abs(Fuser(on_device(Mean())).fuse([image] * 3).astype(int) - image)
    assert difference.max() <= np.iinfo(dtype).max / 1000  # OpenCV's chroma has three digits
    assert difference[..., 3].max() == 0


def test_16_bits_are_16_bits_inside():
    ramp = np.tile(np.arange(0, 60000, 20, dtype=np.uint16), (4, 1))
    for picture in (ramp, np.dstack([ramp] * 3)):
        assert len(np.unique(Fuser(on_device(Mean())).fuse([picture, picture + 7]))) > 2900


def test_the_picture_is_clamped_not_stretched():
    class Shift(Mean):
        def forward(self, exposures):
            return exposures[:, 0] + 0.5

    gray = np.array([[0, 60, 200]], np.uint8)
    np.testing.assert_array_equal(Fuser(on_device(Shift())).fuse([gray, gray]), [[128, 188, 255]])


def test_alpha_is_averaged():
    a, b = (np.full((5, 5, 4), value, np.uint8) for value in (100, 200))
    assert (Fuser(on_device(Mean())).fuse([a, b])[..., 3] == 150).all()


def test_a_gpu_short_of_memory_gets_smaller_tiles(stack):
    class Short(Mean):
        sides = []

        def forward(self, exposures):
            self.sides.append(max(exposures.shape[-2:]))
            if self.sides[-1] > 100:
                raise torch.cuda.OutOfMemoryError("no memory")
            return super().forward(exposures)

    class Never(Mean):
        def forward(self, exposures):
            raise torch.cuda.OutOfMemoryError("no memory")

    images = stack(2, (300, 410, 3))
    fuser, hopeless = Fuser(on_device(Short())), Fuser(on_device(Never()))
    fuser.network.tile = hopeless.network.tile = 400
    np.testing.assert_array_equal(fuser.fuse(images), Fuser(on_device(Mean())).fuse(images))
    assert Short.sides[:3] == [400, 200, 100] and fuser.network.tile == 100

    with pytest.raises(ValueError, match="no memory for a tile of 64"):
        hopeless.fuse(images)


def test_weights_that_are_damaged_are_said_to_be():
    class Damaged(Mean):
        def forward(self, exposures):
            return exposures.mean(1) * torch.nan

    gray = np.zeros((5, 6), np.uint8)
    with pytest.raises(ValueError, match="not finite"):
        Fuser(on_device(Damaged())).fuse([gray, gray])
