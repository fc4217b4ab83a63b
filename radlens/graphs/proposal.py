"""The question of the fast counterfactual search: which pixels would have to be replaced.

The companion ``"proposer"`` is a network such as `radlens.networks.MaskProposer`: it has ``classes``, and maps images
to one logit of each pixel for each of these classes.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from radlens.errors import InvalidParameter
from radlens.graphs.asks import Answer, AskSpec, register
from radlens.graphs.classifier import ClassifierGraphs
from radlens.graphs.compiled import CompiledGraph
from radlens.graphs.gradient import forward_graph

__all__ = ["PROPOSER", "propose"]

PROPOSER = "proposer"
"""Name of the companion."""


class _Proposal(nn.Module):
    """Map images and weights to the mask of the class of each image, and to whether the proposer knows that class.

    Args:
        proposer: The companion.
        n_outputs: Logits of the classifier; 1 for two classes.

    Raises:
        InvalidParameter: The proposer is one for more classes.
    """

    def __init__(self, proposer: nn.Module, n_outputs: int) -> None:
        super().__init__()
        self.proposer, self.n_outputs = proposer, n_outputs
        classes, n = cast(Sequence[int], proposer.classes), max(2, n_outputs)
        if max(classes) >= n:
            raise InvalidParameter(
                f"the proposer must be one for a classifier of {n} classes, got class {max(classes)}"
            )
        places = torch.zeros(n, len(classes))
        for place, number in enumerate(classes):
            places[number, place] = 1
        self.register_buffer("places", places)

    def forward(self, images: Tensor, weights: Tensor) -> list[Tensor]:
        # The weights of the classifier's only output are 1 for class 1 and -1 for class 0.
        of_class = torch.cat([-weights, weights], dim=1) if self.n_outputs == 1 else weights
        highest = of_class == of_class.amax(dim=1, keepdim=True)
        chosen = highest.to(images.dtype) @ self.places.to(images.dtype)  # type: ignore[operator]
        maps = torch.sigmoid(self.proposer(images))
        return [(maps * chosen[:, :, None, None]).sum(dim=1, keepdim=True), chosen.sum(dim=1)]


def _compiled(graphs: ClassifierGraphs) -> CompiledGraph:
    module = _Proposal(graphs.companions[PROPOSER], graphs.n_outputs)
    return forward_graph(module, tuple(graphs.examples("proposal"))).named(["images", "weights"], ["mask", "known"])


def propose(proposer: nn.Module, n_outputs: int, images: Tensor, weights: Tensor) -> Answer:
    """Answer with the network itself: mask ``(b, 1, h, w)`` from 0 to 1, and 1 for known classes, ``(b,)``."""
    with torch.no_grad():
        mask, known = _Proposal(proposer, n_outputs)(images, weights)
    return mask, known


def _eager(graphs: ClassifierGraphs, images: Tensor, weights: Tensor) -> Answer:
    return propose(graphs.companions[PROPOSER], graphs.n_outputs, images, weights)


register(
    AskSpec(
        "proposal",
        ("images", "weights"),
        ("mask", "known"),
        _compiled,
        _eager,
        answers=("mask", "known"),
        companions=(PROPOSER,),
    )
)
