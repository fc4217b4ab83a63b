"""What methods ask of a classifier, and how each question is answered: by a compiled graph, and by torch itself.

A question is registered where it is defined, in one line. It may need other networks than the classifier, its
companions: an inpainter, or a pair of generators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from radlens.errors import InvalidParameter

if TYPE_CHECKING:
    from radlens.graphs.classifier import ClassifierGraphs
    from radlens.graphs.compiled import CompiledGraph

__all__ = ["LOGITS", "PREDICTION", "SCORE", "AskSpec", "answerable", "mean_of_members", "names", "register", "spec"]

PREDICTION = "prediction"
"""Asks for the logits."""

SCORE = "score"
"""Asks for the score of a class, a weighted sum of the logits. It has no graph of its own."""

LOGITS = "output"
"""Output of graphs that hold the logits beside their answer, ``(b, n_outputs)``."""

Answer = tuple[Tensor, ...]


def mean_of_members(answers: Sequence[Answer]) -> Answer:
    """Return the mean of each output over the members."""
    return tuple(torch.stack(columns).mean(dim=0) for columns in zip(*answers, strict=True))


@dataclass(frozen=True)
class AskSpec:
    """A question that methods may put to a classifier, and the graph that answers it.

    Attributes:
        name: Name in requests for graphs and in the names of files.
        inputs: Inputs of the graph in order, batch first. ``"images"`` are ``(b, c, h, w)``. ``"weights"`` are
            ``(b, n_outputs)``, see `radlens.explainers.scores.class_weights`: their product with the logits is the
            score. Methods send all inputs but the weights, which follow from the target.
        outputs: Outputs of the graph in order: the answers, and the logits as `LOGITS` if they come for free.
        compile: Makes the graph of a network.
        eager: Maps a network and its inputs in order to what the graph answers, by autograd. It runs where no graph
            was exported, and, if ``golden`` says so, in float64 as the reference of the graph.
        answers: Outputs that are the answer, in the order in which ``eager`` returns them.
        companions: Names of the other networks that the question needs.
        examples: Makes an example of an input other than images and weights from example images.
        golden: Origin of the golden values: ``"eager"``, or ``"compiled"`` for the graph compiled in float64.
        join: Combines the answers of the members of an ensemble into that of the ensemble.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    compile: Callable[[ClassifierGraphs], CompiledGraph]
    eager: Callable[..., Answer]
    answers: tuple[str, ...]
    companions: tuple[str, ...] = ()
    examples: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    golden: Literal["eager", "compiled"] = "eager"
    join: Callable[[Sequence[Answer]], Answer] = mean_of_members

    def __post_init__(self) -> None:
        """Check that names fit each other."""
        others = set(self.outputs) - {*self.answers, LOGITS}
        if others or not set(self.answers) <= set(self.outputs):
            raise ValueError(f"answers of {self.name} must be all of its outputs but the logits")
        if unknown := set(self.inputs) - {"images", "weights", *self.examples}:
            raise ValueError(f"{self.name} must have examples of {', '.join(sorted(unknown))}")


_REGISTRY: dict[str, AskSpec] = {}


def register(asked: AskSpec) -> AskSpec:
    """Make a question known under its name.

    Raises:
        ValueError: The name is taken.
    """
    if asked.name in _REGISTRY or asked.name == SCORE:
        raise ValueError(f"ask {asked.name!r} is already registered")
    _REGISTRY[asked.name] = asked
    return asked


def names() -> tuple[str, ...]:
    """Return the names of all questions that have a graph, in the order in which they were registered."""
    return tuple(_REGISTRY)


def spec(name: str) -> AskSpec:
    """Return the question of a name.

    Raises:
        InvalidParameter: Unknown name.
    """
    if name not in _REGISTRY:
        raise InvalidParameter(f"graph must be one of {', '.join(_REGISTRY)}, got {name!r}")
    return _REGISTRY[name]


def answerable(companions: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of the questions that need no companion other than ``companions``."""
    return tuple(name for name, asked in _REGISTRY.items() if set(asked.companions) <= set(companions))
