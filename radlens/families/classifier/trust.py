"""The trust card of an explanation: measures of one map that need no ground truth."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from radlens.evaluation import deletion, infidelity, insertion
from radlens.explainers import Attribution, Explainer, probabilities
from radlens.explainers.work import images_per_call

__all__ = ["N_SQUARES", "N_STEPS", "TrustCard", "trust_card"]

N_STEPS = 20
"""Number of steps in which pixels are removed or put back."""

N_SQUARES = 40
"""Number of squares that are removed to measure the infidelity."""


@dataclass(frozen=True)
class TrustCard:
    """Measures of how well a map describes the behaviour of the network.

    Attributes:
        delta: convergence delta of :class:`radlens.explainers.Attribution`.
        deletion: area under the probability of the class while pixels are removed, those that the map ranks highest
            first (Petsiuk et al. 2018), 0..1; low is good.
        insertion: area under the probability while pixels are put back in this order, 0..1; high is good.
        infidelity: squared error with which the map, scaled by the factor that fits best, predicts the change of the
            score when squares are removed (Yeh et al. 2019); 0 is perfect.
        score_change: mean square of this change, which is the infidelity of a map of zeros.
    """

    delta: float | None
    deletion: float
    insertion: float
    infidelity: float
    score_change: float

    def stated(self) -> dict[str, Any]:
        """Return the measures as JSON values."""
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
        model: :class:`radlens.explainers.Model` that was explained.
        explainer: method of the map.
        image: image ``(c, h, w)``.
        attribution: result of the method.
        target: index of the explained class.
    """
    values = attribution.map
    # Methods that treat the channels as one give each the same map; the measures remove all channels of a pixel.
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
