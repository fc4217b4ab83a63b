"""Sensitivity analysis: Montavon et al. 2018, as used by Amanova et al. 2022, section 2.3.1."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from radlens.explainers.base import Differentiable, Explainer, register

__all__ = ["Sensitivity", "sensitivity"]


def sensitivity(gradient: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return ``-R(x)``, same shape as ``images``: units of the score per unit of the image.

    Args:
        gradient: maps images ``(b, c, h, w)`` to ``R(x)`` of eq. (1), same shape.
        images: ``(b, c, h, w)``, floating point.
    """
    return -gradient(images)


@register("sensitivity")
@dataclass(frozen=True)
class Sensitivity(Explainer):
    """:func:`sensitivity` of a model's score; it has no parameters."""

    title: ClassVar[str] = "Sensitivity"
    unit: ClassVar[str] = "{unit} per {image}"
    meaning: ClassVar[str] = "how fast the {score} falls as a pixel becomes brighter"

    def _attribute(self, model: Differentiable, images: Tensor, targets: Tensor | None) -> Tensor:
        return sensitivity(model.gradient, images)
