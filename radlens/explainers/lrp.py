"""Layer-wise relevance propagation: Bach et al. 2015; deep Taylor decomposition: Montavon et al. 2017.

Katzmann et al. 2021 compare their method with both, by the library iNNvestigate, in section 4 and figure 6.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from radlens.explainers.base import Attribution, Explainer, register
from radlens.explainers.ranges import Positive
from radlens.explainers.work import Ask, Work

__all__ = ["Lrp"]


@register("lrp")
@dataclass(frozen=True)
class Lrp(Explainer):
    """Relevance handed down from the score, layer by layer, to the pixels, in units of the score.

    With ``rule="epsilon"`` a map sums to the score, less the shares that biases and ``epsilon`` keep; as long as
    ``epsilon`` is small beside the activations, the map of a network of ReLU layers is gradient times image (Ancona et
    al. 2018). With ``rule="deep_taylor"`` maps are not negative and sum to the score: they show what speaks for the
    class. The map of a score of 0 or less is empty, which ``sentence`` in the numbers says, and a neuron that only its
    bias makes active passes nothing on; the bounds of pixels are the smallest and the largest value of the image in
    each channel.

    Gates, such as those of squeeze and excitation, count as constants. A network with other operations without a rule
    is refused when it is exported; so is deep Taylor decomposition alone, for activations that can be negative
    (swish, leaky ReLU). :mod:`radlens.graphs.lrp_epsilon` and :mod:`radlens.graphs.deep_taylor` state the rules. The
    further results ``score`` and ``relevance`` are the score and the sum of the map.

    Args:
        rule: ``epsilon`` (Bach et al. 2015, eq. (58)), or ``deep_taylor`` (z+ rule, and z^B rule for the pixels).
        epsilon: number that each layer's sum is enlarged by, in units of its activations, for rule ``epsilon``: larger
            ones leave out weak neurons. The default is that of iNNvestigate.
    """

    rule: Literal["epsilon", "deep_taylor"] = "epsilon"
    epsilon: Annotated[float, Positive(1e6)] = 1e-7

    title: ClassVar[str] = "Layer-wise relevance propagation"
    meaning: ClassVar[str] = "relevance of each pixel for the {score}, by the rule {rule}"
    needs: ClassVar[tuple[str, ...]] = ("lrp_epsilon", "score")
    alternatives: ClassVar[tuple[Mapping[str, Any], ...]] = ({"rule": "deep_taylor"},)

    @property
    def questions(self) -> tuple[str, ...]:
        """See `Explainer`."""
        return f"lrp_{self.rule}", "score"

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`."""
        arrays = {"images": image[None]}
        if self.rule == "epsilon":
            arrays["epsilons"] = torch.full((1, 1), self.epsilon, dtype=image.dtype)
        (found,) = yield Ask(f"lrp_{self.rule}", arrays, target)
        (score,) = yield Ask("score", {"images": image[None]}, target)
        numbers: dict[str, Any] = {"score": float(score[0]), "relevance": float(found.double().sum())}
        if self.rule == "deep_taylor" and numbers["score"] <= 0:
            numbers["sentence"] = (
                f"the map is empty: deep Taylor decomposition divides positive scores, got {numbers['score']:.3g}; "
                "ask for another target, or the rule epsilon"
            )
        return Attribution(found[0], numbers=numbers)
