"""Maps of one image and one model: the experiments behind the figures of Amanova et al. 2022.

`radlens figures` draws them for any image, `radlens.studies.amanova` for those of the paper.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from radlens.explainers import Checkpoint, Explainer, Occlusion, Omig, Sensitivity, UpsampledMap, upsample
from radlens.families.cdmam.disk_statistics import DiskContrast, DiskStatistic, disk_statistic, map_statement
from radlens.studies.amanova_recipes import Predicted, Recipe, View
from radlens.studies.store import Key, Store, digest

__all__ = [
    "CLEAR_PATH_LENGTH",
    "METHODS",
    "PATH_LENGTHS",
    "MapParameters",
    "ShownMap",
    "before_after",
    "disks_of",
    "sample_maps",
    "upsampled",
    "upsampled_with_twin",
]

PATH_LENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Compared values of c. The paper chooses 1; the effect of a value depends on the scale of the gradient."""

CLEAR_PATH_LENGTH = 10.0
"""Value of c at which the curve falls visibly. With members that read the disks, c = 1 lowers the midpoint by 2 % and
c = 100 to a quarter (scenario 1)."""

METHODS = ("occlusion sensitivity", "sensitivity", "OMIG")
"""Methods of Fig. 3, from left to right."""

_WINDOW = 10

OnSamples = Callable[[int, int], None]


@dataclass(frozen=True)
class MapParameters:
    """Parameters of maps.

    Args:
        n_samples: number of samples of an upsampled map (N).
        n_steps: number of gradients on the path of OMIG (L).
        path_length: length of the path (c).
        zscore: threshold of the Z-score (t).
        stride: distance between the squares of occlusion, in pixels of a sample; each square is 10 pixels wide, and
            at least as wide as they are apart.
        seed: seed of the samples.
    """

    n_samples: int = 5000
    n_steps: int = 50
    path_length: float = 1.0
    zscore: float = 3.0
    stride: int = 5
    seed: int = 0

    def omig(self, path_length: float | None = None) -> Omig:
        """Return the explainer, with ``path_length`` if given."""
        return Omig(self.n_steps, self.path_length if path_length is None else path_length, self.zscore)

    def explainers(self) -> tuple[Explainer, ...]:
        """Return the explainers of `METHODS`."""
        return Occlusion(self.window, self.stride, effect="rise"), Sensitivity(), self.omig()

    @property
    def window(self) -> int:
        """Side of the squares of occlusion, in pixels of a sample."""
        return max(_WINDOW, self.stride)

    def text(self, *names: str, **changes: Any) -> str:
        """Return parameters as a sentence for a caption.

        Args:
            names: names among ``c``, ``L``, ``t``, ``N``, ``occlusion`` and ``seed``.
            **changes: values that replace those of the parameters.
        """
        values = {
            "c": f"c = {self.path_length:g}",
            "L": f"L = {self.n_steps}",
            "t": f"t = {self.zscore:g}",
            "N": f"N = {self.n_samples} samples",
            "occlusion": f"squares of {self.window} × {self.window} pixels of the sample, {self.stride} pixels apart",
            "seed": f"seed {self.seed}",
        }
        given = {"N": "N = {} samples"}
        values |= {name: given.get(name, name + " = {}").format(value) for name, value in changes.items()}
        return ", ".join(values[name] for name in names)


@dataclass(frozen=True, eq=False)
class ShownMap:
    """An upsampled map and its disk statistics.

    Attributes:
        found: the map, on the grid of its view.
        view: view of the model on the image.
        statistic: disk statistic of the map.
        twin: disk statistic of the map of the disk-free twin.
        reliability: reliability of the map, nan if unknown.
    """

    found: UpsampledMap
    view: View
    statistic: DiskStatistic
    twin: DiskStatistic
    reliability: float

    @property
    def on_image(self) -> UpsampledMap:
        """The map on the grid of the image."""
        return self.view.on_image(self.found)

    @property
    def sentence(self) -> str:
        """Statement of the two statistics about the disks."""
        return map_statement(self.statistic, self.twin, self.reliability).sentence

    def as_json(self) -> dict[str, Any]:
        """Return statistics and reliability as JSON values."""
        numbers = {"disks": self.statistic.as_json(), "twin": self.twin.as_json()}
        known = self.reliability if math.isfinite(self.reliability) else None
        return {**numbers, "reliability": known, "n_samples": self.found.n_samples, "statement": self.sentence}


def sample_maps(recipe: Recipe, view: View, parameters: MapParameters) -> list[NDArray[np.float64]]:
    """Return the maps ``(250, 250)`` of `METHODS` of the first sample (Fig. 3)."""
    sample = recipe.samples(view, seed=parameters.seed, n=1)
    with torch.no_grad():
        return [each.attribute(recipe.model, sample).numpy()[0, 0] for each in parameters.explainers()]


def disks_of(recipe: Recipe, view: View, values: NDArray[Any], mean_um: ArrayLike, *, seed: int = 0) -> DiskStatistic:
    """Return the disk statistic of a map of the first sample of a view.

    Args:
        recipe: recipe of the sample.
        view: view from which the sample was taken.
        values: ``(250, 250)`` map.
        mean_um: (12,) curve that determines which disks should be visible, um of gold.
        seed: seed of the samples.
    """
    places = recipe.places(view, 0, seed)
    total, visits = np.zeros(view.values.size), np.zeros(view.values.size, np.int64)
    np.add.at(total, places.ravel(), values.ravel())
    np.add.at(visits, places.ravel(), 1)
    return _statistic(view, total.reshape(view.values.shape), visits.reshape(view.values.shape), mean_um)


