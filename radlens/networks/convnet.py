"""The ConvNet of Katzmann et al. 2021, section 3.2: four blocks of strided convolution, batch normalisation and ReLU.

The paper gives kernels and strides; kernels of 3x3 with zero padding are ours, and convolutions have no bias, which the
normalisation would remove.
"""

from collections import OrderedDict

from torch import nn

__all__ = ["KERNELS", "SIDE", "convnet_features"]

KERNELS = (32, 64, 128, 256)
"""Number of kernels of each block."""

SIDE = 64
"""Rows and columns of an image: the dense layer sees each place of the last feature maps, so their size is fixed."""


def convnet_features(n_channels: int) -> nn.Sequential:
    """Return the layers that map ``(b, n_channels, h, w)`` to ``(b, 256, h / 8, w / 8)``."""
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (before, after) in enumerate(zip((n_channels, *KERNELS), KERNELS, strict=False)):
        stride = 1 if number == 0 else 2
        blocks[f"block{number + 1}"] = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
        )
    return nn.Sequential(blocks)
