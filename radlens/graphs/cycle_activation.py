"""Questions of CycleGAN activation maximisation: Katzmann et al. 2021, sections 2.2 and 2.6.

The companion ``"generators"`` is a network such as `radlens.networks.GeneratorPair`: it maps images x to ``G+(x)`` and
``G-(x)``, has ``classes``, the class of G- and that of G+, and both generators as ``plus`` and ``minus``.
``"generated"`` asks for both images in one graph; ``"cycled"`` for the way back, ``G-(G+(x))`` and ``G+(G-(x))``, and
for the classes. No question needs a gradient.
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

__all__ = ["GENERATORS"]

GENERATORS = "generators"
"""Name of the companion."""


class _Cycled(nn.Module):
    """Map what both generators drew to the way back, and to the classes of G- and G+, ``(b, 2)``.

    Args:
        pair: The companion.
        n_outputs: Logits of the classifier; 1 for two classes.

    Raises:
        InvalidParameter: The generators are for more classes.
    """

    def __init__(self, pair: nn.Module, n_outputs: int) -> None:
        super().__init__()
        self.plus, self.minus = cast(nn.Module, pair.plus), cast(nn.Module, pair.minus)
        classes, n = cast(Sequence[int], pair.classes), max(2, n_outputs)
        if max(classes) >= n:
            raise InvalidParameter(f"the generators must be for a classifier of {n} classes, got class {max(classes)}")
        self.register_buffer("classes", torch.tensor(classes, dtype=torch.float32))

    def forward(self, plus: Tensor, minus: Tensor) -> list[Tensor]:
        # A graph has no constant outputs: every one has a batch.
        nothing = 0 * plus.flatten(1)[:, :2]
        return [self.minus(plus), self.plus(minus), nothing + cast(Tensor, self.classes).to(plus.dtype)]


def _generated_graph(graphs: ClassifierGraphs) -> CompiledGraph:
    found = forward_graph(graphs.companions[GENERATORS], tuple(graphs.examples("generated")))
    return found.named(["images"], ["plus", "minus"])


def _generated(graphs: ClassifierGraphs, images: Tensor) -> Answer:
    with torch.no_grad():
        plus, minus = graphs.companions[GENERATORS](images)
    return plus, minus


def _cycled_graph(graphs: ClassifierGraphs) -> CompiledGraph:
    module = _Cycled(graphs.companions[GENERATORS], graphs.n_outputs)
    found = forward_graph(module, tuple(graphs.examples("cycled")))
    return found.named(["images", "others"], ["plus_back", "minus_back", "classes"])


def _cycled(graphs: ClassifierGraphs, images: Tensor, others: Tensor) -> Answer:
    with torch.no_grad():
        plus, minus, classes = _Cycled(graphs.companions[GENERATORS], graphs.n_outputs)(images, others)
    return plus, minus, classes


register(
    AskSpec(
        "generated",
        ("images",),
        ("plus", "minus"),
        _generated_graph,
        _generated,
        answers=("plus", "minus"),
        companions=(GENERATORS,),
    )
)
register(
    AskSpec(
        "cycled",
        # The images of G+, and those of G-.
        ("images", "others"),
        ("plus_back", "minus_back", "classes"),
        _cycled_graph,
        _cycled,
        answers=("plus_back", "minus_back", "classes"),
        companions=(GENERATORS,),
        examples={"others": lambda images: images.flip(0)},
    )
)
