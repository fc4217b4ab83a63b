"""Geometry of grid, disks and image of a CDMAM 3.4 phantom: EUREF supplement to the European Guidelines.

Three frames are used. *Cell* coordinates ``(a, b)`` count cells along the diameters and along the thicknesses: cell
``(r, c)`` is the square ``r <= a < r + 1``, ``c <= b < c + 1``. *Phantom* coordinates ``(x, y)`` are millimetres to
the right and downwards from the centre of the grid's bounding box; the matrix is turned by 45 degrees, cell (0, 0)
on top. *Pixel* coordinates ``(row, column)`` are those of one image; a `Layout` maps them to the phantom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radlens.errors import InvalidParameter

__all__ = [
    "CDC_DIAMETERS_MM",
    "CDC_ROWS",
    "CELL_EXISTS",
    "CELL_MM",
    "CORNER_OFFSETS",
    "DETECTOR_SHAPE",
    "DIAMETERS_MM",
    "GRID_EXTENT_MM",
    "GRID_UM",
    "HALF_DIAGONAL_MM",
    "LINE_WIDTH_MM",
    "MARGINS_MM",
    "THICKNESSES_UM",
    "TRUE_CORNER",
    "Layout",
    "cell_to_phantom",
    "corner_centres",
    "pair",
    "phantom_to_cell",
]

DIAMETERS_MM: tuple[float, ...] = (
    2.00,
    1.60,
    1.25,
    1.00,
    0.80,
    0.63,
    0.50,
    0.40,
    0.31,
    0.25,
    0.20,
    0.16,
    0.13,
    0.10,
    0.08,
    0.06,
)
"""Diameter of the disks of each row of cells, mm, largest first (CDMAM 3.4)."""

THICKNESSES_UM = (0.03, 0.04, 0.05, 0.06, 0.08, 0.10, 0.13, 0.16, 0.20, 0.25, 0.36, 0.50, 0.71, 1.00, 1.42, 2.00)
"""Thickness of the gold of each column of cells, micrometres, thinnest first (CDMAM 3.4)."""

CDC_ROWS = slice(3, 15)
"""Rows whose thresholds form the contrast-detail curve."""

CDC_DIAMETERS_MM = DIAMETERS_MM[CDC_ROWS]
"""The 12 diameters of the contrast-detail curve, mm, largest first: 1.00 ... 0.08."""

_COLUMNS = (
    *((1, 9), (0, 10), (0, 11), (0, 12), (0, 13), (0, 14), (0, 15), (0, 15)),
    *((0, 15), (1, 15), (2, 15), (3, 15), (4, 15), (5, 15), (6, 15), (7, 14)),
)

CELL_EXISTS: NDArray[np.bool_] = np.array([[lo <= c <= hi for c in range(16)] for lo, hi in _COLUMNS])
"""(16, 16) bool; true for the 205 pairs of diameter (row) and thickness (column) of the phantom."""

CELL_MM = 10.0
"""Side of a cell, mm. Not published: chosen so that 16 turned cells (226 mm) fill the 240 mm plate."""

LINE_WIDTH_MM = 0.4
"""Width of the lines of the grid, mm. Not published; chosen."""

GRID_UM = 1.0
"""Thickness of gold with the attenuation of grid lines and letters, um. Not published; chosen."""

CORNER_OFFSETS = ((-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25))
"""Offsets of corners 0..3 from the centre of the cell, in cells along (a, b): half way to the corner of the cell."""

_CORNERS = (
    *("1221210313221211", "0121201021033113", "0032100221021222", "3212220222031030"),
    *("0013202110332122", "3112002100210111", "1213100032301023", "3321111323113130"),
    *("1233021232211230", "1112302210210002", "3232311022010103", "1132120211313131"),
    *("1022130020210122", "0002011032030030", "3033111230202123", "2332103111310112"),
)

TRUE_CORNER: NDArray[np.intp] = np.array([[int(digit) for digit in row] for row in _CORNERS], dtype=np.intp)
"""(16, 16) corner 0..3 of the second disk of each cell: a pseudo-random table, the same in every simulated phantom."""

HALF_DIAGONAL_MM = CELL_MM / math.sqrt(2.0)
"""Half the diagonal of a cell, mm: the step from one row of corners of the turned grid to the next."""

_LEFT, _RIGHT, _TOP, _BOTTOM = -9, 10, 1, 31  # of b - a and of a + b over all corners of existing cells

GRID_EXTENT_MM = ((_BOTTOM - _TOP) * HALF_DIAGONAL_MM, (_RIGHT - _LEFT) * HALF_DIAGONAL_MM)
"""Height and width of the bounding box of the grid, mm."""

MARGINS_MM = (0.0, 4.0, 8.0, 12.0, 16.0, 20.0)
"""The six margin sizes: distance from the grid's bounding box to each edge of the image, mm."""

