"""DeepFuse (Prabhakar, Srikar, Babu, ICCV 2017), and the same network in a pyramid that sees the whole scene.

    y1 --C1--C2--\\
                  (+)--C3--C4--C5-- y_hat
    y2 --C1--C2--/

C1 and C2 are shared by all exposures, fusion is tensor addition, C3 to C5 reconstruct.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Architecture:
    """What a checkpoint stores, so that the network can be rebuilt from the file alone.

    The first two layers are the encoder, the others the decoder; `channels` are the layers' outputs before the last,
    whose output is the image.
    """

    channels: tuple[int, ...] = (16, 32, 32, 16)
    kernels: tuple[int, ...] = (5, 7, 7, 5, 5)
    norm: bool = False  # BatchNorm after every convolution
    slope: float = 0.01  # of the LeakyReLU
    bias: bool = True
    padding: str = "zeros"  # a padding_mode of nn.Conv2d, or "valid": none at all
    output: str = "none"  # after the last layer: "none", "leaky_relu" or "sigmoid"
    image_channels: int = 1


def conv_layer(arch: Architecture, c_in: int, c_out: int, kernel: int, activation: str) -> nn.Sequential:
    """Returns convolution [, BatchNorm] [, activation]."""
    pad = {"padding": 0} if arch.padding == "valid" else {"padding": kernel // 2, "padding_mode": arch.padding}
    conv = nn.Conv2d(c_in, c_out, kernel, bias=arch.bias, **pad)
    nn.init.kaiming_normal_(conv.weight, a=arch.slope)
    layers = [conv]
    if arch.bias:
        nn.init.zeros_(conv.bias)
    if arch.norm:
        layers.append(nn.BatchNorm2d(c_out))
    if activation == "leaky_relu":
        layers.append(nn.LeakyReLU(arch.slope))
    elif activation == "sigmoid":
        layers.append(nn.Sigmoid())
    return nn.Sequential(*layers)


class DeepFuse(nn.Module):
    """Every published DeepFuse: they differ in their `Architecture` only."""

    def __init__(self, arch: Architecture = Architecture()):
        super().__init__()
        self.arch = arch
        sizes = (arch.image_channels, *arch.channels, arch.image_channels)
        activations = ["leaky_relu"] * len(arch.channels) + [arch.output]
        layers = [
            conv_layer(arch, *layer) for layer in zip(sizes[:-1], sizes[1:], arch.kernels, activations, strict=True)
        ]
        self.encoder, self.decoder = nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:])
        self.halo = sum(kernel // 2 for kernel in arch.kernels)

    def encode(self, y: torch.Tensor) -> torch.Tensor:
        """Returns the features (N, C, H, W) of one exposure (N, image_channels, H, W) in [0, 1]."""
        return self.encoder(y)

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the picture (N, image_channels, H, W) of the features of a pair, added."""
        return self.decoder(features)

    def forward(self, *exposures: torch.Tensor) -> torch.Tensor:
        """Returns the fused picture of two or more exposures (N, image_channels, H, W) in [0, 1], not clamped.

        Differs from the paper: it fuses two; here the sum over K is scaled by 2 / K, the amplitude of a pair.
        """
        return self.decode(sum(map(self.encode, exposures)) * (2 / len(exposures)))


@dataclass(frozen=True)
class PyramidArchitecture:
    """What a checkpoint stores of a `DeepFusePyramid`."""

    fine: int = 8  # channels at full resolution, where they cost most
    coarse: int = 24  # channels at all other levels
    top_size: int = 8  # pixels: no level's short side is smaller
    slope: float = 0.1  # of the LeakyReLU
    image_channels: int = 1


