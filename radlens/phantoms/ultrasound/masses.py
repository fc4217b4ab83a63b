"""Masses of the breast in ultrasound: shape, margin, echo pattern and posterior features of BI-RADS (5th edition)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.special import expit

from radlens.phantoms.features import Levels, draw_features
from radlens.phantoms.fields import check_choice, check_range, harmonics, power_law, strands, walks, wave
from radlens.phantoms.ultrasound.layers import GLAND_DB

__all__ = [
    "CHANGED_DB",
    "CORRELATION",
    "MARGINS",
    "ODDS",
    "POSTERIOR",
    "RIMS",
    "SHAPES",
    "TEXTURES",
    "DrawnMass",
    "Mass",
    "draw_mass",
    "sample_mass",
]

SHAPES = ("oval", "irregular")
"""Shapes of the outline."""

MARGINS = ("circumscribed", "indistinct", "spiculated")
"""Margins: sharp with refraction at the edges, blurred, or blurred with dark lines that reach into the surroundings."""

RIMS = ("none", "capsule", "halo")
"""What surrounds the mass: nothing, a thin bright line, or a broad echogenic halo."""

TEXTURES = ("homogeneous", "heterogeneous")
"""Echo patterns within the mass."""

POSTERIOR = ("none", "enhancement", "shadow", "combined")
"""Posterior features; "combined": one part of the mass enhances, the other shadows."""

ODDS: dict[str, Levels] = {
    "shape": {"oval": (0.763, 0.277), "irregular": (0.237, 0.723)},
    "orientation": {"parallel": (0.870, 0.468), "not parallel": (0.130, 0.532)},
    "margin": {"circumscribed": (0.611, 0.128), "indistinct": (0.378, 0.737), "spiculated": (0.011, 0.135)},
    "posterior": {
        "enhancement": (0.40, 0.15),
        "none": (0.45, 0.35),
        "combined": (0.05, 0.10),
        "shadow": (0.10, 0.40),
    },
    "rim": {"capsule": (0.40, 0.08), "none": (0.48, 0.47), "halo": (0.12, 0.45)},
    "texture": {"homogeneous": (0.70, 0.40), "heterogeneous": (0.30, 0.60)},
    "calcifications": {"no": (0.92, 0.70), "yes": (0.08, 0.30)},
}
"""Share of benign and of malignant masses with each level of a feature.

