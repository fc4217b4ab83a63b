"""Comparison of contrast-detail curves with the European limits and with the truth.

Limits: European Guidelines for Quality Assurance in Breast Cancer Screening and Diagnosis, 4th edition, section
2b.2.4. Linear interval and coverage: Amanova et al. 2022, section 2.2.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radlens.errors import InvalidInput
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

__all__ = [
    "EXPANSION",
    "LIMITS_UM",
    "SIGNS",
    "Answer",
    "CdcVerdict",
    "DiameterVerdict",
    "Limit",
    "coverage",
    "describe",
    "linear_interval",
    "log_interval",
    "rmse",
    "skill",
    "verdict",
]

Answer = Literal["met", "not met", "not settled"]

SIGNS: Mapping[Answer, str] = MappingProxyType({"met": "✓", "not met": "✗", "not settled": "?"})
"""Sign in front of an answer in tables and reports; only a limit that is met gets a tick."""

EXPANSION = 1.96
"""Coverage factor: half width of the 95 % interval of a Gaussian in total uncertainties (Amanova et al., section
2.2)."""


class Limit(NamedTuple):
    """Largest threshold gold thickness, micrometres.

    Attributes:
        acceptable: Limit above which a system must not be used.
        achievable: Limit that a good system reaches.
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
"""European limiting values by disk diameter in mm; the other diameters of the curve have no limits."""


@dataclass(frozen=True)
class DiameterVerdict:
    """One point of the curve against the two limits of its diameter.

    A limit is met if the whole interval lies on or below it, not met if the whole interval lies above it, and not
    settled if the interval reaches across it.

    Attributes:
        diameter_mm: Diameter of the disk.
        mean_um: Threshold, micrometres of gold.
        interval_um: Lower and upper end of the 95 % interval of the threshold, micrometres of gold.
        acceptable_um: Acceptable limit, micrometres of gold.
        achievable_um: Achievable limit, micrometres of gold.
        acceptable: Whether the acceptable limit is met.
        achievable: Whether the achievable limit is met.
    """

    diameter_mm: float
    mean_um: float
    interval_um: tuple[float, float]
    acceptable_um: float
    achievable_um: float
    acceptable: Answer
    achievable: Answer


@dataclass(frozen=True)
class CdcVerdict:
    """A curve against the European limits.

    A limit is met if it is met at all four diameters, not met if it is not met at one or more of them, and otherwise
    not settled. Each interval has a coverage of 95 % for its own diameter, not for all four jointly. A verdict on a
    predicted curve does not replace the read-out of at least 16 images that the guidelines require.

    Attributes:
        diameters: One verdict for each limited diameter, largest first.
        acceptable: Whether the acceptable limit is met.
        achievable: Whether the achievable limit is met.
    """

    diameters: tuple[DiameterVerdict, ...]
    acceptable: Answer
    achievable: Answer


def verdict(mean_um: ArrayLike, interval_um: ArrayLike) -> CdcVerdict:
    """Compare a curve with `LIMITS_UM`.

    Args:
        mean_um: ``(12,)`` thresholds, micrometres of gold, positive; diameters as in ``CDC_DIAMETERS_MM``.
        interval_um: ``(12, 2)`` lower and upper ends of the 95 % intervals, micrometres of gold, positive.

    Raises:
        InvalidInput: a shape is wrong, a value is not finite and positive, or a mean lies outside its interval.
    """
    mean, interval = _checked("mean_um", mean_um, (12,)), _checked("interval_um", interval_um, (12, 2))
    for name, values in (("mean_um", mean), ("interval_um", interval)):
        if values.min() <= 0:
            raise InvalidInput(f"{name} must be positive, got {values.min():g}")
    outside = (mean < interval[:, 0]) | (mean > interval[:, 1])
    if outside.any():
        i = int(outside.argmax())
        ends = f"{interval[i, 0]:g} to {interval[i, 1]:g}"
        raise InvalidInput(f"interval_um must contain mean_um, got {ends} around {mean[i]:g}")
    points = tuple(
        _point(diameter, float(mean[i]), (float(interval[i, 0]), float(interval[i, 1])), LIMITS_UM[diameter])
        for i, diameter in enumerate(CDC_DIAMETERS_MM)
        if diameter in LIMITS_UM
    )
    return CdcVerdict(
        points,
        acceptable=_overall([point.acceptable for point in points]),
        achievable=_overall([point.achievable for point in points]),
    )


