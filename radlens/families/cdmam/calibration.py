"""Calibrated errors of predicted curves, estimated on phantoms that no member has seen.

The disagreement of members says little about their common error (Amanova et al. 2022, Fig. 2 b: 61 % coverage in
scenario 4), and dropout widens the noise that they learn. Intervals are therefore calibrated on phantoms simulated at
full size, registered and read like a request, in the logarithm of the thresholds. Several images of each exposure
separate two parts: the *shared* error, common to the images of an exposure, and the *own* error of each image, which
averages out. Scattered pixels do not show the blur of the detector; it is measured on the whole image
(`radlens.phantoms.cdmam.disk_blur`), and the calibration corrects its influence on the curve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radlens.errors import InvalidInput
from radlens.phantoms.cdmam.disk_blur import DiskBlur

__all__ = ["BLUR_UNIT_MM", "Calibration", "calibrate"]

_CURVES = ("shared", "shared_bound", "own", "epistemic")
_NUMBERS = ("midpoint_um", "factor", "blur_mm", "blur_deviation_mm")
_PAIRS = ("midpoint_range", "blur_range", "shared_growth", "own_growth", "epistemic_growth")
_DEGREE, _BLUR_DEGREE = 3, 1

_PRIOR, _N_STEPS, _MOST_GROWTH = 1.0, 50, 1.0

_CONFIDENCE = 1.645
"""Standard errors from a variance to its upper bound of 95 % confidence."""

_COVERED = 0.96
"""Share of the calibration images' thresholds that lie in their intervals. For images left out of the calibration the
share is 95 %, as ``python benchmarks/calibration.py RUN FOLDER`` prints."""

BLUR_UNIT_MM = 0.01
"""Unit of the blur in the calibration, in mm."""


@dataclass(frozen=True)
class Calibration:
    """Errors of the logarithms of the 12 thresholds as functions of image quality.

    ``x`` is the logarithm of the predicted midpoint over ``midpoint_um``, clipped to ``midpoint_range``; ``b`` is the
    blur of the disks minus ``blur_mm``, in units of `BLUR_UNIT_MM`, shrunk to 0 by its uncertainty and clipped to
    ``blur_range``.

    Attributes:
        offset: four coefficients of each point: ``offset[0] + offset[1] x + offset[2] x**2 + offset[3] x**3`` is the
            mean of predicted minus true logarithm, which is subtracted from every prediction.
        blur_offset: two coefficients of each point: ``(blur_offset[0] + blur_offset[1] x) b`` is subtracted as well.
        blur_mm: mean blur of the calibration images, mm.
        blur_deviation_mm: standard deviation of the blur of the calibration images, mm.
        blur_range: smallest and largest ``b`` of the calibration images.
        shared: standard deviation at ``x = 0`` of the error that the images of an exposure have in common.
        shared_bound: upper bound of ``shared`` with 95 % confidence; several images are given their intervals by it.
        own: standard deviation at ``x = 0`` of the error of a single image.
        epistemic: relative disagreement of the members at ``x = 0``, root mean square over the images; it is part of
            both errors.
        shared_growth: two coefficients: the logarithm of ``shared`` grows by ``shared_growth[0] x + shared_growth[1]
            x**2``.
        own_growth: coefficients of the growth of ``own``, like ``shared_growth``.
        epistemic_growth: coefficients of the growth of ``epistemic``, like ``shared_growth``.
        midpoint_um: geometric mean of the predicted midpoints, um of gold.
        midpoint_range: smallest and largest ``x`` of the calibration images.
        factor: common factor of the errors, chosen so that 95 % of the thresholds of other images lie in their
            intervals.
        n_exposures: number of exposures of the calibration.
        n_images: number of images of each exposure.
        n_samples: number of samples averaged for each image.
    """

    offset: tuple[tuple[float, ...], ...]
    blur_offset: tuple[tuple[float, ...], ...]
    blur_mm: float
    blur_deviation_mm: float
    blur_range: tuple[float, float]
    shared: tuple[float, ...]
    shared_bound: tuple[float, ...]
    own: tuple[float, ...]
    epistemic: tuple[float, ...]
    shared_growth: tuple[float, float]
    own_growth: tuple[float, float]
    epistemic_growth: tuple[float, float]
    midpoint_um: float
    midpoint_range: tuple[float, float]
    factor: float
    n_exposures: int
    n_images: int
    n_samples: int

    def corrected(self, mean_um: NDArray[np.float64], blur: DiskBlur | None = None) -> NDArray[np.float64]:
        """Return a predicted curve without its mean error, (12,) um of gold.

        Args:
            mean_um: (12,) predicted curve, um of gold.
            blur: blur of the disks of the image; None for the mean of the calibration.
        """
        x = self._place(float(mean_um.mean()))
        offset = np.power(x, np.arange(len(self.offset))) @ np.array(self.offset)
        if blur is not None:
            slopes = np.power(x, np.arange(len(self.blur_offset))) @ np.array(self.blur_offset)
            offset = offset + slopes * self._blur(blur)
        return mean_um * np.exp(-offset)

    def parts(
        self, midpoint_um: float, epistemic: NDArray[np.float64], n_images: int = 1
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the aleatoric and the epistemic standard deviation of the logarithm of each point, (12,) each.

        The usual disagreement of the members is part of the measured errors. It gets at most half of their variance,
        since the mean of members that disagree can be better than each member. The rest is the aleatoric part. Their
        sum is therefore the measured error where the members disagree as usual, and larger where they disagree more.

        Args:
            midpoint_um: predicted midpoint before `corrected`, um of gold.
            epistemic: relative disagreement of the members, (12,).
            n_images: number of combined images of one exposure.
        """
        x = self._place(midpoint_um)
        whole, usual = self._measured(x, n_images), np.array(self.epistemic) * _grown(self.epistemic_growth, x)
        part = np.minimum(usual, whole / math.sqrt(2))
        return self.factor * np.sqrt(whole**2 - part**2), self.factor * part * epistemic / usual

    def own_midpoint(self, midpoint_um: float) -> float:
        """Return the standard deviation of the logarithm of an image's midpoint around that of its exposure.

        The errors of the points of one image are strongly correlated, so the mean of their standard deviations is that
        of the midpoint.
        """
        return float(_grown(self.own_growth, self._place(midpoint_um)) * np.mean(self.own))

    def as_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Read the values of `as_json`.

        Raises:
            KeyError, TypeError, ValueError: The values are not those of a calibration.
        """
        found: dict[str, Any] = {name: tuple(map(float, values[name])) for name in _CURVES}
        for name in ("offset", "blur_offset"):
            found[name] = tuple(tuple(map(float, each)) for each in values[name])
        for name in _PAIRS:
            found[name] = tuple(map(float, values[name]))
        found |= {name: float(values[name]) for name in _NUMBERS}
        found |= {name: int(values[name]) for name in ("n_exposures", "n_images", "n_samples")}
        return cls(**found)

    def _place(self, midpoint_um: float) -> float:
        return float(np.clip(math.log(midpoint_um / self.midpoint_um), *self.midpoint_range))

    def _blur(self, blur: DiskBlur) -> float:
        return _shrunk(blur.blur_mm, blur.error_mm, self.blur_mm, self.blur_deviation_mm, self.blur_range)

    def _measured(self, x: float, n_images: int) -> NDArray[np.float64]:
        growth = _grown(self.shared_growth, x)
        shared, bound = np.array(self.shared) * growth, np.array(self.shared_bound) * growth
        own = np.array(self.own) * _grown(self.own_growth, x)
        # Of one image the sum of both parts was measured. The more images there are, the more rests on the shared part,
        # which two images of each exposure tell only roughly.
        return np.sqrt(shared**2 + (bound**2 - shared**2) * (1 - 1 / n_images) + own**2 / n_images)


def calibrate(
    predicted_um: ArrayLike, epistemic: ArrayLike, true_um: ArrayLike, blur: ArrayLike, *, n_samples: int
) -> Calibration:
    """Estimate the errors of predictions from several images of each of many exposures.

    Args:
        predicted_um: (exposures, images, 12) predicted curves, um of gold, at least 8 exposures of 2 images.
        epistemic: (exposures, images, 12) relative disagreement of the members.
        true_um: (exposures, 12) true curves, um of gold.
        blur: (exposures, images, 2) blur of the disks of each image and its standard error, mm.
        n_samples: number of samples averaged for each image.

    Raises:
        InvalidInput: A shape is wrong, or a value is not positive and finite.
    """
    predicted, disagreement, true = _checked(predicted_um, epistemic, true_um)
    found_mm, error_mm = np.moveaxis(_checked_blur(blur, predicted.shape[:2]), -1, 0)
    n_exposures, n_images, n_points = predicted.shape
    log_midpoints = np.log(predicted.mean(axis=2))
    centre = float(log_midpoints.mean())
    x = log_midpoints - centre
    errors = np.log(predicted) - np.log(true)[:, None]
    known = np.isfinite(error_mm)
    blur_mm, deviation_mm = float(found_mm[known].mean()), float(found_mm[known].std())
    everything = (-math.inf, math.inf)
    b = np.array(
        [
            _shrunk(value, error, blur_mm, deviation_mm, everything)
            for value, error in zip(found_mm.ravel(), error_mm.ravel(), strict=True)
        ]
    )
    terms = [x.ravel() ** k for k in range(_DEGREE + 1)] + [x.ravel() ** k * b for k in range(_BLUR_DEGREE + 1)]
    powers = np.stack(terms, axis=1)
    coefficients = np.linalg.lstsq(powers, errors.reshape(-1, n_points), rcond=None)[0]
    errors = errors - (powers @ coefficients).reshape(errors.shape)
    offset, blur_offset = coefficients[: _DEGREE + 1], coefficients[_DEGREE + 1 :]
    # Each exposure splits into the mean error of its images and their scatter around it.
    common, within, place = errors.mean(axis=1), errors.var(axis=1, ddof=1), x.mean(axis=1)
    own_growth = _growth(place, within.mean(axis=1))
    shared_growth = _growth(place, (common**2).mean(axis=1))
    epistemic_growth = _growth(place, (disagreement**2).mean(axis=(1, 2)))
    epistemic_factors = _grown(epistemic_growth, place)
    own_factors, shared_factors = _grown(own_growth, place), _grown(shared_growth, place)
    own = (within / own_factors[:, None] ** 2).mean(axis=0)
    # The mean over the images of an exposure still holds a part of their own errors.
    left = own * np.mean(own_factors**2 / shared_factors**2) / n_images
    total = (common**2 / shared_factors[:, None] ** 2).mean(axis=0)
    shared, bound = total - left, total * (1 + _CONFIDENCE * math.sqrt(2 / n_exposures)) - left
    draft = Calibration(
        offset=tuple(tuple(each) for each in offset.tolist()),
        blur_offset=tuple(tuple(each) for each in blur_offset.tolist()),
        blur_mm=blur_mm,
        blur_deviation_mm=deviation_mm,
        blur_range=(float(b.min()), float(b.max())),
        shared=tuple(np.sqrt(shared.clip(min=1e-6)).tolist()),
        shared_bound=tuple(np.sqrt(bound.clip(min=1e-6)).tolist()),
        own=tuple(np.sqrt(own).tolist()),
        epistemic=tuple(np.sqrt((disagreement**2 / epistemic_factors[:, None, None] ** 2).mean(axis=(0, 1))).tolist()),
        shared_growth=shared_growth,
        own_growth=own_growth,
        epistemic_growth=epistemic_growth,
        midpoint_um=math.exp(centre),
        midpoint_range=(float(x.min()), float(x.max())),
        factor=1.0,
        n_exposures=n_exposures,
        n_images=n_images,
        n_samples=n_samples,
    )
    expected = [
        [np.hypot(*draft.parts(float(curve.mean()), own)) for curve, own in zip(*images, strict=True)]
        for images in zip(predicted, disagreement, strict=True)
    ]
    return replace(draft, factor=float(np.quantile(np.abs(errors) / np.array(expected), _COVERED)) / 1.96)


def _checked(
    predicted_um: ArrayLike, epistemic: ArrayLike, true_um: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    predicted, true = np.asarray(predicted_um, np.float64), np.asarray(true_um, np.float64)
    disagreement = np.asarray(epistemic, np.float64)
    if predicted.ndim != 3 or predicted.shape[0] < 8 or predicted.shape[1] < 2:
        raise InvalidInput(f"predicted_um must be (8 or more, 2 or more, 12), got {predicted.shape}")
    if disagreement.shape != predicted.shape:
        expected = f"the shape of predicted_um, {predicted.shape}"
        raise InvalidInput(f"epistemic must have {expected}, got {disagreement.shape}")
    if true.shape != (predicted.shape[0], predicted.shape[2]):
        raise InvalidInput(f"true_um must be {(predicted.shape[0], predicted.shape[2])}, got {true.shape}")
    if not (np.isfinite(predicted).all() and predicted.min() > 0 and np.isfinite(true).all() and true.min() > 0):
        raise InvalidInput("predicted_um and true_um must be positive and finite")
    return predicted, disagreement, true


def _shrunk(blur_mm: float, error_mm: float, mean_mm: float, deviation_mm: float, limits: tuple[float, float]) -> float:
    """Return a blur minus the mean, in units of `BLUR_UNIT_MM`, shrunk to 0 by its uncertainty."""
    if not math.isfinite(error_mm):
        return 0.0
    weight = deviation_mm**2 / max(deviation_mm**2 + error_mm**2, 1e-12)
    return float(np.clip(weight * (blur_mm - mean_mm) / BLUR_UNIT_MM, *limits))


def _checked_blur(blur: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    found = np.asarray(blur, np.float64)
    if found.shape != (*shape, 2):
        raise InvalidInput(f"blur must be {(*shape, 2)}, got {found.shape}")
    if not np.isfinite(found[..., 0]).all() or not (found[..., 1] > 0).all() or not np.isfinite(found[..., 1]).any():
        raise InvalidInput("blur must be finite, with positive errors, some of them finite")
    return found


def _grown(growth: tuple[float, float], x: Any) -> Any:
    """Return the factor of a standard deviation at ``x``, a number or an array."""
    return np.exp(growth[0] * x + growth[1] * x**2)


def _growth(places: NDArray[np.float64], variances: NDArray[np.float64]) -> tuple[float, float]:
    """Fit the growth of the logarithm of a standard deviation with the log midpoint: the most likely quadratic.

    The model of a variance is its expected value times a variate of one gamma distribution. A weak prior pulls both
    coefficients to 0, and they are bounded, since this is a second-order effect.
    """
    design = np.stack([np.ones_like(places), places, places**2], axis=1)
    information = design.T @ design + np.diag([0.0, _PRIOR, _PRIOR])
    found = np.array([0.5 * math.log(variances.mean() + 1e-12), 0.0, 0.0])
    for _ in range(_N_STEPS):
        ratio = np.clip(variances / np.exp(2 * design @ found), 0.0, 10.0)
        # Fisher scoring; the half and the 2 come from the square in the variance.
        score = design.T @ (ratio - 1) - 2 * np.array([0.0, _PRIOR, _PRIOR]) * found
        found = found + 0.5 * np.linalg.solve(information, score)
        found[1:] = np.clip(found[1:], -_MOST_GROWTH, _MOST_GROWTH)
    return float(found[1]), float(found[2])
