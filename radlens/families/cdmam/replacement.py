"""Replacement of the disks of a registered phantom by their surroundings, as if the phantom had no disks.

The pixels of a disk get the unchanged values of an empty corner of the same cell, so the noise keeps its strength and
its correlation, and the model of the phantom contributes the positions of the disks alone. The replaced area reaches
half a millimetre beyond the edge of the disk, since blur and registration errors spread it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from radlens.errors import InvalidParameter
from radlens.phantoms.cdmam.geometry import (
    CELL_EXISTS,
    CORNER_OFFSETS,
    DIAMETERS_MM,
    TRUE_CORNER,
    Layout,
    cell_to_phantom,
)
from radlens.phantoms.cdmam.registered import Registered

__all__ = ["MARGIN_MM", "N_DONORS", "Replacement", "disk_free_twin", "replacement"]

MARGIN_MM = 0.5
"""Distance from the edge of a disk to that of its replaced area, mm: three times the blur of a typical detector (0.1
mm) plus twice the largest error of a registration (0.1 mm). The area of the largest disk then ends half way to the
nearest line."""

N_DONORS = 3
"""Number of empty corners of a cell, and therefore of turns, in which different corners replace its two disks."""


@dataclass(frozen=True, eq=False)
class Replacement:
    """Pixels of the disks of a phantom and the pixels whose values replace them; arrays are ``(n,)``.

    Attributes:
        pixels: int64, flat indices into the phantom's grid, C order, without repetition.
        donors: int64, flat index of the pixel whose value each pixel gets.
        cells: int64, cell of the disk: ``16 * row + column`` of the matrix.
    """

    pixels: NDArray[np.int64]
    donors: NDArray[np.int64]
    cells: NDArray[np.int64]

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a copy of ``values`` (h, w) in which every disk is replaced."""
        flat = np.array(values).reshape(-1)
        flat[self.pixels] = flat[self.donors]
        return flat.reshape(values.shape)

    def shown(self, phantom: Registered) -> NDArray[np.bool_]:
        """Return which cells can be replaced, (16, 16): those whose disks and donors lie inside the image."""
        source = phantom.source.reshape(-1)
        hidden = (source[self.pixels] < 0) | (source[self.donors] < 0)
        return CELL_EXISTS & (np.bincount(self.cells, hidden, 256).reshape(16, 16) == 0)


@lru_cache(maxsize=8)
def replacement(grid: Layout, turn: int = 0) -> Replacement:
    """Return the replacement of all disks of a phantom.

    Args:
        grid: layout of a registered phantom, ``Registered.grid``.
        turn: assignment of the three empty corners to the two disks, 0..2; a disk has another donor at each turn.

    Raises:
        InvalidParameter: ``turn`` is out of range.
    """
    if turn not in range(N_DONORS):
        raise InvalidParameter(f"turn must be from 0 to {N_DONORS - 1}, got {turn}")
    rows, cols = np.nonzero(CELL_EXISTS)
    offsets = np.array(CORNER_OFFSETS)
    true = TRUE_CORNER[rows, cols]
    parts = []
    for place, disk in enumerate((np.zeros((len(rows), 2)), offsets[true])):
        donor = offsets[(true + 1 + (turn + place) % N_DONORS) % len(offsets)]
        parts.append(_moved(grid, rows, cols, disk, donor))
    return Replacement(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def disk_free_twin(phantom: Registered) -> Registered:
    """Return a copy of a phantom in which every disk is replaced by its surroundings."""
    everywhere = replacement(phantom.grid)
    source = phantom.source.reshape(-1).copy()
    source[everywhere.pixels] = source[everywhere.donors]
    return replace(phantom, values=everywhere.apply(phantom.values), source=source.reshape(phantom.source.shape))


def _moved(
    grid: Layout,
    rows: NDArray[np.intp],
    cols: NDArray[np.intp],
    disk: NDArray[np.float64],
    donor: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return pixels, donors and cells of one disk of each cell.

    Args:
        grid: layout of the phantom.
        rows: (n,) rows of the cells.
        cols: (n,) columns of the cells.
        disk: (n, 2) offset of the disk from the centre of its cell, in cells.
        donor: (n, 2) offset of the empty corner from the centre of the cell, in cells.
    """
    (row, col), (from_row, from_col) = (
        grid.to_pixels(*cell_to_phantom(rows + 0.5 + offset[:, 0], cols + 0.5 + offset[:, 1]))
        for offset in (disk, donor)
    )
    # Shifts are integers, the same for the whole disk, because interpolation would change the noise.
    shift = np.rint(from_row - row).astype(np.int64) * grid.image_shape[1] + np.rint(from_col - col).astype(np.int64)
    radius = np.array(DIAMETERS_MM)[rows] / 2 + MARGIN_MM
    reach = [int(radius.max() / step) + 1 for step in grid.spacing_mm]
    down, right = (np.arange(-size, size + 1) for size in reach)
    row_index = np.rint(row).astype(np.int64)[:, None, None] + down[:, None]
    col_index = np.rint(col).astype(np.int64)[:, None, None] + right
    distance = np.hypot(
        (row_index - row[:, None, None]) * grid.spacing_mm[0], (col_index - col[:, None, None]) * grid.spacing_mm[1]
    )
    cell, i, j = np.nonzero(distance <= radius[:, None, None])
    pixels = row_index[cell, i, 0] * grid.image_shape[1] + col_index[cell, 0, j]
    return pixels, pixels + shift[cell], (16 * rows + cols)[cell].astype(np.int64)
