"""DeepFuse (Prabhakar, Srikar, Babu, ICCV 2017), and the same network in a pyramid that sees the whole scene.

    y1 --C1--C2--\\
                  (+)--C3--C4--C5-- y_hat
    y2 --C1--C2--/

C1 and C2 are shared by all exposures, fusion is tensor addition, C3 to C5 reconstruct.
"""

from dataclasses import dataclass

import torch
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


ARCHITECTURES = {
    "DeepFuse": Architecture(),
    "DeepFuse_3x3": Architecture(kernels=(3, 3, 3, 3, 3)),
    "DeepFuse_authors": Architecture(
        channels=(32, 64, 64, 32, 16), kernels=(3, 5, 7, 5, 5, 7), bias=False, output="leaky_relu"
    ),
    "DeepFuse_bn": Architecture(norm=True, output="sigmoid"),
}
