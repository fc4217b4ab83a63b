"""Test whether a map marks the disks of a phantom, by comparison with the map of its disk-free twin.

A gradient map also shows where a model *would* look: maps of a phantom with and without disks correlate by more than
0.8. The statistic therefore compares the values of a map on the disks with those on the rings around them, and repeats
this for the map of the same image with its disks replaced by their surroundings. A map whose statistic stays the same
without disks is empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from radlens.explainers import UpsampledMap, upsample
from radlens.explainers.omig import Omig, omig
from radlens.families.cdmam.cells import distance_from_line
from radlens.families.cdmam.replacement import disk_free_twin
from radlens.maps import LEAST_RELIABILITY
from radlens.phantoms.cdmam.geometry import (
    CELL_EXISTS,
    CORNER_OFFSETS,
    DIAMETERS_MM,
    TRUE_CORNER,
    Layout,
    cell_to_phantom,
)
from radlens.phantoms.cdmam.registered import Registered

__all__ = [
    "CLEAR_T",
    "EQUAL_SHARE",
    "LEAST_RELIABILITY",
    "SMALL_SHARE",
    "CounterTest",
    "DiskContrast",
    "DiskStatistic",
    "MapStatement",
    "counter_test",
    "disk_statistic",
    "map_statement",
]

CLEAR_T = 8.0
"""Smallest paired t of the large thick disks of a map that marks disks. About 50 disks are compared; recipes that read
the disks reached 8 to 24, members that ignored them stayed below 3."""

SMALL_SHARE = 1 / 3
"""Ratio of the twin's t to the map's t below which the finding is unqualified. Prototypes of models that read the disks
reached 0.25 to 0.36."""

EQUAL_SHARE = 2 / 3
"""Ratio of the twin's t to the map's t from which the map is empty. It was 0.9 for a phantom without disks, and 0.4 to
0.6 for phantoms whose disks are read."""

Finding = Literal["marks disks", "marks disks in part", "empty", "not reliable"]

_LARGE_MM, _SMALL_MM = 1.0, 0.4
_THICK = math.log(2.0)
_INNER_MM, _LEAST_RADIUS_MM = 0.05, 0.1
_RING_MM = (0.25, 0.75)


@dataclass(frozen=True)
class DiskContrast:
    """Comparison of a map's values on disks with those on the rings around them.

    Attributes:
        n: Number of disks that samples visited, along with their rings.
        disk: Mean value of the map on the disks, in units of the map.
        ring: Mean value of the map on the rings, in units of the map.
        t: Paired t of the differences; nan for fewer than 2 disks or equal differences.
        redder: Share of disks whose value is above that of their ring.
        red: Share of disks whose value is above 0.
    """

    n: int
    disk: float
    ring: float
    t: float
    redder: float
    red: float


@dataclass(frozen=True)
class DiskStatistic:
    """Contrast of the disks that should be visible, with a thickness of at least twice the threshold of the curve.

    Attributes:
        large: Disks of 1 mm and more.
        middle: Disks of 0.5 to 0.8 mm.
        small: Disks of 0.4 mm and less.
        empty: Corners without a disk in the cells of ``large``, measured with the same areas.
    """

    large: DiskContrast
    middle: DiskContrast
    small: DiskContrast
    empty: DiskContrast

    def as_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values; nan becomes null."""
        return {
            group: {name: value if math.isfinite(value) else None for name, value in numbers.items()}
            for group, numbers in asdict(self).items()
        }


@dataclass(frozen=True)
class MapStatement:
    """Whether a map may be shown as a finding, and why.

    Attributes:
        finding: Category of the map; "marks disks in part" if the map of the twin is red at the disks' places as well.
        sentence: Finding in words, with its numbers; it replaces the picture unless `marks_disks`.
    """

    finding: Finding
    sentence: str

    @property
    def marks_disks(self) -> bool:
        """Whether the picture may be shown: it looks like a finding and is one."""
        return self.finding in ("marks disks", "marks disks in part")


@dataclass(frozen=True, eq=False)
class CounterTest:
    """Maps of a phantom and of its disk-free twin, from the same samples.

    Attributes:
        map: Map of the phantom, on its own grid.
        twin: Map of the twin.
        statistic: Statistic of the disks in ``map``.
        twin_statistic: Statistic of the disks' places in ``twin``.
    """

    map: UpsampledMap
    twin: UpsampledMap
    statistic: DiskStatistic
    twin_statistic: DiskStatistic

    @property
    def statement(self) -> MapStatement:
        """Statement whether the map may be shown."""
        return map_statement(self.statistic, self.twin_statistic, self.map.reliability)

    def as_json(self) -> dict[str, Any]:
        """Return both statistics and the statement as JSON values."""
        reliability = self.map.reliability
        return {
            "disks": self.statistic.as_json(),
            "twin": self.twin_statistic.as_json(),
            "reliability": reliability if math.isfinite(reliability) else None,
            "marks_disks": self.statement.marks_disks,
            **asdict(self.statement),
        }


