"""Predictions and explanations of a batch, computed together.

Every row is a task that puts questions to the network. The questions of all rows, with any mixture of predictions,
methods and targets, share its calls (:func:`radlens.explainers.complete`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radlens.datasets import Prepared
from radlens.errors import UnreadableImage
from radlens.explainers import Ask, Attribution, Explainer, Work, complete, of_member, predicted, probabilities
from radlens.explainers.work import Step
from radlens.families.classifier.rows import ClassifierRow
from radlens.families.classifier.trust import TrustCard, trust_card

__all__ = ["ClassExplanation", "ClassPrediction", "Computer", "grid_map"]

_HALF = 0.5
"""Value above which a pixel of a picture of 0 and 1 is 1."""


@dataclass(frozen=True, eq=False)
class ClassPrediction:
    """Prediction of an image.

    Attributes:
        logits: ``(m, n)`` float32, logits of each member.
        probabilities: ``(k,)`` float64, probability of each class from the mean logits.
        member_probabilities: ``(m, k)`` float64, probabilities of each member.
        predicted: index of the predicted class.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    member_probabilities: np.ndarray
    predicted: int


@dataclass(frozen=True, eq=False)
class ClassExplanation:
    """Map of the score of a class.

    Maps are moved to the grid of the sent image at each call: a batch of full-size images would otherwise hold
    gigabytes.

    Attributes:
        prediction: prediction of the image.
        target: index of the explained class.
        prepared: preprocessed image, which can move maps back to the grid of the sent image.
        grids: map of the model, or maps of the members, on the network's grid, ``(h, w)`` float32 each.
        delta: convergence delta of :class:`radlens.explainers.Attribution`; the mean over the members if they are
            explained separately.
        trust: trust card; None if it was not requested.
        pictures: further results of the method by name, on the network's grid, ``(c, h, w)`` float32 each.
        kinds: what the pictures show, see :class:`radlens.explainers.Explainer`.
        numbers: further results as JSON values by name.
    """

    prediction: ClassPrediction
    target: int
    prepared: Prepared
    grids: tuple[np.ndarray, ...]
    delta: float | None = None
    trust: TrustCard | None = None
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def map(self) -> np.ndarray:
        """Return the map of the model, or the mean of the members' maps, ``(H, W)`` float32 on the image's grid."""
        return self.prepared.on_image(np.mean(self.grids, axis=0))

    def on_image(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """Return a picture of the method ``(H, W)`` float32 on the image's grid.

        Images and differences are in the unit of the pixels. An image keeps the resolution of the sent image: what
        differs from the preprocessed image is added to it, and pixels whose place on the network's grid did not change
        keep their values exactly.

        Args:
            name: Name of the picture.
            pixels: Pixels ``(H, W)`` of the sent image.
        """
        values, kind = self.pictures[name], self.kinds.get(name)
        if kind == "mask":
            return (self.prepared.on_image(values.mean(axis=0), nearest=True) > _HALF).astype(np.float32)
        if kind not in ("image", "difference"):
            return self.prepared.on_image(values.mean(axis=0))
        change = values - self.prepared.pixels if kind == "image" else values
        grid = self.prepared.in_pixels(change, difference=True)
        moved = np.where(self.prepared.on_image(grid, nearest=True) != 0, self.prepared.on_image(grid), 0)
        return (pixels + moved).astype(np.float32) if kind == "image" else moved

    def members(self) -> Iterator[np.ndarray]:
        """Yield the map of each member, ``(H, W)`` float32 on the image's grid."""
        return (self.prepared.on_image(values) for values in self.grids)

    def disagreement(self) -> np.ndarray:
        """Return the standard deviation over the members, ``(H, W)`` float32."""
        mean = self.map()
        variance = np.zeros_like(mean)
        for values in self.members():
            variance += (values - mean) ** 2
        return np.sqrt(variance / len(self.grids))


class Computer:
    """Computes rows with one model.

    Args:
        model: a :class:`radlens.families.classifier.model.EnsembleClassifier`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def compute(
        self, rows: Sequence[ClassifierRow], on_step: Callable[[int, Step], None] | None = None
    ) -> list[ClassPrediction | ClassExplanation]:
        """Return the result of each row; an image that cannot be judged gets a prediction and no map.

        Args:
            rows: Rows of one batch.
            on_step: Called as ``on_step(number of the row, step)`` by methods that work in steps.

        Raises:
            UnreadableImage: The pixels of a row are so large that its logits or its map are not finite.
        """
        with torch.no_grad():
            return complete(self._model, [self._work(row) for row in rows], on_step)

    def _work(self, row: ClassifierRow) -> Work:
        image = torch.from_numpy(row.prepared.pixels)
        prediction = yield from self._predict(image)
        settings = row.settings
        if settings.explainer is None or not row.assessment.assessable:
            return prediction
        target = prediction.predicted if settings.target is None else settings.target
        found = yield from self._attribute(settings.explainer, image, target, each=settings.members == "each")
        grids = tuple(grid_map(each.map, settings.explainer) for each in found)
        if not all(np.isfinite(values).all() for values in grids):
            raise UnreadableImage("pixels must be small enough for a finite map, got one that overflows")
        whole = Attribution(torch.stack([each.map for each in found]).mean(dim=0), _mean_delta(found))
        return ClassExplanation(
            prediction,
            target,
            row.prepared,
            grids,
            whole.delta,
            trust_card(self._model, settings.explainer, image, whole, target) if settings.trust else None,
            {name: values.numpy() for name, values in found[0].pictures.items()} if len(found) == 1 else {},
            settings.explainer.pictures,
            _numbers(found),
        )

    def _predict(self, image: Tensor) -> Work:
        logits: list[Tensor] = []
        for member in range(len(self._model.members)):
            logits += yield Ask("prediction", {"images": image[None]}, member=member)
        stacked = torch.cat(logits)
        if not stacked.isfinite().all():
            raise UnreadableImage("pixels must be small enough to predict from, got values that overflow the model")
        mean = stacked.mean(dim=0)[None]
        return ClassPrediction(
            stacked.numpy(), probabilities(mean)[0].numpy(), probabilities(stacked).numpy(), int(predicted(mean)[0])
        )

    def _attribute(self, explainer: Explainer, image: Tensor, target: int, *, each: bool) -> Work:
        if not each:
            return [(yield from explainer.work(image, target))]
        found = []
        for member in range(len(self._model.members)):
            found.append((yield from of_member(explainer.work(image, target), member)))
        return found


def grid_map(values: Tensor, explainer: Explainer) -> np.ndarray:
    """Return a map ``(c, h, w)`` as ``(h, w)``: the sum over channels, or one channel if all have the same map."""
    return (values.sum(dim=0) if explainer.per_channel else values[0]).numpy()


def _numbers(found: Sequence[Attribution]) -> Mapping[str, Any]:
    """Return the numbers of the explanation, or those of each member."""
    if len(found) == 1 or not any(each.numbers for each in found):
        return found[0].numbers
    return {"members": [dict(each.numbers) for each in found]}


def _mean_delta(found: Sequence[Attribution]) -> float | None:
    deltas = [each.delta for each in found if each.delta is not None]
    return sum(deltas) / len(deltas) if deltas else None
