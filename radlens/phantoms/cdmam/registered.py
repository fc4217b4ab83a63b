"""The input of the network: an image of the phantom in phantom coordinates and in units of its own noise.

Design requirements: gain, offset and pixel scale of a detector, heel effect, orientation, margins and pixel spacing do
not matter; the height of a disk is its contrast-to-noise ratio, which determines the curve; nothing is fitted to the
gold of disks, grid or writing.

1. *Registration* (`radlens.phantoms.cdmam.registration`): the phantom is found, and its bounding box is cut out upright
   and unmirrored, at the pixel spacing of the image. Each pixel is the nearest pixel of the image.
2. *Background*: means over half a millimetre where the phantom has neither gold nor a line. A polynomial is fitted to
   these means and its residuals are smoothed; the sum of both is subtracted.
3. *Noise*: the standard deviation of these means. It measures the noise power at low frequencies, which limits the
   read-out of disks whatever the correlation of neighbouring pixels. The unit is the noise of one pixel of 0.07 mm
   after the filter of a typical detector, so that noise is about 1.
4. *Compression*: the inverse hyperbolic sine, linear for noise and disks, logarithmic for the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from radlens.errors import UnreadableImage
from radlens.phantoms.cdmam.acquisition import noise_kernel
from radlens.phantoms.cdmam.geometry import (
    CELL_EXISTS,
    CELL_MM,
    CORNER_OFFSETS,
    DIAMETERS_MM,
    LINE_WIDTH_MM,
    Layout,
    phantom_to_cell,
)
from radlens.phantoms.cdmam.registration import find

__all__ = [
    "UNIT_SPACING_MM",
    "NoiseFindings",
    "Registered",
    "bin_centres",
    "bin_factors",
    "binned",
    "clear_bins",
    "noise_unit",
    "register",
]

UNIT_SPACING_MM = 0.07
"""Pixel spacing of the unit of noise, mm."""

_UNIT_SIGMA_PX = 0.85
_UNIT_FILTER = float(np.sum(noise_kernel(_UNIT_SIGMA_PX) ** 2))

_BIN_MM = 0.5
"""Side of the bins in which background and noise are measured, mm."""

_CLEARANCE_MM = 0.65
"""Distance from a line or disk beyond which a bin is clear, mm: half the diagonal of a bin and three times the blur."""

_DEGREE = 3
_SMOOTH_MM = 6.0
_STEP_BINS = 4
"""The background is kept at every fourth bin and interpolated between them."""

_MIN_CLEAR_BINS = 2000
"""Fewest clear bins from which background and noise are measured; a whole phantom has about 23 000."""


@dataclass(frozen=True)
class NoiseFindings:
    """Noise of the clear parts of a phantom.

    Attributes:
        unit: pixel values per unit of the normalised image, above 0.
        level: root of the noise power spectrum at low frequencies over `UNIT_SPACING_MM`, pixel values.
        white: standard deviation of single pixels, in units; 1 for a typical detector with pixels of 0.07 mm.
        unevenness: largest over smallest noise among nine parts of the phantom.
    """

    unit: float
    level: float
    white: float
    unevenness: float


@dataclass(frozen=True, eq=False)
class Registered:
    """An image of the phantom in the phantom's own coordinates.

    Attributes:
        values: (h, w) float32, normalised and compressed, upright, attenuation bright; 0 beyond the image.
        source: (h, w) int64, flat index in C order of the pixel of the image that each value came from; -1 where the
            image does not reach.
        grid: layout of ``values``: the bounding box of the phantom, upright.
        layout: position of the phantom in the image, or in the transposed image.
        is_transposed: whether the phantom lies on its side.
        image_shape: rows and columns of the image.
        correlation: correlation of the image with the noise-free phantom, at pixels of half a millimetre.
        noise: noise of the clear parts.
    """

    values: NDArray[np.float32]
    source: NDArray[np.int64]
    grid: Layout
    layout: Layout
    is_transposed: bool
    image_shape: tuple[int, int]
    correlation: float
    noise: NoiseFindings

    @property
    def missing(self) -> float:
        """Fraction of the bounding box that the image does not show, 0..1."""
        return float(np.mean(self.source < 0))

    def linear(self) -> NDArray[np.float32]:
        """Return the values before compression, (h, w) float32: contrast over noise."""
        return np.sinh(self.values)

    def upright(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return the pixels of the image as ``layout`` describes them: transposed if the phantom lies on its side."""
        return pixels.T if self.is_transposed else pixels

    def to_image(self, values: NDArray[Any]) -> NDArray[Any]:
        """Map values on the grid of the phantom back to the image that was sent.

        Args:
            values: (..., h, w), any dtype.

        Returns:
            (..., H, W) of the same dtype; each pixel has the nearest value of the grid, 0 outside the bounding box.
        """
        shape = self.image_shape[::-1] if self.is_transposed else self.image_shape
        rows, cols = _nearest(self.layout, self.grid, shape)
        height, width = self.grid.image_shape
        inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        flat = np.where(inside, rows * width + cols, 0)
        found = values.reshape(*values.shape[:-2], -1)[..., flat] * inside.astype(values.dtype)
        return np.swapaxes(found, -1, -2) if self.is_transposed else found


