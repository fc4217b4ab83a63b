"""Measures of counterfactual images and of the masks of what they changed.

The names are those of the literature on counterfactual explanations: Verma et al., "Counterfactual explanations and
algorithmic recourses for machine learning: a review", ACM Computing Surveys 56 (2024), 312.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.checks import real_array, real_number
from radlens.evaluation.masks import Masks, area_share, binary_mask, binary_masks, union

__all__ = ["Sparsity", "closeness", "sparsity", "stability", "validity"]


class Sparsity(NamedTuple):
    """Size and place of a change.

    Attributes:
        area: share of the organ that changed, 0 to 1; NaN if the organ has no pixel.
        outside: share of the changed pixels that lie outside every lesion, 0 to 1; NaN if nothing changed.
    """

    area: float
    outside: float


def validity(before: ArrayLike, after: ArrayLike, *, threshold: float = 0.5) -> float:
    """Return the share of the images of a class that a classifier no longer assigns to the class.

    A score above ``threshold`` is the class. Images that the classifier did not assign to the class before are left
    out: nothing about them was to be changed.

    Args:
        before: ``(n,)`` scores of the explained class on the images.
        after: ``(n,)`` scores of the same class on the changed images, in the same order.
        threshold: 0.5 for probabilities, 0 for log-odds.

    Returns:
        0 to 1; NaN if the classifier assigned no image to the class.

    Raises:
        InvalidInput: the scores are not ``(n,)`` of one length, or one is NaN.
        InvalidParameter: the threshold is not finite.
    """
    if not np.isfinite(real_number("threshold", threshold)):
        raise InvalidParameter(f"threshold must be finite, got {threshold}")
    first, second = _scores("before", before), _scores("after", after)
    if first.shape != second.shape:
        raise InvalidInput(f"after must have one score for each of the {len(first)} images, got {len(second)}")
    chosen = first > threshold
    return float(np.mean(second[chosen] <= threshold)) if chosen.any() else float("nan")


def sparsity(result: ArrayLike, organ: ArrayLike, truth: Masks = ()) -> Sparsity:
    """Return how much of an organ a mask changes, and how much of the mask lies outside the lesions.

    Args:
        result: ``(h, w)`` mask of the changed pixels.
        organ: ``(h, w)`` mask of the organ.
        truth: mask of the lesion, or one for each lesion; without one, everything lies outside.

    Raises:
        InvalidInput: an argument is not a binary mask, or shapes differ.
    """
    found = binary_mask("result", result)
    lesions = union(binary_masks("truth", truth, found.shape), found.shape)
    n_changed = np.count_nonzero(found)
    outside = np.count_nonzero(found & ~lesions) / n_changed if n_changed else float("nan")
    return Sparsity(area_share(found, organ), outside)


def closeness(image: ArrayLike, counterfactual: ArrayLike, organ: ArrayLike) -> float:
    """Return the mean absolute difference of two images inside an organ, in the unit of the images; 0 is no change.

    Args:
        image: ``(h, w)`` or ``(c, h, w)``; the mean runs over channels too.
        counterfactual: the changed image, of the same shape.
        organ: ``(h, w)`` mask of the organ.

    Returns:
        The difference, NaN if the organ has no pixel.

    Raises:
        InvalidInput: a shape does not fit, an image is not finite, or the organ is not a binary mask.
    """
    first, second = _image("image", image), _image("counterfactual", counterfactual)
    inside = binary_mask("organ", organ)
    if second.shape != first.shape:
        raise InvalidInput(f"counterfactual must have the shape of image {first.shape}, got {second.shape}")
    if inside.shape != first.shape[-2:]:
        raise InvalidInput(f"organ must have the rows and columns of image {first.shape[-2:]}, got {inside.shape}")
    return float(np.abs(first - second)[..., inside].mean()) if inside.any() else float("nan")


def stability(masks: Sequence[ArrayLike]) -> float:
    """Return the mean intersection over union of all pairs of masks, such as those of several seeds for one image.

    Two masks without a pixel agree, so their value is 1.

    Returns:
        0 to 1; NaN for fewer than two masks.

    Raises:
        InvalidInput: one of the masks is not a binary mask, or shapes differ.
    """
    found = [binary_mask(f"masks[{i}]", each) for i, each in enumerate(masks)]
    for i, each in enumerate(found):
        if each.shape != found[0].shape:
            raise InvalidInput(f"masks[{i}] must have the shape of masks[0] {found[0].shape}, got {each.shape}")
    values = [_iou(a, b) for a, b in combinations(found, 2)]
    return float(np.mean(values)) if values else float("nan")


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    n_either = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / n_either if n_either else 1.0


def _scores(name: str, values: ArrayLike) -> np.ndarray:
    array = real_array(name, values)
    if array.ndim != 1:
        raise InvalidInput(f"{name} must have shape (n,), got {array.shape}")
    if np.isnan(array).any():
        raise InvalidInput(f"{name} must be numbers, got {np.count_nonzero(np.isnan(array))} that are NaN")
    return array


def _image(name: str, values: ArrayLike) -> np.ndarray:
    array = real_array(name, values)
    if array.ndim not in (2, 3) or not array.size:
        raise InvalidInput(f"{name} must have shape (h, w) or (c, h, w) with at least one pixel, got {array.shape}")
    if not np.isfinite(array).all():
        raise InvalidInput(f"{name} must be finite, got NaN or infinity")
    return array
