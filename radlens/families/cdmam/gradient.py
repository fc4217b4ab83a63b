"""R(x) of Amanova et al. 2022, eq. (1), as a forward graph that every engine can compute.

The module writes out the backward pass of :class:`radlens.networks.FoldedCdmamEnsemble`.
:func:`radlens.graphs.gradient_graph` derives such a graph from any module; this one is written by hand, because
upsampling calls it 250 000 times per map. Design requirement: it must move few bytes, since on a CPU the ensemble is
limited by memory bandwidth.

- A convolution before max pooling is computed as four *phases*: the values at the first, second, third and fourth
  pixel of every pooling window, each by a convolution of stride 2. Pooling is then the maximum of four arrays, and its
  backward pass four comparisons, without upsampling. Of equal values the first one counts, as in autograd.
- ReLU and the bias before it commute with max pooling, so they are applied after it, to a quarter of the values.
- Backward through the first convolution, every pixel of a phase becomes 4x4 pixels around its window: 16 numbers from
  one 1x1 convolution, which are added where they overlap.
- If members predict um of gold, the midpoint is linear in the last features, so its gradient is constant where they are
  positive. If members predict logarithms, it is a sum of a few constant maps, one for each column of the first factor
  of the affine map (:class:`radlens.networks.FoldedCdmamEnsemble`), weighted by the thresholds. Forward and backward
  pass use the same products, and no array is larger than the features.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radlens.networks import FoldedCdmamEnsemble
from radlens.networks.cdmam import N_FEATURES, N_POINTS

__all__ = ["CdmamGradient", "CdmamMemberGradients"]

_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Row and column of a pixel in its 2x2 window, in the order in which autograd searches for the maximum."""


class CdmamGradient(nn.Module):
    """Maps normalised images ``(b, 1, 250, 250)`` to the midpoint ``(b,)`` and its gradient ``(b, 1, 250, 250)``.

    Args:
        ensemble: the folded ensemble; its weights are shared, the rearranged kernels are copies.
    """

    def __init__(self, ensemble: FoldedCdmamEnsemble) -> None:
        super().__init__()
        m = ensemble.n_members
        self.n_members = m
        # Two members in one group, half of it zeros, double the operations but fill the vector registers: faster.
        self.n_groups = m // 2 if m % 2 == 0 else m
        self.conv1, self.conv2, self.conv3 = ensemble.conv1, ensemble.conv2, ensemble.conv3
        self.logarithmic, self.share = ensemble.logarithmic, 1 / m
        if self.logarithmic:
            self.register_buffer("weight", ensemble.weight)
            self.register_buffer("head", ensemble.head)
            self.register_buffer("bias", ensemble.bias)
        else:
            # The mean over the points commutes with the product and leaves one column.
            self.register_buffer("weight", ensemble.weight @ ensemble.head.mean(dim=2, keepdim=True))
            self.register_buffer("bias", ensemble.bias.mean(dim=(1, 2)))
        self.register_buffer("bias1", _bias(ensemble.conv1))
        self.register_buffer("bias2", _bias(ensemble.conv2))
        self.register_buffer("patches", patch_kernels(ensemble.conv1.weight))
        self.register_buffer("back2", joined_groups(turned(ensemble.conv2.weight, m), m, self.n_groups))
        self.register_buffer("back3", turned(ensemble.conv3.weight, m))
        self.weight: Tensor
        self.head: Tensor
        self.bias: Tensor
        self.bias1: Tensor
        self.bias2: Tensor
        self.patches: Tensor
        self.back2: Tensor
        self.back3: Tensor
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the midpoint ``(b,)`` in um of gold and ``R(x)`` in um of gold per unit of the image."""
        phases1 = self._phases(images, self.conv1, end=1)
        active1 = F.relu(largest(phases1) + self.bias1)
        # 125 pixels make 62 windows; the last row and column are in no window, but neighbours of the last windows.
        phases2 = self._phases(active1, self.conv2, end=0)
        active2 = F.relu(largest(phases2) + self.bias2)
        features = F.relu(self.conv3(active2))
        midpoints, slopes = self._midpoints(features.reshape(-1, self.n_members, N_FEATURES))
        gradient = torch.where(features > 0, slopes.reshape(-1, *features.shape[1:]), 0.0)
        gradient = F.conv2d(gradient, self.back3, padding=1, groups=self.n_members)
        routed2 = interleaved(routed(phases2, torch.where(active2 > 0, gradient, 0.0)))
        gradient = F.conv2d(F.pad(routed2, (1, 2, 1, 2)), self.back2, groups=self.n_groups)
        routed1 = routed(phases1, torch.where(active1 > 0, gradient, 0.0))
        return self._score(midpoints), self._placed(routed1)

    def _midpoints(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return midpoints ``(b, m)`` of the members and the derivative of the score by ``features (b, m, n)``."""
        hidden = features.transpose(0, 1) @ self.weight
        if not self.logarithmic:
            return hidden.squeeze(2).T + self.bias, self.share * self.weight.squeeze(2)
        curves = (hidden @ self.head + self.bias).exp()
        slopes = (self.share / N_POINTS * curves) @ self.head.transpose(1, 2) @ self.weight.transpose(1, 2)
        return curves.mean(dim=2).T, slopes.transpose(0, 1)

    def _score(self, midpoints: Tensor) -> Tensor:
        return midpoints.mean(dim=1)

    def _placed(self, phases: Sequence[Tensor]) -> Tensor:
        """Propagate the gradient of the four phases of the first convolution back to the pixels."""
        patches = [F.conv2d(phase, kernel) for phase, kernel in zip(phases, self.patches, strict=True)]
        return overlapped(patches[0] + patches[1] + patches[2] + patches[3])

    @staticmethod
    def _phases(x: Tensor, conv: nn.Conv2d, end: int) -> list[Tensor]:
        """Return the four phases of a convolution with one pixel of zero padding, without its bias.

        Args:
            x: input ``(b, c, h, w)``.
            conv: the convolution.
            end: padding of the second row or column of windows at the far side: 1 for an even size, 0 for an odd one.
        """
        pads = {0: (1, 0), 1: (0, end)}
        return [
            F.conv2d(F.pad(x, (*pads[column], *pads[row])), conv.weight, stride=2, groups=conv.groups)
            for row, column in _PHASES
        ]


