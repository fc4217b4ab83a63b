"""Regions of a CDMAM phantom to enlarge: large disks and small disks (Amanova et al. 2022, Figs. 4 and 5)."""

from radlens.errors import InvalidParameter
from radlens.figures.maps import Box
from radlens.phantoms.cdmam.geometry import Layout, cell_to_phantom

__all__ = ["LARGE_DISKS", "SMALL_DISKS", "region"]

LARGE_DISKS = (4.0, 8.0)
"""Cell coordinates of the corner where the disks of 1.00 and 0.80 mm and of 0.16 and 0.20 um of gold meet."""

SMALL_DISKS = (13.0, 12.0)
"""Cell coordinates of the corner where the disks of 0.13 and 0.10 mm and of 0.50 and 0.71 um of gold meet."""


def region(layout: Layout, centre: tuple[float, float], side_mm: float = 36.0) -> Box:
    """Return the square around a point of the grid, clipped to the image.

    Args:
        layout: position of the phantom in the image.
        centre: cell coordinates, such as `LARGE_DISKS` or `SMALL_DISKS`.
        side_mm: side of the square, mm; 36 mm cover about five cells.

    Raises:
        InvalidParameter: the square lies outside the image.
    """
    row, column = (float(value) for value in layout.to_pixels(*cell_to_phantom(*centre)))
    half = [side_mm / 2 / step for step in layout.spacing_mm]
    top, left = max(round(row - half[0]), 0), max(round(column - half[1]), 0)
    bottom = min(round(row + half[0]), layout.image_shape[0])
    right = min(round(column + half[1]), layout.image_shape[1])
    if bottom <= top or right <= left:
        raise InvalidParameter("region must lie within the image, got one outside it")
    return Box(top, left, bottom - top, right - left)
