"""Mammograms and patches drawn at random for training; what is not the lesion does not depend on the class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from radlens.phantoms.batches import CLASSES, Batch, draw_batches
from radlens.phantoms.fields import Seed, check_choice, check_range, generator
from radlens.phantoms.mammogram.anatomy import DENSITIES, LATERALITIES, VIEWS
from radlens.phantoms.mammogram.lesions import Lesion, sample_lesion
from radlens.phantoms.mammogram.simulation import PATCH_SPACING_MM, Mammogram, Patch, simulate, simulate_patch

__all__ = ["batches", "patch_batches", "sample", "sample_patch"]

_DENSITY_ODDS = (0.1, 0.4, 0.4, 0.1)
_P_SECOND = 0.1


def sample(
    category: str,
    *,
    image_shape: Sequence[int] = (1024, 512),
    spacing_mm: float | tuple[float, float] | None = None,
    p_calcifications: float = 0.3,
    seed: Seed = 0,
) -> Mammogram:
    """Draw a whole mammogram of a class: view, side, density and lesions at random.

    A case with lesions has one, or two of the same kind in every tenth.

    Args:
        category: "normal", "benign" or "malignant".
        image_shape: (height, width), at least 32 each.
        spacing_mm: one number or (row, column); by default the image is 233 mm high.
        p_calcifications: probability that a lesion is a cluster of calcifications and not a mass, 0..1.
        seed: the same arguments give the same image.

    Raises:
        InvalidParameter: a value out of its range, or a field in which a lesion of up to 26 mm does not fit.
    """
    check_choice("category", category, CLASSES)
    check_range("p_calcifications", p_calcifications, 0.0, 1.0)
    rng = generator(seed)
    view, laterality = str(rng.choice(VIEWS)), str(rng.choice(LATERALITIES))
    density = str(rng.choice(DENSITIES, p=_DENSITY_ODDS))
    n_lesions = 1 + int(rng.random() < _P_SECOND)
    lesions = [sample_lesion(rng, category == "malignant", p_calcifications) for _ in range(n_lesions)]
    return simulate(
        image_shape,
        view=view,
        laterality=laterality,
        density=density,
        lesions=[] if category == "normal" else lesions,
        spacing_mm=spacing_mm,
        seed=seed,
    )


def sample_patch(
    category: str,
    *,
    image_shape: Sequence[int] = (224, 224),
    spacing_mm: float | tuple[float, float] = PATCH_SPACING_MM,
    p_calcifications: float = 0.3,
    seed: Seed = 0,
) -> Patch:
    """Draw a patch of a class: density and lesion at random; arguments as `sample`.

    Raises:
        InvalidParameter: a value out of its range, or a patch in which a lesion of up to 26 mm does not fit.
    """
    check_choice("category", category, CLASSES)
    check_range("p_calcifications", p_calcifications, 0.0, 1.0)
    rng = generator(seed)
    density = str(rng.choice(DENSITIES, p=_DENSITY_ODDS))
    lesion: Lesion | None = sample_lesion(rng, category == "malignant", p_calcifications)
    if category == "normal":
        lesion = None
    return simulate_patch(lesion, image_shape=image_shape, density=density, spacing_mm=spacing_mm, seed=seed)


def batches(
    n_batches: int,
    batch_size: int,
    *,
    classes: Sequence[str] = ("normal", "malignant"),
    image_shape: Sequence[int] = (1024, 512),
    p_calcifications: float = 0.3,
    seed: Seed = 0,
) -> Iterator[Batch[Mammogram]]:
    """Return an iterator over batches of whole mammograms: `draw_batches` with `sample`."""
    draw = partial(_draw, image_shape=image_shape, p_calcifications=p_calcifications)
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
    """Return an iterator over batches of patches: `draw_batches` with `sample_patch`."""
    draw = partial(_draw_patch, image_shape=image_shape, p_calcifications=p_calcifications)
    return draw_batches(draw, n_batches, batch_size, classes, seed)


def _draw(category: str, seed: Seed, *, image_shape: Sequence[int], p_calcifications: float) -> Mammogram:
    return sample(category, image_shape=image_shape, p_calcifications=p_calcifications, seed=seed)


def _draw_patch(category: str, seed: Seed, *, image_shape: Sequence[int], p_calcifications: float) -> Patch:
    return sample_patch(category, image_shape=image_shape, p_calcifications=p_calcifications, seed=seed)
