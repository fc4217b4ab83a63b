"""From rows to numbers: the predictions and explanations of a batch, computed together.

Every row is a task that asks for evaluations of the network; the questions of all rows - predictions, methods and
targets in any mixture - share its calls, see :func:`radlens.explainers.complete`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radlens.errors import UnreadableImage
from radlens.explainers import Ask, Attribution, StepwiseExplainer, Work, complete, of_member, predicted, probabilities
from radlens.service.classifier.rows import ClassifierRow
from radlens.service.classifier.trust import TrustCard, trust_card

__all__ = ["ClassExplanation", "ClassPrediction", "Computer", "grid_map"]


@dataclass(frozen=True, eq=False)
class ClassPrediction:
    """What the network says of an image.

    Attributes:
        logits: ``(m, n)`` float32 of each member.
        probabilities: ``(k,)`` float64 of each class, from the mean logits.
        member_probabilities: ``(m, k)`` float64.
        predicted: number of the class.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    member_probabilities: np.ndarray
    predicted: int


@dataclass(frozen=True, eq=False)
class ClassExplanation:
    """A map with what it is about.

    Attributes:
        prediction: of the image.
        target: number of the class that is explained.
        map: ``(H, W)`` float32 on the grid of the image that was sent; with members, the mean of theirs.
        members: map of each member, ``(H, W)`` each; empty if they were not asked for.
        delta: see :class:`radlens.explainers.Attribution`; with members, the mean of theirs.
        trust: the trust card, if it was asked for.
    """

    prediction: ClassPrediction
    target: int
    map: np.ndarray
    members: tuple[np.ndarray, ...] = ()
    delta: float | None = None
    trust: TrustCard | None = None

    @property
    def disagreement(self) -> np.ndarray:
        """Standard deviation over the members, ``(H, W)`` float32."""
        return np.std(self.members, axis=0, dtype=np.float64).astype(np.float32)


class Computer:
    """Computes rows with one model.

    Args:
        model: a :class:`radlens.engines.classifier.EnsembleClassifier`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def compute(self, rows: Sequence[ClassifierRow]) -> list[ClassPrediction | ClassExplanation]:
        """Return the result of each row.

        Raises:
            UnreadableImage: the pixels of a row are so large that its logits or its map are not finite.
        """
        with torch.no_grad():
            return complete(self._model, [self._work(row) for row in rows])

    def _work(self, row: ClassifierRow) -> Work:
        image = torch.from_numpy(row.prepared.pixels)
        prediction = yield from self._predict(image)
        settings = row.settings
        if settings.explainer is None:
            return prediction
        target = prediction.predicted if settings.target is None else settings.target
        found = yield from self._attribute(settings.explainer, image, target, each=settings.members == "each")
        maps = [grid_map(each.map, settings.explainer) for each in found]
        if not all(np.isfinite(values).all() for values in maps):
            raise UnreadableImage("pixels must be small enough for a finite map, got one that overflows")
        on_image = tuple(row.prepared.on_image(values) for values in maps)
        whole = Attribution(torch.stack([each.map for each in found]).mean(dim=0), _mean_delta(found))
        return ClassExplanation(
            prediction,
            target,
            np.mean(on_image, axis=0) if len(on_image) > 1 else on_image[0],
            on_image if settings.members == "each" else (),
            whole.delta,
            trust_card(self._model, settings.explainer, image, whole, target) if settings.trust else None,
        )

    def _predict(self, image: Tensor) -> Work:
        logits = []
        for member in range(len(self._model.members)):
            logits.append((yield Ask("outputs", image[None], None, member=member))[0])
        stacked = torch.stack(logits)
        if not stacked.isfinite().all():
            raise UnreadableImage("pixels must be small enough to predict from, got values that overflow the model")
        mean = stacked.mean(dim=0)[None]
        return ClassPrediction(
            stacked.numpy(), probabilities(mean)[0].numpy(), probabilities(stacked).numpy(), int(predicted(mean)[0])
        )

    def _attribute(self, explainer: StepwiseExplainer, image: Tensor, target: int, *, each: bool) -> Work:
        if not each:
            return [(yield from explainer.work(image, target))]
        found = []
        for member in range(len(self._model.members)):
            found.append((yield from of_member(explainer.work(image, target), member)))
        return found


def grid_map(values: Tensor, explainer: StepwiseExplainer) -> np.ndarray:
    """Return a map ``(c, h, w)`` as ``(h, w)``: contributions of channels add up, copies of one map do not."""
    return (values.sum(dim=0) if explainer.per_channel else values[0]).numpy()


def _mean_delta(found: Sequence[Attribution]) -> float | None:
    deltas = [each.delta for each in found if each.delta is not None]
    return sum(deltas) / len(deltas) if deltas else None
