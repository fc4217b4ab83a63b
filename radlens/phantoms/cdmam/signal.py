"""The noise-free image of the phantom at arbitrary pixels: blurred disks, grid and writing in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, i0e

from radlens.errors import InvalidParameter
from radlens.phantoms.cdmam import lettering
from radlens.phantoms.cdmam.acquisition import BACKGROUND, Acquisition
from radlens.phantoms.cdmam.geometry import (
    CELL_EXISTS,
    CELL_MM,
    CORNER_OFFSETS,
    DIAMETERS_MM,
    LINE_WIDTH_MM,
    THICKNESSES_UM,
    TRUE_CORNER,
    Layout,
    phantom_to_cell,
)

__all__ = [
    "UNCHANGED",
    "Changes",
    "DiskProfiles",
    "Layers",
    "exposure_at",
    "layers_at",
    "phantom_disks",
    "signal_at",
    "total_blur_mm",
]

_REACH = 4.5  # standard deviations of the blur beyond which a profile is assumed to be flat
_NODES = 97
_ABSCISSAE, _WEIGHTS = (values.astype(np.float32) for values in np.polynomial.legendre.leggauss(16))
_RING = 2  # rings of absent cells around the matrix: clipped indices and their neighbours stay inside the array
_EXISTS = np.pad(CELL_EXISTS, _RING)
_CORNER_A, _CORNER_B = (np.array([offset[i] for offset in CORNER_OFFSETS], np.float32)[TRUE_CORNER] for i in (0, 1))


class DiskProfiles:
    """Profiles of uniform disks of height 1, blurred by a Gaussian, tabulated over the distance from the edge.

    The value at distance ``d`` from the centre of a disk of radius R is
    ``int_0^R (r / s^2) exp(-(r - d)^2 / (2 s^2)) i0e(r d / s^2) dr``. The nodes of the table are computed by
    Gauss-Legendre quadrature, values between them by linear interpolation (error below 3e-4).

    Args:
        radii_mm: (n,) radii of the disks.
        sigma_mm: standard deviation of the blur, the pixel included.
    """

    def __init__(self, radii_mm: NDArray[Any], sigma_mm: float) -> None:
        self.radii_mm = np.asarray(radii_mm, dtype=np.float32)
        radius = self.radii_mm[:, None] / np.float32(sigma_mm)
        edge = np.linspace(-_REACH, _REACH, _NODES, dtype=np.float32)
        self._table = _blurred_disk(np.maximum(radius + edge, 0), radius)
        self._per_mm = np.float32((_NODES - 1) / (2 * _REACH * sigma_mm))

    def __call__(self, index: NDArray[np.intp], distance_mm: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the profile of disk ``index`` at each distance from its centre, mm; both arrays have one shape."""
        place = (distance_mm - self.radii_mm[index]) * self._per_mm + np.float32((_NODES - 1) / 2)
        place = np.clip(place, 0, np.float32(_NODES - 1.001))
        node = place.astype(np.intp)
        table, start = self._table.reshape(-1), index * _NODES + node
        low = table[start]
        return low + (table[start + 1] - low) * (place - node.astype(np.float32))


@lru_cache(maxsize=8)
def phantom_disks(sigma_mm: float) -> DiskProfiles:
    """Return the profiles of the phantom's 16 disks, in the order of ``DIAMETERS_MM``."""
    return DiskProfiles(np.array(DIAMETERS_MM) / 2, sigma_mm)


def total_blur_mm(blur_mm: float, spacing_mm: tuple[float, float]) -> float:
    """Return the standard deviation of point spread function and pixel together: ``sqrt(blur^2 + pixel^2 / 12)``."""
    pixel_mm = math.sqrt(spacing_mm[0] * spacing_mm[1])
    return math.sqrt(blur_mm**2 + pixel_mm**2 / 12.0)


class Layers(NamedTuple):
    """Blurred contributions of the phantom to an image, without the bare plate; float32 arrays of one shape.

    Attributes:
        disks: relative loss of signal behind the gold disks, scatter included, 0..1.
        lines: fraction of a pixel covered by lines of the grid, 0..1.
        writing: fraction of a pixel covered by letters and digits, 0..1.
    """

    disks: NDArray[np.float32]
    lines: NDArray[np.float32]
    writing: NDArray[np.float32]


