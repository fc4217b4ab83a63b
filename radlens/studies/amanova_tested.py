"""Predicted curves of many test images: Amanova et al. 2022, Fig. 2 b and the coverages of section 2.2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radlens.errors import UnreadableImage
from radlens.evaluation import coverage
from radlens.studies.amanova_images import RECORDED, SCENARIO_TITLES, StudyImage, phantom_of
from radlens.studies.amanova_recipes import Recipe
from radlens.studies.store import Store

__all__ = ["GROUPS", "TestPhantoms", "TestedGroup"]

_VERSION = 2
"""Version of the readings; those of version 1 were not corrected by the blur of the disks."""

GROUPS = (RECORDED, *SCENARIO_TITLES)
"""Recorded images, or their simulated replacements, and the rows of Table 1."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class TestedGroup:
    """Curves of the test images of one group.

    Attributes:
        mean: (n, 12) predicted thresholds, um of gold.
        total: (n, 12) total uncertainties, um of gold.
        interval: (n, 12, 2) ends of the 95 % intervals, um of gold.
        truth: (n, 12) true thresholds, um of gold.
        n_refused: number of images in which no phantom was found.
    """

    __test__ = False  # pytest would collect the class because of its name

    mean: NDArray[np.float64]
    total: NDArray[np.float64]
    interval: NDArray[np.float64]
    truth: NDArray[np.float64]
    n_refused: int

    @classmethod
    def of(cls, found: Sequence[Arrays]) -> TestedGroup:
        """Return the group of the results of images; a result without a mean is a refusal."""
        read = [values for values in found if "mean" in values]
        shapes = {"mean": (12,), "total": (12,), "interval": (12, 2), "truth": (12,)}
        arrays = {
            name: np.array([values[name] for values in read]).reshape(-1, *shape) for name, shape in shapes.items()
        }
        return cls(**arrays, n_refused=len(found) - len(read))

    def __len__(self) -> int:
        """Return the number of curves."""
        return len(self.mean)

    @property
    def coverage(self) -> float:
        """Fraction of true thresholds within their interval."""
        return float(coverage(self.interval, self.truth))


@dataclass(frozen=True, eq=False)
class TestPhantoms:
    """The test images.

    Args:
        n: number of images of each group.
        spacing_mm: pixel spacing of simulated images, mm.
        seed: seed of the samples of predictions.
        recorded: recordings; if empty, simulated images replace them.
        source: folder of the recordings, for keys.
    """

    __test__ = False  # pytest would collect the class because of its name

    n: int
    spacing_mm: float
    seed: int
    recorded: Sequence[StudyImage] = ()
    source: str = ""

    def read(
        self, recipes: Sequence[Recipe], store: Store, report: Callable[[int, int], None]
    ) -> dict[str, dict[str, TestedGroup]]:
        """Return the curves by recipe and group, from the store or computed now.

        Args:
            recipes: recipes with their models.
            store: store of the curves.
            report: called as ``report(done, total)``, in images.
        """
        counts = dict.fromkeys(GROUPS, self.n) | ({RECORDED: len(self.recorded)} if self.recorded else {})
        found: dict[str, dict[str, TestedGroup]] = {recipe.name: {} for recipe in recipes}
        done, total = 0, sum(counts.values())
        for group, n in counts.items():
            curves: dict[str, list[Arrays]] = {recipe.name: [] for recipe in recipes}
            for number in range(n):
                for name, values in self._read_one(group, number, recipes, store).items():
                    curves[name].append(values)
                done += 1
                report(done, total)
            for name, read in curves.items():
                found[name][group] = TestedGroup.of(read)
        return found

    def _read_one(self, group: str, number: int, recipes: Sequence[Recipe], store: Store) -> dict[str, Arrays]:
        """Return the result of each recipe for an image, which is simulated only if a result is missing."""
        drawn: list[StudyImage] = []
        is_real = group == RECORDED and bool(self.recorded)

        def image() -> StudyImage:
            if not drawn:
                drawn.append(self.recorded[number] if is_real else phantom_of(group, number, self.spacing_mm))
            return drawn[0]

        def compute(recipe: Recipe) -> Callable[[], Arrays]:
            def read() -> Arrays:
                try:
                    found = recipe.read(recipe.view(image().pixels, image().spacing_mm), seed=self.seed)
                except UnreadableImage:
                    return {"truth": image().truth_um}
                return {**vars(found), "truth": image().truth_um}

            return read

        source = self.source if is_real else self.spacing_mm
        key = {"group": group, "number": number, "source": source, "seed": self.seed, "version": _VERSION}
        return {
            recipe.name: store.arrays(
                "test images", {**key, "model": recipe.identity, "engine": recipe.engine}, compute(recipe)
            )
            for recipe in recipes
        }
