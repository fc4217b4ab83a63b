"""The map of many samples of an image: Amanova et al. 2022, section 2.3.2; :mod:`radlens.explainers` makes it."""

import math
from dataclasses import dataclass

import numpy as np

from radlens.errors import InvalidInput
from radlens.maps.reliability import Goal, Halves

__all__ = ["UpsampledMap"]


@dataclass(frozen=True, eq=False)
class UpsampledMap:
    """A map on the grid of the full image.

    Attributes:
        map: ``(H, W)`` float64, signed, in units of the maps it was made from.
        visits: ``(H, W)`` of an integer type, how many samples held each pixel; they sum to ``n_samples * 250 * 250``.
        n_samples: samples behind the map.
        normalize: ``"paper"`` or ``"visits"``.
        halves: of the samples, to tell how reliable the map is; None where it is not known.
        goal: what an automatic run was to reach; None for a run of a fixed number of samples.
        is_reached: whether it did; None without ``goal``.
        members: ``(m, H, W)`` float32, the map of each member, whose mean ``map`` is; None where they were not told
            apart.
    """

    map: np.ndarray
    visits: np.ndarray
    n_samples: int
    normalize: str = "paper"
    halves: Halves | None = None
    goal: Goal | None = None
    is_reached: bool | None = None
    members: np.ndarray | None = None

    @property
    def total(self) -> np.ndarray:
        """The sum over samples ``(H, W)`` before it was divided."""
        return self.map * (self.n_samples if self.normalize == "paper" else self.visits)

    def disagreement(self) -> np.ndarray:
        """Return the standard deviation over the members, ``(H, W)`` float32 in units of the map.

        Raises:
            InvalidInput: the members were not told apart.
        """
        if self.members is None:
            raise InvalidInput("members must be told apart for their disagreement, got their mean alone")
        mean = self.members.mean(axis=0, dtype=np.float32)
        variance = np.zeros_like(mean)
        for values in self.members:
            variance += (values - mean) ** 2
        return np.sqrt(variance / np.float32(len(self.members)))

    @property
    def reliability(self) -> float:
        """See :meth:`Halves.reliability`; NaN where it is not known."""
        return math.nan if self.halves is None else self.halves.reliability()
