"""DeepFuse (Prabhakar, Srikar, Babu, ICCV 2017), in all its published forms.

    y1 --C1--C2--\\
                  (+)--C3--C4--C5-- y_hat
    y2 --C1--C2--/

C1 and C2 are shared by all exposures, fusion is tensor addition, C3 to C5 reconstruct.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from .network import Network


@dataclass(frozen=True)
class Architecture:
    """The numbers of a network, stored in its checkpoint, so that the file alone rebuilds it.

    The first two layers are the encoder, the others the decoder. `channels` are the outputs of all layers but the last,
    whose output is the image.
    """

    channels: tuple[int, ...] = (16, 32, 32, 16)
    kernels: tuple[int, ...] = (5, 7, 7, 5, 5)
    norm: bool = False  # BatchNorm after every convolution
    slope: float = 0.01  # of the LeakyReLU
    bias: bool = True
    # padding_mode of nn.Conv2d; zeros darken the picture's border
    padding: Literal["replicate", "zeros", "reflect", "circular"] = "replicate"
    output: str = "none"  # after the last layer: "none", "leaky_relu" or "sigmoid"
    image_channels: int = 1
    studio: bool = False  # whether it sees luminance as 16..235 of 0..255, as the authors' network
    stretched: bool = False  # whether its output is stretched to 0..255: the paper's loss leaves brightness free


def conv_layer(arch: Architecture, c_in: int, c_out: int, kernel: int, activation: str) -> nn.Sequential:
    """Returns convolution [, BatchNorm] [, activation]."""
    conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, padding_mode=arch.padding, bias=arch.bias)
    nn.init.kaiming_normal_(conv.weight, a=arch.slope)
    layers: list[nn.Module] = [conv]
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    if arch.norm:
        layers.append(nn.BatchNorm2d(c_out))
    if activation == "leaky_relu":
        layers.append(nn.LeakyReLU(arch.slope))
    elif activation == "sigmoid":
        layers.append(nn.Sigmoid())
    return nn.Sequential(*layers)


class DeepFuse(Network):
    """Every published DeepFuse: they differ in their `Architecture` only.

    `encoder.0` and `encoder.1` are the paper's C1 and C2; `decoder.0`, `.1` and `.2` are C3, C4 and C5.
    """

    def __init__(self, arch: Architecture = Architecture()):
        super().__init__()
        self.arch = arch
        sizes = (arch.image_channels, *arch.channels, arch.image_channels)
        activations = ["leaky_relu"] * len(arch.channels) + [arch.output]
        numbers = zip(sizes[:-1], sizes[1:], arch.kernels, activations, strict=True)
        layers = [conv_layer(arch, *layer) for layer in numbers]
        self.encoder, self.decoder = nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:])
        self.halo = sum(kernel // 2 for kernel in arch.kernels)  # pixels around an output pixel that it depends on

    def forward(self, exposures: torch.Tensor) -> torch.Tensor:
        """Returns the fused picture (N, image_channels, H, W), not clamped.

        Differs from the paper, which fuses two: the sum over K is scaled by 2 / K, to keep the amplitude of a pair.

        Args:
            exposures: (N, K, image_channels, H, W) in [0, 1]; K = 1 gives the same as the exposure twice.
        """
        n, k = exposures.shape[:2]
        features = self.encoder(exposures.flatten(0, 1)).unflatten(0, (n, k))
        return self.decoder(features.sum(1) * (2 / k))


ARCHITECTURES = {
    "DeepFuse": Architecture(),
    "DeepFuse_3x3": Architecture(kernels=(3, 3, 3, 3, 3)),
    "DeepFuse_authors": Architecture(
        channels=(32, 64, 64, 32, 16),
        kernels=(3, 5, 7, 5, 5, 7),
        bias=False,
        padding="zeros",
        output="leaky_relu",
        studio=True,
        stretched=True,
    ),
    "DeepFuse_bn": Architecture(norm=True, padding="zeros", output="sigmoid"),
}
