"""Whether an image is one that a model of the CDMAM 3.4 phantom may judge.

`findings` measures a registered phantom, `reasons` compares the numbers with `Limits`, which stem from the training
range, and says in words what lies outside. `contradictions` compares a predicted curve with the disks themselves, as the
automated reader sees them at the registered places; no network takes part. `unregistered` says what an image shows in
which no phantom was found.

A limit is wide enough for every phantom of the training range, and no wider than to stop what spoils the read-out. What
cannot be told from another good exposure passes: another gain or offset, a lower dose, a fainter grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radlens.errors import InvalidInput, UnreadableImage
from radlens.phantoms.cdmam import clear_parts
from radlens.phantoms.cdmam.geometry import (
    CDC_DIAMETERS_MM,
    CELL_EXISTS,
    CELL_MM,
    DIAMETERS_MM,
    GRID_EXTENT_MM,
    THICKNESSES_UM,
    pair,
)
from radlens.phantoms.cdmam.lattice import lattice
from radlens.phantoms.cdmam.lines import Lines, lines, profile
from radlens.phantoms.cdmam.reading import HUMAN_FACTORS, expected_cdc, psychometric
from radlens.phantoms.cdmam.registered import Registered
from radlens.phantoms.cdmam.registered import _binned as binned
from radlens.phantoms.cdmam.registered import _factors as bin_factors
from radlens.phantoms.cdmam.registration import MAX_ROTATION_DEG, find
from radlens.phantoms.cdmam.visibility import REFERENCE, visibility

__all__ = ["Findings", "Limits", "contradictions", "findings", "reasons", "unregistered"]

Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Findings:
    """Numbers on which the decision rests; nan where something cannot be measured, such as the blur of absent lines.

    Attributes:
        correlation: Of image and noise-free phantom.
        missing: Part of the bounding box that the image does not show.
        hidden_cells: Cells of which the image shows too little.
        second_phantom: Correlation of another phantom beside this one; 0 where there is none.
        line_contrast: Median contrast of the lines over noise, units of the normalised image.
        odd_cells: Cells whose lines have another contrast than most.
        shift_mm: Root mean square of what the lines of single cells are off their places, mm.
        line_misfit: What the lines differ from their shape, over their contrast.
        blur_mm: Blur of the lines, the larger of both directions, mm.
        line_noise: Noise on the lines over noise beside them.
        white: Noise of single pixels over that of a typical detector with the same noise at low frequencies.
        neighbours_down: Correlation of the noise of a pixel with that of its neighbour below.
        neighbours_right: The same for the neighbour to the right.
        second_down: The same for the second pixel below.
        second_right: The same for the second pixel to the right.
        unevenness: Largest over smallest noise of nine parts.
        quietest_cell: Smallest noise of a cell over that of all.
        noisiest_cell: Largest noise of a cell over that of all.
        far_pixels: Share of clear pixels further than 6 standard deviations from the background.
        far_bins: Half millimetres without gold further than 6 standard deviations from the background.
        excess: Excess kurtosis of single pixels.
        bin_excess: Excess kurtosis of means over half a millimetre.
        stripes: Largest mean of a row or column of pixels, over what noise gives.
        clipped_top: Share of pixels that have the largest value, if more than the next smaller one have it.
        clipped_bottom: Share of pixels that have the smallest value, if more than the next larger one have it.
        step: Distance of neighbouring pixel values, in units of the normalised image.
        slope: Change of the background along 100 mm, in units.
        bend: Range of the background beside a plane, in units.
        visibility: Contrast-to-noise ratio of the disks over that of scenario 1.
        corner_to_middle: Visibility of the disks in the corners over that of those in the middle.
        thick_to_thin: Visibility of the disks of at least 0.36 um over that of the others.
        disk_mismatch: Mean square of what the disks differ from the expected ones, over its variance.
        other_corners: Mean square of what is seen where no disk should be, over its variance.
        hits: Cells, of 205, in which the automated reader finds the true corner.
        hit: (205,) bool, which they are, cells in the order of ``np.nonzero``.
        spacing_mm: (row, column) distance of the pixels of the upright phantom.
    """

    correlation: float
    missing: float
    hidden_cells: int
    second_phantom: float
    line_contrast: float
    odd_cells: int
    shift_mm: float
    line_misfit: float
    blur_mm: float
    line_noise: float
    white: float
    neighbours_down: float
    neighbours_right: float
    second_down: float
    second_right: float
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
    disk_mismatch: float
    other_corners: float
    hits: int
    hit: NDArray[np.bool_]
    spacing_mm: tuple[float, float]

    def numbers(self) -> dict[str, float]:
        """Return what could be measured, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NOT_NUMBERS}
        return {name: float(value) for name, value in values.items() if math.isfinite(value)}


