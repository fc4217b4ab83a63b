"""Batches of simulated images with labels, for training: the seed and the number of a case determine it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from radlens.errors import InvalidParameter
from radlens.phantoms.fields import Seed, check_choice, check_range, generator

__all__ = ["CLASSES", "Batch", "Case", "draw_batches"]

CLASSES = ("normal", "benign", "malignant")
"""Classes of an image: no lesion, benign lesions only, or a malignant lesion."""


class Case(Protocol):
    """An image with its truth."""

    @property
    def pixels(self) -> NDArray[np.float32]:
        """(H, W) float32."""


T = TypeVar("T", bound=Case)


@dataclass(frozen=True, eq=False)
class Batch(Generic[T]):
    """Images of one shape with their labels.

    Args:
        pixels: (b, 1, H, W) float32, as the simulator returns them.
        labels: (b,) int64, index into the requested classes.
        cases: images with their truth.
    """

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]
    cases: tuple[T, ...]


def draw_batches(
    draw: Callable[[str, Seed], T], n_batches: int, batch_size: int, classes: Sequence[str], seed: Seed
) -> Iterator[Batch[T]]:
    """Return an iterator over batches; case ``i`` has seed ``(*seed, i)`` and a class drawn from it.

    Args:
        draw: function of class and seed that returns an image.
        n_batches: number of batches, at least 1.
        batch_size: cases per batch, at least 1.
        classes: two or three of ``CLASSES``, each with the same probability.
        seed: seed of the whole set.

    Raises:
        InvalidParameter: a value is out of range; raised by the call itself, not by the first batch.
    """
    check_range("n_batches", n_batches, 1, 10**9)
    check_range("batch_size", batch_size, 1, 10**6)
    for name in classes:
        check_choice("classes", name, CLASSES)
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise InvalidParameter(f"classes must be at least two that differ, got {', '.join(classes)}")
    generator(seed)  # raises for a negative seed now: the body of a generator function runs at its first batch
    seeds = tuple(np.atleast_1d(seed).tolist())
    return _batches(draw, n_batches, batch_size, tuple(classes), seeds)


def _batches(
    draw: Callable[[str, Seed], T], n_batches: int, batch_size: int, classes: tuple[str, ...], seeds: tuple[int, ...]
) -> Iterator[Batch[T]]:
    for first in range(0, n_batches * batch_size, batch_size):
        numbers = range(first, first + batch_size)
        labels = np.array([generator((*seeds, i)).integers(len(classes)) for i in numbers], dtype=np.int64)
        cases = tuple(draw(classes[label], (*seeds, i)) for label, i in zip(labels, numbers, strict=True))
        yield Batch(np.stack([case.pixels for case in cases])[:, None], labels, cases)
