"""The pointing game in three regions of breast ultrasound images: Byra et al. 2022, Table 2."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from radlens.evaluation import ANY_REGION, RING_MM, RegionHits, breast_regions, pointing_hits, pointing_table
from radlens.evaluation.baselines import BASELINES, Comparison, baseline_map, compare_with_baselines
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
        baselines: rate of hits by baseline and region, of maps that know no network; "random" is ``by_chance``.
        compared: whether each method hits more often than the best baseline, by region.
    """

    indices: Sequence[int]
    hits: Mapping[str, Sequence[Mapping[str, bool]]]
    tables: Mapping[str, Mapping[str, RegionHits]]
    by_chance: Mapping[str, float]
    n_wrong: int
    n_left_out: int
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    compared: Mapping[str, Comparison] = field(default_factory=dict)


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
    by_chance = chance_hits(list(chosen.values()))
    guessed = _baseline_hits(maps, chosen)
    return PointingGame(
        indices=list(chosen),
        hits=hits,
        tables={name: pointing_table(found, everything) for name, found in hits.items()},
        by_chance=by_chance,
        n_wrong=len(regions) - len(chosen),
        n_left_out=len(indices) - len(regions),
        baselines={name: {region: float(each.mean()) for region, each in of.items()} for name, of in guessed.items()},
        compared={
            region: compare_with_baselines(
                {name: _in_region(found, region) for name, found in hits.items()},
                {name: of[region] for name, of in guessed.items()},
            )
            for region in by_chance
        },
    )


def _baseline_hits(maps: MapSet, chosen: Mapping[int, Mapping[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """Return hits by baseline and region, ``(n,)``: 0 or 1, and for "random" the probability that two pixels hit."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name in BASELINES:
        if name == "random":
            each = [chance_hits([regions]) for regions in chosen.values()]
            found[name] = {region: np.array([hits[region] for hits in each]) for region in each[0]}
            continue
        hits = [
            pointing_hits(baseline_map(name, maps.cases[i].sample.pixels), regions) for i, regions in chosen.items()
        ]
        found[name] = {region: _in_region(hits, region) for region in (*hits[0], ANY_REGION)}
    return found


def _in_region(hits: Sequence[Mapping[str, bool]], region: str) -> np.ndarray:
    """Return 0 or 1 for each image."""
    return np.array([any(each.values()) if region == ANY_REGION else each[region] for each in hits], dtype=float)
