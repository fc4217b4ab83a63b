"""Contradictions between a predicted curve and its own shape, or the disks as the automated reader sees them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radlens.errors import InvalidInput
from radlens.phantoms.cdmam.domain_findings import Findings
from radlens.phantoms.cdmam.domain_limits import Limits
from radlens.phantoms.cdmam.geometry import CDC_DIAMETERS_MM, CELL_EXISTS, DIAMETERS_MM, THICKNESSES_UM
from radlens.phantoms.cdmam.reading import HUMAN_FACTORS, expected_cdc, psychometric
from radlens.phantoms.cdmam.visibility import REFERENCE

__all__ = ["SLOPES", "contradictions", "implied_by_curve"]

SLOPES = (2.6, 2.6, 2.5, 2.44, 2.30, 2.17, 2.07, 1.96, 1.86, 1.83, 1.78, 1.71, 1.58, 1.40, 1.31, 1.30)
"""Slopes of the psychometric curves over log thickness for each diameter, largest first.

Those of the 12 diameters of the curve are means of the slopes that `fit_thresholds` finds in the expected hit rates of
1500 exposures of the training range at 0.07 mm; the others are extrapolated. With these slopes the expected number of
hits is accurate to 1.5 of 205.
"""

_NAMES = tuple(f"{diameter:.2f} mm" for diameter in CDC_DIAMETERS_MM)
_GROUPS = {"hits_all": "", "hits_thick": " clearly above the predicted line", "hits_thin": " below it"}
_CLEARLY = math.log(2.0)
_ROWS, _COLUMNS = np.nonzero(CELL_EXISTS)


def contradictions(
    found: Findings, curve_um: ArrayLike, interval_um: ArrayLike, limits: Limits | None = None
) -> tuple[str, ...]:
    """Return the contradictions of a predicted curve, one sentence each.

    The curve must be positive and finite, must not fall towards smaller diameters, must lie within the range of the
    training curves, and must agree with the automated reader in this image: with the visibility of the disks, and with
    the number of hits among all cells, the cells clearly above the line and the cells below it. The uncertainty of the
    curve is taken into account.

    Args:
        found: numbers of the image.
        curve_um: (12,) predicted thresholds, human-equivalent um of gold, largest diameter first.
        interval_um: (12, 2) 95 % interval of each threshold, um of gold.
        limits: accepted ranges; by default the defaults of `Limits`.

    Raises:
        InvalidInput: the curve or the interval has another shape.
    """
    limits = limits or Limits()
    curve, interval = np.asarray(curve_um, np.float64), np.asarray(interval_um, np.float64)
    if curve.shape != (12,) or interval.shape != (12, 2):
        raise InvalidInput(f"curve and interval must be (12,) and (12, 2), got {curve.shape} and {interval.shape}")
    if not (np.isfinite(curve).all() and np.isfinite(interval).all() and curve.min() > 0 and interval.min() > 0):
        return ("the predicted thresholds are not positive and finite",)
    return (*_implausible(curve, interval, limits), *_unlike_disks(found, curve, interval, limits))


def _implausible(curve: NDArray[np.float64], interval: NDArray[np.float64], limits: Limits) -> list[str]:
    against = [
        f"the predicted threshold falls from {_NAMES[i]} to {_NAMES[i + 1]} beyond its interval"
        for i in np.flatnonzero(interval[1:, 1] < interval[:-1, 0])
    ]
    against += [
        f"the predicted threshold of {value:.3g} um at {name} is outside the training range, {low:.2g} to {high:.2g} um"
        for name, value, (low, high) in zip(_NAMES, curve, limits.curve_um, strict=True)
        if not low <= value <= high
    ]
    return against


def _unlike_disks(
    found: Findings, curve: NDArray[np.float64], interval: NDArray[np.float64], limits: Limits
) -> list[str]:
    against = []
    seen = _midpoint(found.visibility, found.spacing_mm)
    ratio = float(curve.mean()) / seen
    if not limits.disagreement[0] <= ratio <= limits.disagreement[1]:
        against.append(
            f"the predicted midpoint is {curve.mean():.3g} um; "
            f"the visibility of the disks in this image implies {seen:.3g} um"
        )
    deviation = np.log(interval[:, 1] / interval[:, 0]) / (2 * 1.96)  # intervals are log-normal
    rate, spread, thick, thin = implied_by_curve(curve, deviation)
    groups = {"hits_all": np.ones_like(thick), "hits_thick": thick, "hits_thin": thin}
    for name, cells in groups.items():
        expected, got = float(rate[cells].sum()), int(found.hit[cells].sum())
        # Hits are binomial; the error of the curve is common to all cells, so its deviations add before squaring.
        variance = float((rate * (1 - rate))[cells].sum()) + float(spread[cells].sum()) ** 2
        # The 1 keeps a single hit from being a contradiction where almost none is expected.
        score = (got - expected) / math.sqrt(variance + 1)
        if not getattr(limits, name)[0] <= score <= getattr(limits, name)[1]:
            against.append(
                f"of {np.count_nonzero(cells)} cells{_GROUPS[name]}, the automated reader finds the disk in {got}; "
                f"the predicted curve implies {expected:.0f} +- {math.sqrt(variance):.0f}"
            )
    return against


def implied_by_curve(
    curve: NDArray[np.float64], deviation: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return what a curve implies for each of the 205 cells.

    Returns:
        (205,) arrays: probability of a hit, its standard deviation due to that of the curve, whether the disk is
        clearly thicker than the threshold, and whether it is thinner.
    """
    log_diameters = np.log(np.array(DIAMETERS_MM))
    inner = np.log(curve / np.array(HUMAN_FACTORS))
    log_threshold = np.empty(16)
    log_threshold[3:15] = inner
    # Four rows have no threshold in the curve: their log threshold is extrapolated linearly over log diameter.
    for row, (near, next_one) in {0: (3, 4), 1: (3, 4), 2: (3, 4), 15: (14, 13)}.items():
        slope = (log_threshold[next_one] - log_threshold[near]) / (log_diameters[next_one] - log_diameters[near])
        log_threshold[row] = log_threshold[near] + slope * (log_diameters[row] - log_diameters[near])
    spread = np.concatenate([np.repeat(deviation[0], 3), deviation, deviation[-1:]])
    thickness, threshold, slope = np.log(np.array(THICKNESSES_UM))[_COLUMNS], log_threshold[_ROWS], np.array(SLOPES)
    rate = psychometric(thickness, threshold, slope[_ROWS])
    logistic = (rate - 0.25) / 0.75
    by_threshold = 0.75 * slope[_ROWS] * logistic * (1 - logistic) * spread[_ROWS]
    return rate, by_threshold, thickness > threshold + _CLEARLY, thickness < threshold


def _midpoint(visible: float, spacing_mm: tuple[float, float]) -> float:
    """Return the mean threshold of the expected curve of a phantom with this visibility, um of gold."""
    log_levels, log_midpoints = _midpoints(spacing_mm)
    return math.exp(float(np.interp(math.log(max(visible, 1e-3)), log_levels, log_midpoints)))


@lru_cache(maxsize=16)
def _midpoints(spacing_mm: tuple[float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    log_levels = np.linspace(math.log(0.05), math.log(8.0), 24)
    exposures = [replace(REFERENCE, noise_level=REFERENCE.noise_level / level) for level in np.exp(log_levels)]
    return log_levels, np.log(expected_cdc(exposures, spacing_mm).mean(axis=1))
