"""How reliable a map of many samples is: the correlation of two halves, corrected to the whole.

Spearman, "Correlation calculated from faulty data", and Brown, "Some experimental results in the correlation of mental
abilities", both British Journal of Psychology 3 (1910): two maps of n / 2 samples each that correlate by r belong to a
map of n samples with the reliability 2 r / (1 + r). That is the correlation to expect between this map and the map of n
other samples of the same image; its square root is the correlation with the map of infinitely many.

What is correlated is the map as figures show it: means over the visits of the pixels in a bin, because single pixels
are visited seldom or never. Bins are as large as `SCALE_PX` says unless another size is asked for.

The formula takes the errors of the halves to be independent. Those of grid and jitter samples are; stratified samples
do not visit a pixel again within a cycle, so what one half has is missing in the other, their errors are opposed, and
the estimate is too low: a bound on the safe side. Measured with OMIG on the demo model (phantom of 3145x2034 pixels,
squares of 8x8), the estimate and the correlation with the map of another seed:

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

At 0.07 mm it is half the diameter of the largest disk, so that a disk is more than one bin, and smaller than the
smoothing of a figure of fewer than about 900 samples. On the demo model stratified samples have the reliability 0.95
in bins of 4, 8 and 16 pixels after about 800, 360 and 160 samples, as the halves tell.
"""
LEAST_RELIABILITY = 0.5
"""Least reliability of a map that is shown: below, more than half of the variance of its picture is chance."""

_LEAST_SHARE = 0.5
"""Share of bins that both halves must have visited; with fewer, most of the map is not known at all."""

_ROUNDING = 1e-12
"""A half map whose standard deviation is below this part of its largest value is constant up to rounding."""

_UNIT = 16
"""Automatic runs are looked at after multiples of this many samples, so that batches of 8 and 16 need no cutting."""

_GROWTH = 10
"""Looks of a long automatic run are this part of its samples apart: at most a tenth of the work is too much."""


def spearman_brown(correlation: float, factor: float = 2.0) -> float:
    """Return the reliability of a map ``factor`` times as long as maps that correlate by ``correlation``.

    A correlation of 0 or less, down to chance, gives 0; NaN gives NaN.
    """
    if correlation <= 0:
        return 0.0
    return factor * correlation / (1 + (factor - 1) * correlation)


def samples_for(wanted: float, reliability: float, n_samples: int) -> float:
    """Return how many samples have the reliability ``wanted`` if ``n_samples`` have ``reliability``.

    The inverse of `spearman_brown`; infinite where the reliability is 0, NaN where it is not known.
    """
    if reliability <= 0:
        return math.inf
    return n_samples * wanted * (1 - reliability) / (reliability * (1 - wanted))


