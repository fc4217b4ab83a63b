"""Pulmonary nodules: size, outline, margin, texture and calcification, and how often each occurs in either class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from radlens.errors import InvalidParameter
from radlens.phantoms.features import Levels, draw_features
from radlens.phantoms.fields import check_choice, check_range, harmonics, power_law, strands, walks, wave
from radlens.phantoms.nodule.lung import SOFT_TISSUE_HU, Grid

__all__ = [
    "CATEGORIES",
    "CHANGED_HU",
    "CORRELATION",
    "DIAMETERS_MM",
    "MARGINS",
    "ODDS",
    "REFERENCE",
    "SHAPES",
    "SIZES",
    "TEXTURES",
    "DrawnNodule",
    "Nodule",
    "draw_nodule",
    "sample_nodule",
]

CATEGORIES = ("benign", "malignant")
"""Categories of a nodule."""

DIAMETERS_MM = {"small": (6.0, 9.0), "medium": (9.0, 13.0), "large": (13.0, 21.0)}
"""Range of the mean diameter by size, mm."""

SIZES = tuple(DIAMETERS_MM)
"""Sizes."""

SHAPES = ("round", "lobulated")
"""Shapes of the outline."""

MARGINS = ("smooth", "indistinct", "spiculated")
"""Margins: sharp, blurred, or with strands that reach into the lung."""

TEXTURES = ("solid", "nonsolid", "part-solid")
"""Textures: soft tissue, ground glass through which vessels are seen, or ground glass around a solid core."""

ODDS: dict[str, Levels] = {
    "size": {"small": (0.60, 0.18), "medium": (0.29, 0.42), "large": (0.11, 0.40)},
    "shape": {"round": (0.75, 0.35), "lobulated": (0.25, 0.65)},
    "margin": {"smooth": (0.68, 0.21), "indistinct": (0.24, 0.35), "spiculated": (0.08, 0.44)},
    "texture": {"solid": (0.86, 0.48), "nonsolid": (0.11, 0.17), "part-solid": (0.03, 0.35)},
    "calcification": {"yes": (0.26, 0.04), "no": (0.74, 0.96)},
}
"""Share of benign and of malignant nodules with each level of a feature.

