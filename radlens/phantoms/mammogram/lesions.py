"""Masses and calcifications of a mammogram, with the names of shapes and margins from BI-RADS (5th edition)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.special import expit

from radlens.errors import InvalidParameter
from radlens.phantoms.features import Levels, draw_features
from radlens.phantoms.fields import check_choice, check_range, harmonics, power_law, strands, walks, wave
from radlens.phantoms.mammogram.tissue import GLAND_OVER_FAT, Window

__all__ = [
    "CALCIFICATION_ODDS",
    "CALCIFICATION_SHAPES",
    "CORRELATION",
    "DISTRIBUTIONS",
    "MARGINS",
    "MASS_ODDS",
    "MASS_SHAPES",
    "USUAL_MASSES",
    "Calcifications",
    "Drawn",
    "Lesion",
    "Mass",
    "Masses",
    "draw_lesion",
    "sample_lesion",
]

MASS_SHAPES = ("round", "oval", "lobulated", "irregular")
"""Shapes of masses."""

MARGINS = ("circumscribed", "indistinct", "spiculated")
"""Margins of masses: sharp, blurred, or blurred with thin lines that leave the mass in all directions."""

CALCIFICATION_SHAPES = ("round", "pleomorphic")
"""Shapes of calcifications: round and uniform, or small and dense with varying size and shape."""

DISTRIBUTIONS = ("grouped", "linear")
"""Distributions of calcifications: in a round cluster, or along a line."""

MASS_ODDS: dict[str, Levels] = {
    "shape": {"smooth": (0.79, 0.28), "irregular": (0.21, 0.72)},
    "margin": {"circumscribed": (0.60, 0.12), "indistinct": (0.367, 0.48), "spiculated": (0.033, 0.40)},
    "density": {"equal or low": (0.87, 0.50), "high": (0.13, 0.50)},
}
"""Share of benign and of malignant masses with each level of a feature; a smooth shape is round, oval or lobulated.

The odds ratios are those of Woods et al., Radiology 258 (2011) 417: irregular shape 9.9, spiculated margin 20.3, high
density 6.6.
"""

CALCIFICATION_ODDS: dict[str, Levels] = {
    "shape": {"round": (0.86, 0.18), "pleomorphic": (0.14, 0.82)},
    "distribution": {"grouped": (0.92, 0.50), "linear": (0.08, 0.50)},
}
"""Share of benign and of malignant clusters of calcifications with each level of a feature.

