"""DeepFuse in a pyramid: the network decides on a small copy of the scene; the full size follows by arithmetic.

The paper's network sees 25x25 pixels: it keeps every detail but does not know the scene. Here the same scheme (shared
encoder, addition of features, decoder) runs at each level of a Laplacian pyramid of the small copy, from the whole
scene down to single pixels. `utils.fusing.blend` shows the full size as the small copy was decided.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .network import Network


@dataclass(frozen=True)
class PyramidArchitecture:
    """The numbers of a `DeepFusePyramid`, stored in its checkpoint."""

    channels: int = 24
    depth: int = 5  # 3x3 convolutions of the encoder, and of the decoder: each level sees 10 pixels to every side
    halvings: int = 6  # of the copy's sides, down to the coarsest level
    fine_levels: int = 2  # the finest levels, which have most of the pixels: a smaller network serves them
    fine_channels: int = 8
    fine_depth: int = 2
    slope: float = 0.1  # of the LeakyReLU
    decision_pixels: int = 65_536  # of the copy that the network sees; large pictures have larger ones
    image_channels: int = 1  # luminance; colour follows the weights
    exposures: int = 5  # that it sees of a scene's light, see `Response.expose`; 0: the shots as they are


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
    """A DeepFuse of 3x3 convolutions for one level of the pyramid; its encoder also scores each exposure."""

    def __init__(self, c_in: int, channels: int, depth: int, slope: float):
        super().__init__()
        self.depth = depth
        self.encoder = conv3x3s([c_in, *[channels] * (depth - 1), 1 + channels], slope)
        self.act = nn.LeakyReLU(slope)
        self.decoder = conv3x3s([*[channels] * depth, 1], slope)
        nn.init.normal_(self.decoder[-1].get_parameter("weight"), 0, 0.01)  # starts near the bands' mean

    def forward(self, *seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the fused band (N, 1, h, w) and the logarithms (N, K, h, w) of the exposures' weights.

        Features are added as in the paper and scaled by 2 / K, to keep the amplitude of a pair. The fused band is the
        mean of the exposures' bands, weighted by the softmax of the encoder's scores, plus the decoder's correction.

        Args:
            seen: what the encoder sees of the exposures, see `encode`, (N, K, h, w) each.
        """
        scores, total = self.encode_together(seen) if self.training else self.encode_in_turn(seen)
        scores = scores.float()  # --amp gives fewer bits
        scores = scores - scores.detach().amax(1, keepdim=True)  # softmax by parts: ONNX Runtime's own is slow here
        shares = scores.exp()
        share = shares.sum(1, keepdim=True)
        weighted = (shares * (seen[0] - seen[1])).sum(1, keepdim=True) / share
        return weighted + self.decoder(total[:, 1:] / pairs_in(scores)), scores - share.log()

    def encode(self, y, own, base, mean, contrast, *coarser: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns score (N, h, w) and features (N, 1 + channels, h + 2 depth, w + 2 depth), the first to be ignored.

        Args:
            y, own, base, mean, contrast, coarser: what the encoder sees of one exposure, (N, h, w) each.
        """
        inner = slice(self.depth, -self.depth)
        seen = torch.stack([y - own, own - 0.5, base - 0.5, mean - 0.5, contrast, *coarser], 1)  # around 0
        found = self.encoder(F.pad(seen, [2 * self.depth] * 4, mode="replicate"))
        return found[:, 0, inner, inner].clone(), self.act(found)  # a view would hold the features

    def encode_together(self, seen: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns scores (N, K, h, w), and features summed over K."""
        scores, features = (x.unflatten(0, seen[0].shape[:2]) for x in self.encode(*(x.flatten(0, 1) for x in seen)))
        return scores, features.sum(1)

    def encode_in_turn(self, seen: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the same, one exposure at a time: less memory, and less time on a CPU."""
        scores, total = list[torch.Tensor](), torch.zeros(())
        for one in zip(*(x.unbind(1) for x in seen), strict=True):
            score, features = self.encode(*one)
            scores, total = [*scores, score], total + features
        return torch.stack(scores, 1), total


class DeepFusePyramid(Network):
    """A small DeepFuse at every level of a Laplacian pyramid, in three sizes: the coarsest, the finest, the others.

    For each exposure the encoder sees: its band (the detail of this level), its local brightness, the picture fused so
    far by the coarser levels, its mean over the whole picture, its contrast, and its weight at the coarser level.
    """

    def __init__(self, arch: PyramidArchitecture = PyramidArchitecture()):
        super().__init__()
        if arch.image_channels != 1:
            raise ValueError(
                f"a pyramid network is for gray (1-channel), not {arch.image_channels}-channel: use --gray"
            )
        self.arch = arch
        numbers = arch.channels, arch.depth, arch.slope
        self.level, self.top = PyramidLevel(6, *numbers), PyramidLevel(5, *numbers)
        if arch.fine_levels:
            self.fine = PyramidLevel(6, arch.fine_channels, arch.fine_depth, arch.slope)

    def forward(self, exposures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the fused luminance (N, 1, h, w), not clamped, and the logarithms (N, K, h, w) of the weights.

        Args:
            exposures: (N, K, 1, h, w) in [0, 1], K >= 2, of any size.
        """
        y, (h, w), side = exposures[:, :, 0], exposures.shape[-2:], 2**self.arch.halvings
        mean = y.mean((2, 3), keepdim=True)
        wide, high = ((pixels + side - 1) // side * side - pixels for pixels in (w, h))
        y = F.pad(y, (0, wide, 0, high), mode="replicate")  # so that all levels halve evenly
        levels = [(y, y * y)]
        for _ in range(self.arch.halvings):
            brightness, square = levels[-1]
            levels.append((F.avg_pool2d(brightness, 2), F.avg_pool2d(square, 2)))

        y, contrast = self.describe(levels.pop())
        own = base = mean.mean(1, keepdim=True).expand_as(y)  # the coarsest band is relative to the mean
        band, log_weights = self.top(y, own, base, mean.expand_as(y), contrast)
        fused = base[:, :1] + band
        while levels:
            coarser = log_weights + pairs_in(mean).log()  # weight times K / 2: equal ones look like a pair's for any K
            own, base, contrast, coarser = map(double, (y, fused, contrast, coarser))
            y, finer_contrast = self.describe(levels.pop())
            network = self.fine if len(levels) < self.arch.fine_levels else self.level
            band, log_weights = network(y, own, base.expand_as(y), mean.expand_as(y), contrast, coarser)
            fused, contrast = base + band, finer_contrast
        return fused[..., :h, :w], log_weights[..., :h, :w]

    @staticmethod
    def describe(level: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns brightness and contrast (standard deviation) in each pixel, (N, K, h, w) both, of (mean, square)."""
        mean, square = level
        return mean, (square - mean**2).clamp(min=1e-6).sqrt()  # rounding can make a variance negative


def pairs_in(stack: torch.Tensor) -> torch.Tensor:
    """Returns K / 2 of a stack (N, K, ...) as a tensor (1, 1, 1, 1), so that an exported graph does not fix K."""
    return torch.ones_like(stack[0].flatten(1)[:, :1]).sum().reshape(1, 1, 1, 1) / 2


def double(level: torch.Tensor) -> torch.Tensor:
    """Returns a level (N, C, h, w) at twice its size, bilinearly."""
    return F.interpolate(level, [2 * side for side in level.shape[-2:]], mode="bilinear")
