"""The pointing game in three regions of a breast ultrasound image: Byra et al. 2022, "Evaluations" and Table 2."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.checks import finite_map, mask, real_array, real_number

__all__ = ["ANY_REGION", "RING_MM", "RegionHits", "breast_regions", "pointing_hits", "pointing_table"]

RING_MM = 5.0
"""Width of the ring around the mass, millimetres (Byra et al., region 2)."""

ANY_REGION = "any"
"""Row of the table for hits in at least one of the regions (Byra et al., Table 2, last row)."""


def breast_regions(
    mass_mask: ArrayLike, spacing_mm: float | Sequence[float], ring_mm: float = RING_MM
) -> dict[str, np.ndarray]:
    """Return the three regions in which radiologists assess a mass (Byra et al., Fig. 3).

    Several masses are treated as one region with several parts. The ring and the region below overlap near the lower
    edge of the mass. Neither contains a pixel of the mass: the region below starts under the lowest pixel of the mass
    in each column, whatever gaps the column has.

    Args:
        mass_mask: ``(h, w)``, non-zero inside the mass; row 0 is at the transducer.
        spacing_mm: distance between neighbouring pixels in millimetres: one number, or ``(row, column)`` like DICOM
            Pixel Spacing - first the distance between rows (down), then between columns (across).
        ring_mm: width of the ring in millimetres, not negative.

    Returns:
        Masks ``(h, w)`` bool. ``"mass"``; ``"peritumoral"``: pixels outside the mass whose centre is at most
        ``ring_mm`` (up to rounding) from the centre of a pixel of the mass; ``"below"``: in each column that the mass
        touches, every pixel under its lowest pixel - none if the mass reaches the lower border.

    Raises:
        InvalidInput: the mask is empty, does not have two dimensions, or has values that are not finite.
        InvalidParameter: a spacing or a width is out of range.
    """
    mass = mask("mass_mask", mass_mask)
    if not mass.any():
        raise InvalidInput("mass_mask must hold at least one pixel of the mass, got an empty mask")
    spacing = _spacing(spacing_mm)
    if not 0 <= real_number("ring_mm", ring_mm) < np.inf:
        raise InvalidParameter(f"ring_mm must be finite and not negative, got {ring_mm}")
    distance_mm = ndimage.distance_transform_edt(~mass, sampling=spacing)
    # Rounding: at 0.1 mm, 14 rows and 48 columns are 5 mm, but their distance exceeds 5 by about 1e-15.
    ring = ~mass & (distance_mm <= ring_mm * (1 + 1e-9))
    # True from the top of each column down to its lowest pixel of the mass.
    at_or_above_mass = np.maximum.accumulate(mass[::-1], axis=0)[::-1]
    return {"mass": mass, "peritumoral": ring, "below": mass.any(axis=0) & ~at_or_above_mass}


def pointing_hits(map: ArrayLike, regions: Mapping[str, ArrayLike]) -> dict[str, bool]:
    """Return whether each region contains the maximum or the minimum of a map.

    The paper does not cover several pixels with the extreme value. Here such an extreme is inside a region that
    contains at least half of these pixels. The order of pixels is then irrelevant, a plateau counts where most of it
    lies, and the zero background of a rectified map, its minimum, is not a hit for a small region. A constant map has
    no extreme and hits no region.

    Args:
        map: ``(h, w)``, signed.
        regions: masks ``(h, w)`` by name, as from `breast_regions`.

    Raises:
        InvalidInput: the shapes differ, an array does not have two dimensions, or a value is not finite.
    """
    scores = finite_map("map", map)
    masks = {name: mask(name, region) for name, region in regions.items()}
    for name, region in masks.items():
        if region.shape != scores.shape:
            raise InvalidInput(f"region {name} must have the shape of the map {scores.shape}, got {region.shape}")
    low, high = scores.min(), scores.max()
    if low == high:
        return dict.fromkeys(masks, False)
    extremes = (scores == high, scores == low)
    return {name: any(_holds_half(region, extreme) for extreme in extremes) for name, region in masks.items()}


class RegionHits(NamedTuple):
    """One row of Table 2.

    Attributes:
        n_hits: number of correctly classified cases whose map hits the region.
        n_cases: number of correctly classified cases.
        rate: ``n_hits / n_cases``.
    """

    n_hits: int
    n_cases: int
    rate: float


def pointing_table(hits: Sequence[Mapping[str, bool]], correct: ArrayLike) -> dict[str, RegionHits]:
    """Return Table 2 of Byra et al.: hits per region among the correctly classified cases.

    The rates do not sum to 1: the maximum and the minimum can hit two regions, and so can one pixel where regions
    overlap.

    Args:
        hits: one result of `pointing_hits` per case, all with the same regions.
        correct: ``(n,)`` bool, or 0 and 1: whether each case was classified correctly.

    Returns:
        One row per region in the order of the first case, and `ANY_REGION` for hits in at least one region.

    Raises:
        InvalidInput: the lengths differ, a value of ``correct`` is neither 0 nor 1, the regions of the cases differ, a
            region is called "any", or no case was classified correctly.
    """
    stated = real_array("correct", correct)
    if stated.shape != (len(hits),):
        raise InvalidInput(f"correct must have one value per case, got shape {stated.shape} for {len(hits)} cases")
    if not np.isin(stated, (0, 1)).all():
        raise InvalidInput(f"correct must be 0 or 1 for each case, got {stated.min():g} to {stated.max():g}")
    chosen = stated == 1
    if not chosen.any():
        raise InvalidInput(f"at least one case must be classified correctly, got none of {len(hits)}")
    names = list(hits[0])
    if ANY_REGION in names:
        raise InvalidInput(f"regions must not be called {ANY_REGION!r}, got {', '.join(names)}")
    if odd := next((sorted(case) for case in hits if set(case) != set(names)), None):
        raise InvalidInput(f"all cases must have the regions {', '.join(sorted(names))}, got {', '.join(odd)}")
    counted = [case for case, is_correct in zip(hits, chosen, strict=True) if is_correct]
    table = {name: _row([case[name] for case in counted]) for name in names}
    return table | {ANY_REGION: _row([any(case.values()) for case in counted])}


def _spacing(spacing_mm: float | Sequence[float]) -> tuple[float, float]:
    refusal = f"spacing_mm must be one positive number or (row, column), got {spacing_mm}"
    try:
        values = np.atleast_1d(real_array("spacing_mm", spacing_mm))
    except InvalidInput as error:
        raise InvalidParameter(refusal) from error
    if values.shape not in ((1,), (2,)) or not (np.isfinite(values).all() and (values > 0).all()):
        raise InvalidParameter(refusal)
    return float(values[0]), float(values[-1])


def _holds_half(region: np.ndarray, extreme: np.ndarray) -> bool:
    return bool(2 * np.count_nonzero(region & extreme) >= np.count_nonzero(extreme))


def _row(found: Sequence[bool]) -> RegionHits:
    n_hits = sum(map(bool, found))
    return RegionHits(n_hits, len(found), n_hits / len(found))
