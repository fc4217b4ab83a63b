"""Saliency: Simonyan et al. 2014, as used by Sam Millan 2023, section 3.2.4."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from radlens.explainers.base import Attribution, Explainer, register
from radlens.explainers.work import Ask, Work

__all__ = ["Saliency"]


@register("saliency")
@dataclass(frozen=True)
class Saliency(Explainer):
    """The gradient of the score, in units of the score per unit of the preprocessed image.

    Args:
        absolute: take the absolute value, as Captum's ``Saliency`` does by default.
    """

    absolute: bool = True

    title: ClassVar[str] = "Saliency"
    unit: ClassVar[str] = "{unit} per {image}"
    meaning: ClassVar[str] = "how much the {score} depends on a pixel"

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`."""
        (gradients,) = yield Ask("gradient", {"images": image[None]}, target)
        return Attribution(gradients[0].abs() if self.absolute else gradients[0])
