"""Visibility of the disks of a registered phantom, measured without a network: the automated reader at five positions.

In each cell the statistic of the reader (`radlens.phantoms.cdmam.hits`) is evaluated at the middle and at the four
corners, in units of its standard deviation due to the noise of the phantom. Two of the five positions hold a disk.
Their statistics are compared with the detectability in scenario 1 of Amanova et al. 2022: one factor, the *visibility*,
scales the contrast-to-noise ratios of this reference to those of the image. A phantom with other disks, or without
disks, does not follow this scaling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from radlens.phantoms.cdmam.acquisition import SCENARIOS
from radlens.phantoms.cdmam.disk_blur import DiskBlur
from radlens.phantoms.cdmam.geometry import (
    CELL_EXISTS,
    DIAMETERS_MM,
    TRUE_CORNER,
    Layout,
    cell_to_phantom,
    corner_centres,
)
from radlens.phantoms.cdmam.hits import templates_at
from radlens.phantoms.cdmam.observer import TEMPLATE_BLUR_MM, corner_moments, detectability
from radlens.phantoms.cdmam.registered import UNIT_SPACING_MM, Registered, noise_unit
from radlens.phantoms.cdmam.signal import total_blur_mm

__all__ = ["REFERENCE", "Visibility", "visibility"]

REFERENCE = SCENARIOS["1"]
"""Reference exposure: its disks have a visibility of 1."""

MODEL_ERROR = 0.15
"""Relative error of the expected statistic of a disk: its growth with thickness and diameter depends on blur and
voltage.

