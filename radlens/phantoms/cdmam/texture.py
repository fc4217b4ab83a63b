"""Texture of the noise: whether it looks like white noise after the Gaussian filter of the detector of the simulation.

Such noise has one parameter, the width of the filter, which the correlation of neighbouring pixels determines. The
correlation of pixels two apart and the noise of single pixels relative to that at low frequencies follow from it.
Processing breaks these relations long before one can see it: an image that was resampled, sharpened or freed of noise
has another curve, although each number by itself could be that of a detector.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from radlens.phantoms.cdmam.acquisition import noise_kernel
from radlens.phantoms.cdmam.clear_parts import Noise
from radlens.phantoms.cdmam.registered import UNIT_SPACING_MM, noise_unit

__all__ = ["Texture", "texture"]

_WIDTHS_PX = np.linspace(0.3, 2.0, 1701)
_MOST_ROUNDING = 0.5
_ROUNDINGS = np.linspace(1.0, 1.8, 17)
"""Variance of rounding errors over that of one rounding, step**2 / 12. Values that were rounded twice, at half the step
first, have 1.75 times as much. It is white noise, which no filter of the detector correlates."""


class Texture(NamedTuple):
    """Texture of the noise.

    Attributes:
        filter_px: Standard deviation of the Gaussian filter that correlates neighbouring pixels as observed, pixels.
        second: Correlation of pixels two apart, minus that of this filter.
        fine: Standard deviation of single pixels over that which this filter and the noise of bins of half a
            millimetre imply.
    """

    filter_px: float
    second: float
    fine: float


def texture(noise: Noise, step: float, pixel_mm: float) -> Texture:
    """Return the texture of the noise of clear parts.

    Args:
        noise: noise of the clear parts.
        step: distance between neighbouring pixel values, in units of the normalised image.
        pixel_mm: side of a pixel, mm.
    """
    variance = (noise.white * UNIT_SPACING_MM / pixel_mm) ** 2
    share = step**2 / 12 / variance if variance > 0 else 0.0
    whole = [_texture(noise, variance, min(each, _MOST_ROUNDING), pixel_mm) for each in share * _ROUNDINGS]
    return min(whole, key=lambda found: abs(found.second) if math.isfinite(found.second) else math.inf)


def _texture(noise: Noise, variance: float, rounding: float, pixel_mm: float) -> Texture:
    """Return the texture if rounding makes a given share of the variance."""
    neighbours, second = (sum(each) / 2 / (1 - rounding) for each in (noise.neighbours, noise.second))
    after, twice_after, gain = _filters()
    width = float(np.interp(neighbours, after, _WIDTHS_PX)) if math.isfinite(neighbours) else math.nan
    white = UNIT_SPACING_MM / pixel_mm / noise_unit(1.0)
    implied = white * float(np.interp(width, _WIDTHS_PX, gain))
    return Texture(
        filter_px=width,
        second=second - float(np.interp(width, _WIDTHS_PX, twice_after)),
        fine=math.sqrt(variance * (1 - rounding)) / implied,
    )


@lru_cache(maxsize=1)
def _filters() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return, at each width: correlation of neighbours, of pixels two apart, and standard deviation for white noise."""
    after, twice_after, gain = (np.empty(len(_WIDTHS_PX)) for _ in range(3))
    for index, width in enumerate(_WIDTHS_PX.tolist()):
        kernel = noise_kernel(width)
        products = np.correlate(kernel, kernel, "full")[len(kernel) - 1 :]
        after[index], twice_after[index] = products[1:3] / products[0]
        gain[index] = products[0]
    return after, twice_after, gain
