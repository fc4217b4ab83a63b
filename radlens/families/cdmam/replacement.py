"""Disks of a registered phantom replaced by their surroundings: what the image would show without them.

The pixels of a disk get the values of a corner of the same cell that holds no disk, moved as they are: the noise keeps
its strength and its correlation, and nothing is taken from a model of the phantom but where its disks lie. The places
reach half a millimetre beyond the edge of the disk, since blur and errors of the registration spread it.
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
"""How far a place reaches beyond the edge of its disk, mm: three times the blur of a typical detector (0.1 mm) and
twice the largest error of a registration (0.1 mm). The largest disk then ends half way to the nearest line."""

N_DONORS = 3
"""Corners of a cell that hold no disk, and so ways of replacing its two disks by two of them."""


@dataclass(frozen=True, eq=False)
class Replacement:
    """Pixels of the disks of a phantom and where their new values come from; all ``(n,)``.

    Attributes:
        pixels: int64, flat indices into the phantom's grid, C order; each is there once.
        donors: int64, flat index of the pixel whose value it gets.
        cells: int64, cell that the disk belongs to: ``16 * row + column`` of the matrix.
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
        """Return which cells can be replaced, (16, 16): the image shows their disks and donors whole."""
        source = phantom.source.reshape(-1)
        hidden = (source[self.pixels] < 0) | (source[self.donors] < 0)
        return CELL_EXISTS & (np.bincount(self.cells, hidden, 256).reshape(16, 16) == 0)


@lru_cache(maxsize=8)
def replacement(grid: Layout, turn: int = 0) -> Replacement:
    """Return how all disks of the phantom are replaced.

    Args:
        grid: layout of a registered phantom, ``Registered.grid``.
        turn: which of the three empty corners replaces which disk, 0..2; no disk has the same donor at two turns.

    Raises:
        InvalidParameter: another turn.
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
    """Return the same phantom with all of its disks replaced by their surroundings; nothing else differs."""
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
    """Return pixels, donors and cells of one disk of each cell; offsets (n, 2) count cells from the cell's centre."""
    (row, col), (from_row, from_col) = (
        grid.to_pixels(*cell_to_phantom(rows + 0.5 + offset[:, 0], cols + 0.5 + offset[:, 1]))
        for offset in (disk, donor)
    )
    # The same whole number of pixels for the whole disk: between pixels the noise would be another.
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
