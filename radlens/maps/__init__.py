"""Maps of many samples and how reliable they are: what draws a map needs this and no network."""

from radlens.maps.reliability import LEAST_RELIABILITY, SCALE_PX, Goal, Halves, samples_for, spearman_brown
from radlens.maps.upsampled import UpsampledMap

__all__ = [
    "LEAST_RELIABILITY",
    "SCALE_PX",
    "Goal",
    "Halves",
    "UpsampledMap",
    "samples_for",
    "spearman_brown",
]
