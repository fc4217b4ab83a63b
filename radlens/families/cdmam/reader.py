"""Curves of registered phantoms: the average over many samples of an image, with a calibrated interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from radlens.errors import InvalidInput
from radlens.families.cdmam.calibration import Calibration
from radlens.images.sampling import flat_indices
from radlens.networks.cdmam import COVERAGE_FACTOR, CdcPrediction
from radlens.phantoms.cdmam.disk_blur import DiskBlur, disk_blur
from radlens.phantoms.cdmam.registered import Registered

__all__ = ["DEFAULT_SAMPLES", "Curve", "Model", "PhantomReader", "combined"]

DEFAULT_SAMPLES = 32
"""Number of samples that a prediction averages; their remaining sampling noise is an eighth of the interval's width."""

_BATCH = 16


class Model(Protocol):
    """Predicts normalised samples ``(b, 1, 250, 250)``."""

    def predict(self, images: Tensor) -> CdcPrediction:
        """Return curves and uncertainty, each ``(b, 12)`` um of gold."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A contrast-detail curve with its uncertainty; arrays are (12,) float64, um of gold, largest diameter first.

    Attributes:
        mean: thresholds.
        aleatoric: calibrated standard deviation of the error that the members have in common.
        epistemic: standard deviation over the members.
        total: root of the sum of the squares of ``aleatoric`` and ``epistemic``.
        interval: (12, 2) 95 % interval of a log-normal distribution, both ends above 0.
        predicted: thresholds before the calibration; None without a calibration.
        disagreement: relative standard deviation over the members before the calibration.
        n_images: number of images.
        n_samples: number of samples of each image.
        blur: blur of the disks; None if it was not measured.
    """

    mean: NDArray[np.float64]
    aleatoric: NDArray[np.float64]
    epistemic: NDArray[np.float64]
    total: NDArray[np.float64]
    interval: NDArray[np.float64]
    predicted: NDArray[np.float64] | None = None
    disagreement: NDArray[np.float64] | None = None
    n_images: int = 1
    n_samples: int = 1
    blur: DiskBlur | None = None

    @property
    def midpoint(self) -> float:
        """Mean of the 12 thresholds, um of gold (Amanova et al. 2022, section 2.3.1)."""
        return float(self.mean.mean())


@dataclass(frozen=True, eq=False)
class PhantomReader:
    """Predicts the curves of registered phantoms.

    Args:
        model: ensemble that predicts positive curves.
        calibration: calibration of the intervals; without one they rest on the noise that the members learned.
        n_samples: number of samples of an image to average, at least 1.
        sampler: name of the sampler, which chooses the pixels of each sample.
    """

    model: Model
    calibration: Calibration | None = None
    n_samples: int = DEFAULT_SAMPLES
    sampler: str = "stratified"

    def read(self, phantom: Registered, *, seed: int = 0) -> Curve:
        """Return the curve of one image.

        Args:
            phantom: registered phantom from `radlens.phantoms.cdmam.registered.register`.
            seed: seed of the sequence of samples.

        Raises:
            InvalidInput: The predicted curve is not positive and finite.
        """
        blur = None if self.calibration is None else disk_blur(phantom)
        return self.read_values(phantom.values, seed=seed, blur=blur)

    def read_values(self, values: NDArray[np.float32], *, seed: int = 0, blur: DiskBlur | None = None) -> Curve:
        """Return the curve of normalised and compressed ``values`` (h, w) with disks of ``blur``.

        Raises:
            InvalidInput: The predicted curve is not positive and finite.
        """
        prediction = self.predict(values, seed=seed)
        mean = prediction.mean.double().numpy().mean(axis=0)
        if not (np.isfinite(mean).all() and mean.min() > 0):
            raise InvalidInput("the predicted thresholds must be positive and finite")
        learned = (prediction.aleatoric / prediction.mean).double().numpy().mean(axis=0)
        epistemic = (prediction.epistemic / prediction.mean).double().numpy().mean(axis=0)
        return curve(mean, learned, epistemic, self.calibration, n_samples=self.n_samples, blur=blur)

    def predict(self, values: NDArray[np.float32], *, seed: int = 0) -> CdcPrediction:
        """Return the predictions of the samples, ``(n_samples, 12)`` each."""
        flat, shape = np.ascontiguousarray(values).reshape(-1), (values.shape[0], values.shape[1])
        parts = []
        for first in range(0, self.n_samples, _BATCH):
            numbers = range(first, min(first + _BATCH, self.n_samples))
            chosen = np.stack([flat_indices(shape, self.sampler, seed=seed, index=i) for i in numbers])
            parts.append(self.model.predict(torch.from_numpy(flat[chosen])[:, None]))
        fields = [torch.cat([getattr(part, name) for part in parts]) for name in ("mean", "aleatoric", "epistemic")]
        mean, aleatoric, epistemic = fields
        return CdcPrediction(mean, aleatoric, epistemic, (aleatoric**2 + epistemic**2).sqrt())


