"""The interface of contrast-detail models to explainers: one score, the midpoint of the curve."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from radlens.errors import UnsupportedOperation
from radlens.explainers import Explainer, Model
from radlens.networks.cdmam import CdcPrediction

__all__ = ["Members", "PhantomModel"]


class Members(Protocol):
    """The single members of an ensemble."""

    n_members: int

    def attribute_each(self, explainer: Explainer, images: Tensor) -> Tensor:
        """Return the map of each member, ``(b, m, 250, 250)``, for images ``(b, 1, 250, 250)``."""


class PhantomModel(Model):
    """Predicts, scores and differentiates normalised samples ``(b, 1, 250, 250)``.

    The score is the midpoint of the curve in um of gold; its gradient is ``R(x)`` of Amanova et al. 2022, eq. (1).
    """

    @abstractmethod
    def predict(self, images: Tensor) -> CdcPrediction:
        """Return curves and their uncertainty, each ``(b, 12)`` um of gold."""

    @abstractmethod
    def _gradients(self, images: Tensor) -> Tensor:
        """Return ``R(x)``, ``(b, 1, 250, 250)``."""

    @property
    def each(self) -> Members:
        """The single members."""
        raise UnsupportedOperation(f"{type(self).__name__} must tell its members apart, which it does not")

    def _answer(self, name: str, targets: Tensor | None, arrays: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        self.require(name)
        images = arrays["images"]
        return (self.predict(images).mean.mean(dim=1) if name == "score" else self._gradients(images),)
