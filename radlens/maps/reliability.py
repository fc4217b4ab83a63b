"""Split-half reliability of a map of many samples: Spearman 1910 and Brown 1910.

Spearman, "Correlation calculated from faulty data", and Brown, "Some experimental results in the correlation of mental
abilities", both British Journal of Psychology 3 (1910): if two maps of n / 2 samples each have the correlation r, the
map of all n samples has the reliability 2 r / (1 + r). This is the expected correlation of the map with the map of n
other samples of the same image; its square root is the correlation with the map of infinitely many samples.

The halves are correlated as figures show them: as means over the visits of the pixels in a bin, because single pixels
are visited seldom or never. The side of a bin is `SCALE_PX` by default.

The formula assumes that the errors of the halves are independent. This holds for grid and jitter samples. Stratified
samples do not visit a pixel again within a cycle, so a pixel of one half is missing in the other, the errors are
negatively correlated, and the estimate is too low: a conservative bound. Measured with OMIG on the demo model (phantom
of 3145x2034 pixels, bins of 8x8), the estimate and the correlation with the map of another seed:

==========  ============  ============  ============
samples     64            256           512
==========  ============  ============  ============
stratified  0.762, 0.803  0.931, 0.947  0.965, 0.973
jitter      0.770, 0.771  0.932, 0.932  0.965, 0.965
grid        0.375, 0.396  0.730, 0.734  0.846, 0.846
==========  ============  ============  ============
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from radlens.errors import InvalidInput, InvalidParameter

__all__ = ["LEAST_RELIABILITY", "SCALE_PX", "Goal", "Halves", "samples_for", "spearman_brown"]

SCALE_PX = 8
"""Side of a bin in pixels of the image.

At 0.07 mm per pixel it is half the diameter of the largest disk, so that a disk covers more than one bin. It is smaller
than the smoothing of a figure of fewer than about 900 samples. On the demo model the estimated reliability of
stratified samples reaches 0.95 in bins of 4, 8 and 16 pixels after about 800, 360 and 160 samples.
"""
LEAST_RELIABILITY = 0.5
"""Smallest reliability of a map that is shown: below it, chance makes up more than half of the map's variance."""

_LEAST_SHARE = 0.5
"""Smallest share of bins that both halves must have visited; with fewer, most of the map is unknown."""

_ROUNDING = 1e-12
"""Standard deviation of a half map, relative to its largest value, below which it is constant up to rounding."""

_UNIT = 16
"""Number of samples whose multiples are the looks of an automatic run, so that batches of 8 and 16 stay whole."""

_GROWTH = 10
"""Samples of a long automatic run divided by the distance of its looks: at most a tenth of the work is superfluous."""


def spearman_brown(correlation: float, factor: float = 2.0) -> float:
    """Return the reliability of a map with ``factor`` times the samples of two maps of this ``correlation``.

    A correlation of 0 or less gives 0; NaN gives NaN.
    """
    if correlation <= 0:
        return 0.0
    return factor * correlation / (1 + (factor - 1) * correlation)


def samples_for(wanted: float, reliability: float, n_samples: int) -> float:
    """Return how many samples reach the reliability ``wanted`` if ``n_samples`` have ``reliability``.

    The inverse of `spearman_brown`; infinite for a reliability of 0, NaN for NaN.
    """
    if reliability <= 0:
        return math.inf
    return n_samples * wanted * (1 - reliability) / (reliability * (1 - wanted))


