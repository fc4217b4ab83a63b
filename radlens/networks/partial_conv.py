"""Partial convolutions, and the inpainter made of them: Liu et al., ECCV 2018; Major et al. 2020, section 2.

A mask says which pixels are known: 1 = known, 0 = hole. Masks relaxed to [0, 1] are allowed, so that a mask can be
optimised by its gradient.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radlens.errors import InvalidInput, InvalidParameter

__all__ = ["N_LAYERS", "PartialConvInpainter", "partial_conv"]

N_LAYERS = 8
"""Number of partial convolutions of the encoder, and of the decoder (Major et al. 2020, section 2)."""

_KERNELS = (7, 5, 5, 3, 3, 3, 3, 3)
"""Kernel sizes of the encoder (Liu et al. 2018, table 1); those of the decoder are 3."""

_GRID = 16
"""Sides are padded to a multiple of this number of pixels."""

_SLOPE = 0.2
"""Slope of the rectifiers of the decoder for negative values (Liu et al. 2018, section 3.2)."""

_LEAST_SHARE = 1e-6
"""Share of a window below which the ratio does not grow further; only masks far below 1 % come near."""


def partial_conv(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0
) -> tuple[Tensor, Tensor]:
    """Convolve the known pixels alone: Liu et al. 2018, equations 1 and 2.

    With ``sum(1) = c k^2`` the output is ``W (x * mask) * sum(1) / sum(mask) + bias`` where ``sum(mask) > 0``,
    otherwise 0. Padding counts as unknown. Major et al. 2020 print the ratio ``1 / sum(mask)``: the factor ``sum(1)``
    is the same everywhere, so that the weights absorb it; Liu's ratio keeps the scale of an ordinary convolution. A
    uniformly grey mask cancels: the output is that of the known image.

    Args:
        x: ``(b, c, h, w)``, float.
        mask: ``(b, c, h, w)``, from 0, unknown, to 1, known.
        weight: ``(o, c, k, k)``.
        bias: ``(o,)``.
        stride: of the windows.
        padding: zeros at each side.

    Returns:
        Features ``(b, o, h', w')``, and the new mask in the same shape: 1 where ``sum(mask) > 0``, otherwise 0.

    Raises:
        InvalidInput: The shapes do not fit.
    """
    if x.ndim != 4 or mask.shape != x.shape:
        raise InvalidInput(f"x and mask must have one shape (b, c, h, w), got {tuple(x.shape)} and {tuple(mask.shape)}")
    if weight.ndim != 4 or weight.shape[1] != x.shape[1]:
        raise InvalidInput(f"weight must have shape (o, {x.shape[1]}, k, k), got {tuple(weight.shape)}")
    share = _known_share(mask.mean(dim=1, keepdim=True), weight, stride, padding)
    features, known = _normalised(F.conv2d(x * mask, weight, None, stride, padding), share, bias)
    return features, known.expand_as(features)


def _known_share(mask: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Return ``sum(mask) / sum(1)`` of each window, ``(b, 1, h', w')``, for a mask ``(b, 1, h, w)``."""
    # A mean has no rounding where all pixels are unknown, which a convolution of some engines does.
    return F.avg_pool2d(mask, (weight.shape[2], weight.shape[3]), stride, padding)


def _normalised(convolved: Tensor, share: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    known = (share > 0).to(convolved.dtype)
    scaled = convolved / share.clamp_min(_LEAST_SHARE)
    return (scaled if bias is None else scaled + bias[:, None, None]) * known, known


class _Layer(nn.Module):
    """A partial convolution of one or two stacks of maps that share one mask each, with norm and rectifier."""

    def __init__(self, n_in: int, n_out: int, kernel: int, *, norm: bool, slope: float | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2)
        nn.init.kaiming_normal_(self.conv.weight, a=slope or 0.0)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.norm = nn.BatchNorm2d(n_out) if norm else None
        self.slope = slope

    def forward(self, parts: Sequence[tuple[Tensor, Tensor]], stride: int) -> tuple[Tensor, Tensor]:
        """Map stacks ``(b, c, h, w)`` with masks ``(b, 1, h, w)`` to features and their mask ``(b, 1, h', w')``."""
        weight, padding = self.conv.weight, self.conv.kernel_size[0] // 2
        known = torch.cat([maps * mask for maps, mask in parts], dim=1)
        # The mean over all channels: each stack counts by its number of maps.
        mask = sum(mask * (maps.shape[1] / weight.shape[1]) for maps, mask in parts)
        share = _known_share(mask, weight, stride, padding)  # type: ignore[arg-type]
        found, known_out = _normalised(F.conv2d(known, weight, None, stride, padding), share, self.conv.bias)
        if self.norm is not None:
            found = self.norm(found)
        return (found if self.slope is None else F.leaky_relu(found, self.slope)), known_out


class PartialConvInpainter(nn.Module):
    """Fill the unknown pixels of images: a U-Net of eight partial convolutions down and eight up.

    Layers of the encoder halve both sides as long as they are even; the following ones keep the size. So 576x448 is
    halved six times, to 9x7, and two layers stay there. Sides that are not multiples of 16 are padded with unknown
    pixels below and at the right. The decoder enlarges to the nearest pixel and takes the maps of the encoder beside
    its own, the last layer the image itself, each with its own mask.

    Args:
        n_channels: Channels of the images.
        width: Maps of the first layer; the following have twice as many up to eight times.

    Raises:
        InvalidParameter: A number is below 1.
    """

    def __init__(self, n_channels: int = 1, width: int = 64) -> None:
        super().__init__()
        for name, value in (("n_channels", n_channels), ("width", width)):
            if value < 1:
                raise InvalidParameter(f"{name} must be at least 1, got {value}")
        self.n_channels, self.width = n_channels, width
        counts = [n_channels, *(width * min(2**k, 8) for k in range(N_LAYERS))]
        self.encoder = nn.ModuleList(
            _Layer(counts[k], counts[k + 1], _KERNELS[k], norm=k > 0, slope=0.0) for k in range(N_LAYERS)
        )
        # The last layer has neither norm nor rectifier: it gives the pixels.
        self.decoder = nn.ModuleList(
            _Layer(counts[k + 1] + counts[k], counts[k], 3, norm=k > 0, slope=_SLOPE if k else None)
            for k in reversed(range(N_LAYERS))
        )

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """Return the inpainted images ``(b, c, h, w)``, known pixels included as the network draws them.

        Args:
            images: ``(b, c, h, w)``; the values in holes have no effect.
            masks: ``(b, 1, h, w)``, from 0, hole, to 1, known.
        """
        height, width = images.shape[2:]
        below, right = -height % _GRID, -width % _GRID
        if below or right:
            images, masks = F.pad(images, (0, right, 0, below)), F.pad(masks, (0, right, 0, below))
        maps, mask = images, masks
        passed, strides = [], []
        for layer in self.encoder:
            passed.append((maps, mask))
            strides.append(2 if maps.shape[2] % 2 == 0 and maps.shape[3] % 2 == 0 else 1)
            maps, mask = layer([(maps, mask)], strides[-1])
        for layer in self.decoder:
            beside = passed.pop()
            if strides.pop() == 2:
                maps, mask = (F.interpolate(each, scale_factor=2.0, mode="nearest") for each in (maps, mask))
            maps, mask = layer([(maps, mask), beside], 1)
        return maps[:, :, :height, :width]
