"""Sensitivity analysis: Montavon et al. 2018, as used by Amanova et al. 2022, section 2.3.1."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from radlens.explainers.base import Attribution, Explainer, register
from radlens.explainers.work import Ask, Work

__all__ = ["Sensitivity", "sensitivity"]


def sensitivity(gradient: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return ``-R(x)``, same shape as ``images``, in units of the score per unit of the image.

    Args:
        gradient: maps images ``(b, c, h, w)`` to ``R(x)`` of eq. (1), same shape.
        images: ``(b, c, h, w)``, floating point.
    """
    return -gradient(images)


@register("sensitivity")
@dataclass(frozen=True)
class Sensitivity(Explainer):
    """:func:`sensitivity` of a model's score; the method has no parameters."""

    title: ClassVar[str] = "Sensitivity"
    unit: ClassVar[str] = "{unit} per {image}"
    meaning: ClassVar[str] = "how fast the {score} falls as a pixel becomes brighter"

    for_classes: ClassVar[bool] = False

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`."""
        (gradients,) = yield Ask("gradient", {"images": image[None]}, target)
        return Attribution(-gradients[0])
