"""Loss of the inpainter: Liu et al. 2018, section 3.3, whose weights are those of its equation 7."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LossTerms", "gram", "inpainting_loss"]

Features = Callable[[Tensor], Sequence[Tensor]]
"""Maps images ``(b, c, h, w)`` to maps of several layers."""

VALID, HOLE, PERCEPTUAL, STYLE, VARIATION = 1.0, 6.0, 0.05, 120.0, 0.1
"""Weights of the terms."""


@dataclass(frozen=True, eq=False)
class LossTerms:
    """Terms of the loss of a batch, without their weights.

    Attributes:
        valid: Mean absolute error of known pixels, relative to all pixels.
        hole: The same of pixels in holes.
        perceptual: Mean absolute difference of features, for the output and for the output in the holes of the image.
        style: The same of the Gram matrices of the features.
        variation: Absolute differences of neighbouring pixels in and around holes, relative to all pixels.
    """

    valid: Tensor
    hole: Tensor
    perceptual: Tensor
    style: Tensor
    variation: Tensor

    def total(self) -> Tensor:
        """Return the weighted sum."""
        return (
            VALID * self.valid
            + HOLE * self.hole
            + PERCEPTUAL * self.perceptual
            + STYLE * self.style
            + VARIATION * self.variation
        )


def inpainting_loss(drawn: Tensor, images: Tensor, masks: Tensor, features: Features) -> LossTerms:
    """Return the terms of the loss.

    Args:
        drawn: Output of the inpainter ``(b, c, h, w)``.
        images: Images ``(b, c, h, w)``.
        masks: ``(b, 1, h, w)``, 0 in holes.
        features: Perceptual network; no gradient goes to its weights.
    """
    difference = (drawn - images).abs()
    filled = masks * images + (1 - masks) * drawn
    with torch.no_grad():
        real = features(images)
    perceptual, style = images.new_zeros(()), images.new_zeros(())
    for found in (features(drawn), features(filled)):
        for own, true in zip(found, real, strict=True):
            perceptual = perceptual + (own - true).abs().mean()
            # Equation 5 divides the sum over the c x c entries by c squared.
            style = style + (gram(own) - gram(true)).abs().mean()
    return LossTerms(
        (masks * difference).mean(), ((1 - masks) * difference).mean(), perceptual, style, _variation(filled, masks)
    )


def gram(maps: Tensor) -> Tensor:
    """Return the Gram matrices ``(b, c, c)`` of maps ``(b, c, h, w)``, divided by ``c h w``: equation 5."""
    flat = maps.flatten(2)
    return flat @ flat.transpose(1, 2) / maps[0].numel()


def _variation(filled: Tensor, masks: Tensor) -> Tensor:
    """Return equation 6: the variation in the holes, dilated by one pixel."""
    near = F.max_pool2d(1 - masks, 3, 1, 1)
    down = (near[:, :, 1:] * near[:, :, :-1] * (filled[:, :, 1:] - filled[:, :, :-1]).abs()).sum()
    across = (near[..., 1:] * near[..., :-1] * (filled[..., 1:] - filled[..., :-1]).abs()).sum()
    return (down + across) / filled.numel()
