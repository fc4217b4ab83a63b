"""The two generators of CycleGAN activation maximisation: Katzmann et al. 2021, sections 2.4, 3.2 and Fig. 4."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radlens.errors import InvalidInput, InvalidParameter

__all__ = ["Form", "Generator", "GeneratorPair", "convolutions", "kernels"]

Form = Literal["paper", "recommended"]
"""``"paper"``: rectifiers, zero padding, learned up-convolutions (Ronneberger et al. 2015) and a sigmoid at the end;
the paper prints depth and kernels and leaves those open. ``"recommended"``: the network adds a change to its input, and
has leaky rectifiers, nearest-neighbour upsampling and reflected borders. No form has normalisation layers."""

DEPTH = 3
"""Number of times that the images are halved (section 3.2)."""

_GRID = 2**DEPTH

LEAST_SIDE = _GRID + 1
"""Shortest side of images: the lowest stage reflects its border, which needs two pixels after padding."""

N_CONVOLUTIONS = 3
"""Convolutions of a stage (section 3.2)."""

_SLOPE = 0.1
"""Slope of the leaky rectifiers below zero."""

_FIRST_CHANGE = 1e-2
"""Standard deviation of the last weights at the start: a residual generator starts near the identity."""


def kernels(width: int) -> tuple[int, ...]:
    """Return the number of kernels of the stages 0 to 3: 48, 96, 192 and 384 for the width of the paper, 48.

    Raises:
        InvalidParameter: The width is below 1.
    """
    if width < 1:
        raise InvalidParameter(f"width must be at least 1, got {width}")
    return tuple(width * 2**stage for stage in range(DEPTH + 1))


def convolutions(n_in: int, n_out: int, form: Form, n: int = N_CONVOLUTIONS) -> nn.Sequential:
    """Return the ``n`` convolutions of a stage, each followed by its activation."""
    if form not in get_args(Form):
        raise InvalidParameter(f"form must be one of {', '.join(get_args(Form))}, got {form!r}")
    layers: list[nn.Module] = []
    for count in (n_in, *[n_out] * (n - 1)):
        borders: Literal["zeros", "reflect"] = "zeros" if form == "paper" else "reflect"
        layers.append(nn.Conv2d(count, n_out, 3, padding=1, padding_mode=borders))
        layers.append(nn.ReLU() if form == "paper" else nn.LeakyReLU(_SLOPE))
    return nn.Sequential(*layers)


class Generator(nn.Module):
    """Map images to images that a classifier takes for another class: a U-Net of depth 3 (Ronneberger et al. 2015).

    The network works with values from 0 to 1, and its input and output are in the units of the preprocessed image.
    Sides that are not multiples of 8 are padded below and at the right with the last row and column.

    Args:
        n_channels: Channels of the images.
        width: Kernels of the first stage; each following stage has twice as many.
        form: See `Form`.
        value_range: Values of the preprocessed images that are 0 and 1 for the network.
        moments: Mean and standard deviation of the images on this scale.

    Raises:
        InvalidParameter: A value is out of range.
    """

    low: Tensor
    span: Tensor
    moments: Tensor

    def __init__(
        self,
        n_channels: int = 1,
        width: int = 48,
        *,
        form: Form = "recommended",
        value_range: tuple[float, float] = (0.0, 1.0),
        moments: tuple[float, float] = (0.2, 0.25),
    ) -> None:
        super().__init__()
        if n_channels < 1:
            raise InvalidParameter(f"n_channels must be at least 1, got {n_channels}")
        if not value_range[1] > value_range[0]:
            raise InvalidParameter(f"value_range must be two rising values, got {value_range}")
        if not moments[1] > 0:
            raise InvalidParameter(f"the standard deviation of the images must be above 0, got {moments[1]}")
        counts = kernels(width)
        self.n_channels, self.width, self.form = n_channels, width, form
        self.down = nn.ModuleList(convolutions(a, b, form) for a, b in zip((n_channels, *counts), counts, strict=False))
        passed = 1 if form == "paper" else 2
        self.up = nn.ModuleList(
            convolutions(counts[k] + passed * counts[k], counts[k], form) for k in reversed(range(DEPTH))
        )
        # A learned up-convolution halves the number of maps, upsampling keeps it.
        ways = [nn.ConvTranspose2d(counts[k + 1], counts[k], 2, 2) for k in reversed(range(DEPTH))]
        self.enlarge = nn.ModuleList(ways if form == "paper" else [nn.Upsample(scale_factor=2.0) for _ in ways])
        self.last = nn.Conv2d(counts[0], n_channels, 1)
        if form == "recommended":
            nn.init.normal_(self.last.weight, 0.0, _FIRST_CHANGE)
            nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        low, high = value_range
        self.register_buffer("low", torch.tensor(float(low)))
        self.register_buffer("span", torch.tensor(float(high) - float(low)))
        self.register_buffer("moments", torch.tensor([float(each) for each in moments]))

    def forward(self, images: Tensor) -> Tensor:
        """Return images ``(b, c, h, w)`` like those given.

        Raises:
            InvalidInput: A side is shorter than 9 pixels.
        """
        height, width = images.shape[2:]
        if min(height, width) < LEAST_SIDE:
            raise InvalidInput(f"images must have at least {LEAST_SIDE} rows and columns, got {height}x{width}")
        unit = (images - self.low) / self.span
        maps = (unit - self.moments[0]) / self.moments[1]
        below, right = -height % _GRID, -width % _GRID
        if below or right:
            maps = F.pad(maps, (0, right, 0, below), mode="replicate")
        found = self._network(maps)[:, :, :height, :width].to(images.dtype)
        if self.form == "paper":
            return self.low + self.span * torch.sigmoid(found)
        return images + self.span * torch.tanh(found)

    def _network(self, maps: Tensor) -> Tensor:
        passed: list[Tensor] = []
        for number, stage in enumerate(self.down):
            maps = stage(F.max_pool2d(maps, 2) if number else maps)
            passed.append(maps)
        passed.pop()
        for enlarge, stage in zip(self.enlarge, self.up, strict=True):
            maps = stage(torch.cat([passed.pop(), enlarge(maps)], dim=1))
        return self.last(maps)  # type: ignore[no-any-return]


class GeneratorPair(nn.Module):
    """Both generators: G+ towards one class and G- towards another; they get the same images.

    Args:
        n_channels: Channels of the images.
        width: See `Generator`.
        form: See `Generator`.
        classes: Number of the class of G-, and of G+.
        value_range: See `Generator`.
        moments: See `Generator`.

    Raises:
        InvalidParameter: The classes are not two different numbers from 0 on, or a value is out of range.
    """

    def __init__(
        self,
        n_channels: int = 1,
        width: int = 48,
        *,
        form: Form = "recommended",
        classes: tuple[int, int] = (0, 1),
        value_range: tuple[float, float] = (0.0, 1.0),
        moments: tuple[float, float] = (0.2, 0.25),
    ) -> None:
        super().__init__()
        if len(classes) != 2 or classes[0] == classes[1] or min(classes) < 0:
            raise InvalidParameter(f"classes must be two different numbers of classes, got {tuple(classes)}")
        self.classes = (int(classes[0]), int(classes[1]))
        self.plus, self.minus = (
            Generator(n_channels, width, form=form, value_range=value_range, moments=moments) for _ in range(2)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return G+(x) and G-(x) of images x ``(b, c, h, w)``."""
        return self.plus(images), self.minus(images)
