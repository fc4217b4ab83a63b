"""From hits to a contrast-detail curve: smoothing and psychometric fit of the EUREF supplement.

Deviation: thresholds are clipped to ``THRESHOLD_RANGE_UM``, so that a phantom of which every disk is found, or no disk,
has a curve too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate
from scipy.special import expit

from radlens.errors import InvalidParameter
from radlens.phantoms.cdmam.acquisition import Acquisition
from radlens.phantoms.cdmam.geometry import CDC_ROWS, CELL_EXISTS, THICKNESSES_UM
from radlens.phantoms.cdmam.observer import expected_hit_rates

__all__ = [
    "HUMAN_FACTORS",
    "THRESHOLD_RANGE_UM",
    "ReadOut",
    "expected_cdc",
    "fit_thresholds",
    "psychometric",
    "smooth_hit_rates",
]

HUMAN_FACTORS = (2.11, 2.06, 2.01, 1.98, 1.94, 1.88, 1.82, 1.75, 1.68, 1.60, 1.50, 1.40)
"""Human over automated threshold at each diameter of the curve, largest first (1.00 ... 0.08 mm)."""

THRESHOLD_RANGE_UM = (0.01, 5.0)
"""Range of automated thresholds, um of gold: a third of the thinnest disk to 2.5 times the thickest."""

SLOPE_RANGE = (0.5, 20.0)
"""Range of slopes of the psychometric curve, per unit of log thickness."""

_KERNEL = np.array([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]])
_LOG_THICKNESS = np.log(np.array(THICKNESSES_UM))


@dataclass(frozen=True, eq=False)
class ReadOut:
    """Result of the automated read-out of n sets of images.

    Args:
        thresholds_um: (n, 12) human-equivalent thresholds, um of gold, largest diameter first: the CDC.
        automated_um: (n, 12) thresholds before the conversion, um of gold.
        slopes: (n, 12) slopes of the psychometric curves over log thickness.
        hit_rates: (n, 16, 16) fraction of images in which the true corner was found; nan where there is no cell.
        smoothed: (n, 16, 16) smoothed hit rates, to which the curves are fitted.
    """

    thresholds_um: NDArray[np.float64]
    automated_um: NDArray[np.float64]
    slopes: NDArray[np.float64]
    hit_rates: NDArray[np.float64]
    smoothed: NDArray[np.float64]


def expected_cdc(acquisitions: Sequence[Acquisition], spacing_mm: float | tuple[float, float] = 0.07) -> NDArray:
    """Return the curve that the read-out would find in infinitely many images of each exposure: the training label.

    Args:
        acquisitions: n exposures.
        spacing_mm: one number, or (row, column).

    Returns:
        (n, 12) float64, human-equivalent um of gold, largest diameter first.
    """
    return fit_thresholds(expected_hit_rates(acquisitions, spacing_mm)).thresholds_um


def fit_thresholds(hit_rates: NDArray[Any]) -> ReadOut:
    """Smooth hit matrices, fit a psychometric curve to each diameter and convert its 62.5 % point to human readers.

    Args:
        hit_rates: (n, 16, 16), 0..1; values where the phantom has no cell are ignored.

    Raises:
        InvalidParameter: the shape is wrong, or an existing cell has a rate outside 0..1.
    """
    hit_rates = np.asarray(hit_rates, dtype=np.float64)
    if hit_rates.ndim != 3 or hit_rates.shape[1:] != (16, 16):
        raise InvalidParameter(f"hit_rates must have shape (n, 16, 16), got {hit_rates.shape}")
    existing = hit_rates[:, CELL_EXISTS]
    n_wrong = np.count_nonzero(~((existing >= 0) & (existing <= 1)))  # nan counts as wrong
    if n_wrong:
        raise InvalidParameter(f"hit_rates must be between 0 and 1 in every existing cell, got {n_wrong} that are not")
    hit_rates = np.where(CELL_EXISTS, hit_rates, np.nan)
    smoothed = smooth_hit_rates(hit_rates)
    log_threshold, slopes = _fit(smoothed[:, CDC_ROWS])
    automated = np.exp(log_threshold)
    return ReadOut(automated * np.array(HUMAN_FACTORS), automated, slopes, hit_rates, smoothed)


def smooth_hit_rates(hit_rates: NDArray[Any]) -> NDArray[np.float64]:
    """Average each existing cell with its existing neighbours, weights 1, 1/2 and 1/4; nan elsewhere; (n, 16, 16)."""
    filled = np.where(CELL_EXISTS, hit_rates, 0.0)
    total = correlate(filled, _KERNEL[None], mode="constant")
    weight = correlate(CELL_EXISTS.astype(np.float64), _KERNEL, mode="constant")
    return np.where(CELL_EXISTS, total / np.where(CELL_EXISTS, weight, 1.0), np.nan)


def psychometric(log_thickness: NDArray[Any], log_threshold: NDArray[Any], slope: NDArray[Any]) -> NDArray[Any]:
    """Return ``0.25 + 0.75 / (1 + exp(-slope (log t - log T)))``, which is 0.625 at the threshold T."""
    return 0.25 + 0.75 * expit(slope * (log_thickness - log_threshold))


def _fit(rates: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit log threshold and slope to (n, 12, 16) smoothed rates by least squares, all curves at once."""
    exists = CELL_EXISTS[CDC_ROWS]
    weights = np.broadcast_to(exists, rates.shape).reshape(-1, 16).astype(np.float64)
    flat = np.where(exists, rates, 0.0).reshape(-1, 16)
    parameters = _levenberg_marquardt(flat, weights, _start(flat, weights))
    return parameters[:, 0].reshape(rates.shape[:2]), parameters[:, 1].reshape(rates.shape[:2])