def register(pixels: NDArray[Any], spacing_mm: float | tuple[float, float]) -> Registered:
    """Find the phantom in an image, cut it out upright and normalise it.

    Args:
        pixels: (H, W), attenuation bright, any real dtype.
        spacing_mm: distance between pixel centres in the plane of the phantom, one number or (row, column), mm.

    Raises:
        InvalidParameter: the pixels do not have two axes or are not finite.
        UnreadableImage: no phantom is found, too little of it is in the image, or its clear parts are constant.
    """
    found = find(pixels, spacing_mm)
    upright = np.asarray(pixels).T if found.is_transposed else np.asarray(pixels)
    grid = Layout.with_margin(0, found.layout.spacing_mm)
    rows, cols = _nearest(grid, found.layout, grid.image_shape)
    inside = (rows >= 0) & (rows < upright.shape[0]) & (cols >= 0) & (cols < upright.shape[1])
    width = pixels.shape[1]
    source = np.where(inside, cols * width + rows if found.is_transposed else rows * width + cols, -1)
    raw = np.asarray(pixels).reshape(-1)[np.where(inside, source, 0)].astype(np.float32)
    values, noise = _normalised(raw, inside, grid)
    shape = (int(pixels.shape[0]), int(pixels.shape[1]))
    return Registered(values, source, grid, found.layout, found.is_transposed, shape, found.correlation, noise)


def noise_unit(level: float) -> float:
    """Return the unit of the normalised image in pixel values.

    Args:
        level: standard deviation of white noise at `UNIT_SPACING_MM` before any filter: the square root of the noise
            power spectrum at low frequencies, over the spacing.
    """
    return level * _UNIT_FILTER