Over the training range the statistics of all disks follow those of the reference within 12 %.
"""

_FILTER_PX = 0.85
_N_ROUNDS = 3
_ROWS, _COLUMNS = np.nonzero(CELL_EXISTS)
_BOTH_MM = np.tile(np.array(DIAMETERS_MM)[_ROWS], 2)
_SMALL_MM, _SMALLEST_MM = 0.26, 0.17

_FAINT = (0.5, 3.0)
"""Range of the expected statistics of barely visible disks, in standard deviations; these disks determine a
threshold."""

_USUAL_BLUR_MM, _BLUR_DEVIATION_MM = 0.1, 0.009
_SMALL_AT_USUAL, _SMALL_PER_MM = 0.988, -4.9
"""Visibility of small disks over that of the others at the usual blur, and its slope with the blur; both for
`_SMALL_MM` and `_SMALLEST_MM`, from 70 phantoms of the training range."""

_SMALL_ERROR, _FAINT_ERROR, _ROW_ERROR = 0.04, 0.03, 0.08
"""Errors of the ratios in addition to that of the noise."""

_LARGE_MM = 0.3

_SEEN = 5.0
_CELLS = np.arange(len(_ROWS))
_FIRST_THICK = 10  # column of 0.36 um


@dataclass(frozen=True, eq=False)
class Visibility:
    """Visibility of the disks of one image.

    Attributes:
        middle: Visibility of the disks in the middle of the cells: contrast-to-noise ratio over that of the reference.
        corner: Visibility of the disks in the true corners.
        error: Standard error of ``corner`` due to noise; that of ``middle`` is the same.
        thin: Visibility of disks thinner than 0.36 um.
        thin_error: Standard error of ``thin`` due to noise.
        thick: Visibility of disks of at least 0.36 um.
        small: Standard deviations by which the disks of 0.25 mm and less are more visible than the larger disks of this
            image imply, given its blur; nan if the larger disks are not visible.
        smallest: The same for the disks of 0.16 mm and less.
        weakest_row: The same for the disks of the diameter that is weakest against all larger than 0.3 mm.
        weakest_mm: That diameter, mm.
        faint: The same for disks with an expected statistic of 0.5 to 3 standard deviations, against disks with more.
        mismatch: Mean square deviation of the statistics at both disks from the expected ones, over their variance;
            about 1 for a phantom of the training range.
        others: Mean square of the statistics at the three corners without a disk, over their variance; about 1.
        hits: (205,) bool, true for cells in which the true corner has the largest statistic.
    """

    middle: float
    corner: float
    error: float
    thin: float
    thin_error: float
    thick: float
    small: float
    smallest: float
    weakest_row: float
    weakest_mm: float
    faint: float
    mismatch: float
    others: float
    hits: NDArray[np.bool_]


def visibility(phantom: Registered, blur: DiskBlur) -> Visibility:
    """Measure the visibility of the disks of a registered phantom with blur ``blur``."""
    seen = (_templates(phantom.grid) @ phantom.linear().reshape(-1)).reshape(-1, 5) / _deviation(phantom.grid)[:, None]
    expected = detectability([REFERENCE], phantom.grid.spacing_mm)[0][CELL_EXISTS]
    true = TRUE_CORNER[CELL_EXISTS]
    middle, corners = seen[:, 0], seen[:, 1:]
    at_true = corners[_CELLS, true]
    wrong = np.ones_like(corners, dtype=bool)
    wrong[_CELLS, true] = False
    both, twice = np.concatenate([middle, at_true]), np.tile(expected, 2)
    factor, _ = _factor(both, twice)
    thick = np.tile(_COLUMNS >= _FIRST_THICK, 2)
    thin, thin_error = _factor(both[~thick], twice[~thick])
    weakest_row, weakest_mm = _weakest_row(both, phantom.grid.spacing_mm, blur)
    return Visibility(
        middle=_factor(middle, expected)[0],
        corner=_factor(at_true, expected)[0],
        error=_factor(at_true, expected)[1],
        thin=thin,
        thin_error=thin_error,
        thick=_factor(both[thick], twice[thick])[0],
        small=_against_larger(both, twice, _BOTH_MM < _SMALL_MM, blur),
        smallest=_against_larger(both, twice, _BOTH_MM < _SMALLEST_MM, blur),
        weakest_row=weakest_row,
        weakest_mm=weakest_mm,
        faint=_faint(both, twice, factor),
        mismatch=float(np.mean((both - factor * twice) ** 2 * _weights(twice, factor))),
        others=float(np.mean(corners[wrong] ** 2)),
        hits=corners.argmax(axis=1) == true,
    )


def _against_larger(
    seen: NDArray[np.float64], expected: NDArray[np.float64], small: NDArray[np.bool_], blur: DiskBlur
) -> float:
    """Return the standard deviations by which small disks are more visible than the others imply at a blur."""
    usual, usual_error = _factor(seen[~small], expected[~small])
    if usual < _SEEN * usual_error:
        return math.nan
    its, error = _factor(seen[small], expected[small])
    is_known = blur.error_mm < _BLUR_DEVIATION_MM
    blur_mm, blur_error = blur if is_known else (_USUAL_BLUR_MM, _BLUR_DEVIATION_MM)
    implied = _SMALL_AT_USUAL + _SMALL_PER_MM * (blur_mm - _USUAL_BLUR_MM)
    return (its / usual - implied) / math.hypot(error / usual, _SMALL_ERROR, _SMALL_PER_MM * blur_error)


def _weakest_row(seen: NDArray[np.float64], spacing_mm: tuple[float, float], blur: DiskBlur) -> tuple[float, float]:
    """Return the diameter whose disks are weakest against those larger than 0.3 mm, as ``(deviations, diameter)``.

    The deviation is nan if the larger disks are not visible.
    """
    blur_mm = blur.blur_mm if blur.error_mm < _BLUR_DEVIATION_MM else _USUAL_BLUR_MM
    expected = np.tile(detectability([replace(REFERENCE, blur_mm=blur_mm)], spacing_mm)[0][CELL_EXISTS], 2)
    weakest, weakest_mm = math.nan, math.nan
    for diameter in DIAMETERS_MM:
        its = diameter == _BOTH_MM
        others = ~its & (_BOTH_MM > _LARGE_MM)
        usual, usual_error = _factor(seen[others], expected[others])
        if usual < _SEEN * usual_error:
            return math.nan, math.nan
        found, error = _factor(seen[its], expected[its])
        deviation = (found / usual - 1) / math.hypot(error / usual, _ROW_ERROR)
        if not deviation >= weakest:
            weakest, weakest_mm = deviation, diameter
    return weakest, weakest_mm


def _faint(seen: NDArray[np.float64], expected: NDArray[np.float64], factor: float) -> float:
    """Return the standard deviations by which faint disks are more visible than clearly visible disks imply."""
    low, high = (level / max(factor, 1e-6) for level in _FAINT)
    faint, clear = (expected > low) & (expected < high), expected >= high
    usual, usual_error = _factor(seen[clear], expected[clear]) if clear.any() else (0.0, math.inf)
    if usual < _SEEN * usual_error or not faint.any():
        return math.nan
    weight = float(expected[faint] @ expected[faint])
    its = float(expected[faint] @ seen[faint]) / weight
    return (its / usual - 1) / math.hypot(1 / (math.sqrt(weight) * usual), _FAINT_ERROR)


def _factor(seen: NDArray[np.float64], expected: NDArray[np.float64]) -> tuple[float, float]:
    """Return the factor that fits the expected to the observed statistics, and its standard error."""
    factor, weights = 0.0, np.ones_like(seen)
    # The weights depend on the factor, hence the rounds.
    for _ in range(_N_ROUNDS):
        weights = _weights(expected, factor)
        factor = float((weights * expected) @ seen / ((weights * expected) @ expected))
    return factor, float(1 / math.sqrt((weights * expected) @ expected))


def _weights(expected: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    return 1 / (1 + (MODEL_ERROR * factor * expected) ** 2)


@lru_cache(maxsize=2)
def _templates(grid: Layout) -> csr_array:
    """Return the templates at the middle and the corners of all cells, (205 * 5, h * w); about 20 MB."""
    x, y = corner_centres()
    middle = cell_to_phantom(_ROWS + 0.5, _COLUMNS + 0.5)
    places = (np.concatenate([m[:, None], c[CELL_EXISTS]], axis=1) for m, c in zip(middle, (x, y), strict=True))
    return templates_at(grid, *places).astype(np.float32)


def _deviation(grid: Layout) -> NDArray[np.float64]:
    """Return the standard deviation of the statistic in each cell due to noise, (205,) units."""
    blur = np.array([total_blur_mm(TEMPLATE_BLUR_MM, grid.spacing_mm)])
    _, deviation = corner_moments(blur, np.array([_FILTER_PX]), grid.spacing_mm)
    # Standard deviation per pixel of white noise with the power of the unit: noise power = variance * pixel area.
    white = UNIT_SPACING_MM / math.sqrt(grid.spacing_mm[0] * grid.spacing_mm[1]) / noise_unit(1.0)
    return white * deviation[0, _ROWS]