@dataclass(frozen=True, eq=False)
class Halves:
    """Two half maps of one image in bins, one of the samples with even numbers, one of those with odd numbers.

    The halves therefore depend neither on the order of the samples nor on the ranges of a run. Memory is 32 bytes per
    bin: 3.5 MB for an image of 7 million pixels in bins of 8x8.

    Attributes:
        image_shape: rows and columns of the image.
        scale_px: approximate side of a bin in pixels; bins divide the image evenly, so sides differ by up to one pixel.
        totals: ``(2, h, w)`` float64, sum of the values that samples gave to the pixels of each bin.
        visits: ``(2, h, w)`` int64, number of these values.
    """

    image_shape: tuple[int, int]
    scale_px: int
    totals: np.ndarray
    visits: np.ndarray

    @classmethod
    def empty(cls, image_shape: tuple[int, int], scale_px: int = SCALE_PX) -> Self:
        """Return halves without samples.

        Raises:
            InvalidParameter: Bins are smaller than a pixel, or so large that fewer than 2 x 2 fit.
        """
        largest = min(image_shape) // 2
        if not 1 <= scale_px <= largest:
            raise InvalidParameter(f"scale_px must be from 1 to {largest} for this image, got {scale_px}")
        shape = (2, *(round(n / scale_px) for n in image_shape))
        return cls(image_shape, scale_px, np.zeros(shape), np.zeros(shape, dtype=np.int64))

    def add(self, number: int, pixels: np.ndarray, values: np.ndarray) -> None:
        """Add sample ``number``, whose ``values`` belong to the flat indices ``pixels``; under 1 ms for 250x250."""
        bins, half, shape = self._bins(pixels), number % 2, self.totals.shape[1:]
        n_bins = shape[0] * shape[1]
        self.totals[half] += np.bincount(bins, values.ravel(), n_bins).reshape(shape)
        self.visits[half] += np.bincount(bins, minlength=n_bins).reshape(shape)

    def correlation(self) -> float:
        """Return Pearson's correlation of the two half maps over the bins that both have visited.

        NaN if a half has no samples, if both have visited fewer than half of the bins, or if a half is constant.
        """
        both = self.visits.min(axis=0) > 0
        if both.mean() < _LEAST_SHARE:
            return math.nan
        means = self.totals[:, both] / self.visits[:, both]
        largest = np.abs(means).max(axis=1)
        means -= means.mean(axis=1, keepdims=True)
        deviations = np.sqrt((means**2).mean(axis=1))
        if (deviations <= _ROUNDING * largest).any():
            return math.nan
        return float((means[0] * means[1]).mean() / deviations.prod())

    def reliability(self) -> float:
        """Return the reliability of the map of all samples, 0 to 1; NaN where `correlation` is NaN."""
        return spearman_brown(self.correlation())

    def copy(self) -> Self:
        """Return halves that later samples do not change."""
        return replace(self, totals=self.totals.copy(), visits=self.visits.copy())

    @classmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        """Merge the halves of disjoint sets of samples of one image.

        Raises:
            InvalidInput: There are no parts, or they differ in the shape of the image or in scale.
        """
        kinds = {(part.image_shape, part.scale_px) for part in parts}
        if len(kinds) != 1:
            raise InvalidInput(f"halves must be of one image at one scale, got {len(kinds)} different kinds")
        totals, visits = (np.sum([getattr(part, name) for part in parts], axis=0) for name in ("totals", "visits"))
        return replace(parts[0], totals=totals, visits=visits)

    def _bins(self, pixels: np.ndarray) -> np.ndarray:
        """Return the flat bin of each flat pixel."""
        # This arithmetic is several times as fast as a lookup table.
        (height, width), (n_rows, n_columns) = self.image_shape, self.totals.shape[1:]
        # Division is twice as fast in 32 bits, which suffices for all but gigantic images.
        fits = max(height * n_rows, width * n_columns, height * width) < 2**31
        flat: np.ndarray = pixels.ravel().astype(np.int32 if fits else np.int64)
        rows: np.ndarray = flat // width
        columns = flat - rows * width
        # Bin k begins at pixel floor(k * n / n_bins).
        return ((rows + 1) * n_rows - 1) // height * n_columns + ((columns + 1) * n_columns - 1) // width


@dataclass(frozen=True)
class Goal:
    """Stopping rule of an automatic run: two looks in a row must reach the reliability, so that luck does not end it.

    Args:
        reliability: reliability to reach, above 0 and below 1.
        min_samples: smallest number of samples, at least 2.
        max_samples: largest number of samples; the run ends there whatever its reliability.
    """

    reliability: float = 0.95
    min_samples: int = 64
    max_samples: int = 5000

    def __post_init__(self) -> None:
        if not 0 < self.reliability < 1:
            raise InvalidParameter(f"reliability must be above 0 and below 1, got {self.reliability}")
        if not 2 <= self.min_samples <= self.max_samples:
            raise InvalidParameter(
                "min_samples must be at least 2 and at most max_samples, "
                f"got min_samples {self.min_samples} and max_samples {self.max_samples}"
            )

    def next_look(self, n_samples: int) -> int:
        """Return the number of samples of the next look at a run that has ``n_samples``.

        Looks are at multiples of 16 that grow by a tenth, and at ``max_samples``. They do not depend on the size of
        batches, which therefore does not change where a run ends.
        """
        look = 0
        while look <= n_samples:
            look += max(_UNIT, look // _GROWTH // _UNIT * _UNIT)
        return min(look, self.max_samples)

    def is_reached(self, looks: Sequence[tuple[int, float]]) -> bool:
        """Return whether the last two ``looks``, pairs of samples and reliability, reach the goal."""
        reliable = [reliability >= self.reliability for _, reliability in looks[-2:]]
        return len(reliable) == 2 and all(reliable) and looks[-1][0] >= self.min_samples

    def expected_samples(self, n_samples: int, reliability: float) -> int | None:
        """Return how many samples the run will probably need, given its reliability so far; None if it is NaN."""
        needed = samples_for(self.reliability, reliability, n_samples)
        if math.isnan(needed):
            return None
        if needed >= self.max_samples:
            return self.max_samples
        return max(math.ceil(needed), self.min_samples, self.next_look(n_samples))
