"""Contrast-detail regression from one CDMAM image: Amanova et al. 2022, section 2.2 and Table 2."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radlens.errors import InvalidInput

__all__ = [
    "COVERAGE_FACTOR",
    "N_FEATURES",
    "N_POINTS",
    "CdcPrediction",
    "CdmamEnsemble",
    "CdmamNet",
    "LogCdcPrediction",
    "combine",
    "thresholds",
]

N_POINTS = 12
"""Number of points of the contrast-detail curve (disk diameters from 1.00 mm down to 0.08 mm)."""

N_FEATURES = 62 * 62 * 32
"""Number of inputs of the first dense layer: 123 008 (Table 2)."""

N_HIDDEN = 512
"""Width of the dense layers (Table 2)."""

COVERAGE_FACTOR = 1.96
"""Half-width of the 95 % interval of a Gaussian in standard deviations (section 2.2)."""


class CdcPrediction(NamedTuple):
    """A contrast-detail curve with its uncertainty; every field is ``(b, 12)`` float32 in um of gold.

    Attributes:
        mean: mean of the members' curves.
        aleatoric: standard deviation of the noise that the members learned (root of the mean variance).
        epistemic: population standard deviation of the members' curves.
        total: ``sqrt(aleatoric**2 + epistemic**2)``.
    """

    mean: Tensor
    aleatoric: Tensor
    epistemic: Tensor
    total: Tensor

    @classmethod
    def from_parts(
        cls, mean: Tensor, aleatoric: Tensor, epistemic: Tensor, *, logarithmic: bool = False
    ) -> "CdcPrediction":
        """Return the prediction with these fields, each ``(b, 12)`` in um of gold, and their total.

        Args:
            mean: mean of the members' curves.
            aleatoric: standard deviation of the noise.
            epistemic: standard deviation between the members.
            logarithmic: whether the members learned logarithms; the result is then a :class:`LogCdcPrediction`.
        """
        kind = LogCdcPrediction if logarithmic else cls
        return kind(mean, aleatoric, epistemic, (aleatoric**2 + epistemic**2).sqrt())

    @property
    def logarithmic(self) -> bool:
        """Whether the thresholds are log-normal, because the members learned their logarithms."""
        return False

    @property
    def interval(self) -> Tensor:
        """The 95 % interval ``mean -+ 1.96 total``: ``(b, 12, 2)``, lower bound first, um of gold."""
        half = COVERAGE_FACTOR * self.total
        return torch.stack([self.mean - half, self.mean + half], dim=-1)


class LogCdcPrediction(CdcPrediction):
    """A prediction with log-normal thresholds; its standard deviations are also in um of gold."""

    __slots__ = ()

    @property
    def logarithmic(self) -> bool:
        """Whether the thresholds are log-normal, because the members learned their logarithms."""
        return True

    @property
    def interval(self) -> Tensor:
        """The 95 % interval ``mean exp(-+1.96 total / mean)``: ``(b, 12, 2)``, positive, lower bound first, um of gold.

        ``total / mean`` is the standard deviation of the logarithm to first order.
        """
        half = COVERAGE_FACTOR * self.total / self.mean
        return self.mean[..., None] * torch.stack([-half, half], dim=-1).exp()


class CdmamNet(nn.Module):
    """One member of the ensemble, with the layers of Table 2.

    The table lists no activation between the dense layers, so there is no activation here either. The paper's noise is
    homoscedastic ("whose variance is learned"), although Table 2 gives ``sigma`` the shape of a layer, 512 x 12. Here
    the input of that layer is ones instead of features: its size is that of the table, and its output is the same for
    every image.

    Args:
        rank: rank of the first dense layer. ``None`` gives the layer of Table 2, 123 008 x 512. A number replaces it by
            the product of a 123 008 x rank and a rank x 512 layer, which needs far less memory in training;
            :meth:`multiplied_out` converts the result to the layer of Table 2.
        dropout: dropout rate after the first dense layer.
    """

    def __init__(self, rank: int | None = None, dropout: float = 0.2) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv3, self.norm3 = nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.dense1 = nn.Linear(N_FEATURES, N_HIDDEN) if rank is None else LowRankLinear(N_FEATURES, N_HIDDEN, rank)
        self.dropout = nn.Dropout(dropout)
        self.dense2 = nn.Linear(N_HIDDEN, N_HIDDEN)
        self.mu = nn.Linear(N_HIDDEN, N_POINTS)
        self.sigma = nn.Linear(N_HIDDEN, N_POINTS)
        # sigma is an exponential: zeros give a standard deviation of 1 in the standardised units of training.
        nn.init.zeros_(self.sigma.weight)
        nn.init.zeros_(self.sigma.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predict mean and standard deviation of the curve.

        Args:
            images: ``(b, 1, 250, 250)`` float32, normalised with the mean and standard deviation of the training set.

        Returns:
            ``mu`` and ``sigma``, both ``(b, 12)``: in standardised units during training, and in the units of the
            training curves (um of gold, or its natural logarithm) after :meth:`scale_output`.

        Raises:
            InvalidInput: the images have another shape.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != (1, 250, 250):
            raise InvalidInput(f"images must have shape (b, 1, 250, 250), got {tuple(images.shape)}")
        hidden = self.dropout(self.dense1(self.features(images).flatten(1)))
        mu = self.mu(self.dense2(hidden))
        return mu, self.noise().expand_as(mu)

    def features(self, images: Tensor) -> Tensor:
        """Return the feature maps ``(b, 32, 62, 62)`` before the first dense layer."""
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(images))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        return F.relu(self.norm3(self.conv3(x)))

    def noise(self) -> Tensor:
        """Return the learned standard deviation ``(12,)``, the same for every image."""
        return self.sigma(torch.ones_like(self.sigma.weight[0])).exp()

    @torch.no_grad()
    def scale_output(self, mean: Tensor, std: Tensor) -> None:
        """Fold the map ``y -> y * std + mean`` into the output layers.

        Args:
            mean: ``(12,)`` mean of the training curves, in their units.
            std: ``(12,)`` standard deviation of the training curves, in their units.
        """
        self.mu.weight.mul_(std[:, None])
        self.mu.bias.mul_(std).add_(mean)
        self.sigma.bias.add_(std.log())

    @torch.no_grad()
    def multiplied_out(self) -> "CdmamNet":
        """Return an equivalent network with the first dense layer of Table 2, in evaluation mode."""
        dense = CdmamNet(dropout=self.dropout.p).to(self.mu.weight.device)
        state = {k: v for k, v in self.state_dict().items() if not k.startswith("dense1")}
        dense1 = {"dense1.weight": self.dense1.weight, "dense1.bias": self.dense1.bias}
        dense.load_state_dict(state | dense1)
        return dense.eval()


class LowRankLinear(nn.Module):
    """A dense layer whose weight is the product of two thin matrices.

    Args:
        n_inputs: number of input features.
        n_outputs: number of output features.
        rank: number of features between the two matrices, at least 1.
    """

    def __init__(self, n_inputs: int, n_outputs: int, rank: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(n_inputs, rank, bias=False)
        self.wide = nn.Linear(rank, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, n_inputs)`` to ``(b, n_outputs)``."""
        return self.wide(self.narrow(x))

    @property
    def weight(self) -> Tensor:
        """Product of the two factors, ``(n_outputs, n_inputs)``."""
        return self.wide.weight @ self.narrow.weight

    @property
    def bias(self) -> Tensor:
        """Bias ``(n_outputs,)``."""
        return self.wide.bias


