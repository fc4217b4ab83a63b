"""Small classifiers of the kinds that explanations are asked for, with their graphs in float64."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo import InvertedResidual, randomised

from radlens.graphs import ClassifierGraphs, classifier_graphs


def plain() -> nn.Module:
    """Convolutions, ReLU, max pooling, the mean of the last maps, a dense layer: two logits."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    )


class Residual(nn.Module):
    """A residual block in which every ReLU is a layer of its own."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, 2, padding=1, bias=False)
        self.norm1, self.relu1 = nn.BatchNorm2d(n_out), nn.ReLU()
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)
        self.around = nn.Sequential(nn.Conv2d(n_in, n_out, 1, 2, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Halve the image."""
        y = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(self.norm2(self.conv2(y)) + self.around(x))


class TinyResNet(nn.Module):
    """A ResNet whose max pooling overlaps: three logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 4, 7, 2, padding=3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)
        )
        self.block = Residual(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, 3, h, w)`` to logits."""
        return self.head(self.block(self.stem(x)).mean((2, 3)))


def mobile() -> nn.Module:
    """Inverted residuals with ReLU6: three logits."""
    stem = [nn.Conv2d(3, 6, 3, 2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU6()]
    blocks = [InvertedResidual(6, 6, 1, 2), InvertedResidual(6, 8, 2, 2)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 3))


class Efficient(nn.Module):
    """Squeeze and excitation, and swish, as functions: one logit, as in EfficientNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, 2, padding=1, bias=False), nn.BatchNorm2d(6)
        self.squeeze, self.excite = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)
        self.conv2, self.norm2 = nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, 3, h, w)`` to a logit."""
        x = _swish(self.norm1(self.conv1(x)))
        weight = self.excite(_swish(self.squeeze(F.adaptive_avg_pool2d(x, 1))))
        x = _swish(self.norm2(self.conv2(x * torch.sigmoid(weight))))
        return self.head(x.mean((2, 3)))


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


NETWORKS = {"plain": plain, "resnet": TinyResNet, "mobile": mobile, "efficient": Efficient}
"""Makers of classifiers for images of 1 (plain) or 3 channels."""


@cache
def network(name: str) -> nn.Module:
    """Return a classifier in float64, in evaluation mode, the same one each time."""
    torch.manual_seed(0)
    return randomised(NETWORKS[name]()).double().requires_grad_(False)


def images(name: str, n: int = 3) -> Tensor:
    """Return ``n`` random images in float64."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 1 if name == "plain" else 3, 20, 24, dtype=torch.float64, generator=generator)


def weights(name: str, n: int = 3) -> Tensor:
    """Return random weights of the logits."""
    n_outputs = {"plain": 2, "efficient": 1}.get(name, 3)
    return torch.randn(n, n_outputs, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@cache
def graphs(name: str) -> ClassifierGraphs:
    """Return the graphs of a classifier, compiled from one image."""
    return classifier_graphs(network(name), images(name, 1), n_outputs=weights(name).shape[1])
