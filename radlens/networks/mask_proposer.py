"""A network that proposes the masks of a counterfactual search in one pass; the idea is that of Lenis et al. 2020."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radlens.errors import InvalidParameter

__all__ = ["MaskProposer"]

_N_LEVELS = 5
"""Number of times that the images are halved: a mass and what surrounds it lie within the field of view."""

_GRID = 2**_N_LEVELS

_MOST_MAPS = 8
"""Largest number of maps of a level, as a multiple of the first level's."""


class MaskProposer(nn.Module):
    """Map images to the pixels that have to be replaced to change the class: a U-Net (Ronneberger et al. 2015).

    The first level works at half the resolution: masks are smooth. Sides that are not multiples of 32 are padded with
    the smallest value of each image below and at the right.

    Args:
        n_channels: Channels of the images.
        classes: Classes whose masks the network proposes, one output map each.
        width: Maps of the first level; the following have twice as many up to eight times.

    Raises:
        InvalidParameter: A number is below 1, or the classes are none, negative or repeated.
    """

    def __init__(self, n_channels: int = 1, classes: Sequence[int] = (1,), width: int = 16) -> None:
        super().__init__()
        for name, value in (("n_channels", n_channels), ("width", width)):
            if value < 1:
                raise InvalidParameter(f"{name} must be at least 1, got {value}")
        if not classes or min(classes) < 0 or len(set(classes)) != len(classes):
            raise InvalidParameter(f"classes must be different numbers of classes, got {tuple(classes)}")
        self.n_channels, self.classes, self.width = n_channels, tuple(classes), width
        counts = [width * min(2**k, _MOST_MAPS) for k in range(_N_LEVELS)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([n_channels, *counts], counts, strict=False))
        self.up = nn.ModuleList(_block(counts[k] + counts[k - 1], counts[k - 1]) for k in range(_N_LEVELS - 1, 0, -1))
        self.last = nn.Conv2d(width, len(self.classes), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(b, k, h, w)`` of the ``k`` classes for images ``(b, c, h, w)``; positive: to be replaced."""
        height, width = images.shape[2:]
        below, right = -height % _GRID, -width % _GRID
        if below or right:
            least = images.amin(dim=(2, 3), keepdim=True)
            images = F.pad(images - least, (0, right, 0, below)) + least
        maps, passed = images, []
        for block in self.down:
            maps = block(F.avg_pool2d(maps, 2))
            passed.append(maps)
        passed.pop()
        for block in self.up:
            maps = F.interpolate(maps, scale_factor=2.0, mode="nearest")
            maps = block(torch.cat([maps, passed.pop()], dim=1))
        found = F.interpolate(self.last(maps), scale_factor=2.0, mode="bilinear", align_corners=False)
        return found[:, :, :height, :width]


def _block(n_in: int, n_out: int) -> nn.Sequential:
    """Return two convolutions with batch normalisation and rectifiers."""
    layers: list[nn.Module] = []
    for count in (n_in, n_out):
        layers += [nn.Conv2d(count, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
    return nn.Sequential(*layers)
