"""Position, contrast, blur and noise of the grid lines of a registered phantom, cell by cell.

In each cell, model lines are fitted to bins of half a millimetre in the strips along the four borders: contrast, shift
along either axis and background. The fit is linear in shifts of up to about 0.2 mm. For each direction of lines, the
profile across them is averaged over the phantom; it gives their blur, and the noise on the lines relative to the noise
beside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from radlens.phantoms.cdmam.acquisition import Acquisition
from radlens.phantoms.cdmam.geometry import CELL_EXISTS, CELL_MM, LINE_WIDTH_MM, Layout, phantom_to_cell
from radlens.phantoms.cdmam.registered import bin_centres, bin_factors, binned
from radlens.phantoms.cdmam.signal import layers_at

__all__ = ["Lines", "Profile", "cell_of_bins", "lines", "profile"]

N_CELLS = int(np.count_nonzero(CELL_EXISTS))

_STRIP_MM = 1.2  # disks keep at least 1.5 mm from the borders
_N_SUB = 4
_MODEL = Acquisition(blur_mm=0.1, heel_per_100mm=0.0)
_LEAST_SEEN = 0.6
_PROFILE_MM, _PROFILE_STEP_MM = 1.0, 0.05
_CROSSING_MM = 1.5
_LINE_ERROR = 0.03
_NUMBER = np.where(CELL_EXISTS, np.cumsum(CELL_EXISTS).reshape(16, 16) - 1, -1)
_NODES = (np.arange(round(2 * _PROFILE_MM / _PROFILE_STEP_MM)) + 0.5) * _PROFILE_STEP_MM - _PROFILE_MM
_ON, _BESIDE = np.abs(_NODES) < 0.05, np.abs(_NODES) > 0.7


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines around each of the 205 cells, in the order of ``np.nonzero``; nan where the image does not show a cell.

    Attributes:
        contrast: (205,) contrast of the lines in units of the normalised image.
        contrast_error: (205,) standard error of ``contrast``.
        shift_mm: (205, 2) displacement of the lines from their expected position (right, down), mm.
        shift_error_mm: (205,) standard error of ``shift_mm`` along either axis, mm.
        misfit: Variance of the residuals of the fits over that of the noise.
    """

    contrast: NDArray[np.float64]
    contrast_error: NDArray[np.float64]
    shift_mm: NDArray[np.float64]
    shift_error_mm: NDArray[np.float64]
    misfit: float


class Profile(NamedTuple):
    """Mean profile across all lines of one direction.

    Attributes:
        contrast: Height of the lines before blur, in units.
        blur_mm: Standard deviation of their blur, the pixel excluded, mm.
        noise: Standard deviation of pixels on the lines over that of pixels beside them.
    """

    contrast: float
    blur_mm: float
    noise: float


class _Frame(NamedTuple):
    """Model of the lines in the n bins of the strips.

    Attributes:
        basis: (4, n) coverage by lines, its derivatives right and down, and a constant.
        cell: (n,) number of the cell, 0..204.
        place: (n,) flat index of the bin.
    """

    basis: NDArray[np.float64]
    cell: NDArray[np.intp]
    place: NDArray[np.intp]


@lru_cache(maxsize=4)
def cell_of_bins(grid: Layout) -> NDArray[np.intp]:
    """Return the number 0..204 of the cell that contains the centre of each bin, -1 outside the matrix."""
    return _numbers(*phantom_to_cell(*bin_centres(grid)))


def lines(values: NDArray[Any], seen: NDArray[np.bool_], deviation: float, grid: Layout) -> Lines:
    """Fit the lines around each cell.

    Args:
        values: (bins down, bins right) bins of the normalised image before compression.
        seen: bool, true for the bins that the image shows, of the same shape.
        deviation: standard deviation of the noise of a bin.
        grid: layout of the normalised image.
    """
    frame = _frame(grid)
    use = seen.reshape(-1)[frame.place]
    basis, cell, target = frame.basis[:, use], frame.cell[use], values.reshape(-1)[frame.place[use]]
    normal = np.empty((N_CELLS, 4, 4))
    for i in range(4):
        for j in range(i, 4):
            normal[:, i, j] = normal[:, j, i] = _by_cell(basis[i] * basis[j], cell)
    right_side = np.stack([_by_cell(each * target, cell) for each in basis], axis=1)
    whole = _by_cell(np.ones(len(cell)), cell) >= _LEAST_SEEN * np.bincount(frame.cell, minlength=N_CELLS)
    inverse = np.linalg.inv(normal + 1e-9 * np.eye(4))  # cells without bins would be singular
    fitted = np.einsum("kij,kj->ki", inverse, right_side)
    left = target - np.einsum("in,ni->n", basis, fitted[cell])
    errors = deviation * np.sqrt(np.einsum("kii->ki", inverse))
    fitted[~whole], errors[~whole] = np.nan, np.nan
    contrast = fitted[:, 0]
    safe = np.where(np.abs(contrast) > 1e-6, contrast, np.nan)
    return Lines(
        contrast=contrast,
        contrast_error=errors[:, 0],
        shift_mm=-fitted[:, 1:3] / safe[:, None],
        shift_error_mm=errors[:, 1:3].max(axis=1) / np.abs(safe),
        misfit=float(np.mean(left[whole[cell]] ** 2)) / deviation**2 if whole.any() else math.nan,
    )