class HasGradient(Protocol):
    """A model with the gradient of its midpoint."""

    def gradient(self, images: Tensor) -> Tensor:
        """Return ``R(x)`` of Amanova et al. 2022, eq. (1), of normalised ``(b, 1, 250, 250)``."""


def counter_test(
    model: HasGradient,
    phantom: Registered,
    mean_um: ArrayLike,
    *,
    n_samples: int,
    n_steps: int = Omig.n_steps,
    path_length: float = Omig.path_length,
    zscore: float = Omig.zscore,
    sampler: str = "stratified",
    seed: int = 0,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
) -> CounterTest:
    """Compute the upsampled OMIG maps of a phantom and of its disk-free twin.

    Args:
        model: Model with a gradient: an ensemble, or an engine.
        phantom: Registered phantom from `radlens.phantoms.cdmam.registered.register`.
        mean_um: (12,) predicted curve, um of gold, which decides which disks should be visible.
        n_samples: Number of samples of each of the two maps.
        n_steps: Number of steps of a walk.
        path_length: Length parameter of a walk.
        zscore: Standard deviations beyond which components of later gradients are dropped.
        sampler: Name of the sampler, which chooses the pixels of each sample.
        seed: Seed of the samples, the same for both maps.
        batch_size: Number of samples explained together.
        on_progress: Callback ``on_progress(done, total)`` that counts the samples of both maps.

    Raises:
        InvalidInput: ``mean_um`` is not a positive curve.
        InvalidParameter: A parameter is out of range.
    """

    def explain(images: Tensor) -> Tensor:
        return omig(model.gradient, images, n_steps=n_steps, path_length=path_length, zscore=zscore)

    def drawn(values: NDArray[np.float32], before: int) -> UpsampledMap:
        def report(done: int, _total: int | None, _partial: object) -> None:
            if on_progress is not None:
                on_progress(before + done, 2 * n_samples)

        with torch.no_grad():
            return upsample(
                np.ascontiguousarray(values),
                explain,
                n_samples=n_samples,
                sampler=sampler,
                seed=seed,
                batch_size=batch_size,
                on_progress=report,
            )

    own, twin = drawn(phantom.values, 0), drawn(disk_free_twin(phantom).values, n_samples)
    statistics = (disk_statistic(each.total, each.visits, phantom.grid, mean_um) for each in (own, twin))
    return CounterTest(own, twin, *statistics)


def disk_statistic(
    total: NDArray[np.floating[Any]], visits: NDArray[np.integer[Any]], grid: Layout, mean_um: ArrayLike
) -> DiskStatistic:
    """Compare the values of a map on the disks with those around them.

    Args:
        total: (h, w) sum of a pixel's values over the samples, `UpsampledMap.total`.
        visits: (h, w) number of samples that hold each pixel.
        grid: Layout of the map's pixels.
        mean_um: (12,) predicted or true curve, um of gold, which decides which disks should be visible.

    Raises:
        InvalidInput: ``mean_um`` is not a positive curve.
    """
    thick = CELL_EXISTS & (distance_from_line(mean_um) >= _THICK)
    diameters = np.array(DIAMETERS_MM)[:, None]
    large, small = thick & (diameters >= _LARGE_MM), thick & (diameters <= _SMALL_MM)
    sums = np.asarray(total, np.float64).reshape(-1), np.asarray(visits).reshape(-1)
    return DiskStatistic(
        large=_contrast(*sums, grid, *_disks(large)),
        middle=_contrast(*sums, grid, *_disks(thick & ~large & ~small)),
        small=_contrast(*sums, grid, *_disks(small)),
        empty=_contrast(*sums, grid, *_empty_corners(large)),
    )


