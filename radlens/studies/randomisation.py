"""The randomisation check of each method (Adebayo et al., NeurIPS 2018), computed or stored in a bundle."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from radlens.evaluation import Randomisation, model_randomisation
from radlens.explainers import Explainer
from radlens.explainers.eager import EagerClassifier
from radlens.studies.faithfulness import cheaper
from radlens.studies.maps import MapSet, method_parameters
from radlens.studies.models import LAYER

__all__ = ["N_POINTS", "RandomisationCheck", "check_randomisation", "stored_randomisation"]

N_POINTS = 8
"""Number of depths at which maps are compared."""

_MEASURES = ("spearman", "spearman_absolute", "ssim")

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, eq=False)
class RandomisationCheck:
    """Similarity of maps as the layers of the first member are randomised.

    Attributes:
        methods: similarities by method.
        n_images: number of images.
        parameters: parameters of the methods that were made cheaper.
    """

    methods: Mapping[str, Randomisation]
    n_images: int
    parameters: Mapping[str, Mapping[str, Any]]


def check_randomisation(
    maps: MapSet,
    indices: Sequence[int],
    *,
    n_points: int = N_POINTS,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> RandomisationCheck | None:
    """Randomise the first member and compare the maps; results in the store are reused.

    Maps are computed by torch, with the quick parameters of slow methods.

    Args:
        maps: maps with the methods and targets.
        indices: indices of the images.
        n_points: number of depths.
        seed: seed of the new weights.
        on_progress: called as ``on_progress(stage, done, total)``.

    Returns:
        The similarities; None for a bundle, which has no modules.
    """
    model, report = maps.model, on_progress or (lambda *_: None)
    if not model.networks:
        return None
    quick = {name: cheaper(method) for name, method in maps.methods.items()}
    stage, title = f"randomisation/{model.name}", f"randomisation, {model.title}"
    found = {}
    for place, (name, method) in enumerate(quick.items()):
        # The default binds the place of this round; a closure would see that of the last one.
        def on_depth(done: int, total: int, place: int = place) -> None:
            report(title, place * n_points + done * n_points / total, len(quick) * n_points)

        on_depth(0, 1)
        key = {
            "model": model.identity,
            "cases": [maps.cases.key(i) for i in indices],
            "targets": [maps.targets[i] for i in indices],
            "method": name,
            "parameters": method_parameters(method),
            "n_points": n_points,
            "seed": seed,
        }
        compute = partial(_compared, maps, indices, method, n_points, seed, on_depth)
        found[name] = _randomisation(maps.store.arrays(stage, key, compute))
    report(title, len(quick) * n_points, len(quick) * n_points)
    changed = {n: method_parameters(m) for n, m in quick.items() if m != maps.methods[n]}
    return RandomisationCheck(found, len(indices), changed)


def stored_randomisation(record: Mapping[str, Any]) -> dict[str, Randomisation]:
    """Return the stored results of a bundle by method: means over images, NaN for measures that were not stored."""
    return {name: _stored(values) for name, values in record.items()}


def _stored(values: Mapping[str, Any]) -> Randomisation:
    n = len(values["layers"])
    columns = [np.array(values.get(measure, [np.nan] * n), dtype=np.float64)[:, None] for measure in _MEASURES]
    return Randomisation(tuple(values["layers"]), *columns)


def _compared(
    maps: MapSet,
    indices: Sequence[int],
    method: Explainer,
    n_points: int,
    seed: int,
    on_depth: Callable[[int, int], None],
) -> dict[str, np.ndarray]:
    shape, targets = maps.model.input.image_shape, torch.tensor([maps.targets[i] for i in indices])

    def explain(network: nn.Module, images: Tensor) -> Tensor:
        values = method.attribute(EagerClassifier(network, shape, layer=LAYER), images, targets)
        return values if method.per_channel else values[:, :1]

    images = torch.stack([maps.cases[i].image for i in indices])
    result = model_randomisation(
        maps.model.networks[0], explain, images, n_points=n_points, seed=seed, on_progress=on_depth
    )
    return {"layers": np.array(result.layers), **{measure: getattr(result, measure) for measure in _MEASURES}}


def _randomisation(arrays: Mapping[str, np.ndarray]) -> Randomisation:
    return Randomisation(tuple(arrays["layers"].tolist()), *(arrays[measure] for measure in _MEASURES))
