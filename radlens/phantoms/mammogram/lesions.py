"""Masses and calcifications of a mammogram, with the names of shapes and margins from BI-RADS (5th edition)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.special import expit

from radlens.phantoms.fields import check_choice, check_range, harmonics, power_law, strands, walks, wave
from radlens.phantoms.mammogram.tissue import GLAND_OVER_FAT, Window

__all__ = [
    "CALCIFICATION_SHAPES",
    "MASS_SHAPES",
    "Calcifications",
    "Drawn",
    "Lesion",
    "Mass",
    "draw_lesion",
    "sample_lesion",
]

MASS_SHAPES = ("round", "oval", "lobulated", "spiculated")
"""Shapes of masses; spiculated ones are malignant, the others benign."""

CALCIFICATION_SHAPES = ("round", "pleomorphic")
"""Shapes of calcifications: round and uniform (benign), or small and dense with varying size and shape (malignant)."""


@dataclass(frozen=True)
class Mass:
    """A mass.

    Args:
        shape: one of ``MASS_SHAPES``.
        diameter_mm: longest diameter of the outline, 1..80 mm; spicules reach further.
        contrast: attenuation above that of fat, in units of gland over fat, 0.05..3; in gland the visible contrast is
            lower.

    Raises:
        InvalidParameter: a value is out of range.
    """

    shape: str = "oval"
    diameter_mm: float = 14.0
    contrast: float = 0.8

    def __post_init__(self) -> None:
        check_choice("shape", self.shape, MASS_SHAPES)
        check_range("diameter_mm", self.diameter_mm, 1.0, 80.0)
        check_range("contrast", self.contrast, 0.05, 3.0)

    @property
    def malignant(self) -> bool:
        """Whether the shape is that of a cancer."""
        return self.shape == "spiculated"


@dataclass(frozen=True)
class Calcifications:
    """A cluster of calcifications.

    Args:
        shape: one of ``CALCIFICATION_SHAPES``.
        diameter_mm: diameter of the circle that holds the cluster, 1..80 mm.
        n: number of calcifications, 1..200.
        contrast: attenuation of a calcification of 1 mm, in units of gland over fat, 0.05..5; smaller calcifications
            have less.

    Raises:
        InvalidParameter: a value is out of range.
    """

    shape: str = "pleomorphic"
    diameter_mm: float = 10.0
    n: int = 18
    contrast: float = 2.0

    def __post_init__(self) -> None:
        check_choice("shape", self.shape, CALCIFICATION_SHAPES)
        check_range("diameter_mm", self.diameter_mm, 1.0, 80.0)
        check_range("n", self.n, 1, 200)
        check_range("contrast", self.contrast, 0.05, 5.0)

    @property
    def malignant(self) -> bool:
        """Whether the shape is that of a cancer."""
        return self.shape == "pleomorphic"


Lesion = Mass | Calcifications
"""A lesion of a mammogram."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A lesion on the pixels of a part of a window.

    Args:
        part: rows and columns of the part within the window.
        added: (rows, columns) float32, attenuation to add to the part.
        mask: (rows, columns) bool, true inside the outline of a mass, or inside the convex hull of calcifications with
            a rim of half a millimetre.
    """

    part: tuple[slice, slice]
    added: NDArray[np.float32]
    mask: NDArray[np.bool_]


def sample_lesion(rng: np.random.Generator, malignant: bool, p_calcifications: float = 0.3) -> Lesion:
    """Draw a lesion; its shape depends on whether it is malignant, its size and contrast do not."""
    if rng.random() < p_calcifications:
        shape = CALCIFICATION_SHAPES[int(malignant)]
        return Calcifications(shape, rng.uniform(6.0, 18.0), int(rng.integers(8, 30)), rng.uniform(1.8, 3.2))
    shape = "spiculated" if malignant else str(rng.choice(MASS_SHAPES[:3]))
    diameter = math.exp(rng.uniform(math.log(8.0), math.log(26.0)))
    return Mass(shape, diameter, rng.uniform(0.7, 1.2))


def draw_lesion(
    rng: np.random.Generator, lesion: Lesion, window: Window, centre_mm: tuple[float, float], gland: NDArray[np.float32]
) -> Drawn:
    """Draw a lesion onto the part of the window around it.

    Args:
        rng: source of randomness.
        lesion: the lesion to draw.
        window: the window; it must contain the centre.
        centre_mm: (y, x) of the centre, mm.
        gland: (height, width) of the window, the fraction of gland, which a mass displaces in part.
    """
    reach = lesion.diameter_mm * (1.6 if isinstance(lesion, Mass) else 0.6) + 3.0

    def along(axis: int) -> slice:
        middle = (centre_mm[axis] - window.origin_mm[axis]) / window.spacing_mm[axis]
        pixels = reach / window.spacing_mm[axis]
        return slice(max(math.floor(middle - pixels), 0), min(math.ceil(middle + pixels), window.image_shape[axis]))

    part = along(0), along(1)
    y, x = (window.y - centre_mm[0])[part[0]], (window.x - centre_mm[1])[:, part[1]]
    draw = _draw_mass if isinstance(lesion, Mass) else _draw_calcifications
    added, mask = draw(rng, lesion, window.spacing_mm, y, x)  # type: ignore[arg-type]
    if isinstance(lesion, Mass):
        added *= 1 - np.float32(0.3) * gland[part]
    mask[np.argmin(np.abs(y)), np.argmin(np.abs(x))] = True  # a lesion smaller than a pixel still has a mask
    return Drawn(part, added, mask)


def _radius(rng: np.random.Generator, shape: str, angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the radius of the outline at each angle, in an arbitrary unit."""
    aspect = rng.uniform(1.35, 1.9) if shape == "oval" else rng.uniform(1.0, 1.2)
    turned = angle - rng.uniform(0, math.pi)
    ellipse = 1 / np.sqrt(np.cos(turned) ** 2 + aspect**2 * np.sin(turned) ** 2)
    if shape == "lobulated":
        lobes, phase = int(rng.integers(3, 6)), rng.uniform(0, math.tau)
        # Lobes of equal width would look artificial.
        uneven = angle + rng.uniform(0.2, 0.6) * np.sin(angle - rng.uniform(0, math.tau))
        bulge = np.abs(np.cos(lobes / 2 * uneven + phase)) ** 0.8
        return ellipse * (1 + rng.uniform(0.22, 0.4) * bulge)
    terms = (
        {2: 0.1, 3: 0.12, 4: 0.1, 5: 0.1, 7: 0.09, 9: 0.08, 13: 0.06} if shape == "spiculated" else {2: 0.02, 3: 0.03}
    )
    return ellipse * (1 + wave(harmonics(rng, terms), angle))