def before_after(recipe: Recipe, view: View, explainer: Explainer, *, seed: int = 0) -> tuple[Predicted, Predicted]:
    """Return the curves of an image before and after adding to each sample its own map (Fig. 13)."""
    samples = recipe.samples(view, seed=seed)
    with torch.no_grad():
        moved = samples + explainer.attribute(recipe.model, samples)
    return recipe.curve(samples, view), recipe.curve(moved, view)


def upsampled(
    recipe: Recipe,
    view: View,
    explainer: Explainer,
    *,
    n_samples: int,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    on_progress: Callable[..., None] | None = None,
) -> UpsampledMap:
    """Return the upsampled map of a view, on its own grid (Algorithm 2).

    Args:
        recipe: recipe with the model.
        view: view of the model on the image.
        explainer: explainer of the samples.
        n_samples: number of samples (N).
        seed: seed of the samples.
        checkpoint: checkpoint from which an interrupted map resumes.
        on_progress: callback of `radlens.explainers.upsample`.
    """

    def explain(batch: Tensor) -> Tensor:
        return explainer.attribute(recipe.model, batch)

    with torch.no_grad():
        return upsample(
            np.ascontiguousarray(view.values),
            explain,
            n_samples=n_samples,
            sampler=recipe.sampler,
            seed=seed,
            batch_size=max(1, min(getattr(recipe.model, "batch_size", 8), n_samples)),
            on_progress=on_progress,
            checkpoint=checkpoint,
        )


def upsampled_with_twin(
    recipe: Recipe,
    view: View,
    explainer: Explainer,
    mean_um: ArrayLike,
    *,
    n_samples: int,
    store: Store,
    key: Key,
    seed: int = 0,
    on_samples: OnSamples | None = None,
) -> ShownMap:
    """Return the upsampled map of a view and the disk statistics of map and twin; both are stored and resumable.

    Args:
        recipe: recipe with the model.
        view: view of the model on the image.
        explainer: explainer of the samples.
        mean_um: (12,) curve that determines which disks should be visible, um of gold.
        n_samples: number of samples (N) of map and twin each.
        store: store of finished maps, and of checkpoints.
        key: key of the image.
        seed: seed of the samples.
        on_samples: called as ``on_samples(done, total)``, in samples of map and twin together.
    """
    report = on_samples or (lambda done, total: None)
    own: dict[str, Any] = {
        "explainer": repr(explainer),
        "model": [recipe.identity, recipe.engine],
        "n_samples": n_samples,
        "seed": seed,
        **key,
    }

    def computed(part: str) -> Mapping[str, NDArray[Any]]:
        """Return map and statistic of the image, or the statistic of its twin, from the store or computed now."""
        is_twin = part == "twin"
        before, whole = n_samples * is_twin, own | {"part": part}
        if store.has("maps", whole):
            report(before + n_samples, 2 * n_samples)
            return store.load("maps", whole)
        begin, restored = time.monotonic(), 0

        def on_progress(done: int, total: int | None, partial: Any) -> None:
            nonlocal restored
            restored = partial.n_restored
            report(before + done, 2 * n_samples)

        file = store.folder / "maps" / f"{digest(whole)}.checkpoint.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        seen = view.twin() if is_twin else view
        found = upsampled(
            recipe,
            seen,
            explainer,
            n_samples=n_samples,
            seed=seed,
            checkpoint=Checkpoint(file, {name: str(value) for name, value in whole.items()}),
            on_progress=on_progress,
        )
        arrays = _packed(found, _statistic(view, found.total, found.visits, mean_um), with_map=not is_twin)
        # Assume that the restored samples of an interrupted run took as long each as those of this run.
        store.keep("maps", whole, arrays, (time.monotonic() - begin) * n_samples / max(1, n_samples - restored))
        file.unlink(missing_ok=True)
        return store.load("maps", whole)

    shown, twin = computed("image"), computed("twin")
    found = UpsampledMap(shown["map"].astype(np.float64), shown["visits"].astype(np.int64), n_samples)
    return ShownMap(found, view, _unpacked(shown), _unpacked(twin), float(shown["reliability"]))


def _statistic(view: View, total: NDArray[Any], visits: NDArray[Any], mean_um: ArrayLike) -> DiskStatistic:
    upright, grid = view.over_phantom(total)
    return disk_statistic(upright, view.over_phantom(visits)[0], grid, mean_um)


def _packed(found: UpsampledMap, statistic: DiskStatistic, *, with_map: bool) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        # As text: the statistic has nested fields, and an archive without pickle holds only arrays.
        "statistic": np.array(json.dumps(statistic.as_json())),
        "reliability": np.array(found.reliability),
    }
    if with_map:
        arrays |= {
            "map": found.map.astype(np.float32),
            "visits": found.visits.astype(np.min_scalar_type(found.n_samples)),
        }
    return arrays


def _unpacked(arrays: Mapping[str, NDArray[Any]]) -> DiskStatistic:
    groups = json.loads(str(arrays["statistic"]))
    known: dict[str, dict[str, Any]] = {
        group: {name: math.nan if value is None else value for name, value in numbers.items()}
        for group, numbers in groups.items()
    }
    return DiskStatistic(**{group: DiskContrast(**numbers) for group, numbers in known.items()})
