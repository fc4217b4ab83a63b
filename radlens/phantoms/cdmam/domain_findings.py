"""The numbers that decide whether an image is a CDMAM 3.4 phantom within the domain of a model."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radlens.errors import UnreadableImage
from radlens.phantoms.cdmam import clear_parts
from radlens.phantoms.cdmam.disk_blur import disk_blur
from radlens.phantoms.cdmam.geometry import GRID_EXTENT_MM
from radlens.phantoms.cdmam.lines import Lines, lines, profile
from radlens.phantoms.cdmam.registered import Registered, bin_factors, binned
from radlens.phantoms.cdmam.registration import find
from radlens.phantoms.cdmam.texture import texture
from radlens.phantoms.cdmam.visibility import visibility

__all__ = ["Findings", "clipped_share", "findings", "has_room"]

_VISIBLE = 8.0
"""Median contrast of the lines, in standard errors, above which the grid counts as visible."""

_ODD_CONTRAST = 0.3
"""Relative difference, in addition to 5 standard errors, from which the lines of a cell count as odd."""

_SURE_BLUR_MM = 0.006
"""Largest standard error, mm, at which the blur of the disks is used: a fifth of the training range."""

_SURE_RATIO = 15.0
"""Visibility over its standard error above which the ratio of two visibilities is accurate to 10 %."""

_SURE_DISKS = 5.0
_SURE_SHIFT_MM = 0.1
_LEAST_CONTRAST = 1.0
_LEAST_CLIPPED = 30
_WRITING_MM = 14.0

_ROOM = 0.6
"""Fraction of a phantom that must fit beside the first one before a second one is searched."""


@dataclass(frozen=True, eq=False)
class Findings:
    """Numbers on which the decision rests; nan where a quantity cannot be measured, such as the blur of absent lines.

    Attributes:
        correlation: Correlation of the image with the noise-free phantom.
        missing: Fraction of the bounding box that the image does not show.
        hidden_cells: Number of cells of which the image shows less than 60 %.
        second_phantom: Correlation of a second phantom beside this one; 0 if there is none, or if no disk of this one
            is visible.
        pixel_mm: Side of a pixel of the same area, mm.
        line_contrast: Median contrast of the lines over noise, units of the normalised image.
        odd_cells: Number of cells whose lines differ in contrast from the median.
        shift_mm: Root mean square displacement of the lines of single cells, mm.
        line_misfit: Deviation of the lines from their model, over their contrast.
        blur_mm: Blur of the lines, the larger of both directions, mm.
        disk_blur_mm: Blur of the disks (`radlens.phantoms.cdmam.disk_blur`), mm.
        line_noise: Noise on the lines over noise beside them.
        filter_px: Standard deviation of the filter that correlates the noise of neighbouring pixels, pixels.
        second: Correlation of the noise of pixels two apart, minus that of this filter.
        fine: Noise of single pixels, over that which this filter and the noise over half a millimetre imply.
        anisotropy: Correlation of the noise of a pixel with that of its neighbour below, minus that with its neighbour
            to the right.
        large_noise: Noise of means over cells, over that expected from the noise of bins of half a millimetre.
        unevenness: Largest over smallest noise of nine parts.
        quietest_cell: Smallest noise of a cell over that of all cells.
        noisiest_cell: Largest noise of a cell over that of all cells.
        far_pixels: Fraction of clear pixels further than 6 standard deviations from the background.
        far_bins: Number of clear bins further than 6 standard deviations from the background.
        excess: Excess kurtosis of single pixels.
        bin_excess: Excess kurtosis of means over half a millimetre.
        stripes: Largest mean of a row or column of pixels, over its standard deviation.
        clipped_top: Fraction of pixels with the largest value, if they outnumber those with the second largest.
        clipped_bottom: Fraction of pixels with the smallest value, if they outnumber those with the second smallest.
        step: Distance between neighbouring pixel values, in units of the normalised image.
        slope: Change of the background along 100 mm, in units.
        bend: Range of the background around a fitted plane, in units.
        visibility: Contrast-to-noise ratio of the disks over that of scenario 1.
        corner_to_middle: Visibility of the disks in the corners over that of those in the middle.
        thick_to_thin: Visibility of the disks of at least 0.36 um over that of the others.
        small_disks: Standard deviations by which disks of 0.25 mm and less are more visible than larger ones imply.
        smallest_disks: The same for disks of 0.16 mm and less.
        weakest_row: The same for the disks of one diameter, the weakest.
        weakest_mm: That diameter, mm.
        faint_disks: The same for barely visible disks, against those that stand out.
        disk_mismatch: Mean square deviation of the disks from the expected ones, over its variance.
        other_corners: Mean square statistic of the corners without a disk, over its variance.
        hits: Number of cells, of 205, in which the automated reader finds the true corner.
        hit: (205,) bool, true for these cells, in the order of ``np.nonzero``.
        spacing_mm: (row, column) distance between pixels of the upright phantom, mm.
    """

    correlation: float
    missing: float
    hidden_cells: int
    second_phantom: float
    pixel_mm: float
    line_contrast: float
    odd_cells: int
    shift_mm: float
    line_misfit: float
    blur_mm: float
    disk_blur_mm: float
    line_noise: float
    filter_px: float
    second: float
    fine: float
    anisotropy: float
    large_noise: float
    unevenness: float
    quietest_cell: float
    noisiest_cell: float
    far_pixels: float
    far_bins: int
    excess: float
    bin_excess: float
    stripes: float
    clipped_top: float
    clipped_bottom: float
    step: float
    slope: float
    bend: float
    visibility: float
    corner_to_middle: float
    thick_to_thin: float
    small_disks: float
    smallest_disks: float
    weakest_row: float
    weakest_mm: float
    faint_disks: float
    disk_mismatch: float
    other_corners: float
    hits: int
    hit: NDArray[np.bool_]
    spacing_mm: tuple[float, float]

    def numbers(self) -> dict[str, float]:
        """Return the numbers that could be measured, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NOT_NUMBERS}
        return {name: float(value) for name, value in values.items() if math.isfinite(value)}