Shape, orientation and margin: the counts of Hong et al., AJR 184 (2005) 1260 (262 benign and 141 malignant solid
masses); its few round masses count as oval. The other features differ significantly between the classes there and in
Costantini et al., Radiol. Med. 112 (2007) 877, and a thin capsule speaks for benign in Stavros et al., Radiology 196
(1995) 123; their shares are round numbers of our own.
"""

CORRELATION = 0.25
"""Correlation of features within a class, see `draw_features`: with it, a logistic regression on all true features
reaches an AUC of 0.90 (``radlens overlap``), and with independent features 0.95."""

CHANGED_DB = 2.0
"""A feature has changed a pixel if it changed the echo level by more than this, dB: about 10 of 255 grey levels."""

_P_CYST = 0.06


@dataclass(frozen=True)
class Mass:
    """A mass; its pixels follow from its features, and ``malignant`` is only the label.

    Args:
        malignant: whether the mass is malignant.
        width_mm: extent along the skin, 1..60 mm.
        height_mm: extent along the beam, 1..60 mm.
        echo_db: echo level relative to gland, -45..-3 dB; a cyst is below -30.
        posterior: posterior feature, one of ``POSTERIOR``.
        shape: shape of the outline, one of ``SHAPES``.
        margin: one of ``MARGINS``.
        rim: one of ``RIMS``.
        texture: echo pattern, one of ``TEXTURES``.
        calcifications: whether bright specks lie in the mass.

    Raises:
        InvalidParameter: a value is out of range.
    """

    malignant: bool = False
    width_mm: float = 14.0
    height_mm: float = 9.0
    echo_db: float = -14.0
    posterior: str = "enhancement"
    shape: str = "oval"
    margin: str = "circumscribed"
    rim: str = "none"
    texture: str = "homogeneous"
    calcifications: bool = False

    def __post_init__(self) -> None:
        check_range("width_mm", self.width_mm, 1.0, 60.0)
        check_range("height_mm", self.height_mm, 1.0, 60.0)
        check_range("echo_db", self.echo_db, -45.0, -3.0)
        check_choice("posterior", self.posterior, POSTERIOR)
        check_choice("shape", self.shape, SHAPES)
        check_choice("margin", self.margin, MARGINS)
        check_choice("rim", self.rim, RIMS)
        check_choice("texture", self.texture, TEXTURES)

    @property
    def features(self) -> dict[str, str | float]:
        """Every feature of the mass but its label and its size: words for levels, numbers for measures."""
        return {
            "shape": self.shape,
            "orientation": "parallel" if self.width_mm > self.height_mm else "not parallel",
            "margin": self.margin,
            "posterior": self.posterior,
            "rim": self.rim,
            "texture": self.texture,
            "calcifications": "yes" if self.calcifications else "no",
            "log_aspect": math.log(self.width_mm / self.height_mm),
            "echo_db": self.echo_db,
        }


@dataclass(frozen=True, eq=False)
class DrawnMass:
    """A mass in a map of echo levels.

    Args:
        echo_db: (H, W) float32, echo level of the tissue with the mass, dB.
        mask: (H, W) bool, the mass within its outline.
        changed: (H, W) bool by feature: pixels whose echo level the feature changes by more than ``CHANGED_DB``. Only
            features that are present are listed; "margin" lists the pixels in which mass and tissue mix.
    """

    echo_db: NDArray[np.float32]
    mask: NDArray[np.bool_]
    changed: Mapping[str, NDArray[np.bool_]]


def sample_mass(rng: np.random.Generator, malignant: bool) -> Mass:
    """Draw a mass with the shares of ``ODDS``; its area does not depend on whether it is malignant.

    No feature gives the class away: each level occurs in both classes, except that cysts (6 % of the benign masses) are
    benign.
    """
    diameter, place, cystic = rng.uniform(7.0, 15.0), rng.random(), rng.random()
    drawn = draw_features(rng, ODDS, malignant, CORRELATION)
    aspect = 1.05 + 0.95 * place if drawn["orientation"] == "parallel" else 0.62 + 0.36 * place
    cyst, level = not malignant and cystic < _P_CYST, rng.random()
    return Mass(
        malignant,
        diameter * math.sqrt(aspect),
        diameter / math.sqrt(aspect),
        -40.0 + 10.0 * level if cyst else -19.0 + 10.0 * level,
        "enhancement" if cyst else drawn["posterior"],
        drawn["shape"],
        drawn["margin"],
        drawn["rim"],
        drawn["texture"],
        drawn["calcifications"] == "yes",
    )


def draw_mass(
    rng: np.random.Generator,
    mass: Mass,
    echo_db: NDArray[np.float32],
    spacing_mm: tuple[float, float],
    centre_mm: tuple[float, float],
) -> DrawnMass:
    """Put a mass into a map of echo levels.

    Each feature has random numbers of its own: masses that differ in one feature differ in the pixels of that feature.

    Args:
        rng: source of randomness.
        mass: the mass to draw.
        echo_db: (H, W) float32, echo level of the tissue, dB.
        spacing_mm: (row, column) distance between pixels, mm.
        centre_mm: (depth, x) of the centre of the mass, mm.
    """
    outline, edge, inner, rim, spicule, speck, behind, refraction = (
        np.random.default_rng(part) for part in rng.integers(2**63, size=8)
    )
    z = ((np.arange(echo_db.shape[0]) + 0.5) * spacing_mm[0] - centre_mm[0]).astype(np.float32)[:, None]
    x = ((np.arange(echo_db.shape[1]) + 0.5) * spacing_mm[1] - centre_mm[1]).astype(np.float32)[None, :]
    inward, angle = _inward_mm(outline, mass, z, x)
    mask = inward >= 0
    mask[np.argmin(np.abs(z)), np.argmin(np.abs(x))] = True  # a mass smaller than a pixel still has a mask
    inside = _inside(edge, mass, inward, spacing_mm)
    pattern = inner.uniform(1.8, 3.2) if mass.texture == "heterogeneous" else inner.uniform(0.3, 1.2)
    texture = np.float32(pattern) * power_law(inner, echo_db.shape, spacing_mm, outer_mm=5.0)
    level = GLAND_DB + mass.echo_db + texture
    parts: dict[str, NDArray[np.float32]] = {}
    if mass.rim != "none":
        parts["rim"] = {"capsule": _capsule, "halo": _halo}[mass.rim](rim, inward, angle)
    if mass.margin == "spiculated":
        parts["spicules"] = -np.float32(10) * _spicules(spicule, mass, echo_db.shape, spacing_mm, centre_mm)
    specks = _calcifications(speck, mask, spacing_mm) if mass.calcifications else np.float32(0)
    around = sum(parts.values(), start=echo_db)
    mixed = around + inside * (level + specks - around)
    parts = {name: part * (1 - inside) for name, part in parts.items()}
    if mass.calcifications:
        parts["calcifications"] = specks * inside
    if mass.texture == "heterogeneous":
        parts["texture"] = texture * inside
    if mass.posterior != "none":
        parts["posterior"] = _below(behind, mass, mask, x, spacing_mm)
        mixed = mixed + parts["posterior"]
    if mass.margin == "circumscribed":
        parts["edge shadows"] = _edge_shadows(refraction, mass, z, x)
        mixed = mixed + parts["edge shadows"]
    changed = {name: np.abs(part) > CHANGED_DB for name, part in parts.items()}
    changed["margin"] = np.abs(inside - np.float32(0.5)) < np.float32(0.45)
    return DrawnMass(mixed.astype(np.float32), mask, changed)


def _inside(
    rng: np.random.Generator, mass: Mass, inward: NDArray[np.float32], spacing_mm: tuple[float, float]
) -> NDArray[np.float32]:
    """Return the share of the mass in each pixel, 0..1, which rises at the margin."""
    if mass.margin == "circumscribed":
        return expit(inward / np.float32(rng.uniform(0.06, 0.12)))
    shape = inward.shape[0], inward.shape[1]
    blurred = inward + np.float32(0.45) * power_law(rng, shape, spacing_mm, beta=2.5, outer_mm=3.0)
    return expit(blurred / np.float32(rng.uniform(0.28, 0.55)))


def _inward_mm(
    rng: np.random.Generator, mass: Mass, z: NDArray[np.float32], x: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the distance to the outline along the radius, mm, positive inside, and the angle: 0 right, pi / 2 down."""
    oval = {2: 0.03, 3: 0.05} if rng.random() < 0.7 else {2: 0.03, 3: 0.08, 4: 0.06}
    irregular = {2: 0.06, 3: 0.11, 4: 0.1, 5: 0.1, 6: 0.08, 8: 0.08, 11: 0.06, 15: 0.05}
    terms = harmonics(rng, irregular if mass.shape == "irregular" else oval)
    turn = rng.normal(0, 0.15 if mass.shape == "irregular" else 0.06)
    angles = np.linspace(-math.pi, math.pi, 721)
    turned = angles - turn
    outline = 1 / np.hypot(np.cos(turned) / mass.width_mm, np.sin(turned) / mass.height_mm)
    outline *= 1 + wave(terms, angles)
    # The harmonics change width and height: the outline is scaled to those of the mass and centred.
    across, down = outline * np.cos(angles), outline * np.sin(angles)
    scale_x, scale_z = mass.width_mm / np.ptp(across), mass.height_mm / np.ptp(down)
    across, down = (across - across.max()) * scale_x, (down - down.max()) * scale_z
    across, down = across + mass.width_mm / 2, down + mass.height_mm / 2
    radius, angle = np.hypot(z, x), np.arctan2(z, x)
    outline_angle = np.unwrap(np.arctan2(down, across))
    limit = np.interp(angle, outline_angle, np.hypot(across, down), period=math.tau)
    return (limit - radius).astype(np.float32), angle


