"""Ultrasound images drawn at random for training; what is not the mass does not depend on the class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from radlens.phantoms.batches import CLASSES, Batch, draw_batches
from radlens.phantoms.fields import Seed, check_choice, generator
from radlens.phantoms.ultrasound.masses import sample_mass
from radlens.phantoms.ultrasound.simulation import UltrasoundImage, simulate

__all__ = ["batches", "sample"]


def sample(
    category: str,
    *,
    image_shape: Sequence[int] = (224, 224),
    spacing_mm: float | tuple[float, float] | None = None,
    seed: Seed = 0,
) -> UltrasoundImage:
    """Draw an image of a class: mass, tissue and scanner at random.

    Args:
        category: "normal", "benign" or "malignant".
        image_shape: (height, width), at least 32 each.
        spacing_mm: one number or (row, column); by default the image is 38 mm wide and its pixels are square.
        seed: the same arguments give the same image.

    Raises:
        InvalidParameter: a value out of its range, or a field in which a mass of up to 23 mm does not fit.
    """
    check_choice("category", category, CLASSES)
    mass = None if category == "normal" else sample_mass(generator(seed), category == "malignant")
    return simulate(mass, image_shape=image_shape, spacing_mm=spacing_mm, seed=seed)


def batches(
    n_batches: int,
    batch_size: int,
    *,
    classes: Sequence[str] = ("benign", "malignant"),
    image_shape: Sequence[int] = (224, 224),
    seed: Seed = 0,
) -> Iterator[Batch[UltrasoundImage]]:
    """Return an iterator over batches: `draw_batches` with `sample`."""
    return draw_batches(partial(_draw, image_shape=image_shape), n_batches, batch_size, classes, seed)


def _draw(category: str, seed: Seed, *, image_shape: Sequence[int]) -> UltrasoundImage:
    return sample(category, image_shape=image_shape, seed=seed)
