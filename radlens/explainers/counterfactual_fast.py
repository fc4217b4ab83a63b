"""Counterfactual impact analysis with a mask that a network proposes in one pass.

Major et al. (ISBI 2020) optimise a mask for each image. Lenis et al. (arXiv 2007.06312, 2020) train a network that
gives the mask of any image at once. Here the network learns the masks that the search of
`radlens.explainers.counterfactual` found (`radlens companion proposer`), and the classifier judges what it proposes:
scores are those of the image with the proposed region filled.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from radlens.errors import InvalidParameter
from radlens.explainers.base import register
from radlens.explainers.counterfactual import OrganExplainer, outcome
from radlens.explainers.ranges import Share, Whole
from radlens.explainers.work import Ask, Work

__all__ = ["CounterfactualFast"]


@register("counterfactual_fast")
@dataclass(frozen=True)
class CounterfactualFast(OrganExplainer):
    """The region that, replaced by healthy tissue, lowers the score, proposed in one pass (after Lenis et al. 2020).

    The model must have an inpainter and a proposer as companions; `radlens companion proposer` trains a proposer. The
    map is the proposed share of each pixel. Where the class is not predicted, nothing is replaced. Pictures are as of
    `counterfactual`.

    Args:
        threshold: value of the map above which pixels are replaced.
        refine: number of further thresholds that are tried, all in one batch: the mask is the smallest one that changes
            the class, or else the one that lowers the score most. 0 for ``threshold`` alone.
    """

    threshold: Annotated[float, Share()] = 0.5
    refine: Annotated[int, Whole(0, 30)] = 0

    title: ClassVar[str] = "Counterfactual impact, proposed in one pass"
    unit: ClassVar[str] = "1"
    meaning: ClassVar[str] = "proposed share in which a pixel is replaced by healthy tissue"
    needs: ClassVar[tuple[str, ...]] = ("proposal", "impact", "inpaint")

    def cost(self, height: int, width: int) -> int:
        """See `Explainer`."""
        return 4 + self.refine

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`.

        Raises:
            InvalidInput: The image has no region that could be an organ.
            InvalidParameter: The proposer was not trained for the class.
        """
        organ = self._organ_of(image)
        proposed, known = yield Ask("proposal", {"images": image[None]}, target)
        if not known[0] > 0:
            raise InvalidParameter(
                f"target must be a class that the proposer was trained for, got class {target}; counterfactual "
                "explains any class"
            )
        saliency = proposed[0] * organ
        levels = [self.threshold, *((k + 0.5) / self.refine for k in range(self.refine))]
        masks = torch.stack([saliency > level for level in levels]).to(image.dtype)
        tried = torch.cat([torch.zeros_like(masks[:1]), masks])
        (odds,) = yield Ask("impact", {"images": image.expand(len(tried), *image.shape), "masks": 1 - tried}, target)
        # Where the class is not predicted nothing has to change, as in the search.
        best = 1 + _best(odds[1:], masks) if odds[0] > 0 else 0
        mask = tried[best]
        (drawn,) = yield Ask("inpaint", {"images": image[None], "masks": 1 - mask[None]})
        return outcome(image, saliency, mask, drawn[0], organ, float(odds[0]), float(odds[best]))


def _best(odds: Tensor, masks: Tensor) -> int:
    """Return the number of the smallest mask ``(n, 1, h, w)`` that changes the class, else that of the least odds."""
    changes = (odds <= 0).nonzero()[:, 0].tolist()
    return min(changes, key=lambda k: float(masks[k].sum())) if changes else int(odds.argmin())