def describe(found: CdcVerdict, *, source: str = "this image") -> str:
    """Return one sentence for each limit, with the diameters.

    Args:
        found: The verdict.
        source: Source of the curve, as in "not settled by this image".
    """
    return " ".join(
        _sentence(name, [(point.diameter_mm, getattr(point, name)) for point in found.diameters], source)
        for name in Limit._fields
    )


def log_interval(mean_um: ArrayLike, total_um: ArrayLike) -> NDArray[np.float64]:
    """Return the 95 % interval ``mean * exp(-+1.96 total / mean)``, which is always positive.

    It is the interval of a log-normal distribution with median ``mean`` whose logarithm has the standard deviation
    ``total / mean``: to first order, the logarithm of a value with standard deviation ``total``. For small
    ``total / mean`` it equals `linear_interval`. The exponent is clipped to 50, so that the ends stay finite.

    Args:
        mean_um: ``(..., 12)`` thresholds, micrometres of gold, positive.
        total_um: ``(..., 12)`` total uncertainties (standard deviations) of the thresholds, micrometres of gold.

    Returns:
        ``(..., 12, 2)`` lower and upper ends, micrometres of gold.

    Raises:
        InvalidInput: the shapes do not match, there are no values, a value is not finite, a mean is not positive, or an
            uncertainty is negative.
    """
    mean, total = _mean_and_total(mean_um, total_um)
    if mean.min() <= 0:
        raise InvalidInput(f"mean_um must be positive, got {mean.min():g}")
    factor = np.exp(np.minimum(EXPANSION * total / mean, _MAX_EXPONENT))
    return np.stack([mean / factor, mean * factor], axis=-1)


def linear_interval(mean_um: ArrayLike, total_um: ArrayLike) -> NDArray[np.float64]:
    """Return the 95 % interval ``mean -+ 1.96 total`` of a Gaussian; its lower end can be negative.

    Args:
        mean_um: ``(..., 12)`` thresholds, micrometres of gold.
        total_um: ``(..., 12)`` total uncertainties (standard deviations) of the thresholds, micrometres of gold.

    Returns:
        ``(..., 12, 2)`` lower and upper ends, micrometres of gold.

    Raises:
        InvalidInput: the shapes do not match, there are no values, a value is not finite, or an uncertainty is
            negative.
    """
    mean, total = _mean_and_total(mean_um, total_um)
    return np.stack([mean - EXPANSION * total, mean + EXPANSION * total], axis=-1)


def rmse(mean_um: ArrayLike, truth_um: ArrayLike) -> float:
    """Return the root mean square error over all images and diameters, micrometres of gold.

    Args:
        mean_um: ``(n, 12)`` predictions, or a shape that broadcasts with the truth.
        truth_um: ``(n, 12)`` true thresholds.

    Raises:
        InvalidInput: the shapes do not match, there are no values, or a value is not finite.
    """
    mean, truth = _matching(mean_um=mean_um, truth_um=truth_um)
    return math.sqrt(np.mean((mean - truth) ** 2))


def coverage(interval_um: ArrayLike, truth_um: ArrayLike) -> float:
    """Return the fraction of true thresholds inside their intervals, ends included; 0.95 if intervals are calibrated.

    Args:
        interval_um: ``(n, 12, 2)`` lower and upper ends, from `log_interval` or `linear_interval`.
        truth_um: ``(n, 12)`` true thresholds, or a shape that broadcasts with the ends.

    Raises:
        InvalidInput: the shapes do not match, there are no values, or a value is not finite.
    """
    interval = np.asarray(interval_um, dtype=np.float64)
    if interval.ndim == 0 or interval.shape[-1] != 2:
        raise InvalidInput(f"interval_um must have shape (..., 2), got {interval.shape}")
    lower, upper, truth = _matching(lower_um=interval[..., 0], upper_um=interval[..., 1], truth_um=truth_um)
    return float(np.mean((lower <= truth) & (truth <= upper)))