_NOT_NUMBERS = ("hit", "spacing_mm")


@dataclass(frozen=True)
class Limits:
    """Smallest and largest value of each number that `reasons` accepts; names as in `Findings`.

    ``disagreement`` bounds the midpoint of a predicted curve over that of a phantom whose disks are as visible, and
    ``hits_all``, ``hits_thick`` and ``hits_thin`` the hits of the automated reader against those the curve implies, in
    standard deviations. ``curve_um`` holds the smallest and the largest threshold of the training curves at each
    diameter.
    """

    missing: Range = (0.0, 0.035)
    hidden_cells: Range = (0, 8)
    second_phantom: Range = (0.0, 0.0)
    line_contrast: Range = (-0.5, 60.0)
    odd_cells: Range = (0, 4)
    shift_mm: Range = (0.0, 0.15)
    line_misfit: Range = (0.0, 0.08)
    blur_mm: Range = (0.04, 0.17)
    line_noise: Range = (0.8, 1.3)
    white: Range = (0.75, 1.3)
    neighbours_down: Range = (0.58, 0.80)
    neighbours_right: Range = (0.58, 0.80)
    second_down: Range = (0.12, 0.38)
    second_right: Range = (0.12, 0.38)
    unevenness: Range = (1.0, 1.15)
    quietest_cell: Range = (0.8, 1.0)
    noisiest_cell: Range = (1.0, 1.25)
    far_pixels: Range = (0.0, 2e-5)
    far_bins: Range = (0, 3)
    excess: Range = (-0.15, 0.2)
    bin_excess: Range = (-0.3, 0.4)
    stripes: Range = (0.0, 6.0)
    clipped_top: Range = (0.0, 0.0)
    clipped_bottom: Range = (0.0, 0.0)
    step: Range = (0.0, 1.4)
    slope: Range = (0.0, 60.0)
    bend: Range = (0.0, 60.0)
    visibility: Range = (0.2, 2.3)
    corner_to_middle: Range = (0.7, 1.4)
    thick_to_thin: Range = (0.75, 1.33)
    disk_mismatch: Range = (0.0, 1.6)
    other_corners: Range = (0.0, 1.6)
    disagreement: Range = (0.55, 1.8)
    hits_all: Range = (-4.0, 4.0)
    hits_thick: Range = (-4.5, 4.5)
    hits_thin: Range = (-4.0, 4.0)
    curve_um: tuple[Range, ...] = (
        *((0.02, 0.31), (0.02, 0.38), (0.03, 0.48), (0.03, 0.62), (0.04, 0.81), (0.05, 1.12)),
        *((0.07, 1.64), (0.1, 2.5), (0.15, 4.3), (0.21, 7.6), (0.31, 7.6), (0.48, 7.1)),
    )

    def as_json(self) -> dict[str, Any]:
        """Return the limits as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Limits:
        """Return what `as_json` wrote.

        Raises:
            InvalidInput: not the limits of a phantom.
        """
        try:
            curve = tuple(_as_range(each) for each in values["curve_um"])
            ranges = {each.name: _as_range(values[each.name]) for each in fields(cls) if each.name != "curve_um"}
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput("limits must hold a pair of numbers for each name of Limits") from error
        if len(curve) != len(CDC_DIAMETERS_MM):
            raise InvalidInput(f"curve_um must have {len(CDC_DIAMETERS_MM)} pairs, got {len(curve)}")
        return cls(**ranges, curve_um=curve)


def _as_range(values: Any) -> Range:
    low, high = values
    return float(low), float(high)


class _Sentence(NamedTuple):
    """How a number outside its limits is put: what it is, its format, what a low and what a high value mean."""

    what: str
    spelled: str
    low: str = ""
    high: str = ""


_LAYOUT = "another version of the phantom, such as CDMAM 4.0, has its disks elsewhere and is not judged"

_SENTENCES: Mapping[str, _Sentence] = MappingProxyType(
    {
        "missing": _Sentence("the part of the phantom outside the image is", ".1%"),
        "hidden_cells": _Sentence("the number of cells outside the image is", ".0f"),
        "second_phantom": _Sentence(
            "a second phantom lies in the image, with a correlation of", ".2f", high="it must show one alone"
        ),
        "line_contrast": _Sentence(
            "the contrast of the grid over the noise is", ".1f", low="lines must be bright: the image may be inverted"
        ),
        "odd_cells": _Sentence(
            "the number of cells whose lines do not have the contrast of the others is",
            ".0f",
            high="part of the phantom is covered, missing, damaged or of another scale",
        ),
        "shift_mm": _Sentence(
            "the lines of single cells are off their places by, in mm,",
            ".2f",
            high="the pixel spacing is wrong, or the image is distorted",
        ),
        "line_misfit": _Sentence(
            "the part of their contrast by which lines differ from their shape is",
            ".3f",
            high="lines are distorted, doubled or saturated",
        ),
        "blur_mm": _Sentence(
            "the blur of the lines is, in mm,", ".2f", low="the image was sharpened", high="the image is not sharp"
        ),
        "line_noise": _Sentence(
            "the noise on bright lines over the noise beside them is",
            ".2f",
            low="values are saturated or their scale is bent",
            high="the scale of the values is bent, or two images are mixed",
        ),
        "white": _Sentence(
            "the noise of single pixels over that of means over half a millimetre, relative to a typical detector, is",
            ".2f",
            low="the image was smoothed, averaged or compressed",
            high="the image was sharpened",
        ),
        "neighbours_down": _Sentence(
            "the correlation of the noise of pixels one below the other is",
            ".2f",
            low="the image was sharpened or its noise is not that of a detector",
            high="the image was smoothed or enlarged",
        ),
        "neighbours_right": _Sentence(
            "the correlation of the noise of pixels side by side is",
            ".2f",
            low="the image was sharpened or its noise is not that of a detector",
            high="the image was smoothed or enlarged",
        ),
        "second_down": _Sentence(
            "the correlation of the noise of pixels two rows apart is",
            ".2f",
            low="the image was sharpened",
            high="the image was smoothed or enlarged",
        ),
        "second_right": _Sentence(
            "the correlation of the noise of pixels two columns apart is",
            ".2f",
            low="the image was sharpened",
            high="the image was smoothed or enlarged",
        ),
        "unevenness": _Sentence(
            "the largest noise among nine parts of the phantom over the smallest is",
            ".2f",
            high="part of it is blank, covered or of another exposure",
        ),
        "quietest_cell": _Sentence(
            "the noise of the quietest cell over that of all is", ".2f", high="", low="part of the phantom is blank"
        ),
        "noisiest_cell": _Sentence(
            "the noise of the noisiest cell over that of all is", ".2f", high="something lies on the phantom"
        ),
        "far_pixels": _Sentence(
            "the share of pixels without gold far from their surroundings is",
            ".1e",
            high="there are dead pixels, dust or scratches",
        ),
        "far_bins": _Sentence(
            "the number of places without gold that differ from their surroundings is",
            ".0f",
            high="something lies on the phantom, or two images are mixed",
        ),
        "excess": _Sentence("the excess kurtosis of the noise of pixels is", ".2f"),
        "bin_excess": _Sentence("the excess kurtosis of the noise of means over half a millimetre is", ".2f"),
        "stripes": _Sentence(
            "the largest mean of a row or column of pixels over what noise gives is",
            ".1f",
            high="rows or columns are dead or striped",
        ),
        "clipped_top": _Sentence(
            "the share of pixels that have the largest value is", ".2%", high="the image is saturated or clipped"
        ),
        "clipped_bottom": _Sentence(
            "the share of pixels that have the smallest value is", ".2%", high="the image is clipped"
        ),
        "step": _Sentence(
            "the step from one pixel value to the next, over the noise of a pixel, is",
            ".2f",
            high="the values are too coarse",
        ),
        "slope": _Sentence("the change of the background along 100 mm, over the noise of a pixel, is", ".0f"),
        "bend": _Sentence(
            "the range of the background beside a plane, over the noise of a pixel, is",
            ".0f",
            high="something else is in the image",
        ),
        "visibility": _Sentence(
            "the contrast-to-noise ratio of the disks at the places of CDMAM 3.4, relative to scenario 1, is",
            ".2f",
            low=f"there are no disks there, or the noise hides them; {_LAYOUT}",
            high="there is too little noise for one exposure",
        ),
        "corner_to_middle": _Sentence(
            "the visibility of the disks in the true corners of CDMAM 3.4 over that in the middle of the cells is",
            ".2f",
            low=f"the orientation is wrong or the disks are in other corners; {_LAYOUT}",
            high=f"disks are missing in the middle; {_LAYOUT}",
        ),
        "thick_to_thin": _Sentence(
            "the visibility of thick disks over that of thin ones is",
            ".2f",
            low=f"the scale of the values is bent, or thicknesses are not those of CDMAM 3.4; {_LAYOUT}",
            high=f"the scale of the values is bent, or thicknesses are not those of CDMAM 3.4; {_LAYOUT}",
        ),
        "disk_mismatch": _Sentence(
            "the mean square difference of the disks from those of CDMAM 3.4, over that of noise, is",
            ".2f",
            high=f"disks are missing, doubled, distorted or of other sizes; {_LAYOUT}",
        ),
        "other_corners": _Sentence(
            "the mean square of what is seen in corners without a disk, over that of noise, is",
            ".2f",
            high=f"there are disks in other corners, or something else; {_LAYOUT}",
        ),
    }
)


def findings(phantom: Registered, pixels: NDArray[Any]) -> Findings:
    """Measure everything on which the decision rests.

    Args:
        phantom: as `radlens.phantoms.cdmam.registered.register` returns it.
        pixels: (H, W), the image that was registered.
    """
    values, factors = phantom.linear(), bin_factors(phantom.grid)
    noise = clear_parts.noise(values, phantom)
    seen = binned((phantom.source >= 0).astype(np.float32), factors) > 1 - 1e-6
    found = lines(binned(values, factors), seen, noise.deviation, phantom.grid)
    stored = clear_parts.stored_values(pixels, phantom)
    slow = clear_parts.background(pixels, values, phantom)
    disks = visibility(phantom)
    return Findings(
        correlation=phantom.correlation,
        missing=phantom.missing,
        second_phantom=_second_phantom(phantom, pixels),
        **_line_numbers(found, noise.deviation, values, phantom),
        white=noise.white,
        neighbours_down=noise.neighbours[0],
        neighbours_right=noise.neighbours[1],
        second_down=noise.second[0],
        second_right=noise.second[1],
        unevenness=float(np.nanmax(noise.parts) / max(np.nanmin(noise.parts), 1e-6)),
        quietest_cell=float(np.nanmin(noise.cells)),
        noisiest_cell=float(np.nanmax(noise.cells)),
        far_pixels=noise.far_pixels,
        far_bins=noise.far_bins,
        excess=noise.excess,
        bin_excess=phantom.noise.excess,
        stripes=noise.stripes,
        clipped_top=_clipped(stored.at_top, stored.below_top, stored.n_pixels),
        clipped_bottom=_clipped(stored.at_bottom, stored.above_bottom, stored.n_pixels),
        step=stored.step,
        slope=slow.slope,
        bend=slow.bend,
        visibility=(disks.middle + disks.corner) / 2,
        corner_to_middle=disks.corner / disks.middle if disks.middle > 5 * disks.error else math.nan,
        thick_to_thin=disks.thick / disks.thin if disks.thin > 10 * disks.thin_error else math.nan,
        disk_mismatch=disks.mismatch,
        other_corners=disks.others,
        hits=int(np.count_nonzero(disks.hits)),
        hit=disks.hits,
        spacing_mm=phantom.grid.spacing_mm,
    )


def reasons(found: Findings, limits: Limits) -> tuple[str, ...]:
    """Return why an image is not one that the model may judge, one sentence for each number outside its limits."""
    numbers = found.numbers()
    return tuple(
        _sentence(name, numbers[name], getattr(limits, name))
        for name in _SENTENCES
        if name in numbers and not getattr(limits, name)[0] <= numbers[name] <= getattr(limits, name)[1]
    )


def _sentence(name: str, value: float, limit: Range) -> str:
    what, spelled, low, high = _SENTENCES[name]
    meaning = low if value < limit[0] else high
    expected = f"{limit[0]:{spelled}} to {limit[1]:{spelled}} is expected"
    return f"{what} {value:{spelled}}; {expected}" + (f": {meaning}" if meaning else "")


def contradictions(
    found: Findings, curve_um: ArrayLike, interval_um: ArrayLike, limits: Limits | None = None
) -> tuple[str, ...]:
    """Return what speaks against a predicted curve, one sentence each.

    The curve must be positive and finite, not fall with smaller diameters, lie inside the range of the training curves,
    and imply the disks that the automated reader finds in this image: their visibility, and the number of hits among
    all cells, those clearly above the line and those below it. How uncertain the curve is, is allowed for.

    Args:
        found: of the image.
        curve_um: (12,) predicted thresholds, human-equivalent um of gold, largest diameter first.
        interval_um: (12, 2) their 95 % interval.
        limits: by default those of `Limits`.
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
        f"the predicted threshold falls from {DIAMETERS_OF_CURVE[i]} to {DIAMETERS_OF_CURVE[i + 1]}, beyond its interval"
        for i in np.flatnonzero(interval[1:, 1] < interval[:-1, 0])
    ]
    against += [
        f"the predicted threshold of {value:.3g} um at {name} lies outside the training range, {low:.2g} to {high:.2g} um"
        for name, value, (low, high) in zip(DIAMETERS_OF_CURVE, curve, limits.curve_um, strict=True)
        if not low <= value <= high
    ]
    return against


