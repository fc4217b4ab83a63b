"""Masks of an explanation beside those of lesions and of an organ: Major et al. 2020, section 3 and Tables 1 and 2.

Every mask is ``(h, w)``, any array whose values are 0 outside and one other number inside. A relaxed mask with values
between is refused, since it would count as inside wherever it is not exactly 0; it must be compared with a threshold
first. Distances are Euclidean, between centres of pixels, in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage
from scipy.spatial.distance import cdist

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.checks import finite_map, integer, is_tensor, real_array, real_number

if TYPE_CHECKING:
    pass

__all__ = [
    "Masks",
    "area_share",
    "binary_mask",
    "binary_masks",
    "centre_distance",
    "hausdorff_distance",
    "mask_of_area",
    "overlap_coefficient",
    "percentile_mask",
    "union",
]

Masks = ArrayLike | Sequence[ArrayLike]
"""One mask ``(h, w)``, or several: a sequence of masks, or an array ``(n, h, w)``."""

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)
"""Pixels that touch at an edge or a corner are connected."""


def centre_distance(result: ArrayLike, truth: Masks) -> float:
    """Return the median distance between connected components of a mask and true masks (D of Table 1), in pixels.

    A pair is a component of ``result``, connected over edges and corners, and a mask of ``truth``. The centre is the
    mean position of the pixels.

    Args:
        result: mask of the explanation.
        truth: one mask, or one for each lesion. Parts of one mask are not separated: they have one centre. Masks
            without a pixel are left out.

    Returns:
        The median over all pairs, NaN if there is none: an empty result, or no true pixel.

    Raises:
        InvalidInput: an argument is not a binary mask, or shapes differ.
    """
    found = binary_mask("result", result)
    lesions = [each for each in binary_masks("truth", truth, found.shape) if each.any()]
    labels, n = ndimage.label(found, structure=_EIGHT_NEIGHBOURS)
    if not n or not lesions:
        return float("nan")
    centres = ndimage.center_of_mass(found, labels, range(1, n + 1))
    return float(np.median(cdist(centres, [ndimage.center_of_mass(each) for each in lesions])))


def hausdorff_distance(result: ArrayLike, truth: Masks) -> float:
    """Return the symmetric Hausdorff distance between the pixels of two masks (H of Table 1), in pixels.

    It is the largest distance from a pixel of one mask to the nearest pixel of the other, in both directions.

    Args:
        result: mask of the explanation.
        truth: the other mask, or one for each lesion. Masks without a pixel are left out.

    Returns:
        The median over the masks of ``truth``, NaN if there is none: an empty result, or no true pixel.

    Raises:
        InvalidInput: an argument is not a binary mask, or shapes differ.
    """
    found = binary_mask("result", result)
    lesions = [each for each in binary_masks("truth", truth, found.shape) if each.any()]
    if not found.any() or not lesions:
        return float("nan")
    to_result = ndimage.distance_transform_edt(~found)
    distances = [max(to_result[each].max(), ndimage.distance_transform_edt(~each)[found].max()) for each in lesions]
    return float(np.median(distances))


def area_share(result: ArrayLike, organ: ArrayLike) -> float:
    """Return the share of an organ that a mask covers (A of Table 2): ``|result and organ| / |organ|``.

    Returns:
        0 to 1; NaN if the organ has no pixel. An empty result covers 0.

    Raises:
        InvalidInput: an argument is not a binary mask, or shapes differ.
    """
    found, inside = _pair(("result", result), ("organ", organ))
    return _ratio(_count(found & inside), _count(inside))


def overlap_coefficient(a: ArrayLike, b: ArrayLike) -> float:
    """Return the overlap coefficient of two masks (O of Table 2): ``|a and b| / min(|a|, |b|)``.

    Returns:
        0 to 1, 1 if one mask contains the other; NaN if one has no pixel.

    Raises:
        InvalidInput: an argument is not a binary mask, or shapes differ.
    """
    first, second = _pair(("a", a), ("b", b))
    return _ratio(_count(first & second), min(_count(first), _count(second)))


def percentile_mask(map: ArrayLike, organ: ArrayLike, percent: float) -> np.ndarray:
    """Return the pixels of an organ whose value is at least a percentile of the values of the map inside the organ.

    The 90th percentile gives a tenth of the organ. Where many pixels have the value of the percentile, as in a map that
    is 0 nearly everywhere, all of them belong to the mask; `mask_of_area` has exactly the pixels asked for.

    Args:
        map: ``(h, w)``, larger is more important.
        organ: mask of the organ.
        percent: 0 to 100; values between two pixels are interpolated linearly.

    Returns:
        ``(h, w)`` bool; empty if the organ has no pixel.

    Raises:
        InvalidInput: the map is not finite, the organ is not a binary mask, or shapes differ.
        InvalidParameter: the percentile is out of range.
    """
    scores, inside = _map_in(map, organ)
    if not 0 <= real_number("percent", percent) <= 100:
        raise InvalidParameter(f"percent must be between 0 and 100, got {percent}")
    if not inside.any():
        return np.zeros_like(inside)
    return inside & (scores >= np.percentile(scores[inside], percent))


def mask_of_area(map: ArrayLike, organ: ArrayLike, n_pixels: int) -> np.ndarray:
    """Return the pixels of an organ with the highest values of a map, for a comparison of maps at equal area.

    Of pixels with equal values, those further up, and then those further left, come first.

    Args:
        map: ``(h, w)``, larger is more important.
        organ: mask of the organ.
        n_pixels: number of pixels of the mask, at most that of the organ.

    Returns:
        ``(h, w)`` bool.

    Raises:
        InvalidInput: the map is not finite, the organ is not a binary mask, or shapes differ.
        InvalidParameter: ``n_pixels`` is not an integer, is negative, or exceeds the pixels of the organ.
    """
    scores, inside = _map_in(map, organ)
    n = integer("n_pixels", n_pixels, 0)
    places = np.flatnonzero(inside)
    if n > len(places):
        raise InvalidParameter(f"n_pixels must be at most the {len(places)} pixels of the organ, got {n}")
    found = np.zeros(inside.size, dtype=bool)
    found[places[np.argsort(-scores.ravel()[places], kind="stable")[:n]]] = True
    return found.reshape(inside.shape)


def binary_mask(name: str, values: ArrayLike) -> np.ndarray:
    """Return a mask ``(h, w)`` as bool.

    Raises:
        InvalidInput: it does not have two dimensions, has no pixels, has values that are not finite, or has several
            values beside 0.
    """
    if isinstance(values, np.ndarray) and values.dtype == bool and values.ndim == 2 and values.size:
        return values
    array = finite_map(name, values)
    found = array != 0
    if found.any():
        low, high = array[found].min(), array[found].max()
        if low != high:
            raise InvalidInput(f"{name} must be a mask of 0 and one other value, got values from {low:g} to {high:g}")
    return found


def binary_masks(name: str, values: Masks, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Return one or several masks of a shape as a list.

    Raises:
        InvalidInput: one of them is not a binary mask of this shape.
    """
    found = [binary_mask(label, each) for label, each in _several(name, values)]
    for (label, _), each in zip(_several(name, values), found, strict=True):
        if each.shape != shape:
            raise InvalidInput(f"{label} must have the shape of the result {shape}, got {each.shape}")
    return found


