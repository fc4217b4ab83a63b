"""The CDMAM ensemble for serving: all members in one pass, with consecutive linear layers multiplied out.

Design requirements: the same function as :class:`radlens.networks.CdmamEnsemble` up to rounding (a test compares them
in float64), two orders of magnitude less memory, no loop over members.

Two identities are used. Batch normalisation after a convolution can be folded into the convolution. Table 2 has no
activation between the first dense layer and the outputs, so these layers are one affine map of 123 008 features to 12
points. If the rank of the first dense layer is at most 12, the map is stored as two factors instead: from 123 008
features to the rank, and from the rank to 12 points.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from radlens.errors import InvalidInput
from radlens.networks.cdmam import N_FEATURES, N_POINTS, CdcPrediction, CdmamNet, LowRankLinear, combine, thresholds

__all__ = ["FoldedCdmamEnsemble"]


class FoldedCdmamEnsemble(nn.Module):
    """The members of an ensemble as grouped convolutions and one affine map per member.

    Attributes:
        weight: ``(m, 123008, r)`` first factor of the affine maps.
        head: ``(m, r, 12)`` second factor. Without factors it is the identity, and not part of the state dict.
        bias: ``(m, 1, 12)`` bias of the affine maps.
        sigma: ``(m, 1, 12)`` standard deviation of the members' noise.

    Args:
        n_members: number of members, at least 1.
        rank: rank of the affine maps, 1 to 12; ``None`` for maps without factors (r = 12).
        logarithmic: whether the members' outputs are natural logarithms of um of gold.

    Raises:
        InvalidInput: the rank is out of range.
    """

    def __init__(self, n_members: int, rank: int | None = None, logarithmic: bool = False) -> None:
        super().__init__()
        if rank is not None and not 1 <= rank <= N_POINTS:
            raise InvalidInput(f"rank must be from 1 to {N_POINTS}, got {rank}")
        m, r = n_members, rank or N_POINTS
        self.n_members, self.rank, self.logarithmic = m, rank, logarithmic
        self.conv1 = nn.Conv2d(1, 8 * m, 3, padding=1)
        self.conv2 = nn.Conv2d(8 * m, 16 * m, 3, padding=1, groups=m)
        self.conv3 = nn.Conv2d(16 * m, 32 * m, 3, padding=1, groups=m)
        self.register_buffer("weight", torch.zeros(m, N_FEATURES, r))
        self.register_buffer("head", torch.eye(r, N_POINTS).repeat(m, 1, 1), persistent=rank is not None)
        self.register_buffer("bias", torch.zeros(m, 1, N_POINTS))
        self.register_buffer("sigma", torch.ones(m, 1, N_POINTS))
        self.weight: Tensor
        self.head: Tensor
        self.bias: Tensor
        self.sigma: Tensor
        self.requires_grad_(False)
        self.eval()

    @classmethod
    @torch.no_grad()
    def from_members(cls, members: Sequence[CdmamNet], *, logarithmic: bool = False) -> "FoldedCdmamEnsemble":
        """Fold trained members in float64 arithmetic.

        Args:
            members: trained networks, at least one.
            logarithmic: whether their outputs are natural logarithms of um of gold; otherwise um of gold.

        Raises:
            InvalidInput: the members have different ranks.
        """
        ranks = {_rank(member) for member in members}
        if len(ranks) != 1:
            found = ", ".join(sorted("none" if rank is None else str(rank) for rank in ranks))
            raise InvalidInput(f"members must have the same rank, got {found}")
        folded = cls(len(members), ranks.pop(), logarithmic).to(members[0].mu.weight.dtype)
        for layer in ("1", "2", "3"):
            fused = [_fold_norm(getattr(member, f"conv{layer}"), getattr(member, f"norm{layer}")) for member in members]
            getattr(folded, f"conv{layer}").weight.copy_(torch.cat([conv.weight for conv in fused]))
            getattr(folded, f"conv{layer}").bias.copy_(
                torch.cat([conv.bias for conv in fused if conv.bias is not None])
            )
        for i, member in enumerate(members):
            weight, head, bias = _fold_dense(member)
            folded.weight[i].copy_(weight.T)
            folded.head[i].copy_(head.T)
            folded.bias[i, 0].copy_(bias)
            folded.sigma[i, 0].copy_(member.noise())
        return folded

    def features(self, images: Tensor) -> Tensor:
        """Return the inputs of the affine maps ``(b, m, 123008)``."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return F.relu(self.conv3(x)).view(-1, self.n_members, N_FEATURES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean, aleatoric and epistemic standard deviation, each ``(b, 12)`` um of gold."""
        mu = self._outputs(images)
        return combine(mu, self.sigma.expand_as(mu), logarithmic=self.logarithmic)

    @torch.no_grad()
    def predict(self, images: Tensor) -> CdcPrediction:
        """Predict the curve and its uncertainty of normalised ``images`` ``(b, 1, 250, 250)``."""
        return CdcPrediction.from_parts(*self(images), logarithmic=self.logarithmic)

    def score(self, images: Tensor) -> Tensor:
        """Return the midpoint of the curve ``(b,)`` in um of gold (section 2.3.1)."""
        return thresholds(self._outputs(images), logarithmic=self.logarithmic).mean(dim=(0, 2))

    midpoint = score

    @torch.no_grad()
    def midpoints(self, images: Tensor) -> Tensor:
        """Return the midpoint of the curve of each member, ``(b, m)`` in um of gold."""
        return thresholds(self._outputs(images), logarithmic=self.logarithmic).mean(dim=2).T

    def _outputs(self, images: Tensor) -> Tensor:
        """Return ``mu`` of each member, ``(m, b, 12)``."""
        hidden = torch.bmm(self.features(images).transpose(0, 1), self.weight)
        return (hidden if self.rank is None else torch.bmm(hidden, self.head)) + self.bias

    def gradient(self, images: Tensor) -> Tensor:
        """Return ``R(x)`` of eq. (1), ``(b, 1, 250, 250)``: um of gold per unit of the normalised image."""
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.score(images).sum(), images)
        return gradient


def _fold_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return the convolution that computes ``norm(conv(x))`` with the running statistics, in float64."""
    return fuse_conv_bn_eval(deepcopy(conv).double().eval(), deepcopy(norm).double().eval())


def _rank(member: CdmamNet) -> int | None:
    """Return the rank of the first dense layer if it is at most the number of points, else ``None``."""
    dense1 = member.dense1
    rank = dense1.narrow.out_features if isinstance(dense1, LowRankLinear) else N_FEATURES
    return rank if rank <= N_POINTS else None


def _fold_dense(member: CdmamNet) -> tuple[Tensor, Tensor, Tensor]:
    """Return the dense layers and the ``mu`` layer as weight ``(r, 123008)``, head ``(12, r)`` and bias ``(12,)``."""
    mu, dense2, dense1 = member.mu, member.dense2, member.dense1
    head = mu.weight.double() @ dense2.weight.double()
    bias = mu.weight.double() @ dense2.bias.double() + mu.bias.double() + head @ dense1.bias.double()
    if not isinstance(dense1, LowRankLinear):
        # In blocks of columns, because a float64 copy of Table 2's 63 million weights takes half a gigabyte.
        weight = torch.cat([head @ block.double() for block in dense1.weight.split(8192, dim=1)], dim=1)
        return weight, torch.eye(N_POINTS), bias
    narrow, head = dense1.narrow.weight.double(), head @ dense1.wide.weight.double()
    return (head @ narrow, torch.eye(N_POINTS), bias) if _rank(member) is None else (narrow, head, bias)
