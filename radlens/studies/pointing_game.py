"""The pointing game in three regions of breast ultrasound images: Byra et al. 2022, Table 2."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from radlens.evaluation import RING_MM, RegionHits, breast_regions, pointing_hits, pointing_table
from radlens.figures import chance_hits
from radlens.studies.cases import StudyCase
from radlens.studies.maps import MapSet

__all__ = ["PointingGame", "measure_pointing", "regions_of"]


@dataclass(frozen=True, eq=False)
class PointingGame:
    """Regions with the extremes of the maps of each method.

    Attributes:
        indices: indices of the correctly classified images.
        hits: results of `radlens.evaluation.pointing_hits` by method, one for each image.
        tables: Table 2 of Byra et al., by method.
        by_chance: probability that two random pixels hit, by region, from `radlens.figures.chance_hits`.
        n_wrong: number of misclassified images.
        n_left_out: number of images without an outline or a spacing.
    """

    indices: Sequence[int]
    hits: Mapping[str, Sequence[Mapping[str, bool]]]
    tables: Mapping[str, Mapping[str, RegionHits]]
    by_chance: Mapping[str, float]
    n_wrong: int
    n_left_out: int


def regions_of(case: StudyCase, ring_mm: float = RING_MM) -> dict[str, np.ndarray] | None:
    """Return the regions of an image, None without an outline or a spacing."""
    if case.sample.spacing_mm is None or not case.mask.any():
        return None
    return breast_regions(case.mask, case.sample.spacing_mm, ring_mm)


def measure_pointing(
    maps: MapSet, indices: Sequence[int], correct: np.ndarray, *, ring_mm: float = RING_MM
) -> PointingGame | None:
    """Play the game with the maps of all methods.

    Args:
        maps: maps of the images.
        indices: indices of the images to measure.
        correct: ``(n,)`` bool for all images of the set: whether each was classified correctly.
        ring_mm: width of the peritumoral region, millimetres.

    Returns:
        The results; None if no image with an outline and a spacing was classified correctly.
    """
    regions = {i: found for i in indices if (found := regions_of(maps.cases[i], ring_mm))}
    chosen = {i: found for i, found in regions.items() if correct[i]}
    if not chosen:
        return None
    hits = {name: [pointing_hits(maps.map(name, i), found) for i, found in chosen.items()] for name in maps.methods}
    everything = np.ones(len(chosen), dtype=bool)
    return PointingGame(
        indices=list(chosen),
        hits=hits,
        tables={name: pointing_table(found, everything) for name, found in hits.items()},
        by_chance=chance_hits(list(chosen.values())),
        n_wrong=len(regions) - len(chosen),
        n_left_out=len(indices) - len(regions),
    )