DIAMETERS_OF_CURVE = tuple(f"{diameter:.2f} mm" for diameter in CDC_DIAMETERS_MM)
"""Diameters of the curve as they are written in sentences."""


def _unlike_disks(
    found: Findings, curve: NDArray[np.float64], interval: NDArray[np.float64], limits: Limits
) -> list[str]:
    against = []
    seen = _midpoint(found.visibility, found.spacing_mm)
    ratio = float(curve.mean()) / seen
    if not limits.disagreement[0] <= ratio <= limits.disagreement[1]:
        against.append(
            f"the predicted midpoint is {curve.mean():.3g} um; disks as visible as those of this image have {seen:.3g} um"
        )
    deviation = np.log(interval[:, 1] / interval[:, 0]) / (2 * 1.96)
    rate, spread, thick, thin = _implied(curve, deviation)
    groups = {"hits_all": np.ones_like(thick), "hits_thick": thick, "hits_thin": thin}
    for name, cells in groups.items():
        expected, got = float(rate[cells].sum()), int(found.hit[cells].sum())
        variance = float((rate * (1 - rate))[cells].sum()) + float(spread[cells].sum()) ** 2
        score = (got - expected) / math.sqrt(variance + 1)
        if not getattr(limits, name)[0] <= score <= getattr(limits, name)[1]:
            against.append(
                f"of {np.count_nonzero(cells)} cells{_GROUPS[name]}, the automated reader finds the disk in {got}; "
                f"the predicted curve implies {expected:.0f} +- {math.sqrt(variance):.0f}"
            )
    return against