_NOT_NUMBERS = ("hit", "spacing_mm", "weakest_mm")


def findings(phantom: Registered, pixels: NDArray[Any]) -> Findings:
    """Measure the numbers on which the decision rests.

    Args:
        phantom: the phantom, from `radlens.phantoms.cdmam.registered.register`.
        pixels: (H, W), the registered image.
    """
    with warnings.catch_warnings():
        # Without clear bins the numbers of the noise are nan, and NumPy warns; other numbers refuse such an image.
        warnings.simplefilter("ignore", RuntimeWarning)
        return _findings(phantom, pixels)


def _findings(phantom: Registered, pixels: NDArray[Any]) -> Findings:
    values, factors = phantom.linear(), bin_factors(phantom.grid)
    noise = clear_parts.noise(values, phantom)
    seen = binned((phantom.source >= 0).astype(np.float32), factors) > 1 - 1e-6
    found = lines(binned(values, factors), seen, noise.deviation, phantom.grid)
    stored = clear_parts.stored_values(pixels, phantom)
    pixel_mm = math.sqrt(phantom.grid.spacing_mm[0] * phantom.grid.spacing_mm[1])
    slow = clear_parts.background(pixels, values, phantom)
    blur = disk_blur(phantom)
    disks = visibility(phantom, blur)
    return Findings(
        correlation=phantom.correlation,
        missing=phantom.missing,
        pixel_mm=pixel_mm,
        second_phantom=_second_phantom(phantom, pixels) if disks.middle > _SURE_DISKS * disks.error else 0.0,
        **_line_numbers(found, noise.deviation, values, phantom),
        disk_blur_mm=blur.blur_mm if blur.error_mm < _SURE_BLUR_MM else math.nan,
        **texture(noise, stored.step, pixel_mm)._asdict(),
        anisotropy=noise.neighbours[0] - noise.neighbours[1],
        large_noise=noise.large,
        unevenness=float(np.nanmax(noise.parts) / max(np.nanmin(noise.parts), 1e-6)),
        quietest_cell=float(np.nanmin(noise.cells)),
        noisiest_cell=float(np.nanmax(noise.cells)),
        far_pixels=noise.far_pixels,
        far_bins=noise.far_bins,
        excess=noise.excess,
        bin_excess=noise.bin_excess,
        stripes=noise.stripes,
        clipped_top=clipped_share(stored.at_top, stored.below_top, stored.n_pixels),
        clipped_bottom=clipped_share(stored.at_bottom, stored.above_bottom, stored.n_pixels),
        step=stored.step,
        slope=slow.slope,
        bend=slow.bend,
        visibility=(disks.middle + disks.corner) / 2,
        corner_to_middle=disks.corner / disks.middle if disks.middle > _SURE_RATIO * disks.error else math.nan,
        thick_to_thin=disks.thick / disks.thin if disks.thin > 10 * disks.thin_error else math.nan,
        small_disks=disks.small,
        smallest_disks=disks.smallest,
        weakest_row=disks.weakest_row,
        weakest_mm=disks.weakest_mm,
        faint_disks=disks.faint,
        disk_mismatch=disks.mismatch,
        other_corners=disks.others,
        hits=int(np.count_nonzero(disks.hits)),
        hit=disks.hits,
        spacing_mm=phantom.grid.spacing_mm,
    )