The shares are ours, so that the predictive values of pleomorphic shape and of linear distribution lie above those of
74 % (segmental) and 68 % (linear) of Liberman et al., AJR 171 (1998) 35, where 46 % of the lesions are malignant: that
study has no clusters that were never biopsied.
"""

CORRELATION = 0.1
"""Correlation of features within a class, see `draw_features`: with it, a logistic regression on all true features
reaches an AUC of 0.90 (``radlens overlap``)."""


CHANGED = 0.01
"""A feature has changed a pixel if it changed the attenuation by more than this: about 40 of 4095 grey levels, the
standard deviation of the noise."""


@dataclass(frozen=True)
class Mass:
    """A mass; its pixels follow from its features, and ``malignant`` is only the label.

    Args:
        shape: one of ``MASS_SHAPES``.
        diameter_mm: longest diameter of the outline, 1..80 mm; spicules reach further.
        contrast: attenuation above that of fat, in units of gland over fat, 0.05..3; in gland the visible contrast is
            lower.
        margin: one of ``MARGINS``.
        malignant: whether the mass is malignant.

    Raises:
        InvalidParameter: a value is out of range.
    """

    shape: str = "oval"
    diameter_mm: float = 14.0
    contrast: float = 0.8
    margin: str = "circumscribed"
    malignant: bool = False

    def __post_init__(self) -> None:
        check_choice("shape", self.shape, MASS_SHAPES)
        check_range("diameter_mm", self.diameter_mm, 1.0, 80.0)
        check_range("contrast", self.contrast, 0.05, 3.0)
        check_choice("margin", self.margin, MARGINS)

    @property
    def features(self) -> dict[str, str | float]:
        """Every feature of the mass but its label and its size: words for levels, numbers for measures."""
        return {"lesion": "mass", "shape": self.shape, "margin": self.margin, "contrast of mass": self.contrast}


@dataclass(frozen=True)
class Calcifications:
    """A cluster of calcifications; its pixels follow from its features, and ``malignant`` is only the label.

    Args:
        shape: one of ``CALCIFICATION_SHAPES``.
        diameter_mm: longest diameter of the cluster, 1..80 mm.
        n: number of calcifications, 1..200.
        contrast: attenuation of a calcification of 1 mm, in units of gland over fat, 0.05..5; smaller calcifications
            have less.
        distribution: one of ``DISTRIBUTIONS``.
        malignant: whether the cluster is malignant.

    Raises:
        InvalidParameter: a value is out of range.
    """

    shape: str = "pleomorphic"
    diameter_mm: float = 10.0
    n: int = 18
    contrast: float = 2.0
    distribution: str = "grouped"
    malignant: bool = False

    def __post_init__(self) -> None:
        check_choice("shape", self.shape, CALCIFICATION_SHAPES)
        check_range("diameter_mm", self.diameter_mm, 1.0, 80.0)
        check_range("n", self.n, 1, 200)
        check_range("contrast", self.contrast, 0.05, 5.0)
        check_choice("distribution", self.distribution, DISTRIBUTIONS)

    @property
    def features(self) -> dict[str, str | float]:
        """Every feature of the cluster but its label and its size: words for levels, numbers for measures."""
        return {
            "lesion": "calcifications",
            "shape": self.shape,
            "distribution": self.distribution,
            "n of calcifications": float(self.n),
            "contrast of calcifications": self.contrast,
        }


Lesion = Mass | Calcifications
"""A lesion of a mammogram."""


@dataclass(frozen=True)
class Masses:
    """How conspicuous drawn masses are, of any class.

    Args:
        diameter_mm: smallest and largest diameter, 1..80 mm; the logarithm is uniform.
        contrast: factor of the contrast, 0.1..2; with 1, it is 0.6 to 1.25 times that of gland over fat.

    Raises:
        InvalidParameter: a value is out of range.
    """

    diameter_mm: tuple[float, float] = (8.0, 26.0)
    contrast: float = 1.0

    def __post_init__(self) -> None:
        # JSON has lists.
        object.__setattr__(self, "diameter_mm", tuple(self.diameter_mm))
        if len(self.diameter_mm) != 2 or self.diameter_mm[0] > self.diameter_mm[1]:
            raise InvalidParameter(f"diameter_mm must be the smallest and the largest, got {self.diameter_mm}")
        for diameter in self.diameter_mm:
            check_range("diameter_mm", diameter, 1.0, 80.0)
        check_range("contrast", self.contrast, 0.1, 2.0)


USUAL_MASSES = Masses()
"""Masses that are drawn unless others are given."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A lesion on the pixels of a part of a window.

    Args:
        part: rows and columns of the part within the window.
        added: (rows, columns) float32, attenuation to add to the part.
        mask: (rows, columns) bool, true inside the outline of a mass, or inside the convex hull of calcifications with
            a rim of half a millimetre.
        changed: (rows, columns) bool by feature: pixels whose attenuation the feature changes by more than ``CHANGED``.
            Only features that are present are listed; "margin" lists the pixels in which mass and tissue mix.
    """

    part: tuple[slice, slice]
    added: NDArray[np.float32]
    mask: NDArray[np.bool_]
    changed: Mapping[str, NDArray[np.bool_]]


def sample_lesion(
    rng: np.random.Generator, malignant: bool, p_calcifications: float = 0.3, masses: Masses = USUAL_MASSES
) -> Lesion:
    """Draw a lesion with the shares of ``MASS_ODDS`` or ``CALCIFICATION_ODDS``; size does not depend on the class."""
    if rng.random() < p_calcifications:
        drawn = draw_features(rng, CALCIFICATION_ODDS, malignant, CORRELATION)
        diameter, n, contrast = rng.uniform(6.0, 18.0), int(rng.integers(8, 30)), rng.uniform(1.8, 3.2)
        return Calcifications(drawn["shape"], diameter, n, contrast, drawn["distribution"], malignant)
    drawn = draw_features(rng, MASS_ODDS, malignant, CORRELATION)
    low, high = map(math.log, masses.diameter_mm)
    smooth, diameter = str(rng.choice(MASS_SHAPES[:3])), math.exp(rng.uniform(low, high))
    contrast = rng.uniform(0.95, 1.25) if drawn["density"] == "high" else rng.uniform(0.6, 0.95)
    shape = "irregular" if drawn["shape"] == "irregular" else smooth
    return Mass(shape, diameter, masses.contrast * contrast, drawn["margin"], malignant)


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
    parts, mask, margin = draw(rng, lesion, window.spacing_mm, y, x)  # type: ignore[arg-type]
    if isinstance(lesion, Mass):
        parts = {name: added * (1 - np.float32(0.3) * gland[part]) for name, added in parts.items()}
    mask[np.argmin(np.abs(y)), np.argmin(np.abs(x))] = True  # a lesion smaller than a pixel still has a mask
    changed = {name: added > CHANGED for name, added in parts.items()}
    if margin is not None:
        changed["margin"] = margin
    return Drawn(part, np.sum(list(parts.values()), axis=0, dtype=np.float32), mask, changed)


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
        {2: 0.1, 3: 0.12, 4: 0.1, 5: 0.1, 7: 0.09, 9: 0.08, 13: 0.06} if shape == "irregular" else {2: 0.02, 3: 0.03}
    )
    return ellipse * (1 + wave(harmonics(rng, terms), angle))


_Parts = tuple[dict[str, NDArray[np.float32]], NDArray[np.bool_], NDArray[np.bool_] | None]
"""Attenuation that each feature adds, the mask of the lesion, and the pixels of its margin."""


def _draw_mass(
    rng: np.random.Generator, mass: Mass, spacing_mm: tuple[float, float], y: NDArray[Any], x: NDArray[Any]
) -> _Parts:
    # A generator for each feature: masses that differ in one feature differ in the pixels of that feature.
    shape, edge, texture, spicule = (np.random.default_rng(part) for part in rng.integers(2**63, size=4))
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    table = np.linspace(-math.pi, math.pi, 721)
    outline = _radius(shape, mass.shape, table)
    # The table has a node each half degree: 360 nodes further lies the opposite point, so the sums are diameters.
    outline *= mass.diameter_mm / np.max(outline[:-1] + np.roll(outline[:-1], 360))
    limit = np.interp(angle, table, outline).astype(np.float32)
    sharp = mass.margin == "circumscribed"
    wide = np.float32(mass.diameter_mm * (edge.uniform(0.008, 0.025) if sharp else edge.uniform(0.035, 0.07)))
    inside = radius / limit
    dome = np.float32(0.62) + np.float32(0.38) * np.sqrt(np.clip(1 - np.square(inside), 0, 1))
    share = expit((limit - radius) / wide)
    body = (dome * share).astype(np.float32)
    body *= 1 + np.float32(0.07) * power_law(texture, radius.shape, spacing_mm, outer_mm=6.0)
    height = np.float32(mass.contrast * GLAND_OVER_FAT)
    parts = {"mass": body * height}
    if mass.margin == "spiculated":
        parts["spicules"] = _spicules(spicule, mass, spacing_mm, y, x) * height
    return parts, radius <= limit, np.abs(share - np.float32(0.5)) < np.float32(0.45)


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
) -> _Parts:
    round_ones = cluster.shape == "round"
    angle, far = rng.uniform(0, math.tau, cluster.n), np.sqrt(rng.uniform(0, 1, cluster.n))
    flat = rng.uniform(0.5, 1.0) if cluster.distribution == "grouped" else rng.uniform(0.1, 0.2)
    tilt = rng.uniform(0, math.tau)
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
    added *= np.float32(cluster.contrast * GLAND_OVER_FAT)
    return {"calcifications": added}, _hull(y, x, cy, cx, rim_mm=0.5), None


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