DETECTOR_SHAPE = (4096, 3328)
"""Rows and columns of a full-field detector in portrait orientation."""


def phantom_to_cell(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the cell coordinates ``(a, b)`` of points ``(x, y)`` in mm, any shape."""
    difference = x * (1.0 / HALF_DIAGONAL_MM) + 0.5 * (_LEFT + _RIGHT)
    total = y * (1.0 / HALF_DIAGONAL_MM) + 0.5 * (_TOP + _BOTTOM)
    return 0.5 * (total - difference), 0.5 * (total + difference)


def cell_to_phantom(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the points ``(x, y)`` in mm of cell coordinates, any shape; the inverse of `phantom_to_cell`."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    x = (b - a - 0.5 * (_LEFT + _RIGHT)) * HALF_DIAGONAL_MM
    y = (a + b - 0.5 * (_TOP + _BOTTOM)) * HALF_DIAGONAL_MM
    return x, y


def pair(spacing_mm: float | tuple[float, float]) -> tuple[float, float]:
    """Return ``(row, column)`` spacings from one number or two."""
    if isinstance(spacing_mm, int | float):
        return float(spacing_mm), float(spacing_mm)
    return float(spacing_mm[0]), float(spacing_mm[1])


def corner_centres() -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ``(x, y)`` in mm of the four possible positions of the second disk of each cell, each (16, 16, 4)."""
    offsets = np.array(CORNER_OFFSETS)
    a = np.arange(16)[:, None, None] + 0.5 + offsets[:, 0]
    b = np.arange(16)[None, :, None] + 0.5 + offsets[:, 1]
    return cell_to_phantom(a, b)


@dataclass(frozen=True)
class Layout:
    """Position and orientation of the phantom in an image.

    A point of the phantom is rotated about the centre of the grid, then mirrored, then shifted: mirrors act along the
    axes of the image.

    Args:
        image_shape: rows and columns of the image, at least 1 each.
        spacing_mm: distance between pixel centres along a column (between rows) and along a row, 0.01..5 mm in the
            plane of the phantom.
        centre_px: row and column of the centre of the grid's bounding box, fractions allowed.
        mirror_horizontal: whether left and right are exchanged.
        mirror_vertical: whether top and bottom are exchanged.
        rotation_deg: rotation of the phantom from the horizontal axis (right) towards the vertical (down), -45..45
            degrees.
        grid_um: thickness of gold with the attenuation of grid lines and letters of this phantom, um, at least 0.

    Raises:
        InvalidParameter: a value is out of range.
    """

    image_shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    centre_px: tuple[float, float]
    mirror_horizontal: bool = False
    mirror_vertical: bool = False
    rotation_deg: float = 0.0
    grid_um: float = GRID_UM

    def __post_init__(self) -> None:
        if min(self.image_shape) < 1:
            raise InvalidParameter(f"image_shape must be positive, got {self.image_shape}")
        if not all(0.01 <= value <= 5.0 for value in self.spacing_mm):
            raise InvalidParameter(f"spacing_mm must be between 0.01 and 5, got {self.spacing_mm}")
        if not all(math.isfinite(value) for value in self.centre_px):
            raise InvalidParameter(f"centre_px must be finite, got {self.centre_px}")
        if not abs(self.rotation_deg) <= 45.0:
            raise InvalidParameter(f"rotation_deg must be between -45 and 45, got {self.rotation_deg}")
        if not self.grid_um >= 0:
            raise InvalidParameter(f"grid_um must be at least 0, got {self.grid_um}")

    @classmethod
    def with_margin(
        cls,
        margin: int = 0,
        spacing_mm: float | tuple[float, float] = 0.07,
        *,
        shift_mm: tuple[float, float] = (0.0, 0.0),
        mirror_horizontal: bool = False,
        mirror_vertical: bool = False,
        rotation_deg: float = 0.0,
    ) -> Layout:
        """Crop the image to the grid's bounding box and ``MARGINS_MM[margin]`` on each side.

        Args:
            margin: index into ``MARGINS_MM``, 0..5; with 0, the image shows only writing within the bounding box.
            spacing_mm: distance between pixel centres, one number or (row, column), mm.
            shift_mm: shift of the phantom (down, right) from the middle of the image, mm.
            mirror_horizontal: as in `Layout`.
            mirror_vertical: as in `Layout`.
            rotation_deg: as in `Layout`.

        Raises:
            InvalidParameter: ``margin`` is not 0..5, or a value is out of range for `Layout`.
        """
        if margin not in range(len(MARGINS_MM)):
            raise InvalidParameter(f"margin must be between 0 and {len(MARGINS_MM) - 1}, got {margin}")
        spacing = pair(spacing_mm)
        sides = [extent + 2 * MARGINS_MM[margin] for extent in GRID_EXTENT_MM]
        shape = (math.ceil(sides[0] / spacing[0]), math.ceil(sides[1] / spacing[1]))
        return cls.on_detector(
            shape,
            spacing,
            shift_mm=shift_mm,
            mirror_horizontal=mirror_horizontal,
            mirror_vertical=mirror_vertical,
            rotation_deg=rotation_deg,
        )

    @classmethod
    def on_detector(
        cls,
        image_shape: tuple[int, int] = DETECTOR_SHAPE,
        spacing_mm: float | tuple[float, float] = 0.07,
        *,
        shift_mm: tuple[float, float] = (0.0, 0.0),
        mirror_horizontal: bool = False,
        mirror_vertical: bool = False,
        rotation_deg: float = 0.0,
    ) -> Layout:
        """Place the phantom in the middle of an image of given shape, shifted by ``shift_mm`` (down, right).

        Raises:
            InvalidParameter: a value is out of range for `Layout`.
        """
        spacing = pair(spacing_mm)
        centre = tuple(
            (size - 1) / 2 + shift / step for size, shift, step in zip(image_shape, shift_mm, spacing, strict=True)
        )
        return cls(
            image_shape, spacing, (centre[0], centre[1]), mirror_horizontal, mirror_vertical, float(rotation_deg)
        )

    def to_phantom(self, rows: NDArray[Any], cols: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return phantom coordinates ``(x, y)`` in mm of pixels, in the broadcast shape of ``rows`` and ``cols``."""
        down = (np.asarray(rows, dtype=np.float32) - np.float32(self.centre_px[0])) * np.float32(self._steps[0])
        right = (np.asarray(cols, dtype=np.float32) - np.float32(self.centre_px[1])) * np.float32(self._steps[1])
        cos, sin = (np.float32(value) for value in self._turn)
        return right * cos + down * sin, down * cos - right * sin

    def to_pixels(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return pixel coordinates ``(rows, columns)`` of phantom points in mm; the inverse of `to_phantom`."""
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        cos, sin = self._turn
        rows = (x * sin + y * cos) / self._steps[0] + self.centre_px[0]
        cols = (x * cos - y * sin) / self._steps[1] + self.centre_px[1]
        return rows, cols

    @property
    def _steps(self) -> tuple[float, float]:
        """Spacing down and right, mm, negative along a mirrored axis."""
        down, right = self.spacing_mm
        return (-down if self.mirror_vertical else down, -right if self.mirror_horizontal else right)

    @property
    def _turn(self) -> tuple[float, float]:
        angle = math.radians(self.rotation_deg)
        return math.cos(angle), math.sin(angle)
