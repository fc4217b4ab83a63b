"""Models, images and maps of the study of Katzmann et al. 2021."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from radlens.errors import InvalidParameter
from radlens.evaluation.baselines import BASELINES, baseline_map
from radlens.explainers import EagerClassifier, Explainer, Model, create, probabilities
from radlens.families.classifier.cycling import of_run, run_images
from radlens.families.classifier.lesions import LesionPair, unseen_pair
from radlens.families.companions.cycle_recipes import CYCLE_PRESETS
from radlens.families.companions.cycle_training import train_generators
from radlens.families.companions.generators import load_generators
from radlens.networks import GeneratorPair
from radlens.phantoms import nodule
from radlens.studies.two_classifiers import TwoClassifiers

__all__ = [
    "FIRST",
    "GENERATORS",
    "METHODS",
    "MOST_SHIFT",
    "OURS",
    "SECOND",
    "SECOND_GENERATORS",
    "KatzmannOptions",
    "Material",
    "Patch",
]

FIRST, SECOND = "nodule-convnet", "nodule-resnet18"
"""Recipes of the explained classifier, and of the independent second one."""

GENERATORS, SECOND_GENERATORS = "generators", "generators-2"
"""Runs of two pairs of generators, which differ in their seeds."""

OURS = "cycle_activation"

METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    OURS: (OURS, {}),
    "deep_shap": ("deep_shap", {}),
    "deep_taylor": ("lrp", {"rule": "deep_taylor"}),
    "lrp": ("lrp", {}),
    "saliency": ("saliency", {}),
    "integrated_gradients": ("integrated_gradients", {}),
    "deep_lift": ("deep_lift", {}),
    "smooth_grad": ("smooth_grad", {}),
    "guided_grad_cam": ("guided_grad_cam", {}),
    "grad_cam": ("grad_cam", {}),
    "occlusion": ("occlusion", {"window": 12, "stride": 4}),
}
"""Methods whose maps are compared; the paper has the first four."""

MOST_SHIFT = 12
"""Largest shift of a patch in pixels; the generators learned shifts of this size."""

_BATCH = 32


@dataclass(frozen=True)
class KatzmannOptions:
    """Options of the study.

    Args:
        preset: ``"demo"`` or ``"paper"``, of the classifiers; the generators have the preset ``recommended`` in place
            of ``paper``, whose losses gave no usable pair.
        runs: finished runs by the name of the recipe, `GENERATORS` and `SECOND_GENERATORS`; the others are trained.
        n_patches: unseen patches that are changed, at least 20.
        n_maps: of these, patches whose maps by other methods are compared, at least 10.
        n_pairs: pairs of generators, 1 or 2; the second one shows how much the seed matters.

    Raises:
        InvalidParameter: a value is out of range, or a run is of no model of the study.
    """

    preset: str = "demo"
    runs: Mapping[str, Path] = field(default_factory=dict)
    n_patches: int = 235
    n_maps: int = 60
    n_pairs: int = 2

    def __post_init__(self) -> None:
        """Raise for values out of range."""
        if self.preset not in ("demo", "paper"):
            raise InvalidParameter(f"preset must be demo or paper, got {self.preset}")
        known = (FIRST, SECOND, GENERATORS, SECOND_GENERATORS)
        if unknown := [name for name in self.runs if name not in known]:
            raise InvalidParameter(f"runs must be of {', '.join(known)}, got {', '.join(unknown)}")
        for name, least in (("n_patches", 20), ("n_maps", 10)):
            if getattr(self, name) < least:
                raise InvalidParameter(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.n_pairs not in (1, 2):
            raise InvalidParameter(f"n_pairs must be 1 or 2, got {self.n_pairs}")
        if self.n_maps > self.n_patches:
            raise InvalidParameter(f"n_maps must be at most n_patches, {self.n_patches}, got {self.n_maps}")


@dataclass(frozen=True, eq=False)
class Patch:
    """An unseen patch and its truth.

    Attributes:
        pair: image, nodule, and the image without the nodule.
        changed: ``(h, w)`` bool, pixels that some feature of the nodule really changed.
        malignant: whether the nodule is malignant.
    """

    pair: LesionPair
    changed: np.ndarray
    malignant: bool


@dataclass(frozen=True, eq=False)
class Material(TwoClassifiers):
    """Models, images and maps of the study, each made when it is first needed."""

    options: KatzmannOptions

    recipes: ClassVar[tuple[str, str]] = (FIRST, SECOND)

    @cached_property
    def pairs(self) -> dict[str, GeneratorPair]:
        """The pairs of generators, by the name of their run."""
        names = (GENERATORS, SECOND_GENERATORS)[: self.options.n_pairs]
        return {name: load_generators(self._generators(name))[0] for name in names}

    @property
    def pair(self) -> GeneratorPair:
        """The pair of generators whose results are reported."""
        return self.pairs[GENERATORS]

    def _generators(self, name: str) -> Path:
        run = self.options.runs.get(name)
        if run is not None:
            return run
        run, preset = self.folder / "runs" / name, "demo" if self.options.preset == "demo" else "recommended"
        explained = of_run(self.classifier_run(FIRST))
        training, validation = run_images(self.classifier_run(FIRST), explained)
        recipe = CYCLE_PRESETS[preset]
        recipe = recipe if name == GENERATORS else replace(recipe, seed=recipe.seed + 1)
        train_generators(
            run,
            explained.classify,
            training,
            validation,
            recipe,
            preset=preset,
            origin=explained.origin(),
            on_progress=self.named(name),
        )
        return run

    @cached_property
    def model(self) -> Model:
        """The explained classifier with its generators."""
        shape = self.first.model_input.image_shape
        return EagerClassifier(self.first.members[0], shape, companions={"generators": self.pair})

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What results depend on, for the keys of stored ones."""
        weights = torch.cat([each.flatten()[:100] for each in self.pair.state_dict().values()]).double()
        return {"auc": self.first.record["evaluation"]["auc"]["value"], "generators": float(weights.sum())}

    # Images

    @cached_property
    def patches(self) -> list[Patch]:
        """The first unseen patches, benign and malignant in turn."""
        found = []
        for number in range(self.options.n_patches):
            pair = unseen_pair(self.first.record, number)
            category = self.first.classes[number % 2]
            drawn = nodule.sample(category, image_shape=self.first.model_input.shape, seed=pair.seed)
            changed = np.logical_or.reduce([np.zeros_like(drawn.mask), *drawn.feature_masks.values()])
            found.append(Patch(pair, changed, drawn.malignant))
            self.on_progress("simulating patches", number + 1, self.options.n_patches)
        return found

    @cached_property
    def labels(self) -> np.ndarray:
        """``(n,)``: 1 for malignant patches, 0 for benign ones."""
        return np.array([int(patch.malignant) for patch in self.patches])

    @cached_property
    def images(self) -> Tensor:
        """The patches as the network gets them, ``(n, c, h, w)``."""
        return torch.from_numpy(np.stack([patch.pair.image for patch in self.patches])).float()

    @cached_property
    def healthy(self) -> Tensor:
        """The same patches without their nodules, ``(n, c, h, w)``."""
        return torch.from_numpy(np.stack([patch.pair.healthy for patch in self.patches])).float()

    def generated(self, images: Tensor, name: str = GENERATORS) -> tuple[Tensor, Tensor]:
        """Return G+(x) and G-(x) of images ``(n, c, h, w)``."""
        with torch.no_grad():
            parts = [self.pairs[name](part) for part in images.split(_BATCH)]
        plus, minus = (torch.cat(column) for column in zip(*parts, strict=True))
        return plus, minus

    @cached_property
    def changed(self) -> tuple[Tensor, Tensor]:
        """G+(x) and G-(x) of the patches."""
        return self.generated(self.images)

    def scores(self, model: Model, images: Tensor) -> np.ndarray:
        """Return the probability of a malignant nodule in images ``(n, c, h, w)``."""
        found = [probabilities(model.outputs(part))[:, 1] for part in images.split(_BATCH)]
        return torch.cat(found).double().numpy()

    # Maps

    @cached_property
    def maps(self) -> dict[str, np.ndarray]:
        """Maps for the class malignant by each method and baseline, ``(n_maps, h, w)``."""
        return self._maps_of("maps", self.images[: self.options.n_maps])

    @cached_property
    def moved_maps(self) -> dict[str, np.ndarray]:
        """Maps of the same patches, each moved by its own of `shifts`."""
        return self._maps_of("maps of moved patches", torch.from_numpy(self.moved(self.images.numpy())))

    @cached_property
    def shifts(self) -> np.ndarray:
        """Pixels by which patches are moved, ``(n_maps, 2)``: nodules lie in the middle of patches otherwise."""
        return np.random.default_rng(17).integers(-MOST_SHIFT, MOST_SHIFT + 1, (self.options.n_maps, 2))

    def moved(self, arrays: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return the arrays ``(..., h, w)`` of the first patches, each moved as its patch; edges continue opposite."""
        pairs = zip(arrays, self.shifts, strict=False)
        return np.stack([np.roll(each, tuple(shift), (-2, -1)) for each, shift in pairs])

    def _maps_of(self, kind: str, images: Tensor) -> dict[str, np.ndarray]:
        found = {name: self._maps(name, kind, images) for name in METHODS}
        for name in BASELINES:
            found[name] = np.stack([baseline_map(name, image[0].numpy(), seed=k) for k, image in enumerate(images)])
        return found

    def method(self, name: str) -> Explainer:
        """Return a method of `METHODS`."""
        method, parameters = METHODS[name]
        return create(method, **parameters)

    def _maps(self, name: str, kind: str, images: Tensor) -> np.ndarray:
        method, n = self.method(name), len(images)
        key = {"method": name, "parameters": json.loads(json.dumps(vars(method))), "n": n, **self.identity}

        def compute() -> dict[str, np.ndarray]:
            found = []
            for done, image in enumerate(images, 1):
                found.append(method.attribute(self.model, image[None], 1)[0].sum(dim=0).numpy())
                self.on_progress(f"{kind} by {name}", done, n)
            return {"maps": np.stack(found)}

        return self.store.arrays(f"{kind} by {name}", key, compute)["maps"]


def mean_interval(values: Sequence[float] | np.ndarray, *, seed: int = 0, n_bootstrap: int = 2000) -> tuple[float, ...]:
    """Return the mean of the finite values, and its 95 % bootstrap interval."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return (float("nan"),) * 3
    rng = np.random.default_rng(seed)
    means = known[rng.integers(len(known), size=(n_bootstrap, len(known)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(known.mean()), float(low), float(high)
