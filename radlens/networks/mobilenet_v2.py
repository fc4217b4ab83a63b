"""MobileNetV2: Sandler et al., CVPR 2018, Table 2, with torchvision's names of the weights; MONAI does not have it."""

import torch
from torch import Tensor, nn

__all__ = ["STAGES", "mobilenet_v2_features"]

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, number of blocks, and stride of the first block of each stage (t, c, n, s in the paper)."""


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, with a residual connection where the shapes are equal."""

    def __init__(self, n_inputs: int, n_outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = n_inputs * expansion
        layers = [_convolution(n_inputs, width, 1)] if expansion > 1 else []
        layers.append(_convolution(width, width, 3, stride=stride, groups=width))
        project = [nn.Conv2d(width, n_outputs, 1, bias=False), nn.BatchNorm2d(n_outputs)]
        self.conv = nn.Sequential(*layers, *project)
        self.adds = stride == 1 and n_inputs == n_outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(b, n_outputs, h / stride, w / stride)``."""
        return torch.add(x, self.conv(x)) if self.adds else self.conv(x)


def mobilenet_v2_features(n_channels: int) -> nn.Sequential:
    """Return the layers that map ``(b, n_channels, h, w)`` to ``(b, 1280, h / 32, w / 32)``."""
    blocks: list[nn.Module] = [_convolution(n_channels, 32, 3, stride=2)]
    channels = 32
    for expansion, width, count, stride in STAGES:
        for number in range(count):
            blocks.append(InvertedResidual(channels, width, stride if number == 0 else 1, expansion))
            channels = width
    features = nn.Sequential(*blocks, _convolution(channels, 1280, 1))
    for part in features.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out")
    return features


def _convolution(n_inputs: int, n_outputs: int, size: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(n_inputs, n_outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_outputs), nn.ReLU6())