def _draw_mass(
    rng: np.random.Generator, mass: Mass, spacing_mm: tuple[float, float], y: NDArray[Any], x: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    spiculated = mass.shape == "spiculated"
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    table = np.linspace(-math.pi, math.pi, 721)
    outline = _radius(rng, mass.shape, table)
    # The table has a node each half degree: 360 nodes further lies the opposite point, so the sums are diameters.
    outline *= mass.diameter_mm / np.max(outline[:-1] + np.roll(outline[:-1], 360))
    limit = np.interp(angle, table, outline).astype(np.float32)
    margin = np.float32(mass.diameter_mm * (rng.uniform(0.03, 0.06) if spiculated else rng.uniform(0.008, 0.025)))
    inside = radius / limit
    dome = np.float32(0.62) + np.float32(0.38) * np.sqrt(np.clip(1 - np.square(inside), 0, 1))
    added = (dome * expit((limit - radius) / margin)).astype(np.float32)
    added *= 1 + np.float32(0.07) * power_law(rng, radius.shape, spacing_mm, outer_mm=6.0)
    if spiculated:
        added += _spicules(rng, mass, spacing_mm, y, x)
    return added * np.float32(mass.contrast * GLAND_OVER_FAT), radius <= limit


def _spicules(
    rng: np.random.Generator, mass: Mass, spacing_mm: tuple[float, float], y: NDArray[Any], x: NDArray[Any]
) -> NDArray[np.float32]:
    """Return thin lines that leave the mass in all directions and fade, in units of the height of the mass."""
    corner = y[0, 0] - spacing_mm[0] / 2, x[0, 0] - spacing_mm[1] / 2
    step = 0.5 * math.sqrt(spacing_mm[0] * spacing_mm[1])
    n, size = int(rng.integers(16, 30)), mass.diameter_mm
    headings = np.linspace(0, math.tau, n, endpoint=False) + rng.uniform(0, math.tau) + rng.normal(0, 0.2, n)
    start, length = rng.uniform(0.2, 0.4, n) * size, rng.uniform(0.2, 1.0, (n, 1)) * size
    down, right = walks(rng, headings, size, step, bend=0.2)
    py = (start * np.sin(headings))[:, None] - corner[0] + down
    px = (start * np.cos(headings))[:, None] - corner[1] + right
    along = np.linspace(0, size, down.shape[1]) / length
    crest = rng.uniform(0.12, 0.45, (n, 1)) * np.sin(0.6 + (math.pi - 0.6) * np.minimum(along, 1)) * (along < 1)
    shape = y.shape[0], x.shape[1]
    return strands(shape, spacing_mm, py, px, crest, sigma_mm=max(0.22, 0.013 * size), step_mm=step)


def _draw_calcifications(
    rng: np.random.Generator,
    cluster: Calcifications,
    spacing_mm: tuple[float, float],
    y: NDArray[Any],
    x: NDArray[Any],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    round_ones = cluster.shape == "round"
    angle, far = rng.uniform(0, math.tau, cluster.n), np.sqrt(rng.uniform(0, 1, cluster.n))
    flat, tilt = rng.uniform(0.5, 1.0), rng.uniform(0, math.tau)
    long, short = far * np.cos(angle), far * np.sin(angle) * flat
    half = max(cluster.diameter_mm / 2 - 0.5, 0.0)
    cy = half * (long * math.sin(tilt) + short * math.cos(tilt))
    cx = half * (long * math.cos(tilt) - short * math.sin(tilt))
    sizes = (
        rng.uniform(0.55, 0.9, cluster.n)
        if round_ones
        else np.exp(rng.uniform(math.log(0.2), math.log(0.8), cluster.n))
    )
    added = np.zeros((y.shape[0], x.shape[1]), dtype=np.float32)
    for i in range(cluster.n):
        aspect = 1.0 if round_ones else rng.uniform(1.3, 3.5)
        _add_speck(added, y - cy[i], x - cx[i], sizes[i], aspect, rng.uniform(0, math.pi), spacing_mm)
    return (added * np.float32(cluster.contrast * GLAND_OVER_FAT)).astype(np.float32), _hull(y, x, cy, cx, rim_mm=0.5)


def _add_speck(
    added: NDArray[np.float32],
    y: NDArray[Any],
    x: NDArray[Any],
    size_mm: float,
    aspect: float,
    turn: float,
    spacing_mm: tuple[float, float],
) -> None:
    """Add one calcification as a Gaussian of height 1 per mm, blurred by the pixel and by 0.06 mm.

    The blur preserves the integral.
    """
    long, short = 0.35 * size_mm * math.sqrt(aspect), 0.35 * size_mm / math.sqrt(aspect)
    blur = spacing_mm[0] * spacing_mm[1] / 12 + 0.06**2
    wide_long, wide_short = math.sqrt(long**2 + blur), math.sqrt(short**2 + blur)
    height = size_mm * (long * short) / (wide_long * wide_short)
    near = np.ix_(np.abs(y[:, 0]) < 4 * wide_long, np.abs(x[0]) < 4 * wide_long)
    ny, nx = y[near[0][:, 0]], x[:, near[1][0]]
    u, v = nx * math.cos(turn) + ny * math.sin(turn), ny * math.cos(turn) - nx * math.sin(turn)
    added[near] += height * np.exp(-0.5 * (np.square(u / wide_long) + np.square(v / wide_short)))


def _hull(y: NDArray[Any], x: NDArray[Any], cy: NDArray[Any], cx: NDArray[Any], rim_mm: float) -> NDArray[np.bool_]:
    """Return the pixels in the convex hull of disks of radius ``rim_mm`` around the points."""
    around = np.arange(8) * (math.tau / 8)
    points = np.stack(
        [(cy[:, None] + rim_mm * np.sin(around)).ravel(), (cx[:, None] + rim_mm * np.cos(around)).ravel()], 1
    )
    inside = np.ones((y.shape[0], x.shape[1]), dtype=bool)
    for down, right, offset in ConvexHull(points).equations:
        inside &= down * y + right * x + offset <= 0
    return inside
