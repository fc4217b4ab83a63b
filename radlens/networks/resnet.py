"""ResNet-18 and ResNet-50: He et al., CVPR 2016, Table 1; layers, weights and initialisation are MONAI's.

As in torchvision, the stem has stride 2 (MONAI's default, 1, is four times as slow) and the shortcuts have no bias. The
names of the weights are torchvision's.
"""

from collections import OrderedDict

from monai.networks.nets.resnet import ResNet, ResNetBlock, ResNetBottleneck, get_inplanes
from torch import Tensor, nn

__all__ = ["resnet18_features", "resnet50_features"]


class BasicBlock(ResNetBlock):
    """MONAI's block, with a separate ReLU module for each use."""

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        self.act, self.act2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, c, h, w)`` to ``(b, planes, h / stride, w / stride)``."""
        y = self.act(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.act2(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(ResNetBottleneck):
    """MONAI's block, with a separate ReLU module for each use."""

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        self.act, self.act2, self.act3 = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, c, h, w)`` to ``(b, 4 planes, h / stride, w / stride)``."""
        y = self.act(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.act3(y + (x if self.downsample is None else self.downsample(x)))


def resnet18_features(n_channels: int) -> nn.Sequential:
    """Return the layers that map ``(b, n_channels, h, w)`` to ``(b, 512, h / 32, w / 32)``."""
    return _features(BasicBlock, [2, 2, 2, 2], n_channels)


def resnet50_features(n_channels: int) -> nn.Sequential:
    """Return the layers that map ``(b, n_channels, h, w)`` to ``(b, 2048, h / 32, w / 32)``."""
    return _features(Bottleneck, [3, 4, 6, 3], n_channels)


def _features(block: type[ResNetBlock | ResNetBottleneck], layers: list[int], n_channels: int) -> nn.Sequential:
    whole = ResNet(
        block,
        layers,
        get_inplanes(),
        spatial_dims=2,
        n_input_channels=n_channels,
        conv1_t_stride=2,
        feed_forward=False,
        bias_downsample=False,
        act=("relu", {"inplace": False}),  # hooks of explainers read the inputs of activations afterwards
    )
    names = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return nn.Sequential(OrderedDict((name, whole.get_submodule(name)) for name in names))
