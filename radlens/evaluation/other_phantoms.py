"""Images of phantoms other than CDMAM 3.4 with the same exposure: other disks between the same lines, other layouts.

CDMAM 4.0: the manufacturer states 672 disks of 21 diameters from 0.08 to 2.00 mm, 16 thicknesses for each, four
alternatives as in 3.4, and 0.012 to 0.105 um for the disks of 2.00 mm. The matrix is upright and 16 cells wide. It
consists of blocks with gaps of half a cell, the first of 10 diameters and the second of 4 (read-out scripts of the FDA
on GitHub, CDMAM-4.0-DLMO-research-science-tool, also the source of the thickest disks of 14 diameters). Assumed here:
cells of 8 mm, the last 7 diameters and their thicknesses, thicknesses that grow by equal factors, and random corners.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.special import erf

from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.acquisition import BACKGROUND, MAX_VALUE, noise_kernel
from radlens.phantoms.cdmam.geometry import CORNER_OFFSETS, LINE_WIDTH_MM, cell_to_phantom
from radlens.phantoms.cdmam.signal import DiskProfiles, total_blur_mm

__all__ = ["Disks", "cdmam_4", "disk_loss", "exposed", "true_disks"]

CELL_MM_4 = 8.0
"""Side of a cell of CDMAM 4.0, mm (assumed)."""

BLOCKS_4 = (10, 4, 7)
"""Rows of cells in each block of CDMAM 4.0."""

_DIAMETERS_4 = (
    *(2.00, 1.70, 1.40, 1.20, 1.00, 0.88, 0.77, 0.66, 0.57, 0.50),
    *(0.42, 0.35, 0.30, 0.25),
    *(0.20, 0.17, 0.14, 0.12, 0.10, 0.09, 0.08),
)
_THICKEST_4 = (
    *(0.105, 0.105, 0.106, 0.106, 0.129, 0.147, 0.168, 0.191, 0.208, 0.240),
    *(0.264, 0.341, 0.446, 0.549),
    *(0.70, 0.88, 1.15, 1.45, 1.85, 2.15, 2.50),
)
_N_COLUMNS_4 = 16
_SPAN_4 = 8.75  # thickest over thinnest disk of one diameter
_REACH_MM = 0.6  # distance from its edge beyond which the blur of a disk is negligible


class Disks(NamedTuple):
    """Gold disks of a phantom, (n,) each.

    Attributes:
        x: Distance to the right of the centre of the phantom, mm.
        y: Distance downwards from the centre, mm.
        diameter_mm: Diameter of the disks, mm.
        thickness_um: Thickness of the gold, um; negative for holes.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    diameter_mm: NDArray[np.float64]
    thickness_um: NDArray[np.float64]


def true_disks(corner: NDArray[np.intp] | None = None, *, offset: float = 0.25) -> Disks:
    """Return the 410 disks of a CDMAM 3.4.

    Args:
        corner: (16, 16) corner 0..3 of the second disk of each cell; by default the true corners.
        offset: distance of the second disk from the middle of its cell along either axis, in cells.
    """
    corner = cdmam.TRUE_CORNER if corner is None else corner
    r, c = np.nonzero(cdmam.CELL_EXISTS)
    sides = np.sign(CORNER_OFFSETS)[corner[r, c]] * offset
    a, b = np.concatenate([r, r + sides[:, 0]]) + 0.5, np.concatenate([c, c + sides[:, 1]]) + 0.5
    x, y = cell_to_phantom(a, b)
    diameter, thickness = np.array(cdmam.DIAMETERS_MM)[r], np.array(cdmam.THICKNESSES_UM)[c]
    return Disks(x, y, np.tile(diameter, 2), np.tile(thickness, 2))


def disk_loss(acquisition: cdmam.Acquisition, layout: cdmam.Layout, disks: Disks) -> NDArray[np.float32]:
    """Return the relative loss of signal behind disks, scatter included, in the shape of the image."""
    loss = np.zeros(layout.image_shape, np.float32)
    sigma_mm = total_blur_mm(acquisition.blur_mm, layout.spacing_mm)
    diameters, index = np.unique(disks.diameter_mm, return_inverse=True)
    profiles = DiskProfiles(diameters / 2, sigma_mm)
    contrasts = np.sign(disks.thickness_um) * acquisition.contrast(np.abs(disks.thickness_um))
    rows, cols = layout.to_pixels(disks.x, disks.y)
    for k, (row, col) in enumerate(zip(rows, cols, strict=True)):
        reach = disks.diameter_mm[k] / 2 + _REACH_MM
        part = tuple(
            slice(max(0, math.floor(place - reach / step)), max(0, math.ceil(place + reach / step) + 1))
            for place, step in zip((row, col), layout.spacing_mm, strict=True)
        )
        near = loss[part]
        if near.size:
            down = (np.arange(part[0].start, part[0].start + near.shape[0])[:, None] - row) * layout.spacing_mm[0]
            right = (np.arange(part[1].start, part[1].start + near.shape[1]) - col) * layout.spacing_mm[1]
            distance = np.hypot(down, right).astype(np.float32)
            near += np.float32(contrasts[k]) * profiles(np.full(distance.shape, index[k]), distance)
    return loss