def _start(rates: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the best of a coarse grid of thresholds and slopes for each curve: (m, 2)."""
    thresholds = np.linspace(math.log(THRESHOLD_RANGE_UM[0]), math.log(THRESHOLD_RANGE_UM[1]), 26)
    candidates = np.array([(threshold, slope) for threshold in thresholds for slope in (2.0, 5.0)])
    curves = psychometric(_LOG_THICKNESS, candidates[:, :1], candidates[:, 1:])
    # Sum of squares without its constant term, as two matrix products.
    cost = weights @ (curves**2).T - 2 * (weights * rates) @ curves.T
    return candidates[cost.argmin(axis=1)]


def _levenberg_marquardt(
    rates: NDArray[np.float64], weights: NDArray[np.float64], parameters: NDArray[np.float64], n_steps: int = 30
) -> NDArray[np.float64]:
    """Minimise the cost of (m, 2) parameters within their bounds; a step that does not lower the cost is rejected."""
    low, high = np.array([np.log(THRESHOLD_RANGE_UM), SLOPE_RANGE]).T
    damping = np.full(len(rates), 1e-2)
    cost, gradient, curvature = _expand(rates, weights, parameters)
    for _ in range(n_steps):
        # A parameter at its bound is fixed while the descent points outwards, so that the other one can still move.
        held = ((parameters <= low) & (gradient > 0)) | ((parameters >= high) & (gradient < 0))
        trial = np.clip(parameters - _step(gradient, curvature, held, damping), low, high)
        expansion = _expand(rates, weights, trial)
        better = expansion[0] < cost
        parameters = np.where(better[:, None], trial, parameters)
        cost, gradient, curvature = (
            np.where(better if new.ndim == 1 else better[:, None], new, old)
            for new, old in zip(expansion, (cost, gradient, curvature), strict=True)
        )
        # The usual schedule: towards Gauss-Newton after a success, towards gradient descent after a failure.
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-9, 1e9)
    return parameters


def _expand(
    rates: NDArray[np.float64], weights: NDArray[np.float64], parameters: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return cost (m,), half its gradient (m, 2) and the Gauss-Newton matrix (m, 3: threshold, slope, mixed)."""
    distance, slope = _LOG_THICKNESS - parameters[:, :1], parameters[:, 1:]
    logistic = expit(slope * distance)
    residual = weights * (0.25 + 0.75 * logistic - rates)
    by_slope = 0.75 * weights * logistic * (1 - logistic)
    by_threshold = -slope * by_slope
    by_slope = by_slope * distance
    return (
        _dot(residual, residual),
        np.stack([_dot(by_threshold, residual), _dot(by_slope, residual)], axis=1),
        np.stack([_dot(by_threshold, by_threshold), _dot(by_slope, by_slope), _dot(by_threshold, by_slope)], axis=1),
    )


def _step(
    gradient: NDArray[np.float64],
    curvature: NDArray[np.float64],
    held: NDArray[np.bool_],
    damping: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Solve the damped 2 x 2 systems; a flat or fixed direction gets a step of zero."""
    gradient = np.where(held, 0.0, gradient)
    threshold, slope = (curvature[:, :2] * (1 + damping[:, None]) + 1e-12).T
    mixed = np.where(held.any(axis=1), 0.0, curvature[:, 2])
    determinant = threshold * slope - mixed**2
    first = (slope * gradient[:, 0] - mixed * gradient[:, 1]) / determinant
    second = (threshold * gradient[:, 1] - mixed * gradient[:, 0]) / determinant
    return np.stack([first, second], axis=1)


def _dot(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.einsum("mt,mt->m", left, right)
