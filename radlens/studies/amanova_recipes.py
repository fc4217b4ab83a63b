"""The two recipes and their views of an image of the phantom: the whole image, or the registered phantom.

The paper's recipe (Amanova et al. 2022, section 2.2) normalises whole images by the mean and standard deviation of the
training set, predicts from one sample and has intervals of 1.96 total uncertainties. The registered recipe finds the
phantom, transforms it to phantom coordinates and to units of its noise, averages many samples and has calibrated
intervals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from radlens.errors import InvalidParameter
from radlens.evaluation import linear_interval, log_interval
from radlens.explainers import UpsampledMap
from radlens.families.cdmam import Calibration
from radlens.families.cdmam.manifest import Bundle
from radlens.families.cdmam.phantom_model import PhantomModel
from radlens.families.cdmam.reader import DEFAULT_SAMPLES, curve
from radlens.families.cdmam.replacement import disk_free_twin
from radlens.families.cdmam.training import TrainedRun, load_run
from radlens.images.sampling import flat_indices
from radlens.networks import CdcPrediction, FoldedCdmamEnsemble
from radlens.phantoms.cdmam.disk_blur import DiskBlur, disk_blur
from radlens.phantoms.cdmam.registered import Registered, register

__all__ = ["EagerEnsemble", "Predicted", "Recipe", "View", "bundle_recipe", "run_recipe"]

SAMPLER = "stratified"
"""Default sampler of pixels."""

_BATCH = 8
"""Samples per batch in torch: autograd takes 25 MB for each member and sample."""


@dataclass(frozen=True, eq=False)
class EagerEnsemble(PhantomModel):
    """An ensemble computed by torch, a few samples at a time.

    Attributes:
        ensemble: the members.
        batch_size: samples per batch.
    """

    ensemble: FoldedCdmamEnsemble
    batch_size: int = _BATCH

    def predict(self, images: Tensor) -> CdcPrediction:
        """Return curves and uncertainty, each ``(b, 12)`` um of gold."""
        parts = [self.ensemble.predict(batch) for batch in images.split(self.batch_size)]
        return type(parts[0])(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _gradients(self, images: Tensor) -> Tensor:
        return torch.cat([self.ensemble.gradient(batch) for batch in images.split(self.batch_size)])


@dataclass(frozen=True, eq=False)
class Predicted:
    """A predicted curve; arrays are (12,) float64, um of gold, largest diameter first.

    Attributes:
        mean: predicted thresholds.
        total: total uncertainties.
        interval: (12, 2) ends of the 95 % intervals.
    """

    mean: NDArray[np.float64]
    total: NDArray[np.float64]
    interval: NDArray[np.float64]

    @property
    def midpoint(self) -> float:
        """Mean of the thresholds."""
        return float(self.mean.mean())


@dataclass(frozen=True, eq=False)
class View:
    """The view of a model on an image.

    Attributes:
        values: (h, w) float32, normalised; source of the samples.
        phantom: the registered phantom; None for a whole image without registration.
        is_registered: whether ``values`` are those of the registered phantom.
    """

    values: NDArray[np.float32]
    phantom: Registered | None
    is_registered: bool

    @cached_property
    def blur(self) -> DiskBlur | None:
        """Blur of the disks, which corrects the curve of a registered phantom; None for a whole image."""
        return disk_blur(self.phantom) if self.is_registered and self.phantom is not None else None

    def on_image(self, found: UpsampledMap) -> UpsampledMap:
        """Return a map of ``values`` on the grid of the image that was sent."""
        if not self.is_registered or self.phantom is None:
            return found
        return replace(found, map=self.phantom.to_image(found.map), visits=self.phantom.to_image(found.visits))

    def twin(self) -> View:
        """Return the same view with every disk of the phantom replaced by its surroundings.

        Raises:
            InvalidParameter: the phantom is not registered.
        """
        phantom = self._known_phantom()
        free = disk_free_twin(phantom)
        if self.is_registered:
            return View(free.values, free, True)
        changed = phantom.to_image(free.source != phantom.source)
        donors = phantom.to_image(np.where(free.source < 0, phantom.source.clip(min=0), free.source))
        values = np.where(changed, self.values.reshape(-1)[donors], self.values)
        return View(values.astype(np.float32), free, False)

    def over_phantom(self, values: NDArray[Any]) -> tuple[NDArray[Any], Any]:
        """Return values of the view upright, and the layout of the phantom in them.

        Raises:
            InvalidParameter: the phantom is not registered.
        """
        phantom = self._known_phantom()
        return (values, phantom.grid) if self.is_registered else (phantom.upright(values), phantom.layout)

    def _known_phantom(self) -> Registered:
        if self.phantom is None:
            raise InvalidParameter("phantom must be registered, got a view of an image without")
        return self.phantom


@dataclass(frozen=True, eq=False)
class Recipe:
    """A model and its view of images.

    Attributes:
        name: short name, such as ``"registered"``.
        model: the ensemble.
        is_registered: whether the model sees registered phantoms.
        is_logarithmic: whether intervals are log-normal.
        normalisation: mean and standard deviation for whole images.
        n_samples: number of samples per prediction.
        calibration: calibration of the intervals.
        sampler: name of the sampler of pixels.
        identity: hash of the weights, for keys and provenance.
        engine: name of the engine.
        n_members: number of networks.
        record: training record.
    """

    name: str
    model: PhantomModel
    is_registered: bool
    is_logarithmic: bool
    normalisation: tuple[float, float] = (0.0, 1.0)
    n_samples: int = 1
    calibration: Calibration | None = None
    sampler: str = SAMPLER
    identity: str = ""
    engine: str = "torch"
    n_members: int = 1
    record: Mapping[str, Any] = field(default_factory=dict)

    def view(
        self,
        pixels: NDArray[Any],
        spacing_mm: float | tuple[float, float] | None,
        phantom: Registered | None = None,
    ) -> View:
        """Return the view of the model on an image.

        Args:
            pixels: (H, W), attenuation bright.
            spacing_mm: pixel spacing of the image, mm; may be None if the model sees whole images.
            phantom: the registered phantom, if known.

        Raises:
            UnreadableImage: the recipe needs a phantom, but no phantom is found.
            InvalidParameter: the recipe needs a spacing, but the image does not have one.
        """
        if not self.is_registered:
            mean, std = (np.float32(value) for value in self.normalisation)
            return View(((pixels - mean) / std).astype(np.float32, copy=False), phantom, False)
        if phantom is None:
            if spacing_mm is None:
                raise InvalidParameter("spacing must be known to register the phantom, got an image without")
            phantom = register(pixels, spacing_mm)
        return View(np.ascontiguousarray(phantom.values), phantom, True)

    def samples(self, view: View, *, seed: int = 0, n: int | None = None) -> Tensor:
        """Return the samples of a prediction, ``(n, 1, 250, 250)`` float32."""
        chosen = np.stack([self.places(view, i, seed) for i in range(n or self.n_samples)])
        return torch.from_numpy(np.ascontiguousarray(view.values).reshape(-1)[chosen])[:, None]

    def places(self, view: View, index: int, seed: int = 0) -> NDArray[np.intp]:
        """Return the flat indices ``(250, 250)`` of the pixels of a sample."""
        shape = (view.values.shape[0], view.values.shape[1])
        return flat_indices(shape, self.sampler, seed=seed, index=index)

    def read(self, view: View, *, seed: int = 0) -> Predicted:
        """Return the curve of an image."""
        return self.curve(self.samples(view, seed=seed), view)

    def curve(self, samples: Tensor, view: View) -> Predicted:
        """Return the curve of an image from samples of its view."""
        found = self.model.predict(samples)
        if not self.is_registered:
            mean, total = (values.double().numpy().mean(axis=0) for values in (found.mean, found.total))
            interval = log_interval if self.is_logarithmic else linear_interval
            return Predicted(mean, total, interval(mean, total))
        mean, learned, epistemic = (
            values.double().numpy().mean(axis=0)
            for values in (found.mean, found.aleatoric / found.mean, found.epistemic / found.mean)
        )
        blur = None if self.calibration is None else view.blur
        read = curve(mean, learned, epistemic, self.calibration, n_samples=len(samples), blur=blur)
        return Predicted(read.mean, read.total, read.interval)


def run_recipe(
    name: str, run: TrainedRun | Path, *, model: PhantomModel | None = None, engine: str = "torch"
) -> Recipe:
    """Return the recipe of a finished training run.

    Args:
        name: name of the recipe.
        run: the run or its folder.
        model: model that computes the run; torch by default.
        engine: name of its engine.

    Raises:
        TrainingError: there is no run, or it is not finished.
    """
    identity = _identity(run) if isinstance(run, Path) else ""
    run = load_run(run) if isinstance(run, Path) else run
    return Recipe(
        name=name,
        model=EagerEnsemble(run.ensemble()) if model is None else model,
        is_registered=run.registered,
        is_logarithmic=run.logarithmic,
        normalisation=(run.mean, run.std),
        n_samples=DEFAULT_SAMPLES if run.registered else 1,
        calibration=run.calibration,
        identity=identity,
        engine=engine,
        n_members=len(run.members),
        record=run.record,
    )


def bundle_recipe(name: str, bundle: Bundle, model: PhantomModel | None = None, *, engine: str = "torch") -> Recipe:
    """Return the recipe of a bundle.

    Args:
        name: name of the recipe.
        bundle: the bundle.
        model: model that computes the bundle; torch by default.
        engine: name of its engine.
    """
    manifest = bundle.manifest
    calibration = manifest.training.get("calibration")
    return Recipe(
        name=name,
        model=EagerEnsemble(bundle.model()) if model is None else model,
        is_registered=manifest.input.registered,
        is_logarithmic=manifest.logarithmic or manifest.input.registered,
        normalisation=(manifest.input.mean, manifest.input.std),
        n_samples=manifest.input.n_samples,
        calibration=None if calibration is None else Calibration.from_json(calibration),
        sampler=manifest.input.sampler,
        identity=bundle.bundle_hash,
        engine=engine,
        n_members=manifest.n_members,
        record=manifest.training,
    )


def _identity(folder: Path) -> str:
    """Return a digest of the members and the record of a run."""
    files = sorted([*folder.glob("member-*.npz"), *folder.glob("training.json")])
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()