def skill(mean_um: ArrayLike, truth_um: ArrayLike, reference_um: ArrayLike) -> float:
    """Return the error of always predicting a reference curve over the error of the predictions.

    That is ``rmse(reference, truth) / rmse(mean, truth)``: 1 for predictions no better than the reference, infinite for
    perfect ones.

    Args:
        mean_um: ``(n, 12)`` predictions.
        truth_um: ``(n, 12)`` true thresholds.
        reference_um: ``(12,)`` reference curve, the mean curve of the training data.

    Raises:
        InvalidInput: the shapes do not match, there are no values, or a value is not finite.
    """
    error = rmse(mean_um, truth_um)
    return rmse(reference_um, truth_um) / error if error else math.inf


_MAX_EXPONENT = 50.0


def _point(diameter_mm: float, mean: float, interval: tuple[float, float], limit: Limit) -> DiameterVerdict:
    return DiameterVerdict(
        diameter_mm,
        mean,
        interval,
        *limit,
        acceptable=_answer(interval, limit.acceptable),
        achievable=_answer(interval, limit.achievable),
    )


def _answer(interval: tuple[float, float], limit: float) -> Answer:
    if interval[1] <= limit:
        return "met"
    return "not met" if interval[0] > limit else "not settled"


def _overall(answers: Sequence[Answer]) -> Answer:
    # The worst answer of any diameter is the answer of the curve.
    order: tuple[Answer, ...] = ("not met", "not settled", "met")
    return next(answer for answer in order if answer in answers)


def _sentence(name: str, answers: Sequence[tuple[float, Answer]], source: str) -> str:
    def where(wanted: Answer) -> list[str]:
        return [f"{diameter:.2f}" for diameter, answer in answers if answer == wanted]

    failed, open_, met = where("not met"), where("not settled"), where("met")
    parts = []
    if failed:
        parts.append(f"not met {_at(failed, len(answers))}")
    if open_:
        reach = "interval reaches" if len(open_) == 1 else "intervals reach"
        parts.append(f"not settled by {source} {_at(open_, len(answers))}: the 95 % {reach} across it")
    if met:
        others = "at the other diameter" if len(met) == 1 else "at the other diameters"
        parts.append(f"met {others if parts else 'at all four diameters'}")
    return f"{name.capitalize()} limit: {'; '.join(parts)}."


def _at(diameters: Sequence[str], n_limited: int) -> str:
    if len(diameters) == n_limited:
        return "at any of the four diameters"
    *first, last = diameters
    return f"at {', '.join(first)} and {last} mm" if first else f"at {last} mm"


def _checked(name: str, values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape:
        raise InvalidInput(f"{name} must have shape {shape}, got {array.shape}")
    return _finite(name, array)


def _mean_and_total(mean_um: ArrayLike, total_um: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean, total = _matching(mean_um=mean_um, total_um=total_um)
    if total.min() < 0:
        raise InvalidInput(f"total_um must not be negative, got {total.min():g}")
    return mean, total


def _matching(**named: ArrayLike) -> list[NDArray[np.float64]]:
    arrays = [_finite(name, np.asarray(values, dtype=np.float64)) for name, values in named.items()]
    try:
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise InvalidInput(f"{', '.join(named)} must have matching shapes, got {shapes}") from None
    if 0 in shape:
        raise InvalidInput(f"{', '.join(named)} must hold at least one value, got shape {shape}")
    return arrays


def _finite(name: str, array: NDArray[np.float64]) -> NDArray[np.float64]:
    n_bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if n_bad:
        raise InvalidInput(f"{name} must be finite, got {n_bad} values that are NaN or infinite")
    return array