class PyramidLevel(nn.Module):
    """A DeepFuse of 3x3 convolutions for one level of the pyramid, whose encoder also weighs its exposure."""

    halo = 4

    def __init__(self, arch: PyramidArchitecture, channels: int):
        super().__init__()
        self.c1 = nn.Conv2d(4 * arch.image_channels, channels, 3)
        self.c2 = nn.Conv2d(channels, 1 + channels, 3)
        self.c3 = nn.Conv2d(channels, channels, 3)
        self.c4 = nn.Conv2d(channels, arch.image_channels, 3)
        self.act = nn.LeakyReLU(arch.slope)
        for conv in (self.c1, self.c2, self.c3):
            nn.init.kaiming_normal_(conv.weight, a=arch.slope)
        nn.init.normal_(self.c4.weight, 0, 0.01)  # the start is the weighted mean of the bands
        for conv in (self.c1, self.c2, self.c3, self.c4):
            nn.init.zeros_(conv.bias)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the score (N, 1, h - 4, w - 4) and the features (N, C, h - 4, w - 4) of an exposure (N, C', h, w)."""
        score, features = self.c2(self.act(self.c1(x))).tensor_split([1], 1)
        return score, self.act(features)

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the correction (N, image_channels, h - 4, w - 4) from the added features (N, C, h, w)."""
        return self.c4(self.act(self.c3(features)))

    def forward(self, bands: list[torch.Tensor], surround: list[torch.Tensor]) -> torch.Tensor:
        """Returns the fused band from the exposures' bands (N, image_channels, h, w) and what else describes them."""
        inputs = [F.pad(torch.cat(x, 1), [self.halo] * 4, mode="replicate") for x in zip(bands, surround, strict=True)]
        scores, features = zip(*map(self.encode, inputs), strict=True)
        weights = torch.softmax(torch.stack(scores)[..., 2:-2, 2:-2], 0)
        weighted = sum(weight * band for weight, band in zip(weights, bands, strict=True))
        return weighted + self.decode(sum(features) * (2 / len(features)))


class DeepFusePyramid(nn.Module):
    """A small DeepFuse at every level of a Laplacian pyramid, from the whole scene down to the pixels.

    At each level the encoder, shared by the exposures, sees an exposure's band (its detail at this level), its local
    brightness, its mean over the whole picture, and what the coarser levels have fused so far. Features are added as
    in the paper; the decoder's correction goes on top of the bands' mean, weighted by the encoder's scores. One
    network serves full resolution, one the coarsest level, where the band is the picture itself, one all in between.
    """

    def __init__(self, arch: PyramidArchitecture = PyramidArchitecture()):
        super().__init__()
        self.arch = arch
        self.fine, self.middle, self.top = (PyramidLevel(arch, c) for c in (arch.fine, arch.coarse, arch.coarse))

    def pyramid(self, y: torch.Tensor) -> list[torch.Tensor]:
        """Returns y (N, C, H, W) and its 2x2 means, again and again, down to a short side of at least top_size."""
        levels = [y]
        while min(levels[-1].shape[-2:]) >= 2 * self.arch.top_size:
            levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True))
        return levels

    def fuse_top(self, tops: list[torch.Tensor], means: list[torch.Tensor]) -> torch.Tensor:
        """Returns the fused coarsest level (N, C, h, w) of the exposures' coarsest levels and means (N, C, 1, 1)."""
        mean = (sum(means) / len(means)).expand_as(tops[0])
        return self._fuse(self.top, tops, [mean] * len(tops), mean, means)

    def fuse_level(
        self,
        fine: list[torch.Tensor],
        coarse: list[torch.Tensor],
        fused: torch.Tensor,
        means: list[torch.Tensor],
        finest: bool,
    ) -> torch.Tensor:
        """Returns a fused level (N, C, h, w), or a tile of it.

        A tile starts at even rows and columns; its pixels nearer than `halo` to a side inside the picture are not
        those of the whole.

        Args:
            fine: the exposures at this level, (N, C, h, w).
            coarse: the exposures at the next coarser level, (N, C, ceil(h / 2), ceil(w / 2)).
            fused: that level, fused.
            means: the exposures' means over the whole picture, (N, C, 1, 1).
            finest: whether this is full resolution.
        """
        *bases, base = (self._up(y, fine[0].shape[-2:]) for y in (*coarse, fused))
        return self._fuse(self.fine if finest else self.middle, fine, bases, base, means)

    halo = PyramidLevel.halo + 2  # two more for the upsampling

    def forward(self, *exposures: torch.Tensor) -> torch.Tensor:
        """Returns the fused picture of two or more exposures (N, image_channels, H, W) in [0, 1], not clamped."""
        means = [y.mean((2, 3), keepdim=True) for y in exposures]
        levels = list(zip(*map(self.pyramid, exposures), strict=True))
        fused = self.fuse_top(levels[-1], means)
        for i in reversed(range(len(levels) - 1)):
            fused = self.fuse_level(levels[i], levels[i + 1], fused, means, finest=i == 0)
        return fused

    @staticmethod
    def _up(y: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return F.interpolate(y, scale_factor=2, mode="bilinear")[..., : size[0], : size[1]]

    @staticmethod
    def _fuse(level: PyramidLevel, exposures, bases, base, means) -> torch.Tensor:
        """Returns base + the fused band; an exposure's band is what it has over its own base."""
        bands = [y - own for y, own in zip(exposures, bases, strict=True)]
        surround = [
            torch.cat([own, base, mean.expand_as(base)], 1) - 0.5 for own, mean in zip(bases, means, strict=True)
        ]
        return base + level(bands, surround)


ARCHITECTURES = {
    "DeepFuse": Architecture(),
    "DeepFuse_3x3": Architecture(kernels=(3, 3, 3, 3, 3)),
    "DeepFuse_authors": Architecture(
        channels=(32, 64, 64, 32, 16), kernels=(3, 5, 7, 5, 5, 7), bias=False, output="leaky_relu"
    ),
    "DeepFuse_bn": Architecture(norm=True, output="sigmoid"),
    "DeepFuse_pyramid": PyramidArchitecture(),
}
