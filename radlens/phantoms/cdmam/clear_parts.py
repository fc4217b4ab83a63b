"""Measurements on the clear parts of a phantom and on its pixel values: noise, texture, uniformity, clipping, steps.

Clear parts are bins of half a millimetre that contain neither gold nor lines; background and noise are measured in
them. Noise is given in units of the normalised image and in pixels, so that gain, offset and spacing do not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from radlens.phantoms.cdmam.geometry import CELL_EXISTS, Layout, phantom_to_cell
from radlens.phantoms.cdmam.lines import N_CELLS, cell_of_bins
from radlens.phantoms.cdmam.registered import UNIT_SPACING_MM, Registered, bin_factors, binned, clear_bins

__all__ = ["Background", "Noise", "Values", "background", "noise", "noise_pattern", "same_exposure", "stored_values"]

_FAR = 6.0  # standard deviations; by chance, one phantom in about 400 has a clear pixel beyond
_LEAST_BINS = 30
_FEW_BINS = 20  # of about 23 000: as many may hold hot or dead pixels and are left out
_SAME_PATTERN = 0.5
"""Correlation above which two noise patterns are of one exposure. Copies of an image have 0.9 and more. Other exposures
share only the fixed pattern of detector and phantom, which would need the variance of the noise to reach 0.5."""

_N_LEVELS = 20_000


@dataclass(frozen=True, eq=False)
class Noise:
    """Noise of the clear parts.

    Attributes:
        deviation: Standard deviation of bins, units.
        white: Standard deviation of pixels over that of a typical detector with the same noise power and pixels.
        neighbours: (down, right) correlation of a pixel with the next pixel.
        second: (down, right) correlation of a pixel with the second next pixel.
        large: Standard deviation of the means of cells over that expected of independent bins.
        far_pixels: Fraction of pixels beyond 6 standard deviations.
        far_bins: Number of bins beyond 6 standard deviations.
        cells: (205,) standard deviation of the pixels of each cell over that of all pixels; nan where fewer than 30
            bins are visible.
        parts: (3, 3) the same for ninths of the phantom.
        excess: Excess kurtosis of pixels within 6 standard deviations.
        bin_excess: Excess kurtosis of bins.
        stripes: Largest mean of the clear pixels of an image row or column, over its standard deviation.
    """

    deviation: float
    white: float
    neighbours: tuple[float, float]
    second: tuple[float, float]
    large: float
    far_pixels: float
    far_bins: int
    cells: NDArray[np.float64]
    parts: NDArray[np.float64]
    excess: float
    bin_excess: float
    stripes: float


class Values(NamedTuple):
    """Counts of pixel values inside the matrix.

    Attributes:
        at_top: Number of pixels with the largest value.
        below_top: Number of pixels with the second largest value.
        at_bottom: Number of pixels with the smallest value.
        above_bottom: Number of pixels with the second smallest value.
        n_pixels: Number of pixels inside the matrix.
        step: Median distance between neighbouring values, in units of the normalised image.
    """

    at_top: int
    below_top: int
    at_bottom: int
    above_bottom: int
    n_pixels: int
    step: float


class Background(NamedTuple):
    """The slow background, in units of the normalised image.

    Attributes:
        slope: Change along 100 mm in the direction of steepest ascent.
        bend: Range of the residuals of a fitted plane.
    """

    slope: float
    bend: float


def noise(values: NDArray[np.float32], phantom: Registered) -> Noise:
    """Measure the noise of the clear parts.

    A few hot or dead pixels are counted and their bins excluded from the other numbers: they would dominate the
    moments of the whole image.

    Args:
        values: (h, w) normalised image before compression.
        phantom: the registered phantom.
    """
    grid, factors = phantom.grid, bin_factors(phantom.grid)
    clear = clear_bins(grid) & (binned((phantom.source >= 0).astype(np.float32), factors) > 1 - 1e-6)
    blocks = _blocks(values, factors)[clear]
    spread = _robust(blocks.reshape(-1)[:: max(1, blocks.size // 100_000)])
    kept = np.abs(blocks) <= _FAR * spread
    far_pixels = float(np.mean(~kept))
    far_bins = _far_bins(blocks, kept)
    is_sound = kept.all(axis=(1, 2))
    if np.count_nonzero(~is_sound) <= _FEW_BINS:
        clear[clear] = is_sound
        blocks, kept = blocks[is_sound], kept[is_sound]
    means = blocks.mean(axis=(1, 2))
    inliers = np.where(kept, blocks, 0.0)
    power = (inliers**2).sum(axis=(1, 2), dtype=np.float64) / np.maximum(kept.sum(axis=(1, 2)), 1)
    variance = float(power.mean())
    deviation = _robust(means)
    cell, part = cell_of_bins(grid)[clear], _parts(clear.shape)[clear]
    pixel_mm = math.sqrt(grid.spacing_mm[0] * grid.spacing_mm[1])
    return Noise(
        deviation=float(means[np.abs(means) <= 4 * deviation].std()),
        white=math.sqrt(variance) * pixel_mm / UNIT_SPACING_MM,
        neighbours=(_correlation(inliers, 1, 0, variance), _correlation(inliers, 0, 1, variance)),
        second=(_correlation(inliers, 2, 0, variance), _correlation(inliers, 0, 2, variance)),
        large=_large(means, cell) / deviation,
        far_pixels=far_pixels,
        far_bins=far_bins,
        cells=np.sqrt(_grouped(power, cell, N_CELLS) / variance),
        parts=np.sqrt(_grouped(power, part, 9) / variance).reshape(3, 3),
        excess=float((inliers.astype(np.float64) ** 4).mean() / max(variance, 1e-12) ** 2 - 3),
        bin_excess=float(np.mean(((means - means.mean()) / max(means.std(), 1e-12)) ** 4) - 3),
        stripes=_stripes(blocks, _blocks(phantom.source, factors)[clear], phantom.image_shape, math.sqrt(variance)),
    )


def noise_pattern(phantom: Registered) -> NDArray[np.float32]:
    """Return the noise of the clear bins in phantom coordinates, (n,) in units; nan outside the image.

    The pattern identifies an exposure whatever the position of the phantom and the orientation of the image.
    """
    factors = bin_factors(phantom.grid)
    clear = clear_bins(phantom.grid)
    seen = binned((phantom.source >= 0).astype(np.float32), factors)[clear] > 1 - 1e-6
    return np.where(seen, binned(phantom.linear(), factors)[clear], math.nan).astype(np.float32)


def same_exposure(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Return whether two patterns from `noise_pattern` belong to one exposure; false if the pixel spacings differ."""
    if one.shape != other.shape:
        return False
    both = np.isfinite(one) & np.isfinite(other)
    if np.count_nonzero(both) < _LEAST_BINS:
        return False
    limits = [4 * _robust(each[both]) for each in (one, other)]
    a, b = (np.clip(each[both], -limit, limit) for each, limit in zip((one, other), limits, strict=True))
    return float(np.corrcoef(a, b)[0, 1]) > _SAME_PATTERN


