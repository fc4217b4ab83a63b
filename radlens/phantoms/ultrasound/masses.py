"""Masses of the breast in ultrasound: shape, margin, echo pattern and posterior features of BI-RADS (5th edition)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.special import expit

from radlens.phantoms.fields import check_choice, check_range, harmonics, power_law, strands, walks, wave
from radlens.phantoms.ultrasound.layers import GLAND_DB

__all__ = ["POSTERIOR", "Mass", "draw_mass", "sample_mass"]

POSTERIOR = ("none", "enhancement", "shadow", "combined")
"""Posterior features; "combined": one part of the mass enhances, the other shadows."""


@dataclass(frozen=True)
class Mass:
    """A mass.

    Args:
        malignant: whether the mass is irregular with an ill-defined margin and an echogenic rim; a benign mass is
            smooth and has a thin capsule.
        width_mm: extent along the skin, 1..60 mm.
        height_mm: extent along the beam, 1..60 mm.
        echo_db: echo level relative to gland, -45..-3 dB; a cyst is below -30.
        posterior: posterior feature, one of ``POSTERIOR``.

    Raises:
        InvalidParameter: a value is out of range.
    """

    malignant: bool = False
    width_mm: float = 14.0
    height_mm: float = 9.0
    echo_db: float = -14.0
    posterior: str = "enhancement"

    def __post_init__(self) -> None:
        check_range("width_mm", self.width_mm, 1.0, 60.0)
        check_range("height_mm", self.height_mm, 1.0, 60.0)
        check_range("echo_db", self.echo_db, -45.0, -3.0)
        check_choice("posterior", self.posterior, POSTERIOR)


def sample_mass(rng: np.random.Generator, malignant: bool) -> Mass:
    """Draw a mass; area and (except for cysts) echo level do not depend on whether the mass is malignant.

    Most benign masses are wider than tall and enhance, most malignant ones are taller than wide and shadow; both have
    exceptions, so that neither feature alone gives the class away.
    """
    diameter = rng.uniform(7.0, 15.0)
    if malignant:
        aspect = rng.uniform(0.62, 1.1) if rng.random() < 0.65 else rng.uniform(1.1, 1.6)
    else:
        aspect = rng.uniform(1.3, 2.2) if rng.random() < 0.85 else rng.uniform(0.95, 1.3)
    odds = (0.2, 0.06, 0.6, 0.14) if malignant else (0.34, 0.54, 0.06, 0.06)
    cyst = not malignant and rng.random() < 0.15
    echo = rng.uniform(-40.0, -30.0) if cyst else rng.uniform(-19.0, -9.0)
    posterior = "enhancement" if cyst else str(rng.choice(POSTERIOR, p=odds))
    return Mass(malignant, diameter * math.sqrt(aspect), diameter / math.sqrt(aspect), echo, posterior)


def draw_mass(
    rng: np.random.Generator,
    mass: Mass,
    echo_db: NDArray[np.float32],
    spacing_mm: tuple[float, float],
    centre_mm: tuple[float, float],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Put a mass into a map of echo levels.

    Args:
        rng: source of randomness.
        mass: the mass to draw.
        echo_db: (H, W) float32, echo level of the tissue, dB.
        spacing_mm: (row, column) distance between pixels, mm.
        centre_mm: (depth, x) of the centre of the mass, mm.

    Returns:
        The new map of echo levels, and the mask of the mass as (H, W) bool.
    """
    z = ((np.arange(echo_db.shape[0]) + 0.5) * spacing_mm[0] - centre_mm[0]).astype(np.float32)[:, None]
    x = ((np.arange(echo_db.shape[1]) + 0.5) * spacing_mm[1] - centre_mm[1]).astype(np.float32)[None, :]
    inward, angle = _inward_mm(rng, mass, z, x)
    mask = inward >= 0
    mask[np.argmin(np.abs(z)), np.argmin(np.abs(x))] = True  # a mass smaller than a pixel still has a mask
    blurred = inward
    if mass.malignant:
        blurred = inward + np.float32(0.45) * power_law(rng, echo_db.shape, spacing_mm, beta=2.5, outer_mm=3.0)
    margin = np.float32(rng.uniform(0.28, 0.55) if mass.malignant else rng.uniform(0.06, 0.12))
    inside = expit(blurred / margin)
    pattern = rng.uniform(1.8, 3.2) if mass.malignant else rng.uniform(0.3, 1.2)
    level = GLAND_DB + mass.echo_db + np.float32(pattern) * power_law(rng, echo_db.shape, spacing_mm, outer_mm=5.0)
    around = echo_db + (_rim if mass.malignant else _capsule)(rng, inward, angle)
    if mass.malignant:
        around -= np.float32(10) * _spicules(rng, mass, echo_db.shape, spacing_mm, centre_mm)
        level += _calcifications(rng, mask, spacing_mm)
    mixed = around + inside * (level - around)
    return (mixed + _below(rng, mass, mask, z, x, spacing_mm)).astype(np.float32), mask


def _inward_mm(
    rng: np.random.Generator, mass: Mass, z: NDArray[np.float32], x: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the distance to the outline along the radius, mm, positive inside, and the angle: 0 right, pi / 2 down."""
    benign = {2: 0.03, 3: 0.05} if rng.random() < 0.7 else {2: 0.03, 3: 0.08, 4: 0.06}
    wild = {2: 0.06, 3: 0.11, 4: 0.1, 5: 0.1, 6: 0.08, 8: 0.08, 11: 0.06, 15: 0.05}
    terms = harmonics(rng, wild if mass.malignant else benign)
    turn = rng.normal(0, 0.06 if not mass.malignant else 0.15)
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


def _rim(rng: np.random.Generator, inward: NDArray[np.float32], angle: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a broad echogenic rim, dB, strongest above the mass and weakest below."""
    wide = np.float32(rng.uniform(1.0, 2.2))
    band = np.exp(-np.square((inward + np.float32(0.8) * wide) / wide))
    strength = rng.uniform(3.0, 9.0) if rng.random() < 0.8 else 0.0
    return np.float32(strength) * band * (np.float32(0.65) - np.float32(0.35) * np.sin(angle))


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
    """Return bright specks in the mass, dB; about a third of the masses have some."""
    specks = np.zeros(mask.shape, dtype=np.float32)
    if rng.random() < 0.35:
        rows, cols = np.nonzero(mask)
        chosen = rng.integers(0, rows.size, int(rng.integers(3, 9)))
        specks[rows[chosen], cols[chosen]] = 1
        specks = gaussian_filter(specks, [max(0.16 / step, 0.4) for step in spacing_mm], truncate=3.0)
        specks *= np.float32(18) / specks.max()
    return specks


def _below(
    rng: np.random.Generator,
    mass: Mass,
    mask: NDArray[np.bool_],
    z: NDArray[np.float32],
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
        "none": np.zeros_like(part),
        "enhancement": np.full_like(part, gain),
        "shadow": np.full_like(part, -loss),
        "combined": gain - part * np.float32(gain + loss),
    }[mass.posterior]
    total = path * per_mm
    if not mass.malignant:
        # Refraction at the smooth edge: two thin shadows.
        edge = np.exp(-np.square((np.abs(x) - np.float32(mass.width_mm / 2)) / np.float32(0.45)))
        total -= np.float32(rng.uniform(0, 6)) * edge * expit(z / np.float32(1.0))
    return total