@dataclass(frozen=True)
class Changes:
    """Counterfactual changes to a phantom: parts that can be removed or scaled one by one.

    Args:
        disks: factor on the contrast of all disks, at least 0; 0 removes them.
        grid: factor on the contrast of the lines, at least 0.
        writing: factor on the contrast of letters and digits, at least 0.
        other_writing: whether the writing is rotated by 180 degrees about the centre.

    Raises:
        InvalidParameter: a factor is negative or not finite.
    """

    disks: float = 1.0
    grid: float = 1.0
    writing: float = 1.0
    other_writing: bool = False

    def __post_init__(self) -> None:
        for name in ("disks", "grid", "writing"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InvalidParameter(f"{name} must be finite and at least 0, got {value}")


UNCHANGED = Changes()
"""The phantom without changes."""


def signal_at(
    acquisition: Acquisition,
    layout: Layout,
    rows: NDArray[Any],
    cols: NDArray[Any],
    changes: Changes = UNCHANGED,
) -> NDArray[np.float32]:
    """Return noise-free pixel values, attenuation bright, neither rounded nor clipped.

    A value is ``BACKGROUND + I0 - I (1 - D)``: I0 is the signal behind the bare plate, I the same with its heel effect,
    D the blurred relative loss of signal behind gold. The bare plate therefore has the same value at every dose, as in
    images that a device prepares for presentation, while contrasts grow with the dose.

    Lines of the grid are not blurred along their length, because they always end on another line. The plate has no
    edge.

    Args:
        acquisition: the exposure.
        layout: position of the phantom in the image.
        rows: rows of the pixels, any shape.
        cols: columns of the pixels, in a shape that broadcasts with that of ``rows``.
        changes: parts of the phantom to remove or scale.

    Returns:
        float32 array of the broadcast shape.
    """
    disks, lines, writing = layers_at(acquisition, layout, rows, cols, other_writing=changes.other_writing)
    contrast = float(acquisition.contrast(np.array(layout.grid_um)))
    loss = disks
    if changes.disks != 1:
        loss *= np.float32(changes.disks)
    lines *= np.float32(contrast * changes.grid)
    writing *= np.float32(contrast * changes.writing)
    loss += lines
    loss += writing
    np.subtract(1, loss, out=loss)
    loss *= exposure_at(acquisition, layout, cols)
    return np.subtract(np.float32(BACKGROUND + acquisition.exposure_signal), loss, out=loss)


def exposure_at(acquisition: Acquisition, layout: Layout, cols: NDArray[Any]) -> NDArray[np.float32]:
    """Return the signal behind the bare plate at columns of the image, heel effect included, in pixel values."""
    middle = np.float32((layout.image_shape[1] - 1) / 2)
    right_mm = (np.asarray(cols).astype(np.float32) - middle) * np.float32(layout.spacing_mm[1])
    return np.float32(acquisition.exposure_signal) * (1 + right_mm * np.float32(acquisition.heel_per_100mm / 100.0))


def layers_at(
    acquisition: Acquisition,
    layout: Layout,
    rows: NDArray[Any],
    cols: NDArray[Any],
    *,
    other_writing: bool = False,
) -> Layers:
    """Return disks, lines and writing separately; arguments as in `signal_at`."""
    x, y = layout.to_phantom(np.asarray(rows), np.asarray(cols))
    sigma_mm = total_blur_mm(acquisition.blur_mm, layout.spacing_mm)
    a, b = phantom_to_cell(x, y)
    r, c = np.floor(a), np.floor(b)
    a, b = (a - r - np.float32(0.5)).reshape(-1), (b - c - np.float32(0.5)).reshape(-1)
    r, c = (np.clip(index.reshape(-1), -_RING, 15 + _RING).astype(np.intp) + _RING for index in (r, c))
    disks, lines, writing = (np.zeros(x.size, dtype=np.float32) for _ in Layers._fields)
    inside = _EXISTS[r, c]
    _add_disks(disks, acquisition, sigma_mm, inside, r, c, a, b)
    _add_lines(lines, sigma_mm, r, c, a, b)
    outside = np.flatnonzero(~inside)
    side = np.float32(-1 if other_writing else 1)
    writing[outside] = lettering.coverage(side * x.reshape(-1)[outside], side * y.reshape(-1)[outside])
    return Layers(disks.reshape(x.shape), lines.reshape(x.shape), writing.reshape(x.shape))


def _add_disks(
    loss: NDArray[np.float32],
    acquisition: Acquisition,
    sigma_mm: float,
    inside: NDArray[np.bool_],
    r: NDArray[np.intp],
    c: NDArray[np.intp],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
) -> None:
    """Add the disks in the middle and in the true corner; (a, b) are offsets from the centre of the cell, in cells."""
    profiles = phantom_disks(sigma_mm)
    contrasts = acquisition.contrast(np.array(THICKNESSES_UM)).astype(np.float32)
    reach = np.float32(((DIAMETERS_MM[0] / 2 + _REACH * sigma_mm) / CELL_MM) ** 2)
    quarter = np.float32(0.25)
    middle = a * a + b * b
    corner = np.square(np.abs(a) - quarter) + np.square(np.abs(b) - quarter)  # of the nearest of the four
    near = np.flatnonzero((np.minimum(middle, corner) < reach) & inside)
    row, column, a, b = r[near] - _RING, c[near] - _RING, a[near], b[near]
    in_corner = np.square(a - _CORNER_A[row, column]) + np.square(b - _CORNER_B[row, column])
    # The two disks of a cell never overlap: only the nearer one contributes.
    distance = np.sqrt(np.minimum(middle[near], in_corner)) * np.float32(CELL_MM)
    loss[near] += contrasts[column] * profiles(row, distance)


def _add_lines(
    lines: NDArray[np.float32],
    sigma_mm: float,
    r: NDArray[np.intp],
    c: NDArray[np.intp],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
) -> None:
    """Add the lines along all borders of existing cells; where two lines cross, the union of their areas counts."""
    half = np.float32(0.5)
    to_a, to_b = half - np.abs(a), half - np.abs(b)
    reach = np.float32((LINE_WIDTH_MM / 2 + 4 * sigma_mm) / CELL_MM)
    near = np.flatnonzero(np.minimum(to_a, to_b) < reach)
    r, c, a, b = r[near], c[near], a[near], b[near]
    beyond_a, beyond_b = r + np.where(a > 0, 1, -1), c + np.where(b > 0, 1, -1)
    here = _EXISTS[r, c]
    # Cells at both ends of the padded array are absent, so an index may wrap around.
    last = 16 + 2 * _RING
    along_b = here | _EXISTS[beyond_a % last, c]
    along_a = here | _EXISTS[r, beyond_b % last]
    first = along_b * _line_profile(to_a[near] * np.float32(CELL_MM), sigma_mm)
    second = along_a * _line_profile(to_b[near] * np.float32(CELL_MM), sigma_mm)
    lines[near] = first + second - first * second


def _line_profile(distance_mm: NDArray[np.float32], sigma_mm: float) -> NDArray[np.float32]:
    scale, half = np.float32(1 / (math.sqrt(2.0) * sigma_mm)), np.float32(LINE_WIDTH_MM / 2)
    return np.float32(0.5) * (erf((distance_mm + half) * scale) - erf((distance_mm - half) * scale))


def _blurred_disk(distance: NDArray[np.float32], radius: NDArray[np.float32]) -> NDArray[np.float32]:
    """Integrate a disk against a Gaussian; distances and radii are in standard deviations of the Gaussian."""
    low, high = np.maximum(distance - 5, 0), np.minimum(distance + 5, radius)
    half = np.maximum(high - low, 0)[..., None] / 2
    r, d = low[..., None] + half * (1 + _ABSCISSAE), distance[..., None]
    return np.sum(_WEIGHTS * half * r * np.exp(-np.square(r - d) / 2) * i0e(r * d), axis=-1)
