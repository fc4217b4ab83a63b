"""Maps of many samples and their reliability; this package needs NumPy alone, so that figures do without torch."""

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
