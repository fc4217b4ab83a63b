"""The causal record of a classifier: what removing a lesion does to its score, beside removing healthy tissue.

A classifier of lesions must lower the score of malignancy when the lesion is taken out of the image and all else stays.
One that reads the scanner, the density of the breast or a marker does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from radlens.errors import InvalidInput
from radlens.evaluation.baselines import compare_with_baselines
from radlens.evaluation.checks import finite_map, mask, real_array
from radlens.evaluation.planted import wilson

__all__ = ["named_lesion", "removal_record", "without_piece"]

_FEATHER_PX = 1.5
N_BOOTSTRAP = 2000


def without_piece(pixels: ArrayLike, piece: ArrayLike, allowed: ArrayLike, *, same_depth: bool) -> np.ndarray | None:
    """Return an image in which a piece of healthy tissue is replaced by the tissue nearest to it.

    The piece keeps its size and shape; its rim fades over some pixels.

    Args:
        pixels: ``(h, w)`` image.
        piece: ``(h, w)`` bool, the pixels to replace.
        allowed: ``(h, w)`` bool, pixels that may be copied, such as those of the breast.
        same_depth: whether tissue may come only from the same rows, as in ultrasound, where tissue lies in layers.

    Returns:
        ``(h, w)`` float64; None if no tissue of this shape is free beside the piece.

    Raises:
        InvalidInput: the shapes differ, the piece is empty, or a value is not finite.
    """
    image, where, free = finite_map("pixels", pixels).astype(np.float64), mask("piece", piece), mask("allowed", allowed)
    if where.shape != image.shape or free.shape != image.shape:
        raise InvalidInput(f"piece and allowed must have the shape of the image {image.shape}")
    if not where.any():
        raise InvalidInput("piece must hold at least one pixel, got an empty mask")
    rows, columns = np.nonzero(ndimage.binary_dilation(where, iterations=4))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    # Half the width is enough for another piece of tissue; less would copy the piece itself.
    steps = [(0, side * reach) for reach in range(int(width), int(width) // 2, -2) for side in (1, -1)]
    if not same_depth:
        steps += [(side * reach, 0) for reach in range(int(height), int(height) // 2, -2) for side in (1, -1)]
    for down, right in steps:
        there = rows + down, columns + right
        inside = (there[0] >= 0) & (there[0] < image.shape[0]) & (there[1] >= 0) & (there[1] < image.shape[1])
        if inside.all() and free[there].all():
            share = ndimage.gaussian_filter(where.astype(np.float64), _FEATHER_PX)
            moved = image.copy()
            moved[rows, columns] = image[there]
            return image + share * (moved - image)
    return None


def removal_record(
    with_lesion: ArrayLike,
    removed: ArrayLike,
    with_tissue: Sequence[float],
    replaced: Sequence[float],
    *,
    category: str = "malignant",
    **stated: Any,
) -> dict[str, Any]:
    """Return the causal record as JSON values.

    Args:
        with_lesion: ``(n,)`` scores of images with a lesion.
        removed: ``(n,)`` scores of the same images without it.
        with_tissue: ``(n,)`` scores of images before a healthy piece of the same size was replaced; NaN where that was
            impossible.
        replaced: ``(n,)`` scores of the same images afterwards.
        category: class that is scored, and class of the images with a lesion.
        stated: further entries, such as the seed and the kind of images.

    Raises:
        InvalidInput: the lengths differ or there is no image.
    """
    arrays = [
        real_array(name, values).astype(np.float64)
        for name, values in (
            ("with_lesion", with_lesion),
            ("removed", removed),
            ("with_tissue", with_tissue),
            ("replaced", replaced),
        )
    ]
    if len({each.shape for each in arrays}) != 1 or arrays[0].ndim != 1 or not arrays[0].size:
        shapes = ", ".join(str(each.shape) for each in arrays)
        raise InvalidInput(f"scores must be four arrays (n,) of one length, got {shapes}")
    fall, control = arrays[0] - arrays[1], arrays[2] - arrays[3]
    known = np.isfinite(control)
    compared = (
        round(compare_with_baselines({"lesion": fall[known]}, {"control": control[known]}).p["lesion"], 4)
        if known.any()
        else None
    )
    return {
        "lesion": _effect(fall),
        "control": _effect(control[known]) if known.any() else None,
        "p": compared,
        "category": category,
        "meaning": f"fall of the log-odds of {category} when a simulated {named_lesion(category)} is removed from an "
        "image, and when a healthy piece of the same size and place is replaced by the tissue beside it; p: one-sided "
        "paired permutation test of the larger fall",
        **stated,
    }


def named_lesion(category: str) -> str:
    """Return the name of the lesion in images of a class."""
    return category if category == "mass" else f"{category} lesion"


def _effect(fall: np.ndarray) -> dict[str, Any]:
    """Return how often and by how much scores fell, with 95 % intervals: Wilson, and bootstrap over images."""
    n, n_lowered = len(fall), int((fall > 0).sum())
    low, high = wilson(n_lowered, n)
    draws = np.random.default_rng(0).choice(fall, (N_BOOTSTRAP, n)).mean(axis=1)
    mean_low, mean_high = np.quantile(draws, [0.025, 0.975])
    return {
        "n": n,
        "n_lowered": n_lowered,
        "low": round(low, 3),
        "high": round(high, 3),
        "fall": round(float(fall.mean()), 3),
        "fall_low": round(float(mean_low), 3),
        "fall_high": round(float(mean_high), 3),
    }
