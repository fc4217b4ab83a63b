"""The trust card of an explanation: what can be measured of one map without any truth about the image."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from radlens.evaluation import deletion, infidelity, insertion
from radlens.explainers import Attribution, Explainer, probabilities
from radlens.explainers.work import images_per_call

__all__ = ["N_SQUARES", "N_STEPS", "TrustCard", "trust_card"]

N_STEPS = 20
"""Steps in which pixels are removed or put back."""

N_SQUARES = 40
"""Squares that are removed to measure the infidelity."""


@dataclass(frozen=True)
class TrustCard:
    """How well a map describes what the network does.

    Attributes:
        delta: see :class:`radlens.explainers.Attribution`.
        deletion: area under the probability of the class while the pixels the map ranks highest are removed first
            (Petsiuk et al. 2018), 0..1; low is good.
        insertion: area while they are put back first, 0..1; high is good.
        infidelity: squared error with which the map, scaled by the factor that fits best, predicts the change of the
            score when squares are removed (Yeh et al. 2019); 0 is perfect.
        score_change: mean square of that change itself: what a map of zeros would have as its infidelity.
    """

    delta: float | None
    deletion: float
    insertion: float
    infidelity: float
    score_change: float

    def stated(self) -> dict[str, Any]:
        """Return the values as JSON has them."""
        return {
            "convergence_delta": self.delta,
            "deletion": self.deletion,
            "insertion": self.insertion,
            "infidelity": self.infidelity,
            "infidelity_of_no_map": self.score_change,
            "meaning": "deletion: low is good; insertion: high is good; infidelity: 0 is perfect, "
            "infidelity_of_no_map is what a map of zeros has",
        }


def trust_card(model: Any, explainer: Explainer, image: Tensor, attribution: Attribution, target: int) -> TrustCard:
    """Measure a map.

    Args:
        model: a :class:`radlens.explainers.Model`.
        explainer: that made the map.
        image: ``(c, h, w)``.
        attribution: the map.
        target: class that was explained.
    """
    values = attribution.map
    shared = values if explainer.per_channel else values[:1] / image.shape[0]
    maps = shared.expand(image.shape)[None].contiguous()
    size = images_per_call(image)

    def score(copies: Tensor) -> Tensor:
        return model.score(copies, torch.full((len(copies),), target))

    def probability(copies: Tensor) -> Tensor:
        return probabilities(model.outputs(copies))[:, target]

    images = image[None]
    squares: dict[str, Any] = {"n_samples": N_SQUARES, "batch_size": size}
    return TrustCard(
        attribution.delta,
        float(deletion(probability, images, maps, n_steps=N_STEPS, batch_size=size).auc),
        float(insertion(probability, images, maps, n_steps=N_STEPS, batch_size=size).auc),
        float(infidelity(score, images, maps, normalize=True, **squares)),
        float(infidelity(score, images, torch.zeros_like(maps), **squares)),
    )