def _nearest(of: Layout, on: Layout, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of the pixels of layout ``on`` nearest to the pixels of layout ``of``, each ``shape``."""
    x, y = of.to_phantom(np.arange(shape[0])[:, None], np.arange(shape[1]))
    rows, cols = on.to_pixels(x, y)
    return np.rint(rows).astype(np.int64), np.rint(cols).astype(np.int64)


def _normalised(
    raw: NDArray[np.float32], inside: NDArray[np.bool_], grid: Layout
) -> tuple[NDArray[np.float32], NoiseFindings]:
    factors = bin_factors(grid)
    bins, seen = binned(raw, factors), binned(inside.astype(np.float32), factors) > 1 - 1e-6
    clear = clear_bins(grid) & seen
    if np.count_nonzero(clear) < _MIN_CLEAR_BINS:
        raise UnreadableImage("too little of the phantom is within the image to measure its background and noise")
    background = _background(bins, clear, grid, factors)
    residue = (bins - background)[clear]
    deviation = _clipped_deviation(residue)
    level = deviation / _bin_response(factors) * math.sqrt(grid.spacing_mm[0] * grid.spacing_mm[1]) / UNIT_SPACING_MM
    if not (math.isfinite(level) and level > 0):
        raise UnreadableImage("the phantom must have noise, got an image whose clear parts are constant")
    unit = noise_unit(level)
    values = raw - _interpolated(background, factors, raw.shape)
    values /= np.float32(unit)
    findings = NoiseFindings(
        unit=unit,
        level=level,
        white=_pixel_deviation(values, clear, factors),
        unevenness=_unevenness(bins - background, clear),
    )
    return np.where(inside, np.arcsinh(values, out=values), np.float32(0)), findings


def bin_factors(grid: Layout) -> tuple[int, int]:
    """Return the pixels per bin of half a millimetre, (down, right), at least 1 each."""
    rows, cols = (max(1, round(_BIN_MM / step)) for step in grid.spacing_mm)
    return rows, cols


def binned(pixels: NDArray[np.float32], factors: tuple[int, int]) -> NDArray[np.float64]:
    """Return the means over bins of ``factors`` pixels; incomplete bins at the lower and right edge are dropped."""
    height, width = (size // factor for size, factor in zip(pixels.shape, factors, strict=True))
    blocks = pixels[: height * factors[0], : width * factors[1]].reshape(height, factors[0], width, factors[1])
    return blocks.mean(axis=(1, 3), dtype=np.float64)


def bin_centres(grid: Layout) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return phantom coordinates of the centres of the bins, mm, each (bins down, bins right)."""
    factors = bin_factors(grid)
    rows, cols = (
        np.arange(size // factor) * factor + (factor - 1) / 2
        for size, factor in zip(grid.image_shape, factors, strict=True)
    )
    return grid.to_phantom(rows[:, None], cols)


@lru_cache(maxsize=8)
def clear_bins(grid: Layout) -> NDArray[np.bool_]:
    """Return a mask of the bins that keep clear of lines, disks and writing, (bins down, bins right) bool."""
    a, b = phantom_to_cell(*bin_centres(grid))
    r, c = np.floor(a).astype(np.intp), np.floor(b).astype(np.intp)
    within = (r >= 0) & (r < 16) & (c >= 0) & (c < 16)
    r, c = np.clip(r, 0, 15), np.clip(c, 0, 15)
    a, b = (a - r - 0.5) * CELL_MM, (b - c - 0.5) * CELL_MM
    clear = within & CELL_EXISTS[r, c]
    clear &= CELL_MM / 2 - np.maximum(np.abs(a), np.abs(b)) > LINE_WIDTH_MM / 2 + _CLEARANCE_MM
    radius = np.array(DIAMETERS_MM)[r] / 2
    for place in ((0.0, 0.0), *CORNER_OFFSETS):
        clear &= np.hypot(a - place[0] * CELL_MM, b - place[1] * CELL_MM) > radius + _CLEARANCE_MM
    return clear


def _background(
    bins: NDArray[np.float64], clear: NDArray[np.bool_], grid: Layout, factors: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the background in bins: a polynomial plus its residuals smoothed over clear bins."""
    rows, cols = (np.linspace(-1, 1, size) for size in bins.shape)
    basis = [np.outer(rows**i, cols**j) for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)]
    inliers = clear
    trend = np.zeros_like(bins)
    # The second round leaves out dust and defects, which the first one finds.
    for _ in range(2):
        design = np.stack([each[inliers] for each in basis], axis=1)
        solution = np.linalg.lstsq(design, bins[inliers], rcond=None)[0]
        trend = np.tensordot(solution, np.stack(basis), axes=1)
        residue = bins - trend
        inliers = clear & (np.abs(residue) < 4 * _clipped_deviation(residue[clear]) + 1e-12)
    reach = [_SMOOTH_MM / (factor * step) for factor, step in zip(factors, grid.spacing_mm, strict=True)]
    weight = gaussian_filter(inliers.astype(np.float64), reach)
    # The 0.02 lets the residuals fade out far from clear bins, where the polynomial is the whole background.
    return trend + gaussian_filter(np.where(inliers, residue, 0.0), reach) / (weight + 0.02)


def _clipped_deviation(residue: NDArray[np.float64]) -> float:
    """Return the standard deviation of Gaussian values without outliers beyond 4 robust standard deviations."""
    spread = 1.4826 * float(np.median(np.abs(residue - np.median(residue))))
    kept = residue[np.abs(residue - np.median(residue)) <= 4 * spread]
    return float(kept.std()) if len(kept) else 0.0


@lru_cache(maxsize=8)
def _bin_response(factors: tuple[int, int]) -> float:
    """Return the standard deviation of a bin for unit white noise before the filter of a typical detector."""
    kernel = noise_kernel(_UNIT_SIGMA_PX)
    axes = [np.convolve(kernel, np.full(factor, 1 / factor)) for factor in factors]
    return float(np.sqrt(np.sum(axes[0] ** 2) * np.sum(axes[1] ** 2)))


def _interpolated(
    background: NDArray[np.float64], factors: tuple[int, int], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return the background at each pixel, ``shape`` float32, interpolated linearly between every fourth bin."""
    down, right = (_weights(size, factor, n) for size, factor, n in zip(shape, factors, background.shape, strict=True))
    coarse = background[::_STEP_BINS, ::_STEP_BINS].astype(np.float32)
    return np.asarray(down @ coarse @ right.T, np.float32)


@lru_cache(maxsize=16)
def _weights(size: int, factor: int, n_bins: int) -> NDArray[np.float32]:
    nodes = np.arange(0, n_bins, _STEP_BINS) * factor + (factor - 1) / 2
    place = np.interp(np.arange(size), nodes, np.arange(len(nodes)))
    low = np.minimum(place.astype(np.intp), len(nodes) - 2)
    weights = np.zeros((size, len(nodes)), np.float32)
    weights[np.arange(size), low] = 1 - (place - low)
    weights[np.arange(size), low + 1] = place - low
    return weights


def _pixel_deviation(values: NDArray[np.float32], clear: NDArray[np.bool_], factors: tuple[int, int]) -> float:
    """Return the standard deviation of single pixels of clear bins about the background."""
    height, width = clear.shape
    blocks = values[: height * factors[0], : width * factors[1]].reshape(height, factors[0], width, factors[1])
    chosen = blocks.swapaxes(1, 2)[clear]
    spread = 1.4826 * float(np.median(np.abs(chosen)))
    return float(chosen[np.abs(chosen) <= 4 * spread + 1e-12].std())


def _unevenness(residue: NDArray[np.float64], clear: NDArray[np.bool_]) -> float:
    deviations = [
        _clipped_deviation(part[mask])
        for rows, its in zip(np.array_split(residue, 3), np.array_split(clear, 3), strict=True)
        for part, mask in zip(np.array_split(rows, 3, axis=1), np.array_split(its, 3, axis=1), strict=True)
        if np.count_nonzero(mask) > 100
    ]
    return max(deviations) / max(min(deviations), 1e-12)
