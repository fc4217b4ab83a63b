"""Random mammograms and patches for training; only the lesion depends on the class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from radlens.phantoms.batches import CLASSES, Batch, draw_batches
from radlens.phantoms.fields import Seed, check_choice, check_range, generator
from radlens.phantoms.mammogram.anatomy import DENSITIES, LATERALITIES, VIEWS
from radlens.phantoms.mammogram.lesions import USUAL_MASSES, Lesion, Masses, sample_lesion
from radlens.phantoms.mammogram.simulation import PATCH_SPACING_MM, Mammogram, Patch, simulate, simulate_patch

__all__ = ["CATEGORIES", "batches", "patch_batches", "sample", "sample_patch"]

CATEGORIES = (*CLASSES, "healthy", "mass")
"""Classes that can be drawn: those of a case; "healthy", which is "normal"; and "mass", masses only, with equal odds
benign or malignant (Major et al. 2020, section 3, who separate healthy breasts from breasts with masses)."""

_WITHOUT_LESION = ("normal", "healthy")
_DENSITY_ODDS = (0.1, 0.4, 0.4, 0.1)
_P_SECOND = 0.1


def sample(
    category: str,
    *,
    image_shape: Sequence[int] = (1024, 512),
    spacing_mm: float | tuple[float, float] | None = None,
    p_calcifications: float = 0.3,
    masses: Masses = USUAL_MASSES,
    removed: bool = False,
    seed: Seed = 0,
) -> Mammogram:
    """Draw a whole mammogram of a class with random view, laterality, density and lesions.

    One case in ten with lesions has two of the same class, the others have one.

    Args:
        category: one of ``CATEGORIES``.
        image_shape: (height, width), at least 32 each.
        spacing_mm: one number or (row, column), mm; by default the image is 233 mm high.
        p_calcifications: probability that a lesion is a cluster of calcifications and not a mass, 0..1; the category
            "mass" has none.
        masses: size and contrast of masses.
        removed: leave the lesions out, as in `simulate`.
        seed: the same arguments give the same image.

    Raises:
        InvalidParameter: a value is out of range, or the breast is too small for a lesion, which ``masses`` decides.
    """
    check_choice("category", category, CATEGORIES)
    check_range("p_calcifications", p_calcifications, 0.0, 1.0)
    rng = generator(seed)
    view, laterality = str(rng.choice(VIEWS)), str(rng.choice(LATERALITIES))
    density = str(rng.choice(DENSITIES, p=_DENSITY_ODDS))
    n_lesions = 1 + int(rng.random() < _P_SECOND)
    malignant, p_calcifications = _odds(rng, category, p_calcifications)
    lesions = [sample_lesion(rng, malignant, p_calcifications, masses) for _ in range(n_lesions)]
    return simulate(
        image_shape,
        view=view,
        laterality=laterality,
        density=density,
        lesions=[] if category in _WITHOUT_LESION else lesions,
        spacing_mm=spacing_mm,
        removed=removed,
        seed=seed,
    )


def sample_patch(
    category: str,
    *,
    image_shape: Sequence[int] = (224, 224),
    spacing_mm: float | tuple[float, float] = PATCH_SPACING_MM,
    p_calcifications: float = 0.3,
    masses: Masses = USUAL_MASSES,
    removed: bool = False,
    seed: Seed = 0,
) -> Patch:
    """Draw a patch of a class with random density and lesion; arguments as in `sample`.

    Raises:
        InvalidParameter: a value is out of range, or the patch is too small for a lesion, which ``masses`` decides.
    """
    check_choice("category", category, CATEGORIES)
    check_range("p_calcifications", p_calcifications, 0.0, 1.0)
    rng = generator(seed)
    density = str(rng.choice(DENSITIES, p=_DENSITY_ODDS))
    malignant, p_calcifications = _odds(rng, category, p_calcifications)
    lesion: Lesion | None = sample_lesion(rng, malignant, p_calcifications, masses)
    if category in _WITHOUT_LESION:
        lesion = None
    return simulate_patch(
        lesion, image_shape=image_shape, density=density, spacing_mm=spacing_mm, removed=removed, seed=seed
    )


def _odds(rng: np.random.Generator, category: str, p_calcifications: float) -> tuple[bool, float]:
    """Return whether the lesions of an image are malignant, and the probability of calcifications."""
    if category == "mass":
        return bool(rng.random() < 0.5), 0.0
    return category == "malignant", p_calcifications


def batches(
    n_batches: int,
    batch_size: int,
    *,
    classes: Sequence[str] = ("normal", "malignant"),
    image_shape: Sequence[int] = (1024, 512),
    p_calcifications: float = 0.3,
    seed: Seed = 0,
) -> Iterator[Batch[Mammogram]]:
    """Return an iterator over batches of mammograms from `sample`; arguments and errors as in `draw_batches`."""

    def draw(category: str, seed: Seed) -> Mammogram:
        return sample(category, image_shape=image_shape, p_calcifications=p_calcifications, seed=seed)

    return draw_batches(draw, n_batches, batch_size, classes, seed)


def patch_batches(
    n_batches: int,
    batch_size: int,
    *,
    classes: Sequence[str] = ("normal", "malignant"),
    image_shape: Sequence[int] = (224, 224),
    p_calcifications: float = 0.3,
    seed: Seed = 0,
) -> Iterator[Batch[Patch]]:
    """Return an iterator over batches of patches from `sample_patch`; arguments and errors as in `draw_batches`."""

    def draw(category: str, seed: Seed) -> Patch:
        return sample_patch(category, image_shape=image_shape, p_calcifications=p_calcifications, seed=seed)

    return draw_batches(draw, n_batches, batch_size, classes, seed)
