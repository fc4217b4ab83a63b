"""R(x) of Amanova et al. 2022, eq. (1), as an ordinary forward graph, so that any engine can compute it.

The backward pass of :class:`radlens.networks.FoldedCdmamEnsemble` is written out. The midpoint is linear in the last
features, so their gradient is a constant where they are positive. Back through a convolution of stride 1 is a
convolution with turned kernels. ReLU and max pooling commute, so ReLU and its gradient are taken on the smaller side;
back through pooling, each gradient goes to the pixel of its window that holds the maximum. A tie between two pixels
would give both the gradient where autograd gives it to the first; with real images exact ties do not occur.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radlens.networks import FoldedCdmamEnsemble

__all__ = ["CdmamGradient"]


class CdmamGradient(nn.Module):
    """Maps normalised images ``(b, 1, 250, 250)`` to the midpoint ``(b,)`` and its gradient ``(b, 1, 250, 250)``.

    Args:
        ensemble: the folded ensemble; its weights are shared, the turned kernels are copies.
    """

    def __init__(self, ensemble: FoldedCdmamEnsemble) -> None:
        super().__init__()
        m = ensemble.n_members
        self.n_members = m
        self.conv1, self.conv2, self.conv3 = ensemble.conv1, ensemble.conv2, ensemble.conv3
        self.register_buffer("weight", ensemble.midpoint_weight().view(1, 32 * m, 62, 62))
        self.register_buffer("bias", ensemble.bias.mean())
        self.register_buffer("back1", turned(ensemble.conv1.weight, 1))
        self.register_buffer("back2", turned(ensemble.conv2.weight, m))
        self.register_buffer("back3", turned(ensemble.conv3.weight, m))
        self.weight: Tensor
        self.bias: Tensor
        self.back1: Tensor
        self.back2: Tensor
        self.back3: Tensor
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the midpoint ``(b,)`` in um of gold and ``R(x)`` in um of gold per unit of the image."""
        before1 = self.conv1(images)
        pooled1 = F.max_pool2d(before1, 2)
        before2 = self.conv2(F.relu(pooled1))
        pooled2 = F.max_pool2d(before2, 2)
        features = F.relu(self.conv3(F.relu(pooled2)))
        score = (features * self.weight).sum(dim=(1, 2, 3)) + self.bias
        gradient = torch.where(features > 0, self.weight, 0.0)
        gradient = F.conv2d(gradient, self.back3, padding=1, groups=self.n_members)
        gradient = F.conv2d(unpooled(gradient, before2, pooled2), self.back2, padding=1, groups=self.n_members)
        return score, F.conv2d(unpooled(gradient, before1, pooled1), self.back1, padding=1)


def turned(weight: Tensor, groups: int) -> Tensor:
    """Turn ``(o, i, k, k)`` into the ``(groups * i, o / groups, k, k)`` kernels of the convolution back through it."""
    o, i, height, width = weight.shape
    kernels = weight.view(groups, o // groups, i, height, width).transpose(1, 2)
    return kernels.reshape(groups * i, o // groups, height, width).flip(-1, -2).contiguous()


def unpooled(gradient: Tensor, before: Tensor, pooled: Tensor) -> Tensor:
    """Carry ``gradient`` back through ``relu(pooled)`` and ``pooled = max_pool2d(before, 2)``."""
    passed = torch.where(pooled > 0, gradient, 0.0)
    return torch.where(before == _doubled(pooled, before), _doubled(passed, before), 0.0)


def _doubled(x: Tensor, like: Tensor) -> Tensor:
    """Repeat each pixel twice along both axes; an odd last row or column of ``like`` is in no window and gets 0."""
    doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
    rest = [like.shape[3] - doubled.shape[3], like.shape[2] - doubled.shape[2]]
    return F.pad(doubled, (0, rest[0], 0, rest[1])) if any(rest) else doubled
