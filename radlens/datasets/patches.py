"""Patches centred on a lesion and patches of normal tissue: Sam Millan 2023, sections 3.1 and 3.2.2.

In the thesis, each image yields one patch centred on the lesion and one of normal tissue, resized to 224x224. The size
of the regions before resizing is not published; here it is the longer side of the lesion, at least 224.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from radlens.datasets.case import Box, Label, Sample
from radlens.datasets.preprocessing import BREAST_FRACTION, breast_region, resize
from radlens.errors import InvalidInput

__all__ = ["MIN_TISSUE", "PATCH_SIZE", "Patch", "cut", "draw_patches", "lesion_window", "normal_window"]

Window = tuple[int, int, int, int]

PATCH_SIZE = 224
"""Rows and columns of a patch, in pixels (section 3.2.2)."""

MIN_TISSUE = 0.9
"""Smallest fraction of breast in a patch of normal tissue; chosen for radlens."""


@dataclass(frozen=True, eq=False)
class Patch:
    """A square cut from an image.

    Attributes:
        pixels: ``(size, size)`` float32, in the units of the image.
        window: ``(x0, y0, x1, y1)`` in pixels of the image, half open; extends beyond the image if the image is
            smaller.
        kind: ``lesion`` or ``normal``.
        label: label of the lesion; ``normal`` for normal tissue.
    """

    pixels: np.ndarray
    window: Window
    kind: Literal["lesion", "normal"]
    label: Label


def draw_patches(
    sample: Sample, *, size: int = PATCH_SIZE, seed: int = 0, fraction: float = BREAST_FRACTION
) -> tuple[Patch, ...]:
    """Return a lesion patch and an equally large normal patch for each box, or one normal patch if there are no boxes.

    Args:
        sample: mammogram.
        size: rows and columns of a patch, at least 1.
        seed: seed of the positions of the normal patches.
        fraction: threshold of the breast, as in `radlens.datasets.preprocessing.breast_region`.

    Raises:
        InvalidInput: the size is below 1, the image shows no breast, or no normal patch fits.
    """
    if size < 1:
        raise InvalidInput(f"size must be at least 1, got {size}")
    shape = (sample.pixels.shape[0], sample.pixels.shape[1])
    region = breast_region(sample.pixels, fraction=fraction)
    generator = np.random.default_rng(seed)
    found = []
    for box, label in zip(sample.boxes, sample.labels, strict=True):
        window = lesion_window(box, shape, size=size)
        found.append(Patch(cut(sample.pixels, window, size), window, "lesion", label))
    for side in [patch.window[2] - patch.window[0] for patch in found] or [size]:
        window = normal_window(region, sample.boxes, side, generator)
        found.append(Patch(cut(sample.pixels, window, size), window, "normal", "normal"))
    return tuple(found)


def lesion_window(box: Box, shape: tuple[int, int], *, size: int = PATCH_SIZE) -> Window:
    """Return the square around a lesion.

    Its side is the longer side of the box, at least ``size``. The square is centred on the box, and shifted to lie
    within the image; a square larger than the image is centred on the image.
    """
    x0, y0, x1, y1 = box
    side = max(size, math.ceil(x1 - x0), math.ceil(y1 - y0))
    left, top = _start((x0 + x1) / 2, side, shape[1]), _start((y0 + y1) / 2, side, shape[0])
    return left, top, left + side, top + side


def normal_window(
    region: np.ndarray,
    boxes: Sequence[Box],
    side: int,
    generator: np.random.Generator,
    *,
    min_tissue: float = MIN_TISSUE,
) -> Window:
    """Draw a square of normal tissue, uniformly among all possible positions.

    Args:
        region: ``(h, w)`` bool, the breast.
        boxes: lesions, which the square must not touch.
        side: rows and columns of the square.
        generator: random number generator.
        min_tissue: smallest fraction of breast in the square.

    Raises:
        InvalidInput: no square fits.
    """
    rows, columns = region.shape[0] - side + 1, region.shape[1] - side + 1
    if rows < 1 or columns < 1:
        raise InvalidInput(f"an image of {region.shape[0]}x{region.shape[1]} pixels has no patch of {side}x{side}")
    # Summed-area table: the breast pixels of every possible square at once.
    sums = np.pad(region, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
    tissue = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    free = tissue >= min_tissue * side * side
    for x0, y0, x1, y1 in boxes:
        free[_touching(y0, y1, side), _touching(x0, x1, side)] = False
    places = np.flatnonzero(free)
    if not places.size:
        raise InvalidInput(f"the breast has no room for a patch of {side}x{side} pixels beside its lesions")
    top, left = divmod(int(generator.choice(places)), columns)
    return left, top, left + side, top + side


def cut(pixels: np.ndarray, window: Window, size: int = PATCH_SIZE) -> np.ndarray:
    """Return a window of an image ``(h, w)``, resized to ``(size, size)`` float32.

    Pixels outside the image get its smallest value, which is background.
    """
    x0, y0, x1, y1 = window
    height, width = pixels.shape
    inside = pixels[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    margins = ((max(-y0, 0), max(y1 - height, 0)), (max(-x0, 0), max(x1 - width, 0)))
    square = np.pad(inside, margins, constant_values=pixels.min())
    return square.astype(np.float32) if square.shape == (size, size) else resize(square, (size, size))


def _start(centre: float, side: int, length: int) -> int:
    if side > length:
        return (length - side) // 2
    return min(max(math.floor(centre - side / 2 + 0.5), 0), length - side)


def _touching(start: float, stop: float, side: int) -> slice:
    return slice(max(math.floor(start) - side + 1, 0), max(math.ceil(stop), 0))