def exposed(
    acquisition: cdmam.Acquisition, layout: cdmam.Layout, loss: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the noisy image of a plate with a given relative loss of signal, rounded and clipped to 12 bits.

    Args:
        acquisition: the exposure.
        layout: shape of the image.
        loss: (H, W) relative loss of signal, 0..1.
        rng: source of the noise.
    """
    noise = rng.standard_normal(layout.image_shape, dtype=np.float32)
    kernel = noise_kernel(acquisition.noise_sigma_px).astype(np.float32)
    for axis in (0, 1):
        noise = correlate1d(noise, kernel, axis=axis, mode="wrap")
    plate = cdmam.exposure_at(acquisition, layout, np.arange(layout.image_shape[1]))
    pixels = np.float32(BACKGROUND + acquisition.exposure_signal) - plate * (1 - loss)
    return np.rint(pixels + np.float32(acquisition.noise_level) * noise).clip(0, MAX_VALUE)


def cdmam_4(
    acquisition: cdmam.Acquisition, layout: cdmam.Layout, rng: np.random.Generator, *, grid_um: float = 1.0
) -> NDArray[np.float32]:
    """Return the relative loss of signal behind a CDMAM 4.0 as assumed here: an upright matrix in three blocks.

    Args:
        acquisition: the exposure.
        layout: shape of the image and position of the middle of the matrix.
        rng: source of the corners.
        grid_um: thickness of gold with the attenuation of the lines, um.
    """
    half_width = _N_COLUMNS_4 * CELL_MM_4 / 2
    tops = np.cumsum([0.0, *((n + 0.5) * CELL_MM_4 for n in BLOCKS_4)])
    tops -= (tops[-1] - 0.5 * CELL_MM_4) / 2
    loss = disk_loss(acquisition, layout, _disks_4(tops, half_width, rng))
    lines = _lines_4(layout, tops, half_width, total_blur_mm(acquisition.blur_mm, layout.spacing_mm))
    return loss + np.float32(acquisition.contrast(np.array(grid_um))) * lines


def _disks_4(tops: NDArray[np.float64], half_width: float, rng: np.random.Generator) -> Disks:
    rows = np.concatenate([top + (np.arange(n) + 0.5) * CELL_MM_4 for top, n in zip(tops, BLOCKS_4, strict=False)])
    columns = (np.arange(_N_COLUMNS_4) + 0.5) * CELL_MM_4 - half_width
    y, x = (each.reshape(-1) for each in np.meshgrid(rows, columns, indexing="ij"))
    diameter = np.repeat(_DIAMETERS_4, _N_COLUMNS_4)
    steps = np.tile(np.linspace(-math.log(_SPAN_4), 0, _N_COLUMNS_4), len(rows))
    thickness = np.repeat(_THICKEST_4, _N_COLUMNS_4) * np.exp(steps)
    side = CELL_MM_4 / 4 * rng.choice([-1, 1], (2, len(x)))
    return Disks(
        np.concatenate([x, x + side[0]]), np.concatenate([y, y + side[1]]), np.tile(diameter, 2), np.tile(thickness, 2)
    )


def _lines_4(
    layout: cdmam.Layout, tops: NDArray[np.float64], half_width: float, sigma_mm: float
) -> NDArray[np.float32]:
    rows, cols = (np.arange(size) for size in layout.image_shape)
    x, y = layout.to_phantom(rows[:, None], cols)
    lines = np.zeros(layout.image_shape, np.float32)
    inside = np.abs(x) < half_width + LINE_WIDTH_MM / 2
    across = _comb(x + np.float32(half_width), sigma_mm)
    for top, n in zip(tops, BLOCKS_4, strict=False):
        within = inside & (y > top - LINE_WIDTH_MM / 2) & (y < top + n * CELL_MM_4 + LINE_WIDTH_MM / 2)
        down = _comb(y - np.float32(top), sigma_mm)
        lines[within] = np.maximum(across, down)[within]
    return lines


def _comb(distance_mm: NDArray[np.float32], sigma_mm: float) -> NDArray[np.float32]:
    """Return the coverage by blurred lines at all multiples of the cell size."""
    nearest = distance_mm - np.float32(CELL_MM_4) * np.rint(distance_mm / np.float32(CELL_MM_4))
    scale, half = np.float32(1 / (math.sqrt(2.0) * sigma_mm)), np.float32(LINE_WIDTH_MM / 2)
    return np.float32(0.5) * (erf((nearest + half) * scale) - erf((nearest - half) * scale))
