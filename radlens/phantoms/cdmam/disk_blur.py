"""How sharp the disks of a registered phantom are: the blur of source and detector, measured on their edges.

The threshold of small disks depends on the blur, and 250 x 250 scattered pixels hardly show it. The whole image does:
all disks of `LEAST_MM` and more are fitted together by the phantom's disks, which share one contrast, one place against
the registration and one blur, each above a background of its own. The contrast of the disks, their number and gain,
offset, grid and writing of the image do not matter.
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
"""Least diameter of the disks that are fitted, mm."""

_LEAST_HEIGHT = 0.03
_AROUND_MM = 0.6
_NODES_MM = np.arange(0.05, 0.22, 0.02)
_DEGREE = 4
_STEP_MM = np.float32(0.01)
_MODEL = Acquisition()
_CORRELATED = 2.0
"""Noise of neighbouring pixels is correlated: an average over an edge is about twice as noisy as of white noise."""


class DiskBlur(NamedTuple):
    """The blur of the disks.

    Attributes:
        blur_mm: Standard deviation of a Gaussian point spread function, the pixel not included, mm.
        error_mm: Its standard error, mm; infinite where no disk tells it.
    """

    blur_mm: float
    error_mm: float


def disk_blur(phantom: Registered) -> DiskBlur:
    """Return the blur of the disks of a phantom, from 0.05 to 0.21 mm.

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
    gains = np.einsum("ni,nij,nj->n", products, np.linalg.inv(moments), products)
    centre = float(_NODES_MM.mean())
    left = np.polynomial.Polynomial.fit(_NODES_MM - centre, -gains, _DEGREE)
    fine = np.linspace(_NODES_MM[0], _NODES_MM[-1], 1601)
    best = float(fine[np.argmin(left(fine - centre))])
    curvature = float(left.deriv(2)(best - centre))
    # The sum of squares rises by twice the variance of the noise over one standard error.
    deviation = _CORRELATED * phantom.noise.white
    return DiskBlur(best, math.sqrt(2 * deviation**2 / curvature) if curvature > 0 else math.inf)


class _Disk(NamedTuple):
    """Where a disk lies, and what its edge looks like at each blur.

    Attributes:
        rows: of the square around it.
        cols: of the square around it.
        inside: which pixels of the square are near it, n of them.
        templates: (blurs, 3, n) the disk, and its change with a shift to the right and down, without their means.
        moments: (blurs, 3, 3) their products.
    """

    rows: slice
    cols: slice
    inside: NDArray[np.bool_]
    templates: NDArray[np.float32]
    moments: NDArray[np.float64]


@lru_cache(maxsize=2)
def _disks(grid: Layout) -> tuple[_Disk, ...]:
    """Return the disks of a grid that are fitted, those that it cuts off left out."""
    down, right = np.nonzero(CELL_EXISTS & (np.array(DIAMETERS_MM)[:, None] >= LEAST_MM))
    heights = _MODEL.contrast(np.array(THICKNESSES_UM))
    heights = heights / heights.max()
    chosen = heights[right] > _LEAST_HEIGHT
    down, right = down[chosen], right[chosen]
    centres = np.stack([down, right], axis=1) + 0.5
    corners = centres + np.array(CORNER_OFFSETS)[TRUE_CORNER[down, right]]
    places = np.concatenate([centres, corners])
    # A pixel is a square, and the registration takes the nearest one: a square's width each.
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
    """Return one disk: ``number`` of its diameter, its height against the thickest, its place in pixels of the grid."""
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