class CdmamEnsemble(nn.Module):
    """A deep ensemble (Lakshminarayanan et al. 2016) that evaluates its members one after the other.

    Args:
        members: at least one network that maps ``(b, 1, 250, 250)`` to ``mu, sigma``, both ``(b, 12)``.
        logarithmic: whether ``mu`` is the natural logarithm of um of gold, and ``sigma`` its standard deviation;
            otherwise both are in um of gold, as in the paper.
    """

    def __init__(self, members: Iterable[nn.Module], *, logarithmic: bool = False) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.logarithmic = logarithmic
        if not len(self.members):
            raise InvalidInput("an ensemble must have at least 1 member, got 0")
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean, aleatoric and epistemic standard deviation, each ``(b, 12)`` um of gold."""
        outputs = [member(images) for member in self.members]
        mu, sigma = (torch.stack(values) for values in zip(*outputs, strict=True))
        return combine(mu, sigma, logarithmic=self.logarithmic)

    @torch.no_grad()
    def predict(self, images: Tensor) -> CdcPrediction:
        """Predict the curve and its uncertainty of normalised ``images`` ``(b, 1, 250, 250)``."""
        return CdcPrediction.from_parts(*self(images), logarithmic=self.logarithmic)

    def score(self, images: Tensor) -> Tensor:
        """Return the midpoint of the curve ``(b,)`` in um of gold: the mean over its 12 points (section 2.3.1)."""
        mu = torch.stack([member(images)[0] for member in self.members])
        return thresholds(mu, logarithmic=self.logarithmic).mean(dim=(0, 2))

    midpoint = score

    def gradient(self, images: Tensor) -> Tensor:
        """Return ``R(x)`` of eq. (1), ``(b, 1, 250, 250)``: um of gold per unit of the normalised image."""
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.score(images).sum(), images)
        return gradient


def thresholds(mu: Tensor, *, logarithmic: bool) -> Tensor:
    """Return the curves in um of gold of members with the outputs ``mu``, any shape."""
    return mu.exp() if logarithmic else mu


def combine(mu: Tensor, sigma: Tensor, *, logarithmic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Combine members to mean, aleatoric and epistemic standard deviation, each ``(b, 12)`` um of gold.

    The total variance of an ensemble is the mean variance of its members plus the variance of their curves (Kendall &
    Gal 2017). The standard deviation of a logarithm is, to first order, a relative standard deviation.

    Args:
        mu: ``(m, b, 12)`` outputs of the members.
        sigma: ``(m, b, 12)`` standard deviations of the members.
        logarithmic: whether both refer to the natural logarithm of um of gold.
    """
    curves = thresholds(mu, logarithmic=logarithmic)
    mean, noise = curves.mean(dim=0), (sigma**2).mean(dim=0).sqrt()
    return mean, mean * noise if logarithmic else noise, curves.std(dim=0, correction=0)
