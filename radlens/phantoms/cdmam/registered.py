"""A phantom laid over its own coordinates and measured in units of its own noise: what the network sees.

Design requirements: gain, offset and pixel scale of a detector, heel effect, orientation, margins and pixel spacing do
not matter; the height of a disk is its contrast-to-noise ratio, which decides the curve; nothing is fitted to the
gold of grid or writing.

1. *Registration* (`radlens.phantoms.cdmam.registration`): the phantom is found, and its bounding box is cut out upright
   and unmirrored, at the pixel spacing of the image. Each pixel is one of the image, the nearest.
2. *Background*: the median of 10 x 10 blocks, refined by clipped means and interpolated, is subtracted.
3. *Noise*: the standard deviation of means over half a millimetre where the phantom has neither gold nor a line. That
   is the low-frequency noise power, which the read-out of disks meets, whatever the correlation of neighbouring pixels.
   The unit is the noise of one pixel of 0.07 mm behind the filter of a typical detector, so that noise is about 1.
4. *Compression*: the inverse hyperbolic sine, linear for noise and disks, logarithmic for the grid.
"""

from __future__ import annotations

import math

import numpy as np

from radlens.phantoms.cdmam.acquisition import noise_kernel

__all__ = ["UNIT_SPACING_MM", "noise_unit"]

UNIT_SPACING_MM = 0.07
"""Pixel spacing of the unit of noise, mm."""

_UNIT_SIGMA_PX = 0.85
_UNIT_FILTER = float(np.sum(noise_kernel(_UNIT_SIGMA_PX) ** 2))


def noise_unit(level: float) -> float:
    """Return the unit of the normalised image in pixel values.

    Args:
        level: standard deviation of white noise at `UNIT_SPACING_MM`, before any filter: the root of the noise power
            spectrum at low frequencies, over the spacing.
    """
    return level * _UNIT_FILTER
