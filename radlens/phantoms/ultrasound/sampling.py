"""Random ultrasound images for training; only the mass depends on the class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    removed: bool = False,
    seed: Seed = 0,
) -> UltrasoundImage:
    """Draw an image of a class with random mass, tissue and scanner.

    Args:
        category: "normal", "benign" or "malignant".
        image_shape: (height, width), at least 32 each.
        spacing_mm: one number or (row, column), mm; by default the image is 38 mm wide and its pixels are square.
        removed: leave the mass out, as in `simulate`.
        seed: the same arguments give the same image.

    Raises:
        InvalidParameter: a value is out of range, or the image is too small for the mass, which measures up to 23 mm.
    """
    check_choice("category", category, CLASSES)
    mass = None if category == "normal" else sample_mass(generator(seed), category == "malignant")
    return simulate(mass, image_shape=image_shape, spacing_mm=spacing_mm, removed=removed, seed=seed)


def batches(
    n_batches: int,
    batch_size: int,
    *,
    classes: Sequence[str] = ("benign", "malignant"),
    image_shape: Sequence[int] = (224, 224),
    seed: Seed = 0,
) -> Iterator[Batch[UltrasoundImage]]:
    """Return an iterator over batches of images from `sample`; arguments and errors as in `draw_batches`."""

    def draw(category: str, seed: Seed) -> UltrasoundImage:
        return sample(category, image_shape=image_shape, seed=seed)

    return draw_batches(draw, n_batches, batch_size, classes, seed)