_GROUPS = {"hits_all": "", "hits_thick": " clearly above the predicted line", "hits_thin": " below it"}

SLOPES = (2.6, 2.6, 2.5, 2.44, 2.30, 2.17, 2.07, 1.96, 1.86, 1.83, 1.78, 1.71, 1.58, 1.40, 1.31, 1.30)
"""Slopes of psychometric curves over log thickness for each diameter, largest first.

Those of 12 diameters are the means of what `fit_thresholds` finds in the expected hit rates of 1500 exposures of the
training range at 0.07 mm; the others continue them. With them the expected number of hits is right to 1.4 of 205.
"""

_CLEARLY = math.log(2.0)
_ROWS, _COLUMNS = np.nonzero(CELL_EXISTS)


def _implied(
    curve: NDArray[np.float64], deviation: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for each of 205 cells the chance of a hit, its deviation by that of the curve, and who is thick or thin."""
    log_diameters = np.log(np.array(DIAMETERS_MM))
    inner = np.log(curve / np.array(HUMAN_FACTORS))
    log_threshold = np.empty(16)
    log_threshold[3:15] = inner
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
    """Return the midpoint of the curve of a phantom with this visibility, um of gold."""
    log_levels, log_midpoints = _midpoints(spacing_mm)
    return math.exp(float(np.interp(math.log(max(visible, 1e-3)), log_levels, log_midpoints)))


@lru_cache(maxsize=16)
def _midpoints(spacing_mm: tuple[float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from dataclasses import replace

    log_levels = np.linspace(math.log(0.05), math.log(8.0), 24)
    exposures = [replace(REFERENCE, noise_level=REFERENCE.noise_level / level) for level in np.exp(log_levels)]
    return log_levels, np.log(expected_cdc(exposures, spacing_mm).mean(axis=1))


def unregistered(pixels: NDArray[Any], spacing_mm: float | tuple[float, float], error: UnreadableImage) -> str:
    """Return in words what an image shows in which no phantom was found.

    Args:
        pixels: (H, W), attenuation bright.
        spacing_mm: distance of pixel centres, one number or (row, column).
        error: what `register` raised.
    """
    found = lattice(pixels, spacing_mm)
    if found is None:
        return f"{error}; no grid of lines is seen"
    turn = min(found.angle_deg, 90 - found.angle_deg)
    cells = f"a grid with cells of {found.pitch_mm:.1f} mm"
    if turn < 45 - 15:
        return (
            f"the image shows {cells}, turned by {turn:.0f} degrees: CDMAM 4.0 has an upright grid; the model judges "
            f"CDMAM 3.4 alone, with cells of {CELL_MM:.0f} mm turned by 45 degrees"
        )
    if abs(found.pitch_mm / CELL_MM - 1) > 0.015:
        return (
            f"the image shows {cells} instead of {CELL_MM:.1f} mm: the pixel spacing is wrong, the image is enlarged, "
            "or it shows another phantom than CDMAM 3.4"
        )
    if found.skewness < 0:
        return f"the lines of the grid are darker than what is between them: the image is inverted; {error}"
    if 45 - turn > MAX_ROTATION_DEG:
        return f"the grid is turned by {45 - turn:.0f} degrees; up to {MAX_ROTATION_DEG:.0f} are searched"
    return f"the image shows {cells}, but not the whole of a CDMAM 3.4; {error}"


def _line_numbers(found: Lines, deviation: float, values: NDArray[np.float32], phantom: Registered) -> dict[str, Any]:
    seen = np.isfinite(found.contrast)
    hidden = int(np.count_nonzero(~seen))
    if not seen.any():
        nothing = dict.fromkeys(("line_contrast", "shift_mm", "line_misfit", "blur_mm", "line_noise"), math.nan)
        return {**nothing, "hidden_cells": hidden, "odd_cells": 0}
    contrast, error = found.contrast[seen], found.contrast_error[seen]
    usual = float(np.median(contrast))
    are_seen = usual > _VISIBLE * 1.25 * float(np.median(error)) / math.sqrt(len(contrast))
    tolerance = _ODD_CONTRAST * abs(usual) if are_seen else 0.0
    numbers = {
        "hidden_cells": hidden,
        "line_contrast": usual,
        "odd_cells": int(np.count_nonzero(np.abs(contrast - usual * are_seen) > tolerance + 5 * error)),
    }
    shift = math.nan
    if are_seen and float(np.median(found.shift_error_mm[seen])) < _SURE_SHIFT_MM:
        square = found.shift_mm[seen] ** 2 - found.shift_error_mm[seen, None] ** 2
        shift = math.sqrt(max(float(square.mean(axis=0).sum()), 0.0))
    if not (are_seen and usual > _LEAST_CONTRAST):
        return numbers | dict.fromkeys(("line_misfit", "blur_mm", "line_noise"), math.nan) | {"shift_mm": shift}
    both = profile(values, phantom.grid)
    return numbers | {
        "shift_mm": shift,
        "line_misfit": math.sqrt(max(found.misfit - 1, 0.0)) * deviation / usual,
        "blur_mm": max(each.blur_mm for each in both),
        "line_noise": max((each.noise for each in both), key=lambda noise: abs(math.log(max(noise, 1e-6)))),
    }


_VISIBLE = 8.0  # standard deviations that make a grid of its lines
_ODD_CONTRAST = 0.3
_SURE_SHIFT_MM = 0.1
_LEAST_CONTRAST = 1.0
_LEAST_CLIPPED = 30
_WRITING_MM = 14.0


def _clipped(at_end: int, before_it: int, n_pixels: int) -> float:
    """Return the share of pixels at the end of the values; 0 if they thin out towards it, as noise does."""
    return at_end / n_pixels if at_end > _LEAST_CLIPPED and at_end > before_it else 0.0


def _second_phantom(phantom: Registered, pixels: NDArray[Any]) -> float:
    """Return the correlation of another phantom beside the one that was found, 0 if there is none, or no room."""
    upright, layout = phantom.upright(np.asarray(pixels)), phantom.layout
    half = [extent / 2 + _WRITING_MM for extent in GRID_EXTENT_MM]
    rows, cols = layout.to_pixels(
        np.array([-half[1], half[1], -half[1], half[1]]), np.array([-half[0], -half[0], half[0], half[0]])
    )
    part = tuple(
        slice(max(0, math.floor(each.min())), min(size, math.ceil(each.max()) + 1))
        for each, size in zip((rows, cols), upright.shape, strict=True)
    )
    outside = np.ones(upright.shape, dtype=bool)
    outside[part] = False
    down_mm, right_mm = pair(layout.spacing_mm)
    if np.count_nonzero(outside) * down_mm * right_mm < _ROOM * GRID_EXTENT_MM[0] * GRID_EXTENT_MM[1]:
        return 0.0
    rest = np.where(outside, upright, np.median(upright[outside]))
    try:
        return find(rest, layout.spacing_mm).correlation
    except UnreadableImage:
        return 0.0


_ROOM = 0.7
"""Room outside a phantom, as a part of its grid's area, in which another is looked for."""