def _capsule(rng: np.random.Generator, inward: NDArray[np.float32], angle: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a thin bright line around the mass, dB; it fades at the sides, which are parallel to the beam."""
    line = np.exp(-np.square((inward + np.float32(0.15)) / np.float32(0.22)))
    return np.float32(rng.uniform(3, 7)) * line * (np.float32(0.3) + np.float32(0.7) * np.abs(np.sin(angle)))


def _halo(rng: np.random.Generator, inward: NDArray[np.float32], angle: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a broad echogenic halo, dB, strongest above the mass and weakest below."""
    wide = np.float32(rng.uniform(1.0, 2.2))
    band = np.exp(-np.square((inward + np.float32(0.8) * wide) / wide))
    return np.float32(rng.uniform(4.0, 9.0)) * band * (np.float32(0.65) - np.float32(0.35) * np.sin(angle))


def _spicules(
    rng: np.random.Generator,
    mass: Mass,
    image_shape: tuple[int, ...],
    spacing_mm: tuple[float, float],
    centre_mm: tuple[float, float],
) -> NDArray[np.float32]:
    """Return dark lines that reach from the mass into the rim, 1 at their root."""
    step = 0.5 * math.sqrt(spacing_mm[0] * spacing_mm[1])
    n = int(rng.integers(5, 15))
    headings, length = rng.uniform(0, math.tau, n), rng.uniform(2.0, 5.5, (n, 1))
    down, right = walks(rng, headings, 5.5, step, bend=0.15)
    z = (centre_mm[0] + 0.4 * mass.height_mm * np.sin(headings))[:, None] + down
    x = (centre_mm[1] + 0.4 * mass.width_mm * np.cos(headings))[:, None] + right
    along = np.linspace(0, 5.5, down.shape[1]) / length
    crest = (1 - 0.8 * along) * (along < 1)
    shape = image_shape[0], image_shape[1]
    return np.minimum(strands(shape, spacing_mm, z, x, crest, sigma_mm=0.22, step_mm=step), 1)


def _calcifications(
    rng: np.random.Generator, mask: NDArray[np.bool_], spacing_mm: tuple[float, float]
) -> NDArray[np.float32]:
    """Return 3 to 8 bright specks in the mass, dB."""
    specks = np.zeros(mask.shape, dtype=np.float32)
    rows, cols = np.nonzero(mask)
    chosen = rng.integers(0, rows.size, int(rng.integers(3, 9)))
    specks[rows[chosen], cols[chosen]] = 1
    specks = gaussian_filter(specks, [max(0.16 / step, 0.4) for step in spacing_mm], truncate=3.0)
    return specks * np.float32(18) / specks.max()


def _below(
    rng: np.random.Generator,
    mass: Mass,
    mask: NDArray[np.bool_],
    x: NDArray[np.float32],
    spacing_mm: tuple[float, float],
) -> NDArray[np.float32]:
    """Return posterior features, dB: gain or loss grows with the path of the beam through the mass."""
    path = np.cumsum(mask, axis=0, dtype=np.float32) * np.float32(spacing_mm[0])
    path = gaussian_filter1d(path, max(0.5 / spacing_mm[1], 0.3), axis=1, mode="nearest")
    gain, loss = rng.uniform(5.0, 9.0) / mass.height_mm, rng.uniform(11.0, 20.0) / mass.height_mm
    turn = rng.choice([-1.0, 1.0])
    part = expit(np.float32(turn) * (x + np.float32(0.15 * turn * mass.width_mm)) / np.float32(0.08 * mass.width_mm))
    per_mm = {
        "enhancement": np.full_like(part, gain),
        "shadow": np.full_like(part, -loss),
        "combined": gain - part * np.float32(gain + loss),
    }[mass.posterior]
    return path * per_mm


def _edge_shadows(
    rng: np.random.Generator, mass: Mass, z: NDArray[np.float32], x: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return two thin shadows behind the sides, dB: refraction at a sharp edge."""
    edge = np.exp(-np.square((np.abs(x) - np.float32(mass.width_mm / 2)) / np.float32(0.45)))
    return -np.float32(rng.uniform(0, 6)) * edge * expit(z / np.float32(1.0))