def union(masks: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Return the union of masks; all false without one."""
    return np.logical_or.reduce([np.zeros(shape, dtype=bool), *masks])


def _several(name: str, values: Masks) -> list[tuple[str, ArrayLike]]:
    if isinstance(values, np.ndarray) or is_tensor(values):
        if values.ndim == 2:
            return [(name, values)]
        if values.ndim == 3:
            return [(f"{name}[{i}]", each) for i, each in enumerate(values)]
        raise InvalidInput(f"{name} must be a mask (h, w) or several (n, h, w), got shape {tuple(values.shape)}")
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise InvalidInput(f"{name} must be a mask or a sequence of masks, got {type(values).__name__}")
    if len(values) and real_array(name, values[0]).ndim == 1:
        # Nested lists of numbers are one mask.
        return [(name, values)]  # type: ignore[list-item]
    return [(f"{name}[{i}]", each) for i, each in enumerate(values)]  # type: ignore[misc]


def _pair(first: tuple[str, ArrayLike], second: tuple[str, ArrayLike]) -> tuple[np.ndarray, np.ndarray]:
    one, other = binary_mask(*first), binary_mask(*second)
    if one.shape != other.shape:
        raise InvalidInput(f"{second[0]} must have the shape of {first[0]} {one.shape}, got {other.shape}")
    return one, other


def _map_in(map: ArrayLike, organ: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    scores, inside = finite_map("map", map), binary_mask("organ", organ)
    if scores.shape != inside.shape:
        raise InvalidInput(f"organ must have the shape of map {scores.shape}, got {inside.shape}")
    return scores, inside


def _count(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