def map_statement(statistic: DiskStatistic, twin: DiskStatistic, reliability: float) -> MapStatement:
    """Return whether a map may be shown as a finding.

    Args:
        statistic: Statistic of the map.
        twin: Statistic of the map of the disk-free twin, from the same samples.
        reliability: Reliability of the map, 0..1; nan if it is unknown.
    """
    found, without = statistic.large.t, twin.large.t
    numbers = f"paired t of {statistic.large.n} large thick disks {found:.1f}, with the disks removed {without:.1f}"
    if not reliability >= LEAST_RELIABILITY:
        known = f"{reliability:.2f}" if math.isfinite(reliability) else "not known"
        needed = f"it must be at least {LEAST_RELIABILITY:g}"
        sentence = f"This map is not reliable: its reliability is {known}, {needed}. Use more samples."
        return MapStatement("not reliable", sentence)
    if not found >= CLEAR_T:
        return MapStatement("empty", f"This map is empty: it does not mark the disks of this image ({numbers}).")
    if not without < EQUAL_SHARE * found:
        where = "it shows where the model would look, with or without disks"
        return MapStatement("empty", f"This map is empty: {where} ({numbers}).")
    marks = f"This map marks the disks of this image: {statistic.large.redder:.0%} of the large thick ones are red"
    marks = f"{marks} against their surroundings ({numbers})."
    if not without < SMALL_SHARE * found:
        part = "Part of the red shows where the model would look, with or without disks."
        return MapStatement("marks disks in part", f"{marks} {part}")
    return MapStatement("marks disks", marks)


def _disks(cells: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return rows (n,) and cell coordinates (n, 2) of the disks of cells: central disks, then corner disks."""
    rows, cols = np.nonzero(cells)
    centres = np.stack([rows, cols], axis=1) + 0.5
    corners = centres + np.array(CORNER_OFFSETS)[TRUE_CORNER[rows, cols]]
    return np.tile(rows, 2), np.concatenate([centres, corners])


def _empty_corners(cells: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return rows (n,) and cell coordinates (n, 2) of the corners without a disk."""
    rows, cols = np.nonzero(cells)
    centres = np.stack([rows, cols], axis=1) + 0.5
    number, corner = np.nonzero(np.arange(len(CORNER_OFFSETS)) != TRUE_CORNER[rows, cols][:, None])
    return rows[number], centres[number] + np.array(CORNER_OFFSETS)[corner]


def _contrast(
    total: NDArray[np.float64],
    visits: NDArray[np.integer[Any]],
    grid: Layout,
    rows: NDArray[np.intp],
    places: NDArray[np.float64],
) -> DiskContrast:
    """Compare disks at cell coordinates ``places`` (n, 2), with the diameters of ``rows`` (n,), with their rings."""
    found = [(_mean(total, visits, disk), _mean(total, visits, ring)) for disk, ring in _areas(grid, rows, places)]
    values = np.array(found, np.float64).reshape(-1, 2)
    disk, ring = values[np.isfinite(values).all(axis=1)].T
    if not len(disk):
        return DiskContrast(0, math.nan, math.nan, math.nan, math.nan, math.nan)
    difference = disk - ring
    spread = difference.std(ddof=1) if len(disk) > 1 else 0.0
    return DiskContrast(
        n=len(disk),
        disk=float(disk.mean()),
        ring=float(ring.mean()),
        t=float(difference.mean() / spread * math.sqrt(len(disk))) if spread > 0 else math.nan,
        redder=float(np.mean(disk > ring)),
        red=float(np.mean(disk > 0)),
    )


def _areas(
    grid: Layout, rows: NDArray[np.intp], places: NDArray[np.float64]
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return the flat indices of the pixels of each disk, without its blurred edge, and of the ring around it."""
    areas = []
    for radius, centre_row, centre_col in zip(
        np.array(DIAMETERS_MM)[rows] / 2, *grid.to_pixels(*cell_to_phantom(*places.T)), strict=True
    ):
        axes = []
        for centre, step, size in zip((centre_row, centre_col), grid.spacing_mm, grid.image_shape, strict=True):
            reach = (radius + _RING_MM[1]) / step
            axes.append(np.arange(max(0, math.ceil(centre - reach)), min(size, math.floor(centre + reach) + 1)))
        down, right = axes
        distance = np.hypot(
            (down[:, None] - centre_row) * grid.spacing_mm[0], (right - centre_col) * grid.spacing_mm[1]
        )
        flat = down[:, None] * grid.image_shape[1] + right
        on_disk = distance <= max(radius - _INNER_MM, _LEAST_RADIUS_MM)
        on_ring = (distance >= radius + _RING_MM[0]) & (distance <= radius + _RING_MM[1])
        areas.append((flat[on_disk], flat[on_ring]))
    return areas


def _mean(total: NDArray[np.float64], visits: NDArray[np.integer[Any]], pixels: NDArray[np.intp]) -> float:
    """Return the mean value per visit; nan without visits."""
    n_visits = int(visits[pixels].sum())
    return float(total[pixels].sum()) / n_visits if n_visits else math.nan
