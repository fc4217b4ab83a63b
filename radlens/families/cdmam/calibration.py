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
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radlens.errors import InvalidInput

__all__ = ["Calibration", "calibrate"]

_CURVES = ("offset", "shared", "own", "epistemic")


@dataclass(frozen=True)
class Calibration:
    """Errors of the logarithm of the 12 thresholds.

    Attributes:
        offset: mean of predicted minus true logarithm, which is taken off every prediction.
        shared: standard deviation of the error that all images of an exposure have in common.
        own: standard deviation of the error of one image at the mean curve.
        slope: by how much the logarithm of ``own`` grows with that of the midpoint.
        midpoint_um: midpoint at which ``own`` holds, um of gold.
        epistemic: root mean square over the images of the members' disagreement, relative; it is part of both errors.
        factor: by which both are widened, so that 95 % of the calibration phantoms lie in their intervals.
        n_exposures: exposures behind these numbers.
        n_images: images of each.
        n_samples: samples averaged for each image.
    """

    offset: tuple[float, ...]
    shared: tuple[float, ...]
    own: tuple[float, ...]
    slope: float
    midpoint_um: float
    epistemic: tuple[float, ...]
    factor: float
    n_exposures: int
    n_images: int
    n_samples: int

    def deviation(self, midpoint_um: float, n_images: int = 1) -> NDArray[np.float64]:
        """Return the standard deviation of the logarithm of each point, (12,).

        Args:
            midpoint_um: predicted midpoint, um of gold.
            n_images: images of one exposure that were combined.
        """
        growth = (midpoint_um / self.midpoint_um) ** self.slope
        own = np.array(self.own) * growth
        return self.factor * np.sqrt(np.array(self.shared) ** 2 + own**2 / n_images)

    def remaining(self, midpoint_um: float, n_images: int = 1) -> NDArray[np.float64]:
        """Return the part of `deviation` that the members' usual disagreement does not explain, (12,).

        Added to the disagreement of an image it gives `deviation` where the members disagree as usual, and more where
        they disagree more. A third of the deviation is kept in any case.
        """
        whole = self.deviation(midpoint_um, n_images)
        return np.sqrt(np.maximum(whole**2 - np.array(self.epistemic) ** 2, (whole / 3) ** 2))

    def own_midpoint(self, midpoint_um: float) -> float:
        """Return the standard deviation of the logarithm of an image's midpoint about that of its exposure.

        The errors of the points of one image are alike, so the mean of their deviations stands for the midpoint.
        """
        growth = (midpoint_um / self.midpoint_um) ** self.slope
        return float(self.factor * growth * np.mean(self.own))

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
        found |= {name: float(values[name]) for name in ("slope", "midpoint_um", "factor")}
        found |= {name: int(values[name]) for name in ("n_exposures", "n_images", "n_samples")}
        return cls(**found)


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
    predicted, true = np.asarray(predicted_um, np.float64), np.asarray(true_um, np.float64)
    disagreement = np.asarray(epistemic, np.float64)
    if disagreement.shape != predicted.shape:
        raise InvalidInput(
            f"epistemic must have the shape of predicted_um, {predicted.shape}, got {disagreement.shape}"
        )
    if predicted.ndim != 3 or predicted.shape[0] < 8 or predicted.shape[1] < 2:
        raise InvalidInput(f"predicted_um must be (8 or more, 2 or more, 12), got {predicted.shape}")
    if true.shape != (predicted.shape[0], predicted.shape[2]):
        raise InvalidInput(f"true_um must be {(predicted.shape[0], predicted.shape[2])}, got {true.shape}")
    if not (np.isfinite(predicted).all() and predicted.min() > 0 and np.isfinite(true).all() and true.min() > 0):
        raise InvalidInput("predicted_um and true_um must be positive and finite")
    errors = np.log(predicted) - np.log(true)[:, None]
    n_exposures, n_images, _ = errors.shape
    offset = errors.mean(axis=(0, 1))
    within = errors.var(axis=1, ddof=1)
    between = errors.mean(axis=1).var(axis=0, ddof=1) - within.mean(axis=0) / n_images
    midpoints = predicted.mean(axis=(1, 2))
    centre = float(np.exp(np.log(midpoints).mean()))
    slope = _slope(np.log(midpoints), within.mean(axis=1))
    growth = (midpoints / centre) ** slope
    draft = Calibration(
        offset=tuple(offset.tolist()),
        shared=tuple(np.sqrt(between.clip(min=1e-6)).tolist()),
        own=tuple(np.sqrt((within / growth[:, None] ** 2).mean(axis=0)).tolist()),
        slope=slope,
        midpoint_um=centre,
        epistemic=tuple(np.sqrt((disagreement**2).mean(axis=(0, 1))).tolist()),
        factor=1.0,
        n_exposures=n_exposures,
        n_images=n_images,
        n_samples=n_samples,
    )
    ratios = np.abs(errors - offset) / np.stack([draft.deviation(midpoint) for midpoint in midpoints])[:, None]
    factor = float(np.quantile(ratios, 0.95)) / 1.96
    return Calibration(**(asdict(draft) | {"factor": factor}))


def _slope(log_midpoints: NDArray[np.float64], variances: NDArray[np.float64]) -> float:
    """Return the slope of the log deviation over the log midpoint; bounded, since it is a second-order effect."""
    spread = log_midpoints - log_midpoints.mean()
    slope = float(spread @ (0.5 * np.log(variances + 1e-12)) / max(float(spread @ spread), 1e-12))
    return min(max(slope, -1.0), 1.0) if math.isfinite(slope) else 0.0