def profile(values: NDArray[np.float32], seen: NDArray[np.bool_], grid: Layout) -> tuple[Profile, Profile]:
    """Return the profiles across the lines of both directions.

    Args:
        values: (h, w) normalised image before compression.
        seen: (h, w) bool, true for the pixels that the image shows.
        grid: layout of the normalised image.
    """
    place, node = _crossings(grid)
    shown = seen.reshape(-1)[place]
    place, node = place[shown], node[shown]
    n_nodes = _NODES.size
    chosen = values.reshape(-1)[place].astype(np.float64)
    counts = np.maximum(np.bincount(node, minlength=2 * n_nodes), 1)
    means = np.bincount(node, chosen, minlength=2 * n_nodes) / counts
    variances = np.bincount(node, (chosen - means[node]) ** 2, minlength=2 * n_nodes) / counts
    first, second = (
        _fit_profile(each, spread, math.sqrt(grid.spacing_mm[0] * grid.spacing_mm[1]))
        for each, spread in zip(means.reshape(2, -1), variances.reshape(2, -1), strict=True)
    )
    return first, second


def _fit_profile(means: NDArray[np.float64], variances: NDArray[np.float64], spacing_mm: float) -> Profile:
    """Fit height, blur and position of a line to its mean profile.

    Pixels are displaced by up to half a pixel (nearest-neighbour registration) and by up to half a step (assignment to
    nodes). This jitter widens the profile and adds to the noise on its slopes.
    """
    jitter = (spacing_mm**2 + _PROFILE_STEP_MM**2) / 12
    best, shape = (math.inf, 0.0, 0.0), np.zeros_like(means)
    for blur_mm in np.linspace(0.0, 0.6, 61):
        sigma_mm = math.sqrt(blur_mm**2 + spacing_mm**2 / 12 + jitter)
        for shift_mm in np.linspace(-0.2, 0.2, 9):
            design = np.stack([line_profile(_NODES - shift_mm, sigma_mm), np.ones_like(_NODES)], axis=1)
            solution, *_ = np.linalg.lstsq(design, means, rcond=None)
            left = float(np.sum((means - design @ solution) ** 2))
            if left < best[0]:
                best, shape = (left, float(solution[0]), float(blur_mm)), design @ solution
    on, beside = float(variances[_ON].mean()), float(variances[_BESIDE].mean())
    # The variance from jitter and from an imperfect fit of the profile is not noise; both can only add to it.
    misplaced = float(np.mean((np.gradient(shape, _PROFILE_STEP_MM) ** 2 * jitter)[_ON]))
    on = min(on, max(on - misplaced - (_LINE_ERROR * best[1]) ** 2, beside))
    return Profile(best[1], best[2], math.sqrt(on / max(beside, 1e-12)))


def line_profile(distance_mm: NDArray[Any], sigma_mm: float) -> NDArray[Any]:
    """Return the coverage by one blurred line at distances from its centre line."""
    scale, half = 1 / (math.sqrt(2.0) * sigma_mm), LINE_WIDTH_MM / 2
    return 0.5 * (erf((distance_mm + half) * scale) - erf((distance_mm - half) * scale))


@lru_cache(maxsize=2)
def _crossings(grid: Layout) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return flat indices of the pixels of every second row that lie near one line only, and their profile nodes."""
    height, width = grid.image_shape
    rows = np.arange(0, height, 2)
    a, b = phantom_to_cell(*grid.to_phantom(rows[:, None], np.arange(width)))
    exists = _numbers(a, b) >= 0
    to_a, to_b = ((each - np.rint(each)) * np.float32(CELL_MM) for each in (a, b))
    places, nodes = [], []
    n_nodes = _NODES.size
    for number, (across, along) in enumerate(((to_a, to_b), (to_b, to_a))):
        near = exists & (np.abs(across) < _PROFILE_MM) & (np.abs(along) > _CROSSING_MM)
        row, col = np.nonzero(near)
        node = np.floor((across[near] + _PROFILE_MM) / _PROFILE_STEP_MM).astype(np.intp)
        places.append(rows[row] * width + col)
        nodes.append(np.clip(node, 0, n_nodes - 1) + number * n_nodes)
    return np.concatenate(places), np.concatenate(nodes)


@lru_cache(maxsize=2)
def _frame(grid: Layout) -> _Frame:
    rows, cols = (_positions(grid, axis, _N_SUB) for axis in (0, 1))
    covered = layers_at(_MODEL, grid, rows, cols).lines
    step = [factor * each / _N_SUB for factor, each in zip(bin_factors(grid), grid.spacing_mm, strict=True)]
    down, right = np.gradient(covered, *step)
    parts = (covered, right, down, np.ones_like(covered))
    basis = np.stack([binned(np.asarray(each, np.float32), (_N_SUB, _N_SUB)) for each in parts])
    a, b = phantom_to_cell(*bin_centres(grid))
    number = _numbers(a, b)
    border = np.minimum(np.abs(a - np.rint(a)), np.abs(b - np.rint(b))) * CELL_MM
    strip = np.flatnonzero((number >= 0) & (border < _STRIP_MM))
    return _Frame(basis.reshape(4, -1)[:, strip], number.reshape(-1)[strip], strip)


def _positions(grid: Layout, axis: int, n_sub: int) -> NDArray[np.float64]:
    """Return the pixel coordinates of ``n_sub`` points per bin along an axis, shaped to broadcast along that axis."""
    size, factor = grid.image_shape[axis], bin_factors(grid)[axis]
    places = (np.arange(size // factor * n_sub) + 0.5) * factor / n_sub - 0.5
    return places[:, None] if axis == 0 else places


def _numbers(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.intp]:
    """Return the number of the cell at each pair of cell coordinates, -1 where there is no cell."""
    r, c = np.floor(a).astype(np.intp), np.floor(b).astype(np.intp)
    within = (r >= 0) & (r < 16) & (c >= 0) & (c < 16)
    return np.where(within, _NUMBER[np.clip(r, 0, 15), np.clip(c, 0, 15)], -1)


def _by_cell(values: NDArray[Any], cell: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.bincount(cell, values, minlength=N_CELLS).astype(np.float64)
