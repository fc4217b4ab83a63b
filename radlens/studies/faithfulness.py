"""Faithfulness of the maps of each method: deletion, insertion, infidelity, max-sensitivity."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radlens.evaluation import deletion, infidelity, insertion, max_sensitivity
from radlens.explainers import Explainer, Occlusion, images_per_call, probabilities
from radlens.studies.maps import MapSet
from radlens.studies.store import Key

__all__ = ["RANDOM", "Effort", "Faithfulness", "MethodFaithfulness", "cheaper", "measure_faithfulness"]

RANDOM = "random"
"""Name of the control: pixels in random order."""

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Effort:
    """Effort per map.

    Args:
        n_steps: number of steps of deletion and insertion.
        n_squares: number of squares for the infidelity.
        n_noisy: number of noisy copies for the max-sensitivity; 0 leaves it out.
        seed: seed of squares, noise and the random order.
    """

    n_steps: int = 25
    n_squares: int = 40
    n_noisy: int = 3
    seed: int = 0


@dataclass(frozen=True, eq=False)
class MethodFaithfulness:
    """Measures of one method.

    Attributes:
        deletion: ``(n, k)`` probability of the explained class as pixels are removed, most important first.
        insertion: ``(n, k)`` probability of the explained class as pixels are inserted, most important first.
        infidelity: ``(n,)`` squared units of the logit, maps scaled by the factor that fits best; empty for the
            control.
        max_sensitivity: ``(n,)`` dimensionless; empty if not measured.
    """

    deletion: np.ndarray
    insertion: np.ndarray
    infidelity: np.ndarray
    max_sensitivity: np.ndarray


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Measures of all methods.

    Attributes:
        indices: indices of the images.
        fractions: ``(k,)`` fraction of changed pixels, from 0 to 1.
        methods: measures by method, `RANDOM` last.
        infidelity_of_zero: ``(n,)`` infidelity of a map of zeros.
        effort: effort per map.
    """

    indices: Sequence[int]
    fractions: np.ndarray
    methods: Mapping[str, MethodFaithfulness]
    infidelity_of_zero: np.ndarray
    effort: Effort


def cheaper(method: Explainer) -> Explainer:
    """Return a method with the cheaper of its parameters and its quick ones; squares of occlusion do not overlap."""
    quick = method.quicker()
    if isinstance(quick, Occlusion):
        return replace(quick, stride=max(quick.stride, quick.window))
    return quick


def measure_faithfulness(
    maps: MapSet, indices: Sequence[int], effort: Effort | None = None, *, on_progress: Progress | None = None
) -> Faithfulness:
    """Measure the maps of all methods; results in the store are reused.

    Args:
        maps: maps of the images.
        indices: indices of the images to measure, at least one.
        effort: effort per map.
        on_progress: called as ``on_progress(stage, done, total)``.
    """
    effort, report = effort or Effort(), on_progress or (lambda *_: None)
    names = (*maps.methods, RANDOM)
    stage, title = f"faithfulness/{maps.model.name}", f"faithfulness, {maps.model.title}"
    found: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in names}
    for done, index in enumerate(indices):
        measured = _Measured(maps, index, effort)
        for place, name in enumerate(names):
            report(title, done * len(names) + place, len(indices) * len(names))
            found[name].append(maps.store.arrays(stage, measured.key(name), partial(measured.measure, name)))
    report(title, len(indices) * len(names), len(indices) * len(names))
    columns = {name: {part: np.array([row[part] for row in rows]) for part in rows[0]} for name, rows in found.items()}
    of_zero = columns[RANDOM].pop("infidelity_of_zero")
    fractions = columns[RANDOM].pop("fractions")[0]
    methods = {name: MethodFaithfulness(**{part: _known(v) for part, v in c.items()}) for name, c in columns.items()}
    return Faithfulness(list(indices), fractions, methods, of_zero, effort)


@dataclass(frozen=True, eq=False)
class _Measured:
    """The measurement of the maps of one image."""

    maps: MapSet
    index: int
    effort: Effort

    def key(self, name: str) -> Key:
        if name != RANDOM:
            quick = dict(self.maps.methods[name].quick)
            return {"map": self.maps.key(name, self.index), "effort": asdict(self.effort), "cheaper": quick}
        known = {"model": self.maps.model.identity, "case": self.maps.cases.key(self.index), "target": self._target}
        return {**known, "map": RANDOM, "effort": asdict(self.effort)}

    def measure(self, name: str) -> dict[str, np.ndarray]:
        """Return the measures of a map; NaN for measures that do not apply."""
        if name == RANDOM:
            order = torch.rand(1, *self._image.shape, generator=torch.Generator().manual_seed(self.effort.seed))
            zero = self._infidelity(torch.zeros_like(order), normalize=False)
            return self._curves(order) | {"infidelity_of_zero": zero, **_nothing("infidelity", "max_sensitivity")}
        parts = torch.from_numpy(self.maps.parts(name, self.index))
        channels = self._image.shape[0]
        whole = parts if parts.shape[0] == channels else parts.expand(channels, -1, -1) / channels
        values = whole[None].contiguous()
        curves = self._curves(values)
        del curves["fractions"]  # the same for all methods: the control keeps them
        return curves | {
            # The best factor of a map of zeros would be 0 / 0.
            "infidelity": self._infidelity(values, normalize=bool(values.any())),
            "max_sensitivity": self._sensitivity(self.maps.methods[name]),
        }

    @property
    def _target(self) -> int:
        return self.maps.targets[self.index]

    @property
    def _image(self) -> Tensor:
        return self.maps.cases[self.index].image

    def _curves(self, values: Tensor) -> dict[str, np.ndarray]:
        image = self._image[None]
        how: dict[str, Any] = {"n_steps": self.effort.n_steps, "batch_size": images_per_call(image[0])}
        removed = deletion(self._probability, image, values, **how)
        back = insertion(self._probability, image, values, **how)
        return {
            "fractions": removed.fractions.numpy(),
            "deletion": removed.scores[0].numpy(),
            "insertion": back.scores[0].numpy(),
        }

    def _infidelity(self, values: Tensor, *, normalize: bool) -> np.ndarray:
        image = self._image[None]
        found = infidelity(
            self._score,
            image,
            values,
            n_samples=self.effort.n_squares,
            normalize=normalize,
            batch_size=images_per_call(image[0]),
            seed=self.effort.seed,
        )
        return np.array(float(found))

    def _sensitivity(self, method: Explainer) -> np.ndarray:
        if not self.effort.n_noisy:
            return np.array(np.nan)
        quick = cheaper(method)
        found = max_sensitivity(
            lambda copies: quick.attribute(self.maps.model.classifier, copies, self._target),
            self._image[None],
            n_samples=self.effort.n_noisy,
            seed=self.effort.seed,
        )
        return np.array(float(found))

    def _probability(self, copies: Tensor) -> Tensor:
        return probabilities(self.maps.model.classifier.outputs(copies))[:, self._target]

    def _score(self, copies: Tensor) -> Tensor:
        return self.maps.model.classifier.score(copies, torch.full((len(copies),), self._target))


def _nothing(*names: str) -> dict[str, np.ndarray]:
    return {name: np.array(np.nan) for name in names}


def _known(values: np.ndarray) -> np.ndarray:
    """Return the values, or an empty array if they were not measured."""
    return values[:0] if np.isnan(values).all() else values
