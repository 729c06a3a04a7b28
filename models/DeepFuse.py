"""DeepFuse (Prabhakar, Srikar, Babu, ICCV 2017), and the same network in a pyramid that sees the whole scene.

    y1 --C1--C2--\\
                  (+)--C3--C4--C5-- y_hat
    y2 --C1--C2--/

C1 and C2 are shared by all exposures, fusion is tensor addition, C3 to C5 reconstruct.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
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
    padding: str = "replicate"  # padding_mode of nn.Conv2d; with zeros the picture's border goes dark
    output: str = "none"  # after the last layer: "none", "leaky_relu" or "sigmoid"
    image_channels: int = 1


def conv_layer(arch: Architecture, c_in: int, c_out: int, kernel: int, activation: str) -> nn.Sequential:
    """Returns convolution [, BatchNorm] [, activation]."""
    conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, padding_mode=arch.padding, bias=arch.bias)
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

    # At full resolution, at half of it, and at all coarser levels, which cost a twelfth a channel and see far.
    channels: tuple[int, ...] = (8, 24, 24)
    depths: tuple[int, ...] = (2, 2, 5)  # convolutions of the encoder, and as many of the decoder
    top_size: int = 8  # pixels: no level's short side is smaller
    slope: float = 0.1  # of the LeakyReLU
    image_channels: int = 1


def halve(level: torch.Tensor) -> torch.Tensor:
    """Returns the 2x2 means (N, C, ceil(H / 2), ceil(W / 2)) of (N, C, H, W); odd borders are repeated."""
    return F.avg_pool2d(level, 2, ceil_mode=True)


def conv3x3s(sizes: Sequence[int], slope: float) -> nn.Sequential:
    """Returns 3x3 convolutions without padding from sizes[0] to sizes[-1] channels, with LeakyReLU between them."""
    layers: list[nn.Module] = []
    for c_in, c_out in itertools.pairwise(sizes):
        conv = nn.Conv2d(c_in, c_out, 3)
        nn.init.kaiming_normal_(conv.weight, a=slope)
        nn.init.zeros_(conv.bias)
        layers += [conv, nn.LeakyReLU(slope)]
    return nn.Sequential(*layers[:-1])


class PyramidLevel(nn.Module):
    """A DeepFuse of 3x3 convolutions for one level of the pyramid, whose encoder also weighs its exposure."""

    def __init__(self, c_in: int, channels: int, depth: int, c_out: int, slope: float):
        super().__init__()
        self.encoder = conv3x3s([c_in, *[channels] * (depth - 1), 1 + channels], slope)
        self.act = nn.LeakyReLU(slope)
        self.decoder = conv3x3s([*[channels] * depth, c_out], slope)
        nn.init.normal_(self.decoder[-1].weight, 0, 0.01)  # the start is the weighted mean of the bands
        self.reach = depth  # pixels that the encoder sees in each direction; the decoder sees as many more
        self.halo = 2 * depth

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns score (N, 1, h - 2 reach, w - 2 reach) and features (N, C, ...) of an exposure (N, c_in, h, w)."""
        score, features = self.encoder(x).tensor_split([1], 1)
        return score, self.act(features)

    def forward(self, bands: list[torch.Tensor], context: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the fused band (N, c_out, h, w) and the logarithms (N, K, h, w) of K / 2 times the weights.

        That factor makes the even weight of any stack that of a pair.

        Args:
            bands: of the exposures, (N, c_out, h, w).
            context: what else describes them, (N, c_in - c_out, h, w).
        """
        inputs = [F.pad(torch.cat(x, 1), [self.halo] * 4, mode="replicate") for x in zip(bands, context, strict=True)]
        scores, features = zip(*map(self.encode, inputs), strict=True)
        inner = slice(self.reach, -self.reach)
        log_weights = torch.log_softmax(torch.cat(scores, 1)[..., inner, inner], 1)
        weighted = sum(w * band for w, band in zip(log_weights.exp().split(1, 1), bands, strict=True))
        return weighted + self.decoder(sum(features) * (2 / len(features))), log_weights + math.log(len(bands) / 2)


class DeepFusePyramid(nn.Module):
    """A small DeepFuse at every level of a Laplacian pyramid, from the whole scene down to the pixels.

    At each level the encoder, shared by the exposures, sees of an exposure its band (the detail of this level), its
    local brightness and contrast, its mean over the whole picture, what the coarser levels have fused so far, and how
    they weighed the exposure. Features are added as in the paper; the decoder's correction goes on top of the bands'
    mean, weighted by the encoder's scores. One network serves full resolution, one half of it, one all coarser levels,
    and one the coarsest, where the band is the picture itself.
    """

    def __init__(self, arch: PyramidArchitecture = PyramidArchitecture()):
        super().__init__()
        self.arch = arch
        c = arch.image_channels
        sizes = list(zip(arch.channels, arch.depths, strict=True))
        self.levels = nn.ModuleList(PyramidLevel(5 * c + 1, *size, c, arch.slope) for size in sizes)
        self.top = PyramidLevel(5 * c, *sizes[-1], c, arch.slope)

    def forward(self, *exposures: torch.Tensor) -> torch.Tensor:
        """Returns the fused picture of two or more exposures (N, image_channels, H, W) in [0, 1], not clamped."""
        means = [y.mean((2, 3), keepdim=True) for y in exposures]
        levels = list(zip(*(self.pyramid(self.moments(y)) for y in exposures), strict=True))
        state = self.fuse_top(levels[-1], means)
        for i in reversed(range(len(levels) - 1)):
            state = self.fuse_level(levels[i], levels[i + 1], state, means, i)
        return state[:, : self.arch.image_channels]

    @staticmethod
    def moments(y: torch.Tensor) -> torch.Tensor:
        """Returns an exposure (N, C, H, W) and its square, (N, 2C, H, W): level 0 of its pyramid."""
        return torch.cat([y, y * y], 1)

    def pyramid(self, level: torch.Tensor) -> list[torch.Tensor]:
        """Returns a level (N, 2C, h, w) and its 2x2 means, again and again, down to a short side of top_size."""
        levels = [level]
        while min(levels[-1].shape[-2:]) >= 2 * self.arch.top_size:
            levels.append(halve(levels[-1]))
        return levels

    def network(self, number: int) -> PyramidLevel:
        """Returns the network of a level; 0 is full resolution."""
        return self.levels[min(number, len(self.levels) - 1)]

    def level_halo(self, number: int) -> int:
        """Returns how far from a side inside the picture a tile of a level differs from the whole, in pixels."""
        return self.network(number).halo + 2  # two more for the upsampling

    def fuse_top(self, tops: list[torch.Tensor], means: list[torch.Tensor]) -> torch.Tensor:
        """Returns the state (N, C + K, h, w) of the coarsest level: fused picture, logarithms of the weights.

        Args:
            tops: the exposures' coarsest levels, (N, 2C, h, w).
            means: the exposures' means over the whole picture, (N, C, 1, 1).
        """
        y, contrasts = zip(*map(self._describe, tops), strict=True)
        mean = (sum(means) / len(means)).expand_as(y[0])
        return self._fuse(self.top, y, [mean] * len(y), mean, means, zip(contrasts))

    def fuse_level(
        self,
        fine: list[torch.Tensor],
        coarse: list[torch.Tensor],
        state: torch.Tensor,
        means: list[torch.Tensor],
        number: int,
    ) -> torch.Tensor:
        """Returns the state (N, C + K, h, w) of a level, or of a tile of it.

        A tile starts at even rows and columns; its pixels nearer than `level_halo` to a side inside the picture are not
        those of the whole.

        Args:
            fine: the exposures at this level, (N, C or 2C, h, w): their squares are not needed.
            coarse: the exposures at the next coarser level, (N, 2C, ceil(h / 2), ceil(w / 2)).
            state: of that level.
            means: the exposures' means over the whole picture, (N, C, 1, 1).
            number: of the level; 0 is full resolution.
        """
        c, size = self.arch.image_channels, fine[0].shape[-2:]
        coarse = [torch.cat(self._describe(y), 1) for y in coarse]
        state, *coarse = (
            F.interpolate(y, scale_factor=2, mode="bilinear")[..., : size[0], : size[1]] for y in (state, *coarse)
        )
        base, *log_weights = state.split([c] + [1] * len(fine), 1)
        bases, contrasts = zip(*(y.split(c, 1) for y in coarse), strict=True)
        return self._fuse(
            self.network(number), [y[:, :c] for y in fine], bases, base, means, zip(contrasts, log_weights, strict=True)
        )

    def _describe(self, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the brightness and the contrast (standard deviation) within each pixel of a level."""
        mean, square = level.split(self.arch.image_channels, 1)
        return mean, (square - mean**2).clamp(min=1e-6).sqrt()

    @staticmethod
    def _fuse(
        level: PyramidLevel,
        exposures: Sequence[torch.Tensor],
        bases: Sequence[torch.Tensor],
        base: torch.Tensor,
        means: Sequence[torch.Tensor],
        others: Iterable[tuple[torch.Tensor, ...]],
    ) -> torch.Tensor:
        """Returns the state of a level; an exposure's band is what it has over its own base.

        Args:
            level: the network of this level.
            exposures: (N, C, h, w) each; so are `bases`, the exposures without their bands, and `base`, the same of
                what is fused.
            means: of the exposures, (N, C, 1, 1) each.
            others: what else the encoder sees of each exposure, (N, any, h, w).
        """
        bands = [y - own for y, own in zip(exposures, bases, strict=True)]
        context = [
            torch.cat([own - 0.5, base - 0.5, mean.expand_as(own) - 0.5, *other], 1)
            for own, mean, other in zip(bases, means, others, strict=True)
        ]
        band, log_weights = level(bands, context)
        return torch.cat([base + band, log_weights], 1)


ARCHITECTURES = {
    "DeepFuse": Architecture(),
    "DeepFuse_3x3": Architecture(kernels=(3, 3, 3, 3, 3)),
    "DeepFuse_authors": Architecture(
        channels=(32, 64, 64, 32, 16), kernels=(3, 5, 7, 5, 5, 7), bias=False, padding="zeros", output="leaky_relu"
    ),
    "DeepFuse_bn": Architecture(norm=True, padding="zeros", output="sigmoid"),
    "DeepFuse_pyramid": PyramidArchitecture(),
}