def curve(
    mean: NDArray[np.float64],
    aleatoric: NDArray[np.float64],
    epistemic: NDArray[np.float64],
    calibration: Calibration | None,
    *,
    n_images: int = 1,
    n_samples: int = 1,
    blur: DiskBlur | None = None,
) -> Curve:
    """Return a curve with its interval.

    Args:
        mean: (12,) predicted thresholds, um of gold, before the correction of the calibration.
        aleatoric: (12,) relative standard deviation that the members learned; used without a calibration.
        epistemic: (12,) relative standard deviation over the members.
        calibration: calibration of the intervals.
        n_images: number of averaged images.
        n_samples: number of samples of each image.
        blur: blur of the disks, from all images together; None if it was not measured.
    """
    predicted, disagreement = mean, epistemic
    if calibration is not None:
        aleatoric, epistemic = calibration.parts(float(mean.mean()), epistemic, n_images)
        mean = calibration.corrected(mean, blur)
    total = np.sqrt(aleatoric**2 + epistemic**2)
    factors = np.exp(COVERAGE_FACTOR * total)
    return Curve(
        mean=mean,
        aleatoric=mean * aleatoric,
        epistemic=mean * epistemic,
        total=mean * total,
        interval=np.stack([mean / factors, mean * factors], axis=-1),
        predicted=predicted,
        disagreement=disagreement,
        n_images=n_images,
        n_samples=n_samples,
        blur=blur,
    )


def combined(curves: Sequence[Curve], calibration: Calibration | None) -> Curve:
    """Return the curve of several images of one exposure: the geometric mean of their curves.

    Only the own errors of the images average out. The shared error of the calibration and the disagreement of the
    members remain.

    Args:
        curves: at least one curve, each of one image.
        calibration: calibration of these curves.

    Raises:
        InvalidInput: There are no curves, or their numbers of samples differ.
    """
    if not curves or len({each.n_samples for each in curves}) != 1 or any(each.n_images != 1 for each in curves):
        raise InvalidInput("curves must be of single images with one number of samples, at least one")
    logs = [np.log(each.mean if each.predicted is None else each.predicted) for each in curves]
    aleatoric = np.mean([each.aleatoric / each.mean for each in curves], axis=0)
    epistemic = np.mean(
        [each.epistemic / each.mean if each.disagreement is None else each.disagreement for each in curves], axis=0
    )
    n_samples = curves[0].n_samples
    mean = np.exp(np.mean(logs, axis=0))
    blur = _combined_blur([each.blur for each in curves if each.blur is not None])
    return curve(mean, aleatoric, epistemic, calibration, n_images=len(curves), n_samples=n_samples, blur=blur)


def _combined_blur(found: Sequence[DiskBlur]) -> DiskBlur | None:
    """Return the mean of the known blurs, weighted by their precision."""
    known = [each for each in found if math.isfinite(each.error_mm)]
    if not known:
        return found[0] if found else None
    weights = np.array([each.error_mm**-2 for each in known])
    mean = float(weights @ np.array([each.blur_mm for each in known]) / weights.sum())
    return DiskBlur(mean, float(weights.sum() ** -0.5))