class CdmamMemberGradients(CdmamGradient):
    """Maps images ``(b, m, 250, 250)``, one per member, to midpoints ``(b, m)`` and gradients ``(b, m, 250, 250)``.

    One pass computes all members, although each may be at another point, as on the paths of OMIG. A midpoint is that of
    the member's own curve; the midpoint of the ensemble is their mean.

    Args:
        ensemble: the folded ensemble.
    """

    def __init__(self, ensemble: FoldedCdmamEnsemble) -> None:
        super().__init__(ensemble)
        m = ensemble.n_members
        self.share = 1.0
        # (phase, pixel, member, channel, 1, 1): members come first, since they are the groups of the convolution.
        kernels = self.patches.view(4, 16, m, 8, 1, 1).transpose(1, 2)
        self.patches = kernels.reshape(4, 16 * m, 8, 1, 1).contiguous()
        self.conv1 = deepcopy(ensemble.conv1)
        self.conv1.groups, self.conv1.in_channels = m, m

    def _score(self, midpoints: Tensor) -> Tensor:
        return midpoints

    def _placed(self, phases: Sequence[Tensor]) -> Tensor:
        m = self.n_members
        patches = [F.conv2d(phase, kernel, groups=m) for phase, kernel in zip(phases, self.patches, strict=True)]
        joined = patches[0] + patches[1] + patches[2] + patches[3]
        pixels = overlapped(joined.reshape(-1, 16, *joined.shape[2:]))
        return pixels.reshape(-1, m, *pixels.shape[2:])


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None, "folding batch normalisation gives every convolution a bias"
    return conv.bias[:, None, None].clone()


