"""Lung around a nodule in an axial CT slice: parenchyma, vessels, fissure, chest wall with ribs, and noise.

Levels in Hounsfield units are those of textbooks; numbers and sizes of the structures were chosen by eye.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, rfft2
from scipy.ndimage import distance_transform_edt
from scipy.special import expit

from radlens.phantoms.fields import power_law, walks

__all__ = ["FIELD_MM", "NOISE_HU", "SOFT_TISSUE_HU", "Grid", "draw_lung", "draw_noise"]

FIELD_MM = 45.0
"""Height and width of a patch, mm (Nibali et al. 2017)."""

SOFT_TISSUE_HU = 35.0
"""Level of vessels, muscle and solid nodules, HU; the last differ from it by some 20 HU."""

NOISE_HU = (12.0, 26.0)
"""Range of the standard deviation of the noise, HU: from standard to low dose."""

_P_WALL, _P_FISSURE = 0.35, 0.15
_STEP_MM = 0.3


class Grid:
    """Points of a patch in mm from its centre.

    Attributes:
        shape: rows and columns.
        spacing_mm: (row, column) distance between pixels, mm.
        y: (h, 1) float32, positive down.
        x: (1, w) float32, positive right.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.spacing_mm = (FIELD_MM / shape[0], FIELD_MM / shape[1])
        y, x = (((np.arange(n) + 0.5) / n - 0.5) * FIELD_MM for n in shape)
        self.y, self.x = y.astype(np.float32)[:, None], x.astype(np.float32)[None, :]


