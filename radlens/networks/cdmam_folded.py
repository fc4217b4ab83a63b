"""The CDMAM ensemble as it is served: every member in one pass, everything linear multiplied out beforehand.

Design requirements: the same function as :class:`radlens.networks.CdmamEnsemble` up to rounding (a test holds them
against each other in float64), two orders of magnitude less memory, no loop over members.

Three identities are used. Batch normalisation after a convolution is part of the convolution. Table 2 has no activation
between the first dense layer and the outputs, so they are one affine map of 123 008 features to 12 points. The midpoint
of eq. (1) averages over points and members, so its gradient with respect to the features is one constant vector.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from radlens.networks.cdmam import N_FEATURES, N_POINTS, CdcPrediction, CdmamNet, LowRankLinear, combine

__all__ = ["FoldedCdmamEnsemble"]


class FoldedCdmamEnsemble(nn.Module):
    """All members of an ensemble as grouped convolutions and one dense layer each.

    Args:
        n_members: number of members, at least 1.
    """

    def __init__(self, n_members: int) -> None:
        super().__init__()
        m = n_members
        self.n_members = m
        self.conv1 = nn.Conv2d(1, 8 * m, 3, padding=1)
        self.conv2 = nn.Conv2d(8 * m, 16 * m, 3, padding=1, groups=m)
        self.conv3 = nn.Conv2d(16 * m, 32 * m, 3, padding=1, groups=m)
        self.register_buffer("weight", torch.zeros(m, N_FEATURES, N_POINTS))
        self.register_buffer("bias", torch.zeros(m, 1, N_POINTS))
        self.register_buffer("sigma", torch.ones(m, 1, N_POINTS))
        self.weight: Tensor
        self.bias: Tensor
        self.sigma: Tensor
        self.requires_grad_(False)
        self.eval()

    @classmethod
    @torch.no_grad()
    def from_members(cls, members: Sequence[CdmamNet]) -> "FoldedCdmamEnsemble":
        """Fold trained members (their outputs already in um of gold); the arithmetic is done in float64."""
        folded = cls(len(members)).to(members[0].mu.weight.dtype)
        for layer in ("1", "2", "3"):
            fused = [_fold_norm(getattr(member, f"conv{layer}"), getattr(member, f"norm{layer}")) for member in members]
            getattr(folded, f"conv{layer}").weight.copy_(torch.cat([conv.weight for conv in fused]))
            getattr(folded, f"conv{layer}").bias.copy_(
                torch.cat([conv.bias for conv in fused if conv.bias is not None])
            )
        for i, member in enumerate(members):
            weight, bias = _fold_dense(member)
            folded.weight[i].copy_(weight.T)
            folded.bias[i, 0].copy_(bias)
            folded.sigma[i, 0].copy_(member.noise())
        return folded

    def features(self, images: Tensor) -> Tensor:
        """Return the inputs of the dense layers ``(b, m, 123008)``."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return F.relu(self.conv3(x)).view(-1, self.n_members, N_FEATURES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean, aleatoric and epistemic standard deviation, each ``(b, 12)`` um of gold."""
        mu = torch.bmm(self.features(images).transpose(0, 1), self.weight) + self.bias
        return combine(mu, self.sigma.expand_as(mu))

    @torch.no_grad()
    def predict(self, images: Tensor) -> CdcPrediction:
        """Predict the curve and its uncertainty of normalised ``images`` ``(b, 1, 250, 250)``."""
        mean, aleatoric, epistemic = self(images)
        return CdcPrediction(mean, aleatoric, epistemic, (aleatoric**2 + epistemic**2).sqrt())

    def score(self, images: Tensor) -> Tensor:
        """Return the midpoint of the curve ``(b,)`` in um of gold (section 2.3.1)."""
        return self.features(images).flatten(1) @ self.midpoint_weight() + self.bias.mean()

    midpoint = score

    @torch.no_grad()
    def midpoints(self, images: Tensor) -> Tensor:
        """Return the midpoint of the curve of each member, ``(b, m)`` in um of gold."""
        return (self.features(images) * self.weight.mean(dim=2)).sum(dim=2) + self.bias.mean(dim=(1, 2))

    def midpoint_weight(self) -> Tensor:
        """Return the gradient of the midpoint with respect to all features ``(m * 123008,)``."""
        return (self.weight.mean(dim=2) / self.n_members).flatten()

    def gradient(self, images: Tensor) -> Tensor:
        """Return ``R(x)`` of eq. (1), ``(b, 1, 250, 250)``: um of gold per unit of the normalised image."""
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.score(images).sum(), images)
        return gradient


def _fold_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return the convolution that does ``norm(conv(x))`` with the running statistics, in float64."""
    return fuse_conv_bn_eval(deepcopy(conv).double().eval(), deepcopy(norm).double().eval())


def _fold_dense(member: CdmamNet) -> tuple[Tensor, Tensor]:
    """Return weight ``(12, 123008)`` and bias ``(12,)`` of the dense layers and the ``mu`` layer as one."""
    mu, dense2, dense1 = member.mu, member.dense2, member.dense1
    head = mu.weight.double() @ dense2.weight.double()
    bias = mu.weight.double() @ dense2.bias.double() + mu.bias.double() + head @ dense1.bias.double()
    if isinstance(dense1, LowRankLinear):
        return (head @ dense1.wide.weight.double()) @ dense1.narrow.weight.double(), bias
    # In blocks of columns: a double copy of Table 2's 63 million weights would cost half a gigabyte.
    return torch.cat([head @ block.double() for block in dense1.weight.split(8192, dim=1)], dim=1), bias
