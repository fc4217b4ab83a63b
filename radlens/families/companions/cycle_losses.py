"""Losses of CycleGAN activation maximisation: Katzmann et al. 2021, sections 2.2 to 2.5.

Every loss gives one number per image, ``(b,)``. Images have values from 0 to 1. Deviations from the paper stand where a
loss is defined; those of the preset ``recommended`` are weights and constants that a caller passes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from radlens.errors import InvalidInput

__all__ = [
    "activation_loss",
    "adversarial_loss",
    "cycle_loss",
    "discriminator_accuracy",
    "discriminator_loss",
    "dssim",
    "similarity_loss",
]

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation of the Gaussian window, pixels: Wang et al. 2003, whom the paper cites."""

N_SCALES = 3
"""Scales of MS-DSSIM: 64, 32 and 16 pixels for the images of the paper, which does not state them."""


def dssim(x: Tensor, y: Tensor, c1: float = 0.01, c2: float = 0.03) -> Tensor:
    """Return the multi-scale structural dissimilarity of images as eq. (1) prints it, ``(b,)``.

    The printed denominator has a factor 2: the loss is ``1 - SSIM / 2``, 0.5 for equal images, where the usual
    structural dissimilarity ``(1 - SSIM) / 2`` is 0. Both differ by the constant 0.5, so they have the same gradient.
    ``c1`` and ``c2`` enter as they are; Wang et al. square constants of this size (0.01 and 0.03 times the range).

    The paper does not define "multi-scale". Here the value is the mean over the scales: the images, and the images
    averaged over squares of 2x2 and of 4x4 pixels; a scale smaller than the window is left out. A scale has the mean
    over all channels and over all places where the window fits.

    Args:
        x: ``(b, c, h, w)``, values from 0 to 1, at least 11 rows and columns.
        y: The same shape.
        c1: Constant of the means.
        c2: Constant of the variances.

    Raises:
        InvalidInput: The shapes differ, or the images are smaller than the window.
    """
    if x.shape != y.shape or x.ndim != 4:
        raise InvalidInput(f"images must have one shape (b, c, h, w), got {tuple(x.shape)} and {tuple(y.shape)}")
    if min(x.shape[2:]) < WINDOW:
        raise InvalidInput(f"images must have at least {WINDOW} rows and columns, got {tuple(x.shape[2:])}")
    scales = []
    for _ in range(N_SCALES):
        scales.append(_dssim_of_scale(x, y, c1, c2))
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        if min(x.shape[2:]) < WINDOW:
            break
    return torch.stack(scales).mean(dim=0)


def _dssim_of_scale(x: Tensor, y: Tensor, c1: float, c2: float) -> Tensor:
    mean_x, mean_y, square_x, square_y, product = _blurred(torch.cat([x, y, x * x, y * y, x * y])).chunk(5)
    covariance = product - mean_x * mean_y
    variances = (square_x - mean_x * mean_x) + (square_y - mean_y * mean_y)
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = 2 * (mean_x * mean_x + mean_y * mean_y + c1) * (variances + c2)
    return (1 - above / below).mean(dim=(1, 2, 3))


def _blurred(images: Tensor) -> Tensor:
    """Return the weighted means of the windows that lie in the images."""
    places = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    weights = torch.exp(-(places**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    b, c, h, w = images.shape
    single = images.reshape(b * c, 1, h, w)
    found = F.conv2d(F.conv2d(single, weights.view(1, 1, WINDOW, 1)), weights.view(1, 1, 1, WINDOW))
    return found.reshape(b, c, *found.shape[2:])


def cycle_loss(x: Tensor, back: Tensor, c1: float = 0.01, c2: float = 0.03) -> Tensor:
    """Return eq. (2), ``(b,)``: half the sum of the mean absolute difference and of MS-DSSIM.

    Args:
        x: Images.
        back: ``G-(G+(x))`` or ``G+(G-(x))``.
        c1: See `dssim`.
        c2: See `dssim`.
    """
    return (_l1(x, back) + dssim(x, back, c1, c2)) / 2


def similarity_loss(x: Tensor, changed: Tensor, c1: float = 0.01, c2: float = 0.03, *, l1: float = 0.0) -> Tensor:
    """Return the loss of section 2.2 that keeps ``G+(x)`` and ``G-(x)`` near x, ``(b,)``: MS-DSSIM alone.

    Args:
        x: Images.
        changed: ``G+(x)`` or ``G-(x)``.
        c1: See `dssim`.
        c2: See `dssim`.
        l1: Weight of the mean absolute difference, 0 in the paper. Where it is 0 a change of brightness costs almost
            nothing: 42 HU everywhere cost 1e-4 in lung.
    """
    found = dssim(x, changed, c1, c2)
    return found + l1 * _l1(x, changed) if l1 else found


def discriminator_loss(logs: Sequence[Tensor]) -> Tensor:
    """Return the cross-entropy of a discriminator that saw a real image first and a generated one second, ``(b,)``.

    Eq. (3) lacks its minus sign: as printed, its minimum would be the worst prediction. With two neurons and a softmax
    both terms of (3) are one, since the second probability is 1 minus the first. The paper does not say how patches and
    scales are combined; here it is the mean over the patches of a scale, and over the scales.

    Args:
        logs: Output of `radlens.networks.PatchDiscriminator`.
    """
    return -torch.stack([scale[:, 0].mean(dim=(1, 2)) for scale in logs]).mean(dim=0)


def adversarial_loss(logs: Sequence[Tensor]) -> Tensor:
    """Return the same cross-entropy with inverted labels, the loss of a generator against a frozen discriminator.

    The argument 0 in eq. (4) is this inversion.

    Args:
        logs: Output of `radlens.networks.PatchDiscriminator` for a real image first and a generated one second.
    """
    return -torch.stack([scale[:, 1].mean(dim=(1, 2)) for scale in logs]).mean(dim=0)


def discriminator_accuracy(logs: Sequence[Tensor]) -> Tensor:
    """Return the share of patches whose real image the discriminator recognises, ``(b,)``, as the mean of the scales.

    Args:
        logs: Output of `radlens.networks.PatchDiscriminator` for a real image first and a generated one second.
    """
    right = [(scale[:, 0] > scale[:, 1]).float().mean(dim=(1, 2)) for scale in logs]
    return torch.stack(right).mean(dim=0)


def activation_loss(logits: Tensor, goal: int) -> Tensor:
    """Return the cross-entropy of a classifier's output towards a class, ``(b,)``.

    Eq. (4) prints ``C(x_a)``, the output for the original image, which has no gradient to a generator. The logits here
    are those of the *generated* image, as section 2.4 describes.

    Args:
        logits: ``(b, n)`` for generated images; a single logit is that of class 1.
        goal: Class.

    Raises:
        InvalidInput: There is no such class.
    """
    n = max(2, logits.shape[1])
    if not 0 <= goal < n:
        raise InvalidInput(f"goal must be a class from 0 to {n - 1}, got {goal}")
    if logits.shape[1] == 1:
        return F.softplus(logits[:, 0] * (-1.0 if goal else 1.0))
    goals = torch.full((len(logits),), goal, dtype=torch.long, device=logits.device)
    return F.cross_entropy(logits, goals, reduction="none")


def _l1(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).abs().mean(dim=(1, 2, 3))
