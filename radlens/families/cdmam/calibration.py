"""How far the predicted curve of an image is from its true one, learned on phantoms that no member saw.

The members of an ensemble know little of their common error (Amanova et al. 2022, Fig. 2 b: 61 % coverage in scenario
4), and dropout widens the noise that they learn. The interval of an answer is therefore calibrated: on phantoms drawn
in full, registered and read as a request is, in the logarithm of the thresholds. Two parts are told apart by reading
several images of each exposure: the *shared* error, which all images of an exposure have in common (blur of the
detector, which 250 x 250 scattered pixels do not show), and the *own* error of each image, which averages out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radlens.errors import InvalidInput

__all__ = ["Calibration", "calibrate"]

_CURVES = ("shared", "own", "epistemic")
_NUMBERS = ("shared_slope", "own_slope", "midpoint_um", "factor")
_DEGREE = 2


@dataclass(frozen=True)
class Calibration:
    """Errors of the logarithm of the 12 thresholds, which depend on how good the image is.

    ``x`` is the logarithm of the predicted midpoint over ``midpoint_um``, kept inside ``midpoint_range``.

    Attributes:
        offset: three coefficients of each point: ``offset[0] + offset[1] x + offset[2] x**2`` is the mean of predicted
            minus true logarithm, which is taken off every prediction.
        shared: standard deviation of the error that all images of an exposure have in common, at ``x`` 0.
        own: standard deviation of the error of one image, at ``x`` 0.
        epistemic: root mean square over the images of the members' disagreement, relative; it is part of both errors.
        shared_slope: by how much the logarithm of ``shared`` grows with ``x``.
        own_slope: by how much that of ``own`` does.
        midpoint_um: geometric mean of the predicted midpoints, um of gold.
        midpoint_range: smallest and largest ``x`` of the calibration images.
        factor: of all parts, so that 95 % of the thresholds of the calibration images lie in their intervals.
        n_exposures: exposures behind these numbers.
        n_images: images of each.
        n_samples: samples averaged for each image.
    """

    offset: tuple[tuple[float, ...], ...]
    shared: tuple[float, ...]
    own: tuple[float, ...]
    epistemic: tuple[float, ...]
    shared_slope: float
    own_slope: float
    midpoint_um: float
    midpoint_range: tuple[float, float]
    factor: float
    n_exposures: int
    n_images: int
    n_samples: int

    def corrected(self, mean_um: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a predicted curve without its mean error, (12,) um of gold."""
        x = self._place(float(mean_um.mean()))
        return mean_um * np.exp(-(np.power(x, np.arange(len(self.offset))) @ np.array(self.offset)))

    def parts(
        self, midpoint_um: float, epistemic: NDArray[np.float64], n_images: int = 1
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the aleatoric and the epistemic standard deviation of the logarithm of each point, (12,) each.

        The members' usual disagreement is part of the measured errors. What it does not explain is the aleatoric part;
        so both together are as measured where the members disagree as usual, and more where they disagree more. A
        third of the measured error is kept in any case.

        Args:
            midpoint_um: predicted midpoint before `corrected`, um of gold.
            epistemic: relative disagreement of the members, (12,).
            n_images: images of one exposure that were combined.
        """
        whole = self._measured(self._place(midpoint_um), n_images)
        rest = np.sqrt(np.maximum(whole**2 - np.array(self.epistemic) ** 2, (whole / 3) ** 2))
        return self.factor * rest, self.factor * epistemic

    def own_midpoint(self, midpoint_um: float) -> float:
        """Return the standard deviation of the logarithm of an image's midpoint about that of its exposure.

        The errors of the points of one image are alike, so the mean of their deviations stands for the midpoint.
        """
        return float(math.exp(self.own_slope * self._place(midpoint_um)) * np.mean(self.own))

    def as_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Return what `as_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: not the numbers of a calibration.
        """
        found: dict[str, Any] = {name: tuple(map(float, values[name])) for name in _CURVES}
        found["offset"] = tuple(tuple(map(float, each)) for each in values["offset"])
        found["midpoint_range"] = tuple(map(float, values["midpoint_range"]))
        found |= {name: float(values[name]) for name in _NUMBERS}
        found |= {name: int(values[name]) for name in ("n_exposures", "n_images", "n_samples")}
        return cls(**found)

    def _place(self, midpoint_um: float) -> float:
        return float(np.clip(math.log(midpoint_um / self.midpoint_um), *self.midpoint_range))

    def _measured(self, x: float, n_images: int) -> NDArray[np.float64]:
        shared = np.array(self.shared) * math.exp(self.shared_slope * x)
        own = np.array(self.own) * math.exp(self.own_slope * x)
        return np.sqrt(shared**2 + own**2 / n_images)


def calibrate(predicted_um: ArrayLike, epistemic: ArrayLike, true_um: ArrayLike, *, n_samples: int) -> Calibration:
    """Estimate the errors of predictions of several images of each of many exposures.

    Args:
        predicted_um: (exposures, images, 12) predicted curves, um of gold, at least 8 exposures of 2 images.
        epistemic: relative disagreement of the members, of the same shape.
        true_um: (exposures, 12) their true curves.
        n_samples: samples averaged for each image.

    Raises:
        InvalidInput: other shapes, or values that are not positive and finite.
    """
    predicted, disagreement, true = _checked(predicted_um, epistemic, true_um)
    n_exposures, n_images, n_points = predicted.shape
    log_midpoints = np.log(predicted.mean(axis=2))
    centre = float(log_midpoints.mean())
    x = log_midpoints - centre
    errors = np.log(predicted) - np.log(true)[:, None]
    powers = np.stack([x.ravel() ** k for k in range(_DEGREE + 1)], axis=1)
    offset = np.linalg.lstsq(powers, errors.reshape(-1, n_points), rcond=None)[0]
    errors = errors - (powers @ offset).reshape(errors.shape)
    # Of an exposure: what its images have in common, and how they scatter about it.
    common, within, place = errors.mean(axis=1), errors.var(axis=1, ddof=1), x.mean(axis=1)
    own_slope = _slope(place, within.mean(axis=1))
    shared_slope = _slope(place, (common**2).mean(axis=1))
    own_growth, shared_growth = np.exp(own_slope * place), np.exp(shared_slope * place)
    own = (within / own_growth[:, None] ** 2).mean(axis=0)
    left = own * np.mean(own_growth**2 / shared_growth**2) / n_images
    shared = (common**2 / shared_growth[:, None] ** 2).mean(axis=0) - left
    draft = Calibration(
        offset=tuple(tuple(each) for each in offset.tolist()),
        shared=tuple(np.sqrt(shared.clip(min=1e-6)).tolist()),
        own=tuple(np.sqrt(own).tolist()),
        epistemic=tuple(np.sqrt((disagreement**2).mean(axis=(0, 1))).tolist()),
        shared_slope=shared_slope,
        own_slope=own_slope,
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
    return replace(draft, factor=float(np.quantile(np.abs(errors) / np.array(expected), 0.95)) / 1.96)


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


def _slope(places: NDArray[np.float64], variances: NDArray[np.float64]) -> float:
    """Return the slope of a log deviation over the log midpoint; bounded, since it is a second-order effect."""
    spread = places - places.mean()
    slope = float(spread @ (0.5 * np.log(variances + 1e-6))) / max(float(spread @ spread), 1e-12)
    return min(max(slope, -1.0), 1.0) if math.isfinite(slope) else 0.0