@dataclass(frozen=True, eq=False)
class Halves:
    """Two half maps of one image in bins: samples with even numbers are one half, those with odd numbers the other.

    So neither the order of samples nor how a run is cut into ranges changes them. Memory: 32 bytes per bin, 3.5 MB for
    an image of 7 million pixels in bins of 8x8.

    Attributes:
        image_shape: rows and columns of the image.
        scale_px: side of a bin in pixels, about: bins cut the image evenly, so they differ by at most one pixel.
        totals: ``(2, h, w)`` float64, sum of the values that samples gave to the pixels of each bin.
        visits: ``(2, h, w)`` int64, their number.
    """

    image_shape: tuple[int, int]
    scale_px: int
    totals: np.ndarray
    visits: np.ndarray

    @classmethod
    def empty(cls, image_shape: tuple[int, int], scale_px: int = SCALE_PX) -> Self:
        """Return halves without samples.

        Raises:
            InvalidParameter: bins of less than one pixel, or so large that fewer than 2 x 2 fit.
        """
        largest = min(image_shape) // 2
        if not 1 <= scale_px <= largest:
            raise InvalidParameter(f"scale_px must be from 1 to {largest} for this image, got {scale_px}")
        shape = (2, *(round(n / scale_px) for n in image_shape))
        return cls(image_shape, scale_px, np.zeros(shape), np.zeros(shape, dtype=np.int64))

    def add(self, number: int, pixels: np.ndarray, values: np.ndarray) -> None:
        """Add sample ``number``: ``values`` of the flat indices ``pixels``; under 1 ms for 250x250 of them."""
        bins, half, shape = self._bins(pixels), number % 2, self.totals.shape[1:]
        n_bins = shape[0] * shape[1]
        self.totals[half] += np.bincount(bins, values.ravel(), n_bins).reshape(shape)
        self.visits[half] += np.bincount(bins, minlength=n_bins).reshape(shape)

    def correlation(self) -> float:
        """Return Pearson's correlation of the two half maps over the bins that both have visited.

        NaN if one half has no sample, if fewer than half of the bins were visited by both, or if a half is constant.
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
        """Return the reliability of the map of all samples, 0 to 1: 0 where the halves do not agree at all.

        NaN where it is not defined, see `correlation`.
        """
        return spearman_brown(self.correlation())

    def copy(self) -> Self:
        """Return halves that later samples do not change."""
        return replace(self, totals=self.totals.copy(), visits=self.visits.copy())

    @classmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        """Join halves of disjoint sets of samples of one image.

        Raises:
            InvalidInput: no parts, or parts of different images or scales.
        """
        kinds = {(part.image_shape, part.scale_px) for part in parts}
        if len(kinds) != 1:
            raise InvalidInput(f"halves must be of one image at one scale, got {len(kinds)} different kinds")
        totals, visits = (np.sum([getattr(part, name) for part in parts], axis=0) for name in ("totals", "visits"))
        return replace(parts[0], totals=totals, visits=visits)

    def _bins(self, pixels: np.ndarray) -> np.ndarray:
        """Return the flat bin of each flat pixel; arithmetic is several times as fast as tables."""
        (height, width), (n_rows, n_columns) = self.image_shape, self.totals.shape[1:]
        # Division is twice as fast in 32 bits; the products fit for all but gigantic images.
        fits = max(height * n_rows, width * n_columns, height * width) < 2**31
        flat: np.ndarray = pixels.ravel().astype(np.int32 if fits else np.int64)
        rows: np.ndarray = flat // width
        columns = flat - rows * width
        # Bin k begins at pixel floor(k * n / n_bins).
        return ((rows + 1) * n_rows - 1) // height * n_columns + ((columns + 1) * n_columns - 1) // width


@dataclass(frozen=True)
class Goal:
    """When an automatic run ends: as soon as it was reliable enough twice in a row, so that luck alone does not end it.

    Args:
        reliability: wanted, above 0 and below 1.
        min_samples: fewest samples, at least 2.
        max_samples: most samples; the run ends there whatever its reliability.
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
        """Return after how many samples a run that has ``n_samples`` is looked at next.

        These are multiples of 16 that grow by a tenth, and ``max_samples``; they depend on nothing else, so that the
        size of batches does not change where a run ends.
        """
        look = 0
        while look <= n_samples:
            look += max(_UNIT, look // _GROWTH // _UNIT * _UNIT)
        return min(look, self.max_samples)

    def is_reached(self, looks: Sequence[tuple[int, float]]) -> bool:
        """Return whether the last two of ``looks``, each samples and reliability, were reliable enough."""
        reliable = [reliability >= self.reliability for _, reliability in looks[-2:]]
        return len(reliable) == 2 and all(reliable) and looks[-1][0] >= self.min_samples

    def expected_samples(self, n_samples: int, reliability: float) -> int | None:
        """Return how many samples the run will probably need, from its reliability so far; None if that is unknown."""
        needed = samples_for(self.reliability, reliability, n_samples)
        if math.isnan(needed):
            return None
        if needed >= self.max_samples:
            return self.max_samples
        return max(math.ceil(needed), self.min_samples, self.next_look(n_samples))