def draw_lung(rng: np.random.Generator, grid: Grid) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw lung without a nodule: (h, w) in HU without blur and noise, and the share of lung, not chest wall, 0..1.

    Vessels come from one side, as from the hilum, branch and taper; vessels across the slice are dots. A third of the
    patches have chest wall, at least 11 mm from the centre, with ribs and fat.
    """
    base, vessels, wall, fissure = (np.random.default_rng(part) for part in rng.integers(2**63, size=4))
    hilum = base.uniform(0, math.tau)
    lung = np.float32(base.uniform(-890, -810)) + np.float32(base.uniform(0, 1.2)) * grid.y
    lung = lung + np.float32(base.uniform(12, 28)) * power_law(
        base, grid.shape, grid.spacing_mm, beta=3.2, outer_mm=9.0, inner_mm=0.5
    )
    if fissure.random() < _P_FISSURE:
        line = _bent(grid, fissure.uniform(0, math.tau), fissure.uniform(6, 18), fissure.uniform(-0.006, 0.006))
        lung = lung + np.float32(fissure.uniform(90, 220)) * np.exp(-np.square(line / np.float32(0.5)))
    share = _vessels(vessels, grid, hilum)
    lung = lung + share * (np.float32(SOFT_TISSUE_HU) - lung)
    if wall.random() < _P_WALL:
        # Chest wall lies on the other side than the hilum.
        outside, tissue = _wall(wall, grid, hilum + math.pi + wall.normal(0, 0.5))
        return (lung + outside * (tissue - lung)).astype(np.float32), (1 - outside).astype(np.float32)
    return lung.astype(np.float32), np.ones(grid.shape, dtype=np.float32)


def draw_noise(rng: np.random.Generator, grid: Grid) -> NDArray[np.float32]:
    """Draw noise (h, w) in HU, with the ramp spectrum of filtered back-projection and the cut-off of a lung kernel."""
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    rows, columns = (
        np.fft.fftfreq(grid.shape[0], grid.spacing_mm[0]),
        np.fft.rfftfreq(grid.shape[1], grid.spacing_mm[1]),
    )
    frequency = np.hypot(rows[:, None], columns[None, :])
    amplitude = np.sqrt(frequency + 0.02) * np.exp(-np.square(frequency / rng.uniform(0.5, 0.65)))
    noise = irfft2(rfft2(white) * amplitude, s=grid.shape)
    return (rng.uniform(*NOISE_HU) * noise / max(float(noise.std()), 1e-6)).astype(np.float32)


def _bent(grid: Grid, angle: float, distance_mm: float, bend: float) -> NDArray[np.float32]:
    """Return the signed distance to a line that bends by ``bend`` mm for each square millimetre along it."""
    along = grid.x * np.float32(math.cos(angle)) + grid.y * np.float32(math.sin(angle))
    across = grid.y * np.float32(math.cos(angle)) - grid.x * np.float32(math.sin(angle))
    return (along - np.float32(distance_mm) + np.float32(bend) * np.square(across)).astype(np.float32)


class _Points:
    """Points of the centre lines of vessels: place and radius in mm, and the share of the slice that they fill."""

    def __init__(self) -> None:
        self.parts: list[NDArray[np.float64]] = []

    def add(self, y: Any, x: Any, radius: Any, share: Any) -> None:
        """Add points of one vessel; each value is a number or one per point."""
        self.parts.append(np.stack(np.broadcast_arrays(*(np.atleast_1d(each) for each in (y, x, radius, share)))))

    def table(self) -> NDArray[np.float64]:
        """(4, n): y, x, radius and share of each point."""
        return np.concatenate(self.parts, axis=1)


def _vessels(rng: np.random.Generator, grid: Grid, hilum: float) -> NDArray[np.float32]:
    """Return the share of vessel in each pixel, 0..1."""
    points, away = _Points(), hilum + math.pi
    for _ in range(int(rng.integers(1, 3))):
        side, distance = rng.uniform(-20, 20), rng.uniform(2, 26)
        y = distance * math.sin(hilum) + side * math.cos(hilum)
        x = distance * math.cos(hilum) - side * math.sin(hilum)
        _grow(rng, points, (y, x), away + rng.normal(0, 0.4), rng.uniform(0.5, 1.5), rng.uniform(8, 28))
    for _ in range(int(rng.integers(4, 11))):
        start = (rng.uniform(-23, 23), rng.uniform(-23, 23))
        _grow(rng, points, start, away + rng.normal(0, 0.8), rng.uniform(0.22, 0.48), rng.uniform(2, 10))
    for _ in range(int(rng.integers(1, 6))):
        points.add(rng.uniform(-23, 23), rng.uniform(-23, 23), rng.uniform(0.35, 1.7), rng.uniform(0.6, 1.0))
    return _tubes(grid, points.table())


def _grow(
    rng: np.random.Generator,
    points: _Points,
    start: tuple[float, float],
    heading: float,
    radius_mm: float,
    length_mm: float,
) -> None:
    """Add a vessel that tapers to half its radius and leaves the slice at its end, and its branches."""
    down, right = walks(rng, np.array([heading]), length_mm, _STEP_MM, bend=0.25)
    y, x = start[0] + down[0], start[1] + right[0]
    radius = np.linspace(radius_mm, radius_mm / 2, y.size)
    filled = np.linspace(length_mm, 0, y.size) / rng.uniform(1.5, 6)
    points.add(y, x, radius, np.minimum(filled, 1) * rng.uniform(0.6, 1.0))
    if radius_mm > 0.5 and length_mm > 5:
        for _ in range(int(rng.integers(1, 3))):
            # Two equal daughters have 0.79 times the radius of their parent (Murray's law).
            k = int(rng.integers(y.size // 4, y.size))
            turn = rng.choice([-1, 1]) * rng.uniform(0.35, 1.05)
            _grow(rng, points, (float(y[k]), float(x[k])), heading + turn, 0.79 * float(radius[k]), 0.7 * length_mm)


def _tubes(grid: Grid, points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the share of tubes in each pixel, from the table of `_Points`."""
    y, x, radius, filled = points
    found = np.zeros(grid.shape, dtype=np.float32)
    row = np.floor((y / FIELD_MM + 0.5) * grid.shape[0]).astype(np.intp)
    column = np.floor((x / FIELD_MM + 0.5) * grid.shape[1]).astype(np.intp)
    inside = (row >= 0) & (row < grid.shape[0]) & (column >= 0) & (column < grid.shape[1])
    # Thick and thin tubes apart: near a thin branch, a pixel of the thick tube must still see the thick one.
    for low, high in ((0.0, 0.45), (0.45, 0.9), (0.9, math.inf)):
        chosen = inside & (radius >= low) & (radius < high)
        if not chosen.any():
            continue
        place = row[chosen], column[chosen]
        widest, share = np.zeros(grid.shape), np.zeros(grid.shape)
        np.maximum.at(widest, place, radius[chosen])
        np.maximum.at(share, place, filled[chosen])
        away, nearest = distance_transform_edt(widest == 0, sampling=grid.spacing_mm, return_indices=True)
        at = tuple(nearest)
        found = np.maximum(found, (share[at] * expit((widest[at] - away) / 0.18)).astype(np.float32))
    return found


def _wall(rng: np.random.Generator, grid: Grid, angle: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the share of chest wall in each pixel, beyond a bent line, and its level: muscle, fat and a rib, HU."""
    distance = rng.uniform(11, 20)
    depth = _bent(grid, angle, distance, rng.uniform(0.004, 0.014))
    fat = power_law(rng, grid.shape, grid.spacing_mm, beta=3.0, outer_mm=8.0, inner_mm=1.0, stretch=2.0)
    fat_share = expit((fat - rng.uniform(0.2, 1.2)) / 0.25) * expit((depth - 2.0) / 0.3)
    wall = np.float32(SOFT_TISSUE_HU + 15) - np.float32(140) * fat_share
    if rng.random() < 0.6:
        across = grid.y * np.float32(math.cos(angle)) - grid.x * np.float32(math.sin(angle))
        along = (across - np.float32(rng.uniform(-14, 14))) / np.float32(rng.uniform(7, 14))
        rib = np.sqrt(np.square(along) + np.square((depth - np.float32(rng.uniform(4.5, 6))) / np.float32(3.0)))
        bone = 250 + 450 * np.exp(-np.square((rib - 0.85) / 0.18))
        wall = wall + expit((1 - rib) / 0.05) * (bone - wall)
    return expit(depth / np.float32(0.3)), wall
