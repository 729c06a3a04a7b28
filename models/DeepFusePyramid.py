"""DeepFuse in a pyramid: it decides about a whole scene at a bounded size, full size is arithmetic.

The paper's network sees 25 pixels around each point: it keeps every detail and cannot know the scene. Here the same
scheme (shared encoder, addition of features, decoder) runs at each level of a Laplacian pyramid, from the whole scene
down to the pixels of a small copy. Full size needs no network: `DeepFusePyramid.fuse` says how it follows.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class PyramidArchitecture:
    """What a checkpoint stores of a `DeepFusePyramid`."""

    channels: int = 24
    depth: int = 5  # convolutions of the encoder, and as many of the decoder: 10 pixels of sight at every level
    halvings: int = 6  # from the pixels to the coarsest level
    slope: float = 0.1  # of the LeakyReLU
    decision_pixels: int = 131_072  # of the copy that the network sees, at most: twice as many gain nothing
    image_channels: int = 1  # luminance; colour follows the weights
    max_gap: float = 3.0  # stops between neighbours that are fused as they are; wider gaps are filled


def conv3x3s(sizes: Sequence[int], slope: float) -> nn.Sequential:
    """Returns 3x3 convolutions without padding from sizes[0] to sizes[-1] channels, with LeakyReLU between them."""
    layers: list[nn.Module] = []
    for c_in, c_out in itertools.pairwise(sizes):
        conv = nn.Conv2d(c_in, c_out, 3)
        nn.init.kaiming_normal_(conv.weight, a=slope)
        nn.init.zeros_(conv.get_parameter("bias"))
        layers += [conv, nn.LeakyReLU(slope, inplace=True)]
    return nn.Sequential(*layers[:-1])


class PyramidLevel(nn.Module):
    """A DeepFuse of 3x3 convolutions for a level of the pyramid, whose encoder also weighs its exposure."""

    def __init__(self, c_in: int, arch: PyramidArchitecture):
        super().__init__()
        c, self.depth = arch.channels, arch.depth
        self.encoder = conv3x3s([c_in, *[c] * (self.depth - 1), 1 + c], arch.slope)
        self.act = nn.LeakyReLU(arch.slope)
        self.decoder = conv3x3s([*[c] * self.depth, 1], arch.slope)
        nn.init.normal_(self.decoder[-1].get_parameter("weight"), 0, 0.01)  # at first the mean of the bands

    def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the fused band (N, 1, h, w) and the logarithms (N, K, h, w) of the exposures' weights.

        Features are added as in the paper, scaled by 2 / K: the decoder always meets the amplitude of a pair. Its
        correction goes on top of the mean of the bands, weighted by the softmax of the encoder's scores.

        Args:
            seen: what the encoder sees of each exposure, (N, K, c_in, h, w); the band first.
        """
        scores, total = self.encode(seen) if self.training else self.encode_in_turn(seen)
        log_weights = torch.log_softmax(scores, 1)
        weighted = (log_weights.exp() * seen[:, :, 0]).sum(1, keepdim=True)
        return weighted + self.decoder(total / pairs_in(seen)), log_weights

    def encode(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns scores (N, K, h, w), and features summed over K, (N, channels, h + 2 depth, w + 2 depth)."""
        inner = slice(self.depth, -self.depth)
        padded = F.pad(seen.flatten(0, 1), [2 * self.depth] * 4, mode="replicate")
        scores, features = self.encoder(padded).unflatten(0, (len(seen), -1)).tensor_split([1], 2)
        return scores[:, :, 0, inner, inner].clone(), self.act(features).sum(1)  # a view would hold the features

    def encode_in_turn(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the same, one exposure at a time: less memory, and less time on a CPU."""
        scores, total = self.encode(seen[:, :1])
        for one in seen[:, 1:].split(1, 1):
            score, features = self.encode(one)
            scores, total = torch.cat([scores, score], 1), total + features
        return scores, total


class DeepFusePyramid(nn.Module):
    """A small DeepFuse at every level of a Laplacian pyramid; one network serves all levels but the coarsest.

    Of an exposure the encoder sees its band (the detail of this level), its local brightness, what the coarser levels
    have fused so far, its mean over the whole picture, its contrast, and how the coarser levels weighed it.
    """

    name: str  # by which a checkpoint knows it

    def __init__(self, arch: PyramidArchitecture = PyramidArchitecture()):
        super().__init__()
        if arch.image_channels != 1:
            raise ValueError(
                f"a pyramid network is for gray (1-channel), not {arch.image_channels}-channel: use --gray"
            )
        self.arch = arch
        self.level, self.top = PyramidLevel(6, arch), PyramidLevel(5, arch)

    def forward(self, exposures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the fused luminance (N, 1, h, w), not clamped, and the logarithms (N, K, h, w) of the weights.

        Args:
            exposures: (N, K, 1, h, w) in [0, 1], K >= 2, of any size.
        """
        y, (h, w), side = exposures[:, :, 0], exposures.shape[-2:], 2**self.arch.halvings
        mean = y.mean((2, 3), keepdim=True)
        wide, high = ((pixels + side - 1) // side * side - pixels for pixels in (w, h))
        y = F.pad(y, (0, wide, 0, high), mode="replicate")  # every level halves evenly
        levels = [(y, y * y)]
        for _ in range(self.arch.halvings):
            brightness, square = levels[-1]
            levels.append((F.avg_pool2d(brightness, 2), F.avg_pool2d(square, 2)))

        y, contrast = self.describe(levels.pop())
        own = base = mean.mean(1, keepdim=True).expand_as(y)  # the coarsest band is what the scene has over its mean
        band, log_weights = self.top(torch.stack(self.centred(y, own, base, mean, contrast), 2))
        fused = base[:, :1] + band
        while levels:
            own, base, contrast, log_weights = map(double, (y, fused, contrast, log_weights))
            y, finer_contrast = self.describe(levels.pop())
            told = log_weights + pairs_in(mean).log()  # times K / 2: the even weight of any stack is that of a pair
            seen = torch.stack([*self.centred(y, own, base.expand_as(y), mean, contrast), told], 2)
            band, log_weights = self.level(seen)
            fused, contrast = base + band, finer_contrast
        return fused[..., :h, :w], log_weights[..., :h, :w]

    def fuse(self, exposures: torch.Tensor, factor: int = 1) -> torch.Tensor:
        """Returns the fused luminance (N, 1, H, W) of exposures (N, K, 1, H, W) in [0, 1], decided at a smaller size.

        fused = up(F - sum_k w_k q_k) + sum_k up(w_k) x_k, where q_k are the exposures at the decision's size, F and w_k
        the fused picture and the weights there, x_k the exposures, and `up` is bilinear: what the small copy lacks is
        blended by the same weights. `utils.util_blend` does the same to pictures.

        Args:
            factor: the sides of the picture are so many times those of the decision, and divisible by it.
        """
        x = exposures[:, :, 0]
        q = F.avg_pool2d(x, factor)
        fused, log_weights = self(q[:, :, None])
        weights = log_weights.exp()
        if factor == 1:
            return fused
        fused = fused - (weights * q).sum(1, keepdim=True)
        up = F.interpolate(torch.cat([fused, weights], 1), scale_factor=factor, mode="bilinear")
        return up[:, :1] + (up[:, 1:] * x).sum(1, keepdim=True)

    @staticmethod
    def describe(level: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns brightness and contrast (standard deviation) within each pixel, (N, K, h, w), of (mean, square)."""
        mean, square = level
        return mean, (square - mean**2).clamp(min=1e-6).sqrt()  # rounding can make a variance negative

    @staticmethod
    def centred(y, own, base, mean, contrast) -> list[torch.Tensor]:
        """Returns what the encoder sees of the exposures, (N, K, h, w) each, about 0."""
        return [y - own, own - 0.5, base - 0.5, mean.expand_as(y) - 0.5, contrast]


def pairs_in(stack: torch.Tensor) -> torch.Tensor:
    """Returns K / 2 of a stack (N, K, ...), as a tensor (1, 1, 1, 1): an exported graph would freeze a number."""
    return torch.ones_like(stack[0].flatten(1)[:, :1]).sum().reshape(1, 1, 1, 1) / 2


def double(level: torch.Tensor) -> torch.Tensor:
    """Returns a level (N, C, h, w) at twice its size, bilinearly."""
    return F.interpolate(level, [2 * side for side in level.shape[-2:]], mode="bilinear")
