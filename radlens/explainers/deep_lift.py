"""DeepLIFT, rescale rule: Shrikumar et al. 2017, section 3.5, as used by Sam Millan 2023, section 3.2.4."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from radlens.explainers.base import Attribution, Explainer, register
from radlens.explainers.ranges import Finite
from radlens.explainers.work import Ask, Work

__all__ = ["DeepLift"]


@register("deep_lift")
@dataclass(frozen=True)
class DeepLift(Explainer):
    """Attribute the difference between the scores of the image and of a baseline to the pixels, in units of the score.

    The values of a map add up to this difference (summation to delta, eq. (1)), also behind max pooling, gates and
    attention; Captum's do not. :mod:`radlens.graphs.chords` states the rules. Captum's maps are an option of
    :func:`radlens.graphs.classifier_graphs` and :class:`radlens.explainers.eager.EagerClassifier`.

    Args:
        baseline: value of every pixel of the baseline image, in the units of the preprocessed image.
    """

    baseline: Annotated[float, Finite(1e6)] = 0.0

    title: ClassVar[str] = "DeepLIFT"
    meaning: ClassVar[str] = "what each pixel adds to the {score}, compared with a uniform image"
    needs: ClassVar[tuple[str, ...]] = ("deep_lift", "score")

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`."""
        start = torch.full_like(image, self.baseline)
        (found,) = yield Ask("deep_lift", {"images": image[None], "baselines": start[None]}, target)
        (ends,) = yield Ask("score", {"images": torch.stack([image, start])}, target)
        return Attribution(found[0], float(found.double().sum() - (ends[0] - ends[1]).double()))
