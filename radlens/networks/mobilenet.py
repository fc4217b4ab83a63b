"""MobileNet: Howard et al., arXiv 1704.04861, Table 1. MONAI and torchvision do not have it."""

from torch import nn

from radlens.errors import InvalidParameter

__all__ = ["STAGES", "MobileNet", "mobilenet_features"]

STAGES = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Channels and stride of each depthwise separable convolution, for a width multiplier of 1.

Table 1 of the paper prints stride 2 for the last one too, although its output has the size of its input: 7x7.
"""

_FIRST = 32
"""Number of channels of the first convolution, which is not separable."""


class MobileNet(nn.Sequential):
    """Layers that map images ``(b, n_channels, h, w)`` to feature maps ``(b, 1024 width, h / 32, w / 32)``.

    A depthwise 3x3 convolution and a pointwise 1x1 convolution follow each other, each with batch normalisation and
    ReLU. With `radlens.networks.create_classifier` they become a classifier.

    Args:
        n_channels: number of channels of the images, at least 1.
        width: width multiplier (section 3.3), by which the channels of every layer are multiplied, above 0.

    Raises:
        InvalidParameter: a number is out of range.
    """

    def __init__(self, n_channels: int = 1, *, width: float = 1.0) -> None:
        if n_channels < 1:
            raise InvalidParameter(f"n_channels must be at least 1, got {n_channels}")
        if not 0 < width < float("inf"):
            raise InvalidParameter(f"width must be above 0, got {width}")
        channels = _scaled(_FIRST, width)
        layers = [_convolution(n_channels, channels, 3, stride=2)]
        for base, stride in STAGES:
            layers.append(_convolution(channels, channels, 3, stride=stride, groups=channels))
            layers.append(_convolution(channels, _scaled(base, width), 1))
            channels = _scaled(base, width)
        super().__init__(*layers)
        self.n_features = channels
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out")


def mobilenet_features(n_channels: int) -> MobileNet:
    """Return the layers of the full width, which map ``(b, n_channels, h, w)`` to ``(b, 1024, h / 32, w / 32)``."""
    return MobileNet(n_channels)


def _scaled(n: int, width: float) -> int:
    return max(round(n * width), 1)


def _convolution(n_inputs: int, n_outputs: int, size: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(n_inputs, n_outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_outputs), nn.ReLU())
