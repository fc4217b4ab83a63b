"""Outline of the breast, pectoral muscle and region of glandular tissue, for the views CC and MLO.

All shapes are smooth functions of x, the distance to the right of the chest wall, and y, the distance down from the
upper edge of the image, both in mm: any window can be drawn at any pixel spacing. The numbers are chosen by eye.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radlens.phantoms.fields import harmonics, wave

__all__ = ["DENSITIES", "LATERALITIES", "VIEWS", "Anatomy", "sample_anatomy"]

VIEWS = ("CC", "MLO")
"""Cranio-caudal and mediolateral oblique."""

LATERALITIES = ("L", "R")
"""Left breast: chest wall at the left edge of the image; right breast: at the right edge."""

DENSITIES = ("A", "B", "C", "D")
"""Breast composition of BI-RADS (5th edition): almost entirely fat ... extremely dense."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The shape of one breast in one view.

    Args:
        view: one of ``VIEWS``.
        depth_mm: distance from chest wall to nipple, mm.
        level_mm: y at which the axis from chest wall to nipple starts, mm.
        half_heights_mm: extents of the outline above and below that axis, mm.
        slant: descent of the axis, mm per mm.
        exponent: exponent of the superellipse that forms the outline.
        terms: (n, 3) terms of the outline from `harmonics`.
        nipple: (angle, height in mm, width in radians) of the nipple on the outline.
        pectoral_mm: width at the upper edge, height at the chest wall and bow of the pectoral muscle, mm; None if the
            image does not show the muscle.
        roll_off_mm: distance from the skin over which the compressed breast reaches its full thickness, mm.
        gland: (y, x, half height, half depth) in mm of the region where glandular tissue is likely.
    """

    view: str
    depth_mm: float
    level_mm: float
    half_heights_mm: tuple[float, float]
    slant: float
    exponent: float
    terms: NDArray[np.float64]
    nipple: tuple[float, float, float]
    pectoral_mm: tuple[float, float, float] | None
    roll_off_mm: float
    gland: tuple[float, float, float, float]

    def skin_distance(self, y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float32]:
        """Return the distance to the skin, mm, positive inside; exact at the skin, up to 10 % too large further in."""
        down = (y - np.float32(self.level_mm) - np.float32(self.slant) * x).astype(np.float32)
        x = x + np.zeros_like(down)
        height = np.where(down < 0, *(np.float32(half) for half in self.half_heights_mm))
        q = np.float32(self.exponent)
        radius = np.hypot(x, down) + np.float32(1e-3)
        reach = (np.abs(x / np.float32(self.depth_mm)) ** q + np.abs(down / height) ** q) ** (-1 / q)
        angle = np.arctan2(down, x)
        place, bump_mm, width = (np.float32(value) for value in self.nipple)
        bump = bump_mm * np.exp(-(np.abs((angle - place) / width) ** 3))
        return radius * (reach * (1 + wave(self.terms, angle)) - 1) + bump

    def muscle_distance(self, y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float32]:
        """Return the distance to the edge of the pectoral muscle in mm, positive inside; -1000 without a muscle."""
        if self.pectoral_mm is None:
            return np.full(np.broadcast_shapes(y.shape, x.shape), -1000, dtype=np.float32)
        width, height, bow = self.pectoral_mm
        along = np.clip(y / height, 0, 1)
        inside = (width * height - height * x - width * y) / math.hypot(width, height)
        return (inside + 4 * bow * along * (1 - along)).astype(np.float32)

    def gland_prior(self, y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float32]:
        """Return 1 where gland is most likely, 0 at the edge of its region, negative values outside."""
        middle_y, middle_x, half_y, half_x = self.gland
        square = ((y - middle_y) / half_y) ** 2 + ((x - middle_x) / half_x) ** 2
        return np.maximum(1 - square, -1.5).astype(np.float32)


def sample_anatomy(rng: np.random.Generator, view: str, field_mm: tuple[float, float]) -> Anatomy:
    """Draw a breast that fills a field of ``field_mm`` = (height, width)."""
    height, width = field_mm
    depth = rng.uniform(0.62, 0.93) * min(width, 125.0)
    if view == "CC":
        level = height * rng.uniform(0.46, 0.54)
        half = min(0.95 * min(level, height - level), depth * rng.uniform(0.9, 1.25))
        halves, slant, muscle = (
            (half * rng.uniform(0.88, 1.0), half * rng.uniform(0.88, 1.0)),
            rng.uniform(-0.06, 0.06),
            None,
        )
    else:
        level = height * rng.uniform(0.5, 0.58)
        halves = (level * rng.uniform(1.15, 1.5), (height - level) * rng.uniform(0.75, 0.9))
        slant = rng.uniform(0.0, 0.15)
        muscle = (depth * rng.uniform(0.35, 0.62), height * rng.uniform(0.38, 0.68), rng.uniform(-3.0, 7.0))
    return Anatomy(
        view=view,
        depth_mm=depth,
        level_mm=level,
        half_heights_mm=halves,
        slant=slant,
        exponent=rng.uniform(1.85, 2.25),
        terms=harmonics(rng, {2: 0.025, 3: 0.018, 5: 0.006}),
        nipple=(rng.uniform(-0.06, 0.06), rng.uniform(3.0, 6.0) * (rng.random() < 0.7), rng.uniform(3.0, 4.5) / depth),
        pectoral_mm=muscle,
        roll_off_mm=rng.uniform(0.2, 0.32) * depth,
        gland=(
            level + depth * rng.uniform(-0.25, 0.05 if view == "MLO" else 0.25),
            depth * rng.uniform(0.45, 0.6),
            0.75 * min(halves),
            depth * rng.uniform(0.42, 0.55),
        ),
    )
