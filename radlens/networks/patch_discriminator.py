"""The multi-scale discriminator of pairs of images: Katzmann et al. 2021, section 2.3 and Fig. 5; Isola et al. 2017."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radlens.errors import InvalidInput, InvalidParameter
from radlens.networks.generators import DEPTH, N_CONVOLUTIONS, Form, convolutions, kernels

__all__ = ["PatchDiscriminator"]

_SCALES = (2, 3)
"""Stages whose maps are judged: a pixel there is a patch of the image."""


class PatchDiscriminator(nn.Module):
    """Tell for each patch which of two images is real.

    The stages of `radlens.networks.Generator` see both images with the same weights. The maps of both after the stages
    2 and 3 are joined, and at each place two neurons with a softmax say which one is real. The order is random at each
    place and restored afterwards, so that neither neuron becomes that of the real images.

    Args:
        n_channels: Channels of the images.
        width: Kernels of the first stage.
        form: See `radlens.networks.generators.Form`.
        n_convolutions: Convolutions of a stage, at least 1: 3 in the paper.
        moments: Mean and standard deviation of the images.

    Raises:
        InvalidParameter: A value is out of range.
    """

    moments: Tensor

    def __init__(
        self,
        n_channels: int = 1,
        width: int = 48,
        *,
        form: Form = "recommended",
        n_convolutions: int = N_CONVOLUTIONS,
        moments: tuple[float, float] = (0.2, 0.25),
    ) -> None:
        super().__init__()
        for name, value in (("n_channels", n_channels), ("n_convolutions", n_convolutions)):
            if value < 1:
                raise InvalidParameter(f"{name} must be at least 1, got {value}")
        counts = kernels(width)
        self.stages = nn.ModuleList(
            convolutions(a, b, form, n_convolutions) for a, b in zip((n_channels, *counts), counts, strict=False)
        )
        self.heads = nn.ModuleList(nn.Conv2d(2 * counts[scale], 2, 1) for scale in _SCALES)
        self.register_buffer("moments", torch.tensor([float(each) for each in moments]))

    def forward(
        self,
        first: Tensor,
        second: Tensor,
        *,
        swaps: Sequence[Tensor] | None = None,
        random: torch.Generator | None = None,
    ) -> list[Tensor]:
        """Return logarithms of probabilities ``(b, 2, h', w')`` for each scale: that the first, the second is real.

        Args:
            first: Images ``(b, c, h, w)`` with values from 0 to 1.
            second: As many images of the same shape.
            swaps: Whether the order is reversed at each place, ``(b, 1, h', w')`` bool for each scale; drawn if None.
            random: Generator of the drawn order.

        Raises:
            InvalidInput: The shapes differ.
        """
        if first.shape != second.shape:
            raise InvalidInput(f"both images must have one shape, got {tuple(first.shape)} and {tuple(second.shape)}")
        features = self._features(torch.cat([first, second]))
        found = []
        for number, (maps, head) in enumerate(zip(features, self.heads, strict=True)):
            one, other = maps.chunk(2)
            if swaps is None:
                drawn = torch.rand(len(one), 1, *one.shape[2:], generator=random) < 0.5
                swap = drawn.to(one.device)
            else:
                swap = swaps[number]
            joined = torch.cat([torch.where(swap, other, one), torch.where(swap, one, other)], dim=1)
            logs = F.log_softmax(head(joined).float(), dim=1)
            found.append(torch.where(swap, logs.flip(1), logs))
        return found

    def _features(self, images: Tensor) -> list[Tensor]:
        maps = (images - self.moments[0]) / self.moments[1]
        found = []
        for number, stage in enumerate(self.stages[: DEPTH + 1]):
            maps = stage(F.max_pool2d(maps, 2) if number else maps)
            if number in _SCALES:
                found.append(maps)
        return found
