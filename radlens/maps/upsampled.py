"""The map of many samples of an image: Amanova et al. 2022, section 2.3.2; made by :mod:`radlens.explainers`."""

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
        map: ``(H, W)`` float64, signed, in the units of the samples' maps.
        visits: ``(H, W)`` integers, number of samples that hold each pixel; the sum is ``n_samples * 250 * 250``.
        n_samples: number of samples.
        normalize: ``"paper"`` or ``"visits"``.
        halves: half maps that measure the reliability; None if it is unknown.
        goal: stopping rule of an automatic run; None for a run of a fixed number of samples.
        is_reached: whether the run reached ``goal``; None without ``goal``.
        members: ``(m, H, W)`` float32, the maps of the members, whose mean is ``map``; None if they were not kept.
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
        """The sum over samples ``(H, W)`` before the division."""
        return self.map * (self.n_samples if self.normalize == "paper" else self.visits)

    def disagreement(self) -> np.ndarray:
        """Return the standard deviation over the members, ``(H, W)`` float32 in units of the map.

        Raises:
            InvalidInput: The members' maps were not kept.
        """
        if self.members is None:
            raise InvalidInput("members must be kept for their disagreement, got their mean alone")
        mean = self.members.mean(axis=0, dtype=np.float32)
        variance = np.zeros_like(mean)
        for values in self.members:
            variance += (values - mean) ** 2
        return np.sqrt(variance / np.float32(len(self.members)))

    @property
    def reliability(self) -> float:
        """Split-half reliability, 0 to 1; NaN if it is unknown."""
        return math.nan if self.halves is None else self.halves.reliability()
