"""Occlusion sensitivity: Zeiler & Fergus 2014, as used by Amanova et al. 2022, section 2.3.1."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from radlens.errors import InvalidParameter
from radlens.explainers.base import Differentiable, Explainer, register

__all__ = ["Occlusion", "occlusion"]

Window = tuple[int, slice, slice]


def occlusion(
    midpoint: Callable[[Tensor], Tensor], images: Tensor, *, window: int = 1, stride: int = 1, batch_size: int = 64
) -> Tensor:
    """Return by how much the score rises when a window of the image is set to 0.

    With ``window=1`` this is the paper's definition, ``midpoint(x with pixel i set to 0) - midpoint(x)`` at each
    pixel. Larger windows start at every ``stride``-th row and column and are cut at the image border; a pixel that
    several windows cover gets their mean, a pixel that none covers gets 0.

    Args:
        midpoint: maps ``(n, c, h, w)`` to a score ``(n,)``.
        images: ``(b, c, h, w)``, floating point. 0 is the mean of the training set if the images are normalised.
        window: side of the occluded square in pixels, at least 1; all channels are occluded together.
        stride: distance of neighbouring windows in pixels, at least 1.
        batch_size: occluded copies evaluated together, at least 1; they may be of different images.

    Returns:
        ``(b, c, h, w)``, dtype of ``images``, in units of the score.

    Raises:
        InvalidParameter: a parameter is out of range.
    """
    Occlusion(window, stride, batch_size)
    reference = midpoint(images)
    total, count = torch.zeros_like(images), torch.zeros_like(images)
    windows = _windows(tuple(images.shape), window, stride)
    while batch := list(islice(windows, batch_size)):
        occluded = images[[i for i, _, _ in batch]]
        for copy, (_, rows, cols) in zip(occluded, batch, strict=True):
            copy[:, rows, cols] = 0
        for score, (i, rows, cols) in zip(midpoint(occluded), batch, strict=True):
            total[i, :, rows, cols] += score - reference[i]
            count[i, :, rows, cols] += 1
    return total / count.clamp(min=1)


def _windows(shape: tuple[int, ...], window: int, stride: int) -> Iterator[Window]:
    for i in range(shape[0]):
        for top in range(0, shape[2], stride):
            for left in range(0, shape[3], stride):
                yield i, slice(top, top + window), slice(left, left + window)


@register("occlusion")
@dataclass(frozen=True)
class Occlusion(Explainer):
    """:func:`occlusion` of a model's score.

    Args:
        window: side of the occluded square in pixels, at least 1.
        stride: distance of neighbouring windows in pixels, at least 1.
        batch_size: occluded copies evaluated together, at least 1.
    """

    window: int = 1
    stride: int = 1
    batch_size: int = 64

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name in ("window", "stride", "batch_size"):
            if getattr(self, name) < 1:
                raise InvalidParameter(f"{name} must be at least 1, got {getattr(self, name)}")

    def _attribute(self, model: Differentiable, images: Tensor) -> Tensor:
        return occlusion(model.score, images, window=self.window, stride=self.stride, batch_size=self.batch_size)