def stored_values(pixels: NDArray[Any], phantom: Registered) -> Values:
    """Count the extreme pixel values inside the matrix of the phantom and measure the step between values.

    Args:
        pixels: (H, W), the registered image.
        phantom: the registered phantom.
    """
    inside = (phantom.source >= 0) & _matrix(phantom.grid)
    values = np.asarray(pixels).reshape(-1)[phantom.source[inside]]
    low, high = values.min(), values.max()
    top, bottom = values == high, values == low
    if low == high:
        return Values(values.size, 0, values.size, 0, values.size, math.inf)
    middle = np.unique(values[:: max(1, values.size // _N_LEVELS)])
    steps = np.diff(middle.astype(np.float64))
    return Values(
        at_top=int(np.count_nonzero(top)),
        below_top=int(np.count_nonzero(values == values[~top].max())),
        at_bottom=int(np.count_nonzero(bottom)),
        above_bottom=int(np.count_nonzero(values == values[~bottom].min())),
        n_pixels=values.size,
        step=float(np.median(steps)) / phantom.noise.unit if steps.size else math.inf,
    )


def background(pixels: NDArray[Any], values: NDArray[np.float32], phantom: Registered) -> Background:
    """Measure the slow background.

    Args:
        pixels: (H, W), the registered image.
        values: (h, w) normalised image before compression.
        phantom: the registered phantom.
    """
    clear = clear_bins(phantom.grid)
    factors = bin_factors(phantom.grid)
    row, col = (index * factor for index, factor in zip(np.nonzero(clear), factors, strict=True))
    source = phantom.source[row, col]
    seen = source >= 0
    raw = np.asarray(pixels).reshape(-1)[source[seen]].astype(np.float64)
    slow = raw / phantom.noise.unit - values[row[seen], col[seen]]
    x, y = phantom.grid.to_phantom(row[seen], col[seen])
    design = np.stack([x, y, np.ones_like(x)], axis=1).astype(np.float64)
    plane, *_ = np.linalg.lstsq(design, slow, rcond=None)
    return Background(100 * math.hypot(plane[0], plane[1]), float(np.ptp(slow - design @ plane)))


@lru_cache(maxsize=2)
def _matrix(grid: Layout) -> NDArray[np.bool_]:
    """Return which pixels lie in an existing cell, (h, w)."""
    height, width = grid.image_shape
    a, b = phantom_to_cell(*grid.to_phantom(np.arange(height)[:, None], np.arange(width)))
    r, c = np.floor(a).astype(np.intp), np.floor(b).astype(np.intp)
    within = (r >= 0) & (r < 16) & (c >= 0) & (c < 16)
    return within & CELL_EXISTS[np.clip(r, 0, 15), np.clip(c, 0, 15)]


def _blocks(values: NDArray[Any], factors: tuple[int, int]) -> NDArray[Any]:
    """Return the pixels of each bin, (bins down, bins right, pixels down, pixels right)."""
    height, width = (size // factor for size, factor in zip(values.shape, factors, strict=True))
    blocks = values[: height * factors[0], : width * factors[1]].reshape(height, factors[0], width, factors[1])
    return blocks.swapaxes(1, 2)


def _robust(values: NDArray[Any]) -> float:
    # 1.4826 times the median absolute deviation is the standard deviation of a Gaussian.
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) + 1e-12


def _correlation(blocks: NDArray[Any], down: int, right: int, variance: float) -> float:
    n_rows, n_cols = blocks.shape[1:]
    if down >= n_rows or right >= n_cols:
        return math.nan
    products = blocks[:, down:, right:] * blocks[:, : n_rows - down, : n_cols - right]
    return float(products.mean(dtype=np.float64)) / max(variance, 1e-12)


def _far_bins(blocks: NDArray[np.float32], kept: NDArray[np.bool_]) -> int:
    """Return the number of bins that are far from the others as a whole, not because of single pixels."""
    n_kept = kept.sum(axis=(1, 2))
    means = np.where(kept, blocks, 0.0).sum(axis=(1, 2)) / np.maximum(n_kept, 1)
    is_far = (np.abs(means) > _FAR * _robust(means)) | (kept.mean(axis=(1, 2)) < 0.5)
    return int(np.count_nonzero(is_far))


def _grouped(power: NDArray[np.float64], group: NDArray[np.intp], n_groups: int) -> NDArray[np.float64]:
    counts = np.bincount(group, minlength=n_groups)
    sums = np.bincount(group, power, minlength=n_groups)
    return np.where(counts >= _LEAST_BINS, sums / np.maximum(counts, 1), np.nan)


def _large(means: NDArray[np.float64], cell: NDArray[np.intp]) -> float:
    """Return the root mean square of ``mean * sqrt(n)`` over cells of n bins: that of a bin if bins are independent."""
    counts = np.bincount(cell, minlength=N_CELLS)
    sums = np.bincount(cell, means, minlength=N_CELLS)[counts >= _LEAST_BINS]
    return math.sqrt(float(np.mean(sums**2 / counts[counts >= _LEAST_BINS])))


def _parts(shape: tuple[int, ...]) -> NDArray[np.intp]:
    down, right = (np.arange(size) * 3 // size for size in shape)
    return 3 * down[:, None] + right


def _stripes(blocks: NDArray[Any], source: NDArray[np.int64], image_shape: tuple[int, int], deviation: float) -> float:
    """Return the largest mean of an image row or column over its standard deviation.

    The noise is correlated, which makes sums along a line about 1.7 times those of white noise: the scores are divided
    by their own spread.
    """
    worst = 0.0
    values = blocks.reshape(-1).astype(np.float64)
    for index, size in ((source // image_shape[1], image_shape[0]), (source % image_shape[1], image_shape[1])):
        counts = np.bincount(index.reshape(-1), minlength=size)
        sums = np.bincount(index.reshape(-1), values, minlength=size)
        score = sums[counts > 100] / np.sqrt(counts[counts > 100]) / max(deviation, 1e-12)
        if score.size:
            worst = max(worst, float(np.abs(score).max() / max(_robust(score), 1.0)))
    return worst
