"""Sharpness of the disks of a registered phantom: the blur of source and detector, measured on the edges of the disks.

The threshold of small disks depends on the blur, which 250 x 250 scattered pixels hardly show. The whole image shows
it: model disks are fitted to all disks of at least `LEAST_MM` at once, with a common contrast, a common shift against
the registration and a common blur, and a separate background for each disk. The contrast of the disks, their number,
and gain, offset, grid and writing of the image do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from radlens.phantoms.cdmam.acquisition import Acquisition
from radlens.phantoms.cdmam.geometry import (
    CELL_EXISTS,
    CORNER_OFFSETS,
    DIAMETERS_MM,
    THICKNESSES_UM,
    TRUE_CORNER,
    Layout,
    cell_to_phantom,
)
from radlens.phantoms.cdmam.registered import Registered
from radlens.phantoms.cdmam.signal import DiskProfiles

__all__ = ["DiskBlur", "disk_blur"]

LEAST_MM = 0.31
"""Smallest diameter of the fitted disks, mm."""

_LEAST_HEIGHT = 0.03
_AROUND_MM = 0.6
_NODES_MM = np.arange(0.05, 0.22, 0.02)
_DEGREE = 4
_STEP_MM = np.float32(0.01)
_MODEL = Acquisition()
_CORRELATED = 2.0
"""Noise of an average over an edge relative to white noise, because the noise of neighbouring pixels is correlated."""


class DiskBlur(NamedTuple):
    """The blur of the disks.

    Attributes:
        blur_mm: Standard deviation of the Gaussian point spread function, the pixel excluded, mm.
        error_mm: Standard error of ``blur_mm``, mm; infinite if no disk shows the blur.
    """

    blur_mm: float
    error_mm: float


def disk_blur(phantom: Registered) -> DiskBlur:
    """Measure the blur of the disks of a phantom, from 0.05 to 0.21 mm.

    The error is 0.001 mm in scenario 1 of Amanova et al. 2022, Table 1, and 0.003 mm in scenario 4.
    """
    pixels, moments = phantom.linear(), np.zeros((len(_NODES_MM), 3, 3))
    products = np.zeros((len(_NODES_MM), 3))
    for disk in _disks(phantom.grid):
        part = pixels[disk.rows, disk.cols][disk.inside].astype(np.float64)
        part -= part.mean()
        moments += disk.moments
        products += disk.templates @ part
    if not moments.any():
        return DiskBlur(float(_NODES_MM.mean()), math.inf)
    # The fit at each blur is linear: it reduces the sum of squares by this much.
    gains = np.einsum("ni,nij,nj->n", products, np.linalg.inv(moments), products)
    centre = float(_NODES_MM.mean())
    left = np.polynomial.Polynomial.fit(_NODES_MM - centre, -gains, _DEGREE)
    fine = np.linspace(_NODES_MM[0], _NODES_MM[-1], 1601)
    best = float(fine[np.argmin(left(fine - centre))])
    curvature = float(left.deriv(2)(best - centre))
    # One standard error from the minimum, the sum of squares exceeds the minimum by the variance of the noise.
    deviation = _CORRELATED * phantom.noise.white
    return DiskBlur(best, math.sqrt(2 * deviation**2 / curvature) if curvature > 0 else math.inf)


class _Disk(NamedTuple):
    """Position of a disk and its templates at each blur.

    Attributes:
        rows: Rows of the square around the disk.
        cols: Columns of the square around the disk.
        inside: (rows, columns) bool, the n pixels of the square near the disk.
        templates: (blurs, 3, n) the disk and its derivatives with respect to a shift right and down, each with its
            mean subtracted.
        moments: (blurs, 3, 3) scalar products of the templates.
    """

    rows: slice
    cols: slice
    inside: NDArray[np.bool_]
    templates: NDArray[np.float32]
    moments: NDArray[np.float64]


@lru_cache(maxsize=2)
def _disks(grid: Layout) -> tuple[_Disk, ...]:
    """Return the fitted disks of a grid; disks that extend beyond the grid are left out."""
    down, right = np.nonzero(CELL_EXISTS & (np.array(DIAMETERS_MM)[:, None] >= LEAST_MM))
    heights = _MODEL.contrast(np.array(THICKNESSES_UM))
    heights = heights / heights.max()
    chosen = heights[right] > _LEAST_HEIGHT
    down, right = down[chosen], right[chosen]
    centres = np.stack([down, right], axis=1) + 0.5
    corners = centres + np.array(CORNER_OFFSETS)[TRUE_CORNER[down, right]]
    places = np.concatenate([centres, corners])
    # Both the square pixel and the nearest-neighbour sampling of the registration add the variance of a square.
    widths = np.sqrt(_NODES_MM**2 + 2 * grid.spacing_mm[0] * grid.spacing_mm[1] / 12)
    profiles = [DiskProfiles(np.array(DIAMETERS_MM) / 2, float(width)) for width in widths]
    found = (
        _disk(grid, profiles, int(number), float(heights[thickness]), float(row), float(col))
        for number, thickness, row, col in zip(
            np.tile(down, 2), np.tile(right, 2), *grid.to_pixels(*cell_to_phantom(*places.T)), strict=True
        )
    )
    return tuple(disk for disk in found if disk is not None)


def _disk(
    grid: Layout, profiles: Sequence[DiskProfiles], number: int, height: float, row: float, col: float
) -> _Disk | None:
    """Return a disk, or None if it extends beyond the grid.

    ``number`` is the index of its diameter, ``height`` its contrast relative to the thickest disk, and ``row`` and
    ``col`` are the pixel coordinates of its centre on the grid.
    """
    pixel_mm = math.sqrt(grid.spacing_mm[0] * grid.spacing_mm[1])
    reach_mm = DIAMETERS_MM[number] / 2 + _AROUND_MM
    reach = int(reach_mm / pixel_mm) + 1
    top, left = round(row) - reach, round(col) - reach
    rows, cols = slice(top, top + 2 * reach + 1), slice(left, left + 2 * reach + 1)
    if min(top, left) < 0 or rows.stop > grid.image_shape[0] or cols.stop > grid.image_shape[1]:
        return None
    down = ((np.arange(rows.start, rows.stop) - row) * grid.spacing_mm[0])[:, None]
    across = (np.arange(cols.start, cols.stop) - col) * grid.spacing_mm[1]
    distance = np.hypot(down, across)
    inside = distance <= reach_mm
    near = distance[inside].astype(np.float32)
    directions = [np.broadcast_to(each, distance.shape)[inside] / np.maximum(near, 1e-3) for each in (across, down)]
    index = np.full(near.shape, number)
    templates = np.empty((len(_NODES_MM), 3, len(near)), np.float32)
    for k, profile in enumerate(profiles):
        slope = (profile(index, near + _STEP_MM) - profile(index, np.maximum(near - _STEP_MM, 0))) / (2 * _STEP_MM)
        templates[k] = [height * profile(index, near), *(height * slope * each for each in directions)]
    templates -= templates.mean(axis=2, keepdims=True)
    exact = templates.astype(np.float64)
    return _Disk(rows, cols, inside, templates, exact @ exact.swapaxes(1, 2))
