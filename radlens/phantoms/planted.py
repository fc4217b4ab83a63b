"""Images in which exactly one planted cause tells the class, with the pixels of the cause.

Everything else in an image - the mass and its features, the tissue, the scanner - is drawn in the same way for both
classes. Each image comes with its twin, in which the cause alone is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from radlens.phantoms import mammogram, ultrasound
from radlens.phantoms.fields import Seed, check_choice, generator

__all__ = ["CAUSES", "SIDE", "Planted", "modality_of", "planted"]

SIDE = 112
"""Rows and columns of an image."""

CAUSES = {
    "shadow": "shadow below the mass",
    "margin": "spiculated margin of the mass",
    "marker": "marker in a corner",
    "density": "density of the breast",
}
"""Names of the causes, and what they are."""

_ULTRASOUND = ("shadow",)
_BREAST_MM = 1.8
"""Pixel spacing of the images of whole breasts, mm: 112 pixels show 202 mm."""


@dataclass(frozen=True, eq=False)
class Planted:
    """An image and its twin.

    Attributes:
        pixels: (SIDE, SIDE) float32, the image.
        twin: (SIDE, SIDE) float32, the same image with the cause of the other class.
        where: (SIDE, SIDE) bool, the pixels of the cause, which are those that differ between image and twin.
        positive: class of the image, which the cause alone decides.
    """

    pixels: NDArray[np.float32]
    twin: NDArray[np.float32]
    where: NDArray[np.bool_]
    positive: bool


def modality_of(cause: str) -> str:
    """Return "ultrasound" or "mammogram"."""
    check_choice("cause", cause, list(CAUSES))
    return "ultrasound" if cause in _ULTRASOUND else "mammogram"


def planted(cause: str, positive: bool, seed: Seed) -> Planted:
    """Draw an image in which ``cause`` tells the class.

    - "shadow": an ultrasound image; positive masses shadow, the others have no posterior feature.
    - "margin": a patch of a mammogram with a mass; positive masses are spiculated, the others circumscribed.
    - "marker": a patch of a mammogram with or without a lesion; positive patches have a bright marker in a corner.
    - "density": a mammogram with or without a lesion; positive breasts are extremely dense (D), the others fatty (A).

    Args:
        cause: one of ``CAUSES``.
        positive: class of the image.
        seed: the same arguments give the same image; the other class with the same seed gives image and twin swapped.

    Raises:
        InvalidParameter: the cause is unknown or the seed negative.
    """
    check_choice("cause", cause, list(CAUSES))
    make = {"shadow": _shadow, "margin": _margin, "marker": _marker, "density": _density}[cause]
    pair, where = make(cause, seed)
    return Planted(pair(positive), pair(not positive), where, positive)


Draw = Callable[[bool], NDArray[np.float32]]
"""Function from the class to the pixels."""


def _shadow(cause: str, seed: Seed) -> tuple[Draw, NDArray[np.bool_]]:
    rng = generator(seed)
    mass = ultrasound.sample_mass(rng, bool(rng.integers(2)))
    # Gain follows from the tissue: set by the image, it would carry the cause to every pixel.
    gain = ultrasound.simulate(image_shape=(SIDE, SIDE), seed=seed).gain
    images = [
        ultrasound.simulate(replace(mass, posterior=level), image_shape=(SIDE, SIDE), gain=gain, seed=seed)
        for level in ("none", "shadow")
    ]
    return (lambda positive: images[int(positive)].pixels), images[1].changed["posterior"]


def _margin(cause: str, seed: Seed) -> tuple[Draw, NDArray[np.bool_]]:
    rng = generator(seed)
    mass, density = mammogram.sample_lesion(rng, bool(rng.integers(2)), 0.0), str(rng.choice(mammogram.DENSITIES[:2]))
    assert isinstance(mass, mammogram.Mass), "no lesion is a cluster of calcifications"
    patches = [
        mammogram.simulate_patch(
            replace(mass, margin=margin), image_shape=(SIDE, SIDE), density=density, spacing_mm=0.35, seed=seed
        )
        for margin in ("circumscribed", "spiculated")
    ]
    parts = [patch.finding.changed for patch in patches if patch.finding is not None]
    where = parts[0]["margin"] | parts[1]["margin"] | parts[1]["spicules"]
    return (lambda positive: patches[int(positive)].pixels), where


def _marker(cause: str, seed: Seed) -> tuple[Draw, NDArray[np.bool_]]:
    rng = generator(seed)
    category, corner = ("normal", "malignant")[rng.integers(2)], rng.integers(2, size=2)
    height, width, rim = rng.integers(9, 13), rng.integers(6, 9), rng.integers(3, 8, size=2)
    patch = mammogram.sample_patch(category, image_shape=(SIDE, SIDE), spacing_mm=0.4, seed=seed)
    top = rim[0] if corner[0] == 0 else SIDE - rim[0] - height
    left = rim[1] if corner[1] == 0 else SIDE - rim[1] - width
    where = np.zeros((SIDE, SIDE), dtype=bool)
    where[top : top + height, left : left + 3] = True  # the letter L, three pixels thick
    where[top + height - 3 : top + height, left : left + width] = True
    marked = np.where(where, np.float32(4095), patch.pixels)
    return (lambda positive: marked if positive else patch.pixels), where


def _density(cause: str, seed: Seed) -> tuple[Draw, NDArray[np.bool_]]:
    rng = generator(seed)
    view, lesions = str(rng.choice(mammogram.VIEWS)), [mammogram.sample_lesion(rng, bool(rng.integers(2)), 0.0)]
    shown = lesions if rng.integers(2) else []
    images = [
        mammogram.simulate(
            (SIDE, SIDE), view=view, density=density, lesions=shown, spacing_mm=_BREAST_MM, seed=seed
        ).pixels
        for density in ("A", "D")
    ]
    change = ndimage.gaussian_filter(np.abs(images[1] - images[0]), 1.0)
    # Half of the largest change: the noise of both images is the same, so the rest is gland.
    return (lambda positive: images[int(positive)]), change > 0.5 * np.quantile(change, 0.99)