def largest(phases: Sequence[Tensor]) -> Tensor:
    """Return the elementwise maximum of four phases: max pooling over 2x2."""
    first, second, third, fourth = phases
    return torch.maximum(torch.maximum(first, second), torch.maximum(third, fourth))


def routed(phases: Sequence[Tensor], gradient: Tensor) -> list[Tensor]:
    """Propagate ``gradient`` back through :func:`largest`: each value goes to the first of the largest phases."""
    first, second, third, fourth = phases
    above, below = torch.maximum(first, second), torch.maximum(third, fourth)
    chosen = (
        (first >= second) & (first >= below),
        (second > first) & (second >= below),
        (third > above) & (third >= fourth),
        (fourth > above) & (fourth > third),
    )
    return [torch.where(where, gradient, 0.0) for where in chosen]


def interleaved(phases: Sequence[Tensor]) -> Tensor:
    """Interleave four phases ``(b, c, h, w)`` to the pixels of 2x2 windows, ``(b, c, 2h, 2w)``."""
    channels, height, width = phases[0].shape[1:]
    blocks = torch.cat(list(phases), dim=1).reshape(-1, 2, 2, channels, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(-1, channels, 2 * height, 2 * width)


def turned(weight: Tensor, groups: int) -> Tensor:
    """Return the kernels ``(groups * i, o / groups, k, k)`` of the backward pass of a convolution ``(o, i, k, k)``."""
    o, i, height, width = weight.shape
    kernels = weight.view(groups, o // groups, i, height, width).transpose(1, 2)
    return kernels.reshape(groups * i, o // groups, height, width).flip(-1, -2).contiguous()


def joined_groups(weight: Tensor, groups: int, n_joined: int) -> Tensor:
    """Return the kernels of the same grouped convolution with fewer groups; kernels between old groups are zero.

    Args:
        weight: kernels ``(o, i, k, k)`` of a convolution with ``groups`` groups.
        groups: present number of groups.
        n_joined: new number of groups, a divisor of ``groups``.
    """
    o, i, height, width = weight.shape
    together = groups // n_joined
    joined = weight.new_zeros(n_joined, together, o // groups, together, i, height, width)
    for k in range(together):
        joined[:, k, :, k] = weight.view(n_joined, together, o // groups, i, height, width)[:, k]
    return joined.reshape(o, together * i, height, width)


def patch_kernels(weight: Tensor) -> Tensor:
    """Return the 1x1 kernels that propagate each phase back through a 3x3 convolution of one channel.

    The pixel at phase ``(a, b)`` of a window was computed from rows ``a`` to ``a + 2`` and columns ``b`` to ``b + 2``
    of the 4x4 pixels around the window.

    Args:
        weight: kernels ``(c, 1, 3, 3)`` of the convolution.

    Returns:
        ``(4, 16, c, 1, 1)``: for each phase, channels in the order that :func:`overlapped` expects.
    """
    kernels = weight.new_zeros(4, 4, 4, len(weight))
    for phase, (a, b) in enumerate(_PHASES):
        kernels[phase, a : a + 3, b : b + 3] = weight[:, 0].permute(1, 2, 0)
    # (phase, row half, row, column half, column, c): halves first, so that pixel_shuffle joins neighbouring pixels.
    halves = kernels.view(4, 2, 2, 2, 2, -1).permute(0, 1, 3, 2, 4, 5)
    return halves.reshape(4, 16, -1, 1, 1)


def overlapped(patches: Tensor) -> Tensor:
    """Add 4x4 patches around 2x2 windows, ``(b, 16, h, w)``, to pixels ``(b, 1, 2h, 2w)``; drop values outside."""
    height, width = 2 * patches.shape[2], 2 * patches.shape[3]
    quarters = F.pixel_shuffle(patches, 2)
    placed = [
        F.pad(quarters[:, q : q + 1], (2 * column, 2 - 2 * column, 2 * row, 2 - 2 * row))
        for q, (row, column) in enumerate(_PHASES)
    ]
    whole = placed[0] + placed[1] + placed[2] + placed[3]
    return whole[:, :, 1 : 1 + height, 1 : 1 + width]
