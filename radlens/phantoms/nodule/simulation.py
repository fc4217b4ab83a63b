"""Simulated axial patches of 45 mm with a nodule in the middle, as Katzmann et al. 2021 cut from LIDC-IDRI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from radlens.phantoms.fields import Seed, check_choice, check_shape, generator
from radlens.phantoms.nodule.lung import FIELD_MM, Grid, draw_lung, draw_noise
from radlens.phantoms.nodule.nodules import (
    CATEGORIES,
    CHANGED_HU,
    REFERENCE,
    Nodule,
    draw_nodule,
    sample_nodule,
)
from radlens.phantoms.nodule.readers import sample_readings

__all__ = ["NodulePatch", "sample", "simulate"]

_SMALLEST = 32
_FINE_MM = 0.36
"""Largest spacing of the grid on which structures are drawn, mm."""

_BLUR_MM = 0.45
"""Standard deviation of the scanner's point spread function, mm."""

_RANGE_HU = (-1024, 3071)
"""Range of a 12 bit CT image, HU."""


@dataclass(frozen=True, eq=False)
class NodulePatch:
    """A simulated patch and its truth.

    Without the nodule, ``mask`` and ``feature_masks`` are all false and the rest tells which nodule was left out.

    Args:
        category: "benign" or "malignant".
        pixels: (h, w) float32, whole Hounsfield units.
        mask: (h, w) bool, pixels of which more than half is nodule, its spicules included.
        lung: (h, w) bool, lung with its vessels and the nodule, without the chest wall.
        features: level of each feature.
        feature_masks: (h, w) bool by feature: pixels whose noise-free level differs by more than ``CHANGED_HU`` from
            that of the same nodule with this one feature at its level in ``REFERENCE``; all false at that level.
        readings: four ratings of malignancy, 1 to 5; their median is above 3 for malignant nodules, otherwise below.
        nodule: the nodule.
        spacing_mm: (row, column) distance between pixels, mm.
        seed: seed of the patch.
    """

    category: str
    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_]
    lung: NDArray[np.bool_]
    features: Mapping[str, str]
    feature_masks: Mapping[str, NDArray[np.bool_]]
    readings: tuple[int, int, int, int]
    nodule: Nodule
    spacing_mm: tuple[float, float]
    seed: Seed

    @property
    def malignant(self) -> bool:
        """Whether the category is malignant."""
        return self.category == CATEGORIES[1]


def sample(
    category: str, *, image_shape: Sequence[int] = (64, 64), removed: bool = False, seed: Seed = 0
) -> NodulePatch:
    """Draw a patch of a category with random nodule, lung and noise; only the nodule depends on the category.

    Args:
        category: "benign" or "malignant".
        image_shape: (height, width), at least 32 each; the field of view is always 45 mm.
        removed: leave the nodule out: the same patch of healthy lung.
        seed: the same arguments give the same patch.

    Raises:
        InvalidParameter: a value is out of range.
    """
    check_choice("category", category, CATEGORIES)
    nodule = sample_nodule(generator(seed), category == CATEGORIES[1])
    return simulate(nodule, image_shape=image_shape, removed=removed, seed=seed)


def simulate(
    nodule: Nodule, *, image_shape: Sequence[int] = (64, 64), removed: bool = False, seed: Seed = 0
) -> NodulePatch:
    """Simulate a patch with a nodule in the middle.

    Two nodules with the same seed lie in the same lung under the same noise. At another pixel spacing, nodule and
    large structures are the same, and noise and fine texture differ.

    Args:
        nodule: the nodule.
        image_shape: (height, width), at least 32 each.
        removed: leave the nodule out: the same patch of healthy lung.
        seed: the same arguments give the same patch.

    Raises:
        InvalidParameter: a value is out of range.
    """
    shape = check_shape(image_shape, _SMALLEST)
    rng = generator(seed)
    lung_seed, nodule_seed, noise, readers = (np.random.default_rng(part) for part in rng.integers(2**63, size=4))
    times = tuple(max(1, round(FIELD_MM / side / _FINE_MM)) for side in shape)
    grid = Grid((shape[0] * times[0], shape[1] * times[1]))
    lung, lung_share = draw_lung(lung_seed, grid)

    def seen(hounsfield: NDArray[np.float32]) -> NDArray[np.float32]:
        blurred = gaussian_filter(hounsfield, [_BLUR_MM / step for step in grid.spacing_mm], mode="nearest")
        return blurred.reshape(shape[0], times[0], shape[1], times[1]).mean(axis=(1, 3))

    drawn = draw_nodule(deepcopy(nodule_seed), nodule, lung, grid)
    mask, clear = np.zeros(shape, dtype=bool), seen(lung)
    masks = dict.fromkeys(REFERENCE, mask)
    if not removed:
        clear, mask = seen(drawn.hounsfield), seen(drawn.share) > 0.5
        for name in REFERENCE:
            if nodule.features[name] != REFERENCE[name]:
                plain = draw_nodule(deepcopy(nodule_seed), nodule.without(name), lung, grid)
                masks[name] = np.abs(clear - seen(plain.hounsfield)) > CHANGED_HU
    coarse = Grid(shape)
    pixels = np.clip(np.rint(clear + draw_noise(noise, coarse)), *_RANGE_HU).astype(np.float32)
    return NodulePatch(
        CATEGORIES[nodule.malignant],
        pixels,
        mask,
        seen(lung_share) > 0.5,
        nodule.features,
        masks,
        sample_readings(readers, nodule),
        nodule,
        coarse.spacing_mm,
        seed,
    )
