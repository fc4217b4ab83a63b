"""Maps of every method for every image of a study; the methods of an image share model calls."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from radlens.errors import InvalidParameter
from radlens.explainers import Explainer, complete, create, predicted
from radlens.studies.cases import Cases
from radlens.studies.models import StudyModel
from radlens.studies.store import Key, Store

__all__ = ["MapSet", "Target", "explain_cases", "method_parameters", "methods_of", "score_cases", "targets_of"]

Target = Literal["positive", "predicted"]
"""Explained class: the positive class for every image, or the predicted class of each image."""

SCORES = "scores"
_PER_PIECE = 16

_CALLS_TOGETHER = 32
"""Network evaluations of a batch of images: enough to fill the calls, and few enough to lose little when a study is
interrupted."""

Progress = Callable[[str, float, float], None]


def methods_of(names: Iterable[str], parameters: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Explainer]:
    """Return the methods by name, with their defaults unless ``parameters`` has a value.

    Raises:
        InvalidParameter: a method is unknown or does not explain classes, or a value is out of range.
    """
    found = {name: create(name, **(parameters or {}).get(name, {})) for name in names}
    for name, method in found.items():
        if not method.for_classes:
            raise InvalidParameter(f"methods must explain classes, got {name}")
    return found  # type: ignore[return-value]  # checked by the loop above


def method_parameters(method: Explainer) -> dict[str, Any]:
    """Return the parameters of a method as JSON values, without those that do not change its maps."""
    values = asdict(method)  # type: ignore[call-overload]  # every method is a dataclass
    return {name: value for name, value in values.items() if name != "internal_batch_size"}


def score_cases(model: StudyModel, cases: Cases, store: Store, *, on_progress: Progress | None = None) -> np.ndarray:
    """Return the logits of all images, ``(n, n_outputs)`` float64.

    Args:
        model: the model.
        cases: the images.
        store: store of the logits.
        on_progress: called as ``on_progress(stage, done, total)``.
    """
    report = on_progress or (lambda *_: None)
    stage, found = f"{SCORES}/{model.name}", []
    for first in range(0, len(cases), _PER_PIECE):
        indices = range(first, min(first + _PER_PIECE, len(cases)))
        key = {"model": model.identity, "cases": [cases.key(i) for i in indices]}
        found.append(store.arrays(stage, key, partial(_logits, model, cases, indices))["logits"])
        report(f"predictions of {model.title}", indices.stop, len(cases))
    return np.concatenate(found).astype(np.float64)


def _logits(model: StudyModel, cases: Cases, indices: Iterable[int]) -> dict[str, np.ndarray]:
    images = torch.stack([cases[i].image for i in indices])
    return {"logits": model.classifier.outputs(images).float().numpy()}


@dataclass(frozen=True, eq=False)
class MapSet:
    """Maps in a store.

    Attributes:
        model: explained model.
        cases: set of images.
        methods: methods by name.
        targets: explained class by index of the image in the set.
        store: store of the maps.
        stage: stage of the store.
    """

    model: StudyModel
    cases: Cases
    methods: Mapping[str, Explainer]
    targets: Mapping[int, int]
    store: Store
    stage: str

    def map(self, method: str, index: int) -> np.ndarray:
        """Return the map of one image, ``(h, w)`` float32, channels summed."""
        return self.parts(method, index).sum(axis=0)

    def parts(self, method: str, index: int) -> np.ndarray:
        """Return the map of one image by channel, ``(c, h, w)``; ``(1, h, w)`` for methods without channels."""
        return self.store.load(self.stage, self.key(method, index))["map"]

    def delta(self, method: str, index: int) -> float | None:
        """Return the completeness error of a map, in units of the score; None for methods that do not claim it."""
        value = float(self.store.load(self.stage, self.key(method, index))["delta"])
        return None if np.isnan(value) else value

    def key(self, method: str, index: int) -> Key:
        """Return the key of a map in the store."""
        return {
            "model": self.model.identity,
            "case": self.cases.key(index),
            "method": method,
            "parameters": method_parameters(self.methods[method]),
            "target": self.targets[index],
        }


def targets_of(model: StudyModel, logits: np.ndarray, indices: Iterable[int], target: Target) -> dict[int, int]:
    """Return the class to explain for each of some images.

    Args:
        model: explained model.
        logits: ``(n, n_outputs)`` outputs for all images.
        indices: indices of the images.
        target: "positive" or "predicted".
    """
    if target == "positive":
        return dict.fromkeys(indices, model.positive)
    classes = predicted(torch.from_numpy(logits)).tolist()
    return {index: classes[index] for index in indices}


def explain_cases(
    model: StudyModel,
    cases: Cases,
    targets: Mapping[int, int],
    methods: Mapping[str, Explainer],
    store: Store,
    *,
    on_progress: Progress | None = None,
) -> MapSet:
    """Compute the maps that are not in the store.

    Args:
        model: model to explain.
        cases: set of images.
        targets: class to explain, by index of the image; other images are skipped.
        methods: methods by name.
        store: store of the maps.
        on_progress: called as ``on_progress(stage, done, total)``.
    """
    report = on_progress or (lambda *_: None)
    maps = MapSet(model, cases, methods, targets, store, f"maps/{model.name}")
    indices = list(targets)
    for batch in _batches(indices, methods, model.input.shape):
        report(f"maps of {model.title}", batch[0], len(indices))
        _explain(maps, indices[batch.start : batch.stop])
    report(f"maps of {model.title}", len(indices), len(indices))
    return maps


def _batches(indices: Sequence[int], methods: Mapping[str, Explainer], shape: tuple[int, int]) -> Iterator[range]:
    """Yield ranges of images that are explained together: several if the methods need few evaluations."""
    cost = sum(method.cost(*shape) for method in methods.values())
    size = max(1, _CALLS_TOGETHER // max(cost, 1))
    for first in range(0, len(indices), size):
        yield range(first, min(first + size, len(indices)))


def _explain(maps: MapSet, indices: Sequence[int]) -> None:
    """Compute the maps of some images that are not in the store."""
    missing = [
        (name, index)
        for index in indices
        for name in maps.methods
        if not maps.store.has(maps.stage, maps.key(name, index))
    ]
    if not missing:
        return
    begin = time.monotonic()
    images = {index: maps.cases[index].image for index in {index for _, index in missing}}
    with torch.no_grad():
        tasks = [maps.methods[name].work(images[index], maps.targets[index]) for name, index in missing]
        found = complete(maps.model.classifier, tasks)
    # Methods share calls of the model, so the time of a single map is not known: all get the mean.
    seconds = (time.monotonic() - begin) / len(missing)
    for (name, index), attribution in zip(missing, found, strict=True):
        values = attribution.map if maps.methods[name].per_channel else attribution.map[:1]
        delta = float("nan") if attribution.delta is None else attribution.delta
        arrays = {"map": values.float().numpy(), "delta": np.array(delta)}
        maps.store.keep(maps.stage, maps.key(name, index), arrays, seconds)
