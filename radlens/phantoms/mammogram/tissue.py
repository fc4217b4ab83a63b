"""Attenuation of breast tissue: parenchyma with spectrum 1/f^beta, strands, skin, muscle; after Burgess 2001."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from radlens.phantoms.fields import power_law, strands, walks
from radlens.phantoms.mammogram.anatomy import Anatomy

__all__ = ["FAT", "GLAND_OVER_FAT", "Tissue", "Window", "draw_tissue", "expose"]

FAT = 0.22
"""Attenuation of a purely fatty breast at full thickness; 1 is white."""

GLAND_OVER_FAT = 0.34
"""Attenuation of gland above that of fat: the unit of the contrast of lesions."""

_OFFSETS = {"A": -2.15, "B": -1.2, "C": -0.4, "D": 0.55}
_BETA = 3.0


@dataclass(frozen=True, eq=False)
class Window:
    """The part of the breast that an image shows.

    Args:
        image_shape: (height, width) in pixels.
        spacing_mm: (row, column) distance between pixels, mm.
        origin_mm: (y, x) of the outer corner of pixel (0, 0), mm.
    """

    image_shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    origin_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def y(self) -> NDArray[np.float32]:
        """(height, 1) y of pixel centres, mm."""
        centres = self.origin_mm[0] + (np.arange(self.image_shape[0]) + 0.5) * self.spacing_mm[0]
        return centres.astype(np.float32)[:, None]

    @property
    def x(self) -> NDArray[np.float32]:
        """(1, width) x of pixel centres, mm."""
        centres = self.origin_mm[1] + (np.arange(self.image_shape[1]) + 0.5) * self.spacing_mm[1]
        return centres.astype(np.float32)[None, :]


@dataclass(frozen=True, eq=False)
class Tissue:
    """The tissue in a window; every array is (height, width).

    Args:
        attenuation: float32, 0 outside the breast, 1 is white.
        breast: bool, mask of the breast.
        muscle: bool, mask of the pectoral muscle.
        gland: float32, fraction of gland, from 0 (fat) to 1 (gland).
    """

    attenuation: NDArray[np.float32]
    breast: NDArray[np.bool_]
    muscle: NDArray[np.bool_]
    gland: NDArray[np.float32]


def draw_tissue(rng: np.random.Generator, anatomy: Anatomy, window: Window, density: str) -> Tissue:
    """Draw the tissue of a breast within a window."""
    shape, spacing = window.image_shape, window.spacing_mm
    skin_mm = anatomy.skin_distance(window.y, window.x)
    muscle_mm = anatomy.muscle_distance(window.y, window.x)
    coarse = power_law(rng, shape, spacing, beta=3.5, outer_mm=30.0, stretch=1.4)
    fine = power_law(rng, shape, spacing, beta=_BETA, outer_mm=16.0, stretch=1.2)
    web = power_law(rng, shape, spacing, beta=4.0, outer_mm=18.0, inner_mm=0.3, stretch=1.6)
    gland = _gland(anatomy, window, density, coarse, skin_mm, rng)
    ridge = np.exp(-np.square(web / np.float32(0.16)))
    level = FAT + np.float32(0.018) * fine
    level += gland * (GLAND_OVER_FAT + np.float32(0.04) * fine)
    level += ridge * (np.float32(0.03) + np.float32(0.035) * gland)
    level += _vessels(rng, anatomy, window)
    level = _with_muscle(level, muscle_mm, fine, rng)
    thickness = np.clip(skin_mm / np.float32(anatomy.roll_off_mm), 0, 1)
    level *= np.sqrt(1 - np.square(1 - thickness)) ** np.float32(0.75)
    level += np.float32(0.1) * np.exp(-np.square((skin_mm - np.float32(0.9)) / np.float32(0.8)))
    breast = skin_mm > 0
    return Tissue(level * breast, breast, (muscle_mm > 0) & breast, gland)


def _gland(
    anatomy: Anatomy,
    window: Window,
    density: str,
    coarse: NDArray[np.float32],
    skin_mm: NDArray[np.float32],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return the fraction of gland: high where the random field plus the prior exceed the threshold of the density."""
    prior = anatomy.gland_prior(window.y, window.x)
    offset = _OFFSETS[density] + rng.uniform(-0.3, 0.3)
    gland = expit(np.float32(1.7) * (np.float32(0.8) * coarse + np.float32(1.35) * prior + np.float32(offset)))
    under_skin = np.clip((skin_mm - 2) / np.float32(9), 0, 1)
    behind = np.clip((window.x + 4) / np.float32(16), 0, 1)
    return (gland * under_skin * behind).astype(np.float32)


def _vessels(rng: np.random.Generator, anatomy: Anatomy, window: Window) -> NDArray[np.float32]:
    """Return the attenuation of vessels and ducts: a few wide and many thin curves that run towards the nipple."""
    step = 0.5 * math.sqrt(window.spacing_mm[0] * window.spacing_mm[1])
    extent = [side * mm for side, mm in zip(window.image_shape, window.spacing_mm, strict=True)]
    total = np.zeros(window.image_shape, dtype=np.float32)
    for n_per_cm2, length_mm, sigma_mm, crest in ((0.05, 60.0, 0.55, 0.06), (0.35, 22.0, 0.22, 0.035)):
        n = rng.poisson(min(n_per_cm2 * extent[0] * extent[1] / 100, 150))
        y, x = (rng.uniform(0, side, n) for side in extent)
        nipple_y, nipple_x = anatomy.level_mm - window.origin_mm[0], anatomy.depth_mm - window.origin_mm[1]
        headings = np.arctan2(nipple_y - y, nipple_x - x) + rng.normal(0, 0.5, n)
        down, right = walks(rng, headings, 1.3 * length_mm, step, bend=0.22)
        along = np.linspace(0, 1.3, down.shape[1]) / rng.uniform(0.5, 1.3, (n, 1))
        height = crest * rng.uniform(0.5, 1.2, (n, 1)) * np.sin(0.25 + (math.pi - 0.25) * np.minimum(along, 1))
        y, x, height = y[:, None] + down, x[:, None] + right, height * (along < 1)
        total += strands(window.image_shape, window.spacing_mm, y, x, height, sigma_mm=sigma_mm, step_mm=step)
    return total


def _with_muscle(
    level: NDArray[np.float32], muscle_mm: NDArray[np.float32], fine: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the attenuation with the pectoral muscle, which has faint fibres along its edge, over the tissue."""
    fibres = np.sin(muscle_mm * np.float32(rng.uniform(0.9, 1.4)) + 1.5 * fine)
    bright = (
        np.float32(FAT + GLAND_OVER_FAT * rng.uniform(0.75, 1.15))
        + np.float32(0.02) * fine
        + np.float32(0.008) * fibres
        + np.minimum(muscle_mm, 40) * np.float32(0.0015)
    )
    cover = expit(muscle_mm / np.float32(0.9)) * np.float32(0.9)
    return level + cover * (np.maximum(bright, level) - level)


def expose(rng: np.random.Generator, attenuation: NDArray[np.float32], breast: NDArray[Any]) -> NDArray[np.float32]:
    """Return integer 12-bit pixel values 0..4095 as float32, attenuation bright; 0 outside the breast.

    Gain, offset and noise differ from image to image, as with different processing and dose.
    """
    gain, offset, noise = rng.uniform(3300, 4700), rng.uniform(60, 380), rng.uniform(22, 50)
    pixels = np.float32(offset) + np.float32(gain) * attenuation
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(noise)
    pixels *= breast
    np.rint(pixels, out=pixels)
    return np.clip(pixels, 0, 4095, out=pixels)
