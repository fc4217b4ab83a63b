"""Read-out of a series of images: hits of each image, then curve and interval of the series.

The interval is a bootstrap over images: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13,
with the expanded percentiles of Hesterberg, The American Statistician 69 (2015) 371, section 5.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, t

from radlens.errors import InvalidParameter
from radlens.phantoms.cdmam.geometry import CELL_EXISTS, TRUE_CORNER
from radlens.phantoms.cdmam.hits import MIN_IMAGES, find_corners
from radlens.phantoms.cdmam.reading import ReadOut, fit_thresholds
from radlens.phantoms.cdmam.registration import find

__all__ = ["N_RESAMPLES", "SeriesReadOut", "find_hits", "read_out_series"]

N_RESAMPLES = 1000
"""Number of bootstrap resamples; the ends of the intervals of two seeds differ by about 2 % of the width."""


@dataclass(frozen=True, eq=False)
class SeriesReadOut:
    """Result of the automated read-out of a series of images.

    Attributes:
        n_hits: (16, 16) number of images in which the true corner was found; 0 where there is no cell.
        n_images: Number of images.
        read_out: Hit rates, fits and thresholds, with a first axis of length 1.
        interval_um: (12, 2) lower and upper ends of the 95 % interval of each human-equivalent threshold, um of gold.
            It includes the scatter between images, but not the errors that all images share: exposure, phantom and
            reader.
    """

    n_hits: NDArray[np.intp]
    n_images: int
    read_out: ReadOut
    interval_um: NDArray[np.float64]


def find_hits(pixels: NDArray[Any], spacing_mm: float | tuple[float, float]) -> NDArray[np.bool_]:
    """Find the phantom in an image and return whether the reader finds the true corner of each cell: (16, 16) bool.

    Args:
        pixels: (H, W), attenuation bright; the phantom may be shifted, mirrored, or rotated by quarter turns and by up
            to 3 degrees.
        spacing_mm: Distance between pixel centres in the plane of the phantom, one number or (row, column), mm.

    Raises:
        InvalidParameter: the pixels do not have two axes or are not finite.
        UnreadableImage: no phantom is found, or a corner of a cell lies outside the image.
    """
    found = find(pixels, spacing_mm)
    upright = np.ascontiguousarray(pixels.T) if found.is_transposed else pixels
    return CELL_EXISTS & (find_corners(upright, found.layout) == TRUE_CORNER)


def read_out_series(
    hits: Sequence[ArrayLike] | NDArray[np.bool_], *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> SeriesReadOut:
    """Determine one contrast-detail curve and its interval from the hits in at least 16 images of one setting.

    Each resample draws m images with replacement and is smoothed and fitted like the images themselves. The ends of an
    interval are percentiles of the thresholds of the resamples, expanded for the small number of images and widened,
    if necessary, to contain the threshold itself. Of 400 series of 16 images whose hits were drawn at the expected
    rates of scenarios 1 to 4, 94.6 % of the intervals contained the true threshold.

    Args:
        hits: (m, 16, 16) bool, hits of each image from `find_hits`.
        n_resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the resamples.

    Raises:
        InvalidParameter: the shape is wrong, there are fewer than 16 images, or ``n_resamples`` is below 1.
    """
    drawn = np.asarray(hits, dtype=np.bool_)
    if drawn.ndim != 3 or drawn.shape[1:] != (16, 16):
        raise InvalidParameter(f"hits must have shape (m, 16, 16), got {drawn.shape}")
    n_images = len(drawn)
    if n_images < MIN_IMAGES:
        raise InvalidParameter(f"images must be at least {MIN_IMAGES}, got {n_images}")
    if n_resamples < 1:
        raise InvalidParameter(f"n_resamples must be at least 1, got {n_resamples}")
    found = fit_thresholds(drawn.mean(axis=0)[None])
    counts = np.random.default_rng(seed).multinomial(n_images, np.full(n_images, 1 / n_images), size=n_resamples)
    rates = (counts @ drawn.reshape(n_images, -1) / n_images).reshape(-1, 16, 16)
    ends = np.quantile(fit_thresholds(rates).thresholds_um, _percentiles(n_images), axis=0)
    threshold = found.thresholds_um[0]
    interval = np.stack([np.minimum(ends[0], threshold), np.maximum(ends[1], threshold)], axis=-1)
    return SeriesReadOut(drawn.sum(axis=0), n_images, found, interval)


def _percentiles(n: int) -> tuple[float, float]:
    """Return the quantiles that correct for a variance with divisor n instead of n - 1, and for Student's t."""
    lower = float(norm.cdf(-math.sqrt(n / (n - 1)) * t.ppf(0.975, n - 1)))
    return lower, 1 - lower
