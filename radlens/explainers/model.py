"""The interface of a model to explainers: it answers questions about images."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from radlens.errors import UnsupportedOperation
from radlens.explainers.scores import class_weights
from radlens.explainers.work import Ask, answers

__all__ = ["Model"]


class Model(ABC):
    """A model that can be explained: a classifier, an ensemble, or a model of one score.

    The score of a class is its logit. A network with a single output has two classes: the score of class 1 is the
    logit, the score of class 0 its negative. A model of one score has no classes and no targets.

    Attributes:
        n_outputs: Number of logits; None for a model of one score.
        image_shape: Shape ``(c, h, w)`` of images; None if the model takes any shape.
        dtype: Type that images are converted to; None if the model takes any type.
        members: Members of an ensemble; empty for a single network.
    """

    n_outputs: int | None = None
    image_shape: tuple[int, int, int] | None = None
    dtype: torch.dtype | None = None
    members: Sequence["Model"] = ()

    def ask(self, name: str, targets: Tensor | None = None, /, **arrays: Tensor) -> tuple[Tensor, ...]:
        """Answer a question for each image of a batch.

        Args:
            name: ``"score"``, ``"prediction"``, ``"gradient"`` or another name in :mod:`radlens.graphs.asks`.
            targets: Class whose score is meant, ``(b,)`` int64; None for logits and for a model of one score.
            arrays: Inputs of the question by name, batch first; every question has ``"images"``, ``(b, c, h, w)``.

        Returns:
            The parts of the answer, batch first.

        Raises:
            UnsupportedOperation: The model cannot answer this question.
        """
        if name == "score" and self.n_outputs is not None:
            # No graph computes the score of a class: it is a weighted sum of the logits.
            (logits,) = self._answer("prediction", None, arrays)
            return ((logits * self._weights(targets).to(logits)).sum(dim=1),)
        return self._answer(name, targets, arrays)

    @abstractmethod
    def _answer(self, name: str, targets: Tensor | None, arrays: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Answer as `ask` does; `ask` computes the score of a classifier itself."""

    def can(self, name: str) -> str | None:
        """Return why the model cannot answer a question, or None if it can.

        By default a model answers ``"score"`` and ``"gradient"``.
        """
        return None if name in ("score", "gradient") else "it has one score, and its gradient"

    def require(self, name: str) -> None:
        """Check that the model can answer a question.

        Raises:
            UnsupportedOperation: It cannot; the message gives the reason.
        """
        if (reason := self.can(name)) is not None:
            raise UnsupportedOperation(f"the model cannot answer {name!r}: {reason}")

    def answer(self, asks: Sequence[Ask]) -> list[tuple[Tensor, ...]]:
        """Return the answers of several questions, which share calls of the model where they can."""
        return answers(self, asks)

    def outputs(self, images: Tensor) -> Tensor:
        """Return the logits ``(b, n_outputs)`` of images ``(b, c, h, w)``."""
        return self.ask("prediction", images=images)[0]

    def score(self, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the score of each image's target, ``(b,)``."""
        return self.ask("score", targets, images=images)[0]

    def gradient(self, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return d score / d image, ``(b, c, h, w)``."""
        return self.ask("gradient", targets, images=images)[0]

    def _weights(self, targets: Tensor | None) -> Tensor:
        assert targets is not None, "a score of a classifier is that of a class"
        assert self.n_outputs is not None, "only classifiers have classes"
        return class_weights(targets, self.n_outputs)