Texture: the counts of Henschke et al., AJR 178 (2002) 1053 (189 solid, 28 nonsolid and 16 part-solid nodules, of which
14, 5 and 10 were malignant). Margin: the likelihood ratios of Gurney, Radiology 186 (1993) 405, 5.5 for spiculated and
0.3 for smooth, and the 21 % of malignant nodules with smooth margins of Erasmus et al., RadioGraphics 20 (2000) 43,
which also has the 25 % of benign nodules with lobulated outlines. The likelihood ratio of a large nodule is about that
of Gurney for 2 to 3 cm, 3.7, at smaller diameters, since a patch is 45 mm wide. The other shares of sizes, those of
calcification and that of lobulated malignant nodules are round numbers of our own.
"""

CORRELATION = 0.05
"""Correlation of features within a class, see `draw_features`: with it, a logistic regression on all true features
reaches an AUC of 0.92 (``radlens overlap nodule``)."""

REFERENCE = {"size": "small", "shape": "round", "margin": "smooth", "texture": "solid", "calcification": "no"}
"""Level of each feature that changes no pixel: the pixels of another level are those that differ from it."""

CHANGED_HU = 40.0
"""A feature has changed a pixel if it changed the noise-free level by more than this, HU: about the noise."""


_TAIL = 0.05
"""Share of a nodule below which a pixel has none of it, and above one minus which it has nothing else."""


@dataclass(frozen=True)
class Nodule:
    """A nodule; its pixels follow from its features, and ``malignant`` is only the label.

    Args:
        malignant: whether the nodule is malignant.
        diameter_mm: mean diameter, 4..24 mm; its range decides the size.
        shape: shape of the outline, one of ``SHAPES``.
        margin: one of ``MARGINS``.
        texture: one of ``TEXTURES``.
        calcification: whether calcium lies in the solid part; a nonsolid nodule has none.

    Raises:
        InvalidParameter: a value is out of range, or a nonsolid nodule is calcified.
    """

    malignant: bool = False
    diameter_mm: float = 7.0
    shape: str = "round"
    margin: str = "smooth"
    texture: str = "solid"
    calcification: bool = False

    def __post_init__(self) -> None:
        check_range("diameter_mm", self.diameter_mm, 4.0, 24.0)
        check_choice("shape", self.shape, SHAPES)
        check_choice("margin", self.margin, MARGINS)
        check_choice("texture", self.texture, TEXTURES)
        if self.calcification and self.texture == "nonsolid":
            raise InvalidParameter("calcification must be in a solid part, got a nonsolid nodule")

    @property
    def size(self) -> str:
        """One of ``SIZES``."""
        return next((name for name, (_, high) in DIAMETERS_MM.items() if self.diameter_mm <= high), SIZES[-1])

    @property
    def features(self) -> dict[str, str]:
        """The level of every feature."""
        return {
            "size": self.size,
            "shape": self.shape,
            "margin": self.margin,
            "texture": self.texture,
            "calcification": "yes" if self.calcification else "no",
        }

    def without(self, feature: str) -> Nodule:
        """Return the nodule with one feature at its level in ``REFERENCE``; a small nodule keeps its diameter.

        Raises:
            InvalidParameter: the feature is not in ``REFERENCE``.
        """
        check_choice("feature", feature, list(REFERENCE))
        if feature == "size":
            return replace(self, diameter_mm=min(self.diameter_mm, sum(DIAMETERS_MM["small"]) / 2))
        plain: dict[str, Any] = {feature: False if feature == "calcification" else REFERENCE[feature]}
        return replace(self, **plain)


@dataclass(frozen=True, eq=False)
class DrawnNodule:
    """A nodule in lung.

    Args:
        hounsfield: (h, w) float32, lung with the nodule, HU.
        share: (h, w) float32, share of the nodule in each pixel, 0..1, its spicules included.
    """

    hounsfield: NDArray[np.float32]
    share: NDArray[np.float32] = field(repr=False)


def sample_nodule(rng: np.random.Generator, malignant: bool) -> Nodule:
    """Draw a nodule with the shares of ``ODDS``; each level occurs in both classes.

    A nonsolid nodule is drawn without calcification, whatever the shares.
    """
    place = rng.random()
    drawn = draw_features(rng, ODDS, malignant, CORRELATION)
    low, high = DIAMETERS_MM[drawn["size"]]
    return Nodule(
        malignant,
        # Never the limit itself, which is of the smaller size.
        high - (high - low) * place * 0.999,
        drawn["shape"],
        drawn["margin"],
        drawn["texture"],
        drawn["calcification"] == "yes" and drawn["texture"] != "nonsolid",
    )


def draw_nodule(rng: np.random.Generator, nodule: Nodule, lung: NDArray[np.float32], grid: Grid) -> DrawnNodule:
    """Put a nodule into the middle of lung.

    Each feature has random numbers of its own: nodules that differ in one feature differ in the pixels of that feature.

    Args:
        rng: source of randomness.
        nodule: the nodule.
        lung: (h, w) float32, HU.
        grid: grid of ``lung``.
    """
    place, outline, lobes, edge, spicule, glass, core, calcium = (
        np.random.default_rng(part) for part in rng.integers(2**63, size=8)
    )
    dy, dx = place.normal(0, 0.7, 2)
    y, x = grid.y - np.float32(dy), grid.x - np.float32(dx)
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    limit = np.float32(nodule.diameter_mm / 2) * (1 + wave(harmonics(outline, {2: 0.1, 3: 0.03, 5: 0.02}), angle))
    if nodule.shape == "lobulated":
        limit = limit * (1 + wave(harmonics(lobes, {3: 0.12, 4: 0.15, 5: 0.15, 7: 0.07}), angle))
    inside = _inside(edge, nodule.margin, limit - radius, grid)
    level = np.float32(SOFT_TISSUE_HU + place.normal(0, 15))
    hounsfield, share = lung, inside
    if nodule.margin == "spiculated":
        lines = _spicules(spicule, nodule, (float(dy), float(dx)), limit, angle, grid)
        hounsfield = hounsfield + np.float32(0.85) * lines * (level - hounsfield)
        share = np.maximum(share, lines)
    dense = inside
    if nodule.texture != "solid":
        opacity = np.float32(glass.uniform(0.24, 0.4))
        mottle = np.float32(1) + np.float32(0.25) * power_law(
            glass, grid.shape, grid.spacing_mm, outer_mm=4.0, inner_mm=0.4
        )
        hounsfield = hounsfield + np.clip(opacity * mottle, 0, 1) * inside * (level - hounsfield)
        dense = np.zeros_like(inside)
    if nodule.texture == "part-solid":
        ratio, off = core.uniform(0.4, 0.65), core.normal(0, 0.1 * nodule.diameter_mm, 2).astype(np.float32)
        irregular = 1 + wave(harmonics(core, {2: 0.15, 3: 0.15, 5: 0.1}), angle)
        reach = np.float32(ratio * nodule.diameter_mm / 2) * irregular - np.hypot(y - off[0], x - off[1])
        dense = expit(reach / np.float32(0.45)) * inside
    if nodule.texture != "nonsolid":
        hounsfield = hounsfield + dense * (level - hounsfield)
    if nodule.calcification:
        size = np.float32(calcium.uniform(0.35, 0.75) * nodule.diameter_mm / 2)
        shift = calcium.normal(0, 0.06 * nodule.diameter_mm, 2).astype(np.float32)
        lump = expit((size - np.hypot(y - shift[0], x - shift[1])) / np.float32(0.3)) * dense
        hounsfield = hounsfield + lump * (np.float32(calcium.uniform(180, 420)) - hounsfield)
    return DrawnNodule(hounsfield.astype(np.float32), share.astype(np.float32))


def _inside(rng: np.random.Generator, margin: str, inward: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
    """Return the share of the nodule in each pixel, which rises at the margin."""
    sharp, blurred, rough = rng.uniform(0.15, 0.3), rng.uniform(0.8, 1.2), rng.uniform(0.6, 1.0)
    ragged = np.float32(rough) * power_law(rng, grid.shape, grid.spacing_mm, beta=2.5, outer_mm=3.0, inner_mm=0.3)
    depth = {
        "smooth": inward / np.float32(sharp),
        "indistinct": (inward + ragged) / np.float32(blurred),
        "spiculated": (inward + np.float32(0.7) * ragged) / np.float32(0.4),
    }[margin]
    # Without its tails, a blurred margin ends some 4 mm beyond the outline.
    return np.clip((expit(depth) - _TAIL) / (1 - 2 * _TAIL), 0, 1)


def _spicules(
    rng: np.random.Generator,
    nodule: Nodule,
    centre_mm: tuple[float, float],
    limit: NDArray[np.float32],
    angle: NDArray[np.float32],
    grid: Grid,
) -> NDArray[np.float32]:
    """Return strands that leave the nodule along its radii and fade, 1 at their root."""
    n, step, longest = int(rng.integers(9, 20)), _step(grid), 8.0
    headings = np.sort(rng.uniform(0, math.tau, n))
    length = rng.uniform(3.0, longest, (n, 1)) * min(1.0, 0.6 + nodule.diameter_mm / 30)
    down, right = walks(rng, headings, longest, step, bend=0.2)
    # The strand starts a little inside the outline, whose radius depends on the direction.
    order = np.argsort(angle, axis=None)
    wrapped = (headings + math.pi) % math.tau - math.pi
    root = 0.8 * np.interp(wrapped, angle.ravel()[order], limit.ravel()[order], period=math.tau)
    y = centre_mm[0] + (root * np.sin(headings))[:, None] + down + 22.5
    x = centre_mm[1] + (root * np.cos(headings))[:, None] + right + 22.5
    along = np.linspace(0, longest, down.shape[1]) / length
    crest = (1 - 0.7 * along) * (along < 1)
    sigma = float(rng.uniform(0.3, 0.45))
    return np.minimum(strands(grid.shape, grid.spacing_mm, y, x, crest, sigma_mm=sigma, step_mm=step), 1)


def _step(grid: Grid) -> float:
    return 0.5 * min(grid.spacing_mm)


def suspicion(features: Mapping[str, str]) -> float:
    """Return the log-odds of malignancy of features that are independent within each class."""
    shares = [ODDS[name][level] for name, level in features.items()]
    return sum(math.log(malignant / benign) for benign, malignant in shares)
