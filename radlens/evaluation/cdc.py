"""Contrast-detail curves against the European limits and against the truth.

Limits: European Guidelines for Quality Assurance in Breast Cancer Screening and Diagnosis, 4th edition, section
2b.2.4. Interval and coverage: Amanova et al. 2022, section 2.2.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from radlens.errors import InvalidInput
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

__all__ = [
    "EXPANSION",
    "LIMITS_UM",
    "CdcVerdict",
    "DiameterVerdict",
    "Limit",
    "Outcome",
    "coverage",
    "describe",
    "rmse",
    "skill",
    "verdict",
]

Outcome = Literal["achievable", "acceptable", "not acceptable"]

EXPANSION = 1.96
"""Total uncertainties from the mean to either end of the 95 % interval of a Gaussian (Amanova et al., section 2.2)."""


class Limit(NamedTuple):
    """Largest threshold gold thickness, micrometres.

    Attributes:
        acceptable: a system above it must not be used.
        achievable: what a good system reaches.
    """

    acceptable: float
    achievable: float


LIMITS_UM: Mapping[float, Limit] = MappingProxyType(
    {
        1.00: Limit(0.091, 0.056),
        0.50: Limit(0.150, 0.103),
        0.25: Limit(0.352, 0.244),
        0.10: Limit(1.68, 1.10),
    }
)
"""European limiting values by disk diameter in mm; the other diameters of the curve have none."""


@dataclass(frozen=True)
class DiameterVerdict:
    """One point of the curve against the limits of its diameter.

    Attributes:
        diameter_mm: of the disk.
        mean_um: predicted threshold, micrometres of gold.
        interval_um: its 95 % interval; the lower end can be negative where the uncertainty is large.
        acceptable_um: limit, micrometres of gold.
        achievable_um: limit, micrometres of gold.
        outcome: where the mean lies; a mean on a limit meets it.
        certain: the whole interval lies on the side of the limit that decided the outcome. "achievable" and
            "acceptable" are then met with at least the interval's confidence, "not acceptable" is exceeded with it.
            Where it is false, the limit lies inside the interval and this one image does not settle the question.
    """

    diameter_mm: float
    mean_um: float
    interval_um: tuple[float, float]
    acceptable_um: float
    achievable_um: float
    outcome: Outcome
    certain: bool


@dataclass(frozen=True)
class CdcVerdict:
    """A curve against the European limits.

    A physicist may conclude that the predicted curve passes or fails at the four limited diameters, and whether the
    uncertainty of the prediction could turn that around. It does not replace the read-out of at least 16 images that
    the guidelines ask for: it tells whether that is likely to give another answer. The intervals hold for each
    diameter on its own, not for all four together.

    Attributes:
        diameters: one verdict for each limited diameter, largest first.
        outcome: the worst of them.
        certain: no interval allows another conclusion. "achievable" and "acceptable" need every interval below that
            limit; for "not acceptable" one diameter whose whole interval lies above its limit is enough.
    """

    diameters: tuple[DiameterVerdict, ...]
    outcome: Outcome
    certain: bool


def verdict(mean_um: ArrayLike, total_um: ArrayLike) -> CdcVerdict:
    """Compare a predicted curve with `LIMITS_UM`.

    Args:
        mean_um: ``(12,)`` predicted thresholds, micrometres of gold, diameters as in ``CDC_DIAMETERS_MM``.
        total_um: ``(12,)`` their total uncertainties, standard deviations in micrometres of gold.

    Raises:
        InvalidInput: another shape, a value that is not finite, or a negative uncertainty.
    """
    mean, total = _curve("mean_um", mean_um), _curve("total_um", total_um)
    if total.min() < 0:
        raise InvalidInput(f"total_um must not be negative, got {total.min():g}")
    points = tuple(
        _point(diameter, float(mean[i]), float(total[i]), LIMITS_UM[diameter])
        for i, diameter in enumerate(_DIAMETERS_MM.tolist())
        if diameter in LIMITS_UM
    )
    outcome = max((point.outcome for point in points), key=_ORDER.index)
    return CdcVerdict(points, outcome, _is_certain(points, outcome))


def describe(found: CdcVerdict) -> str:
    """Return the overall verdict as two sentences for a report."""
    deciding = [point for point in found.diameters if point.outcome == found.outcome]
    where = ", ".join(f"{point.diameter_mm:.2f}" for point in deciding)
    if found.outcome == "not acceptable":
        text = f"The predicted curve exceeds the acceptable limit at {where} mm."
    elif found.outcome == "acceptable":
        text = (
            "The predicted curve meets the acceptable limit at all four diameters, "
            f"but not the achievable one at {where} mm."
        )
    else:
        text = "The predicted curve meets the achievable limit at all four diameters."
    if found.certain:
        return f"{text} The 95 % intervals support this conclusion."
    return f"{text} The 95 % intervals reach across the limit: this image alone does not settle the question."


def rmse(mean_um: ArrayLike, truth_um: ArrayLike) -> float:
    """Return the root mean square error over all images and diameters, micrometres of gold.

    Args:
        mean_um: ``(n, 12)`` predictions; any shape that broadcasts with the truth.
        truth_um: ``(n, 12)``.

    Raises:
        InvalidInput: shapes that do not match, no values, or values that are not finite.
    """
    mean, truth = _matching(mean_um=mean_um, truth_um=truth_um)
    return math.sqrt(np.mean((mean - truth) ** 2))


def coverage(mean_um: ArrayLike, total_um: ArrayLike, truth_um: ArrayLike) -> float:
    """Return the fraction of truths inside ``mean ± 1.96 total``, ends included; 0.95 where the intervals are right.

    Args:
        mean_um: ``(n, 12)`` predictions.
        total_um: ``(n, 12)`` total uncertainties, standard deviations.
        truth_um: ``(n, 12)``.

    Raises:
        InvalidInput: shapes that do not match, no values, or values that are not finite.
    """
    mean, total, truth = _matching(mean_um=mean_um, total_um=total_um, truth_um=truth_um)
    return float(np.mean(np.abs(truth - mean) <= EXPANSION * total))


def skill(mean_um: ArrayLike, truth_um: ArrayLike, reference_um: ArrayLike) -> float:
    """Return how many times smaller the error is than that of always predicting a reference curve.

    That is ``rmse(reference, truth) / rmse(mean, truth)``: 1 for a prediction no better than the reference, infinite
    for a perfect one.

    Args:
        mean_um: ``(n, 12)`` predictions.
        truth_um: ``(n, 12)``.
        reference_um: ``(12,)``, the mean curve of the training data.

    Raises:
        InvalidInput: shapes that do not match, no values, or values that are not finite.
    """
    error = rmse(mean_um, truth_um)
    return rmse(reference_um, truth_um) / error if error else math.inf


_DIAMETERS_MM = np.array(CDC_DIAMETERS_MM)

_ORDER: tuple[Outcome, ...] = ("achievable", "acceptable", "not acceptable")


def _point(diameter_mm: float, mean: float, total: float, limit: Limit) -> DiameterVerdict:
    low, high = mean - EXPANSION * total, mean + EXPANSION * total
    outcome: Outcome
    if mean <= limit.achievable:
        outcome, certain = "achievable", high <= limit.achievable
    elif mean <= limit.acceptable:
        outcome, certain = "acceptable", high <= limit.acceptable
    else:
        outcome, certain = "not acceptable", low > limit.acceptable
    return DiameterVerdict(diameter_mm, mean, (low, high), limit.acceptable, limit.achievable, outcome, certain)


def _is_certain(points: tuple[DiameterVerdict, ...], outcome: Outcome) -> bool:
    if outcome == "not acceptable":
        return any(point.outcome == outcome and point.certain for point in points)
    if outcome == "acceptable":
        return all(point.interval_um[1] <= point.acceptable_um for point in points)
    return all(point.certain for point in points)


def _curve(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != _DIAMETERS_MM.shape:
        raise InvalidInput(f"{name} must have shape {_DIAMETERS_MM.shape}, got {array.shape}")
    return _finite(name, array)


def _matching(**named: ArrayLike) -> list[np.ndarray]:
    arrays = [_finite(name, np.asarray(values, dtype=np.float64)) for name, values in named.items()]
    try:
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise InvalidInput(f"{', '.join(named)} must have matching shapes, got {shapes}") from None
    if 0 in shape:
        raise InvalidInput(f"{', '.join(named)} must hold at least one value, got shape {shape}")
    return arrays


def _finite(name: str, array: np.ndarray) -> np.ndarray:
    n_bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if n_bad:
        raise InvalidInput(f"{name} must be finite, got {n_bad} values that are NaN or infinite")
    return array