def _line_numbers(found: Lines, deviation: float, values: NDArray[np.float32], phantom: Registered) -> dict[str, Any]:
    seen = np.isfinite(found.contrast)
    hidden = int(np.count_nonzero(~seen))
    if not seen.any():
        nothing = dict.fromkeys(("line_contrast", "shift_mm", "line_misfit", "blur_mm", "line_noise"), math.nan)
        return {**nothing, "hidden_cells": hidden, "odd_cells": 0}
    contrast, error = found.contrast[seen], found.contrast_error[seen]
    usual = float(np.median(contrast))
    # The standard error of a median of Gaussian values is sqrt(pi / 2) = 1.25 times that of their mean.
    are_seen = usual > _VISIBLE * 1.25 * float(np.median(error)) / math.sqrt(len(contrast))
    tolerance = _ODD_CONTRAST * abs(usual) if are_seen else 0.0
    numbers = {
        "hidden_cells": hidden,
        "line_contrast": usual,
        "odd_cells": int(np.count_nonzero(np.abs(contrast - usual * are_seen) > tolerance + 5 * error)),
    }
    shift = math.nan
    if are_seen and float(np.median(found.shift_error_mm[seen])) < _SURE_SHIFT_MM:
        # Noise adds the square of its error to every squared shift.
        square = found.shift_mm[seen] ** 2 - found.shift_error_mm[seen, None] ** 2
        shift = math.sqrt(max(float(square.mean(axis=0).sum()), 0.0))
    if not (are_seen and usual > _LEAST_CONTRAST):
        return numbers | dict.fromkeys(("line_misfit", "blur_mm", "line_noise"), math.nan) | {"shift_mm": shift}
    both = profile(values, phantom.source >= 0, phantom.grid)
    return numbers | {
        "shift_mm": shift,
        "line_misfit": math.sqrt(max(found.misfit - 1, 0.0)) * deviation / usual,
        "blur_mm": max(each.blur_mm for each in both),
        "line_noise": max((each.noise for each in both), key=lambda noise: abs(math.log(max(noise, 1e-6)))),
    }


def clipped_share(at_end: int, before_it: int, n_pixels: int) -> float:
    """Return the fraction of pixels with the extreme value; 0 if counts fall towards it, as in unclipped noise."""
    return at_end / n_pixels if at_end > _LEAST_CLIPPED and at_end > before_it else 0.0


def _second_phantom(phantom: Registered, pixels: NDArray[Any]) -> float:
    """Return the correlation of a second phantom beside the first one, 0 if there is none or no room for it."""
    upright, layout = phantom.upright(np.asarray(pixels)), phantom.layout
    half = [extent / 2 + _WRITING_MM for extent in GRID_EXTENT_MM]
    x, y = np.array([-half[1], half[1], -half[1], half[1]]), np.array([-half[0], -half[0], half[0], half[0]])
    part = tuple(
        slice(max(0, math.floor(each.min())), min(size, math.ceil(each.max()) + 1))
        for each, size in zip(layout.to_pixels(x, y), upright.shape, strict=True)
    )
    if not has_room(upright.shape, part, layout.spacing_mm):
        return 0.0
    outside = np.ones(upright.shape, dtype=bool)
    outside[part] = False
    try:
        return find(np.where(outside, upright, np.median(upright[outside])), layout.spacing_mm).correlation
    except UnreadableImage:
        return 0.0


def has_room(shape: tuple[int, ...], part: tuple[slice, ...], spacing_mm: tuple[float, float]) -> bool:
    """Return whether one of the four strips around a part of an image can show at least `_ROOM` of a phantom."""
    height, width = (size * step for size, step in zip(shape, spacing_mm, strict=True))
    top, left = (each.start * step for each, step in zip(part, spacing_mm, strict=True))
    below, right = ((size - each.stop) * step for size, each, step in zip(shape, part, spacing_mm, strict=True))
    strips = [(top, width), (below, width), (height, left), (height, right)]
    shown = [
        min(across / GRID_EXTENT_MM[0], 1) * min(along / GRID_EXTENT_MM[1], 1)
        for strip in strips
        for across, along in (strip, strip[::-1])
    ]
    return max(shown) > _ROOM
