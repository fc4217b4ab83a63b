"""Image classifiers by name: feature maps, global average pooling and one dense layer.

Class activation maps require this form (Zhou et al., CVPR 2016, section 2; Byra et al. 2022, Fig. 2). Only the ConvNet
of Katzmann et al. 2021 is flattened instead of pooled. ResNet and EfficientNet come from MONAI, which is imported on
use, because its import takes seconds.
"""

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from torch import Tensor, nn

from radlens.errors import InvalidParameter
from radlens.extras import named

__all__ = ["CLASSIFIERS", "FIXED_SHAPES", "ClassifierNetwork", "FlattenedNetwork", "create_classifier"]


class _Architecture(NamedTuple):
    """How a network is created.

    Attributes:
        module: module of `radlens.networks`.
        function: function of that module that takes the number of channels and returns the layers up to the last
            feature maps.
        width: number of channels of the last feature maps.
        dropout: dropout rate before the dense layer.
        shape: rows and columns of the only images that the network takes, whose feature maps are flattened; None for
            networks of images of any size.
        stride: rows of an image over those of its feature maps; needed with ``shape``.
    """

    module: str
    function: str
    width: int
    dropout: float
    shape: tuple[int, int] | None = None
    stride: int = 1


_ARCHITECTURES = {
    "resnet50": _Architecture("resnet", "resnet50_features", 2048, 0.0),
    "mobilenet": _Architecture("mobilenet", "mobilenet_features", 1024, 0.0),
    "mobilenet_v2": _Architecture("mobilenet_v2", "mobilenet_v2_features", 1280, 0.2),
    "efficientnet_b0": _Architecture("efficientnet", "efficientnet_b0_features", 1280, 0.2),
    "resnet18": _Architecture("resnet", "resnet18_features", 512, 0.0),
    "convnet": _Architecture("convnet", "convnet_features", 256, 0.0, (64, 64), 8),
}

CLASSIFIERS = tuple(_ARCHITECTURES)
"""Names that `create_classifier` accepts."""

FIXED_SHAPES = {name: plan.shape for name, plan in _ARCHITECTURES.items() if plan.shape}
"""Rows and columns of the images of each network that takes only one size."""


class ClassifierNetwork(nn.Module):
    """Classifier of images ``(b, c, h, w)`` float32 with logits ``(b, n_outputs)``.

    Each activation module is used once per forward pass, as the hooks of guided backpropagation and DeepLIFT require.

    Attributes:
        features: layers from the images to the last feature maps ``(b, k, h', w')``.
        dropout: dropout between the pooled feature maps and the dense layer.
        head: dense layer from ``k`` to ``n_outputs``.
    """

    def __init__(self, features: nn.Module, head: nn.Linear, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = features
        self.dropout = nn.Dropout(dropout)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.dropout(self.features(images).mean(dim=(2, 3))))


class FlattenedNetwork(ClassifierNetwork):
    """Classifier whose dense layer has a weight for each place of the feature maps: Katzmann et al. 2021.

    Attributes:
        head: dense layer from ``k h' w'`` to ``n_outputs``, so that all images have one size.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.dropout(self.features(images).flatten(1)))


def create_classifier(name: str, *, n_outputs: int, n_channels: int = 1) -> ClassifierNetwork:
    """Return a network with random weights, in training mode.

    Args:
        name: one of `CLASSIFIERS`.
        n_outputs: number of logits: 1 for two classes with a sigmoid, otherwise the number of classes.
        n_channels: number of channels of the images, at least 1.

    Raises:
        InvalidParameter: an unknown name, or a number below 1.
        MissingDependency: MONAI is not installed.
    """
    if name not in _ARCHITECTURES:
        raise InvalidParameter(f"network must be one of {', '.join(CLASSIFIERS)}, got {name!r}")
    for what, value in (("n_outputs", n_outputs), ("n_channels", n_channels)):
        if value < 1:
            raise InvalidParameter(f"{what} must be at least 1, got {value}")
    plan = _ARCHITECTURES[name]
    with named():
        make: Callable[[int], nn.Module] = getattr(import_module(f"radlens.networks.{plan.module}"), plan.function)
    if plan.shape is None:
        return ClassifierNetwork(make(n_channels), _head(plan.width, n_outputs), dropout=plan.dropout)
    places = (plan.shape[0] // plan.stride) * (plan.shape[1] // plan.stride)
    return FlattenedNetwork(make(n_channels), _head(plan.width * places, n_outputs), dropout=plan.dropout)


def _head(width: int, n_outputs: int) -> nn.Linear:
    head = nn.Linear(width, n_outputs)
    nn.init.normal_(head.weight, 0.0, 0.01)
    nn.init.zeros_(head.bias)
    return head
