"""EfficientNet-B0: Tan and Le, ICML 2019, Table 1; layers, weights and initialisation are MONAI's.

MONAI follows TensorFlow: it pads at the right and at the bottom only, and batch normalisation has epsilon 1e-3 and
momentum 0.01. Here, as in torchvision, padding is symmetric, with epsilon 1e-5 and momentum 0.1, so that torchvision's
weights can be loaded.
"""

import torch
from monai.networks.nets.efficientnet import EfficientNetBN, MBConvBlock, drop_connect
from torch import Tensor, nn

__all__ = ["efficientnet_b0_features"]

_NORM = ("batch", {"eps": 1e-5, "momentum": 0.1})


class InvertedBottleneck(nn.Module):
    """The layers of one of MONAI's blocks, with a separate activation module for each use."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        assert isinstance(block, MBConvBlock)
        expand = [block._expand_conv, block._bn0, nn.SiLU()] if block.expand_ratio != 1 else []
        self.expand = nn.Sequential(*expand)
        self.filter = nn.Sequential(_centred(block._depthwise_conv), block._bn1, nn.SiLU())
        self.squeeze = nn.Sequential(block._se_adaptpool, block._se_reduce, nn.SiLU(), block._se_expand)
        self.project = nn.Sequential(block._project_conv, block._bn2)
        self.adds = block.stride == 1 and block.in_channels == block.out_channels
        self.drop_rate = float(block.drop_connect_rate or 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(b, n_outputs, h / stride, w / stride)``; in training the residual is dropped at random."""
        y = self.filter(self.expand(x))
        y = self.project(torch.sigmoid(self.squeeze(y)) * y)
        return x + drop_connect(y, p=self.drop_rate, training=self.training) if self.adds else y


def efficientnet_b0_features(n_channels: int) -> nn.Sequential:
    """Return the layers that map ``(b, n_channels, h, w)`` to ``(b, 1280, h / 32, w / 32)``."""
    whole = EfficientNetBN("efficientnet-b0", pretrained=False, in_channels=n_channels, num_classes=1, norm=_NORM)
    stages = [nn.Sequential(*map(InvertedBottleneck, stage.children())) for stage in whole._blocks]
    stem = nn.Sequential(_centred(whole._conv_stem), whole._bn0, nn.SiLU())
    top = nn.Sequential(whole._conv_head, whole._bn1, nn.SiLU())
    return nn.Sequential(stem, *stages, top)


def _centred(convolution: nn.Module) -> nn.Module:
    """Give a convolution symmetric padding."""
    assert isinstance(convolution, nn.Conv2d)
    rows, columns = convolution.kernel_size
    convolution.padding = (rows // 2, columns // 2)
    return convolution
