"""Signed maps as pictures: red positive, blue negative, black zero (Amanova et al. 2022, Figs. 3 to 7).

A map is an array, or an `UpsampledMap`, which records the number of visits of each pixel. Most pixels of an upsampled
map have few visits or none and are zero; drawn pixel by pixel, the map looks black. `display_map` averages over blocks,
weighted by visits.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from radlens.errors import InvalidInput, InvalidParameter
from radlens.maps import UpsampledMap

__all__ = [
    "NEGATIVE",
    "POSITIVE",
    "RAMP",
    "Box",
    "block_size",
    "colorize",
    "cutout",
    "cutout_map",
    "display_grey",
    "display_map",
    "overlay",
    "symmetric_limit",
    "visible_smoothing",
]

POSITIVE, NEGATIVE = (255, 72, 56), (72, 128, 255)
"""Colours of the largest positive and negative values. Half way they are pure red and pure blue: pure blue at full
strength is too dark beside red."""

VISITS_PER_POINT = 600
"""Visits per point of a smoothed map at which disks stood out of the noise of the demo model."""

_LARGEST_SMOOTHING = 6.0  # pixels, less than half the radius of the largest disk at 0.07 mm
_N_LEVELS = 256
_GREY_QUANTILES = (0.005, 0.995)
_DIMMED = 0.65
_FILL_SIGMA = 1.0


class Box(NamedTuple):
    """A rectangle of pixels of the full image.

    Attributes:
        top: first row.
        left: first column.
        height: number of rows.
        width: number of columns.
    """

    top: int
    left: int
    height: int
    width: int


def colorize(values: np.ndarray, *, limit: float | None = None, quantile: float = 0.999) -> np.ndarray:
    """Colour a map: red where positive, blue where negative, black where zero.

    Args:
        values: ``(H, W)``, finite.
        limit: absolute value from which the colour is strongest. By default `symmetric_limit`.
        quantile: quantile for `symmetric_limit`.

    Returns:
        ``(H, W, 3)`` uint8. Values of the same size and opposite sign are equally strong.

    Raises:
        InvalidInput: the map is not two-dimensional or not finite.
        InvalidParameter: the limit is not positive, or the quantile is outside (0, 1].
    """
    values = _checked(values)
    strength, sign = _strength(values, limit, quantile)
    index = np.rint(strength * (_N_LEVELS - 1)).astype(np.intp)
    # Rounding must not turn a small non-zero value into the colour of zero.
    index[(index == 0) & sign.astype(bool)] = 1
    return _TABLE[index + (sign < 0) * _N_LEVELS]


def symmetric_limit(values: np.ndarray, quantile: float = 0.999) -> float:
    """Return the ``quantile`` of the absolute non-zero values, 1 if all values are zero.

    With the largest value as the limit, a single outlier would make the rest of the map look black.

    Raises:
        InvalidParameter: the quantile is outside (0, 1].
    """
    if not 0 < quantile <= 1:
        raise InvalidParameter(f"quantile must be in (0, 1], got {quantile}")
    sizes = np.abs(values[values != 0])
    return float(np.quantile(sizes, quantile)) if sizes.size else 1.0


def display_map(
    shown: np.ndarray | UpsampledMap, *, max_side: int = 1250, smooth_px: float | None = None
) -> np.ndarray:
    """Reduce a map to a size for display.

    An array is averaged over square blocks. A block of an `UpsampledMap` is the sum of the values that samples gave to
    its pixels, divided by the number of these visits: the mean per visit, in the unit of a single map, whatever the
    number of samples. Blocks are large enough to have one visit on average; a block without a visit takes the mean of
    its neighbours, weighted by a Gaussian with a standard deviation of one block.

    Args:
        shown: ``(H, W)``, finite.
        max_side: largest number of rows and columns of the result.
        smooth_px: standard deviation of a Gaussian, in pixels of ``shown``, that also weighs by visits. By default
            that of `visible_smoothing`.

    Returns:
        ``(ceil(H / k), ceil(W / k))`` float64 with ``k = block_size(shown, max_side)``; zero far from any visit.

    Raises:
        InvalidInput: the map is not two-dimensional or not finite.
        InvalidParameter: ``max_side`` is below 1, or ``smooth_px`` is negative.
    """
    sigma = visible_smoothing(shown) if smooth_px is None else smooth_px
    if not sigma >= 0:
        raise InvalidParameter(f"smooth_px must be at least 0, got {sigma}")
    size = block_size(shown, max_side)
    if isinstance(shown, UpsampledMap):
        totals, weights = _checked(shown.total), shown.visits
    else:
        totals, weights = _checked(shown), np.ones(shown.shape, dtype=np.int64)
    totals, weights = _block_sums(totals, size), _block_sums(weights, size).astype(np.float64)
    if sigma > 0:
        return _ratio(gaussian_filter(totals, sigma / size), gaussian_filter(weights, sigma / size))
    filled = _ratio(gaussian_filter(totals, _FILL_SIGMA), gaussian_filter(weights, _FILL_SIGMA))
    return np.where(weights > 0, _ratio(totals, weights), filled)


def visible_smoothing(shown: np.ndarray | UpsampledMap) -> float:
    """Return the standard deviation in pixels of a Gaussian that makes disks stand out of the noise of a map.

    A Gaussian averages over ``4 pi sigma**2`` pixels; sigma is chosen so that they have `VISITS_PER_POINT` visits.
    Arrays and maps of a single sample are not smoothed.
    """
    if not isinstance(shown, UpsampledMap) or shown.n_samples == 1 or not shown.visits.any():
        return 0.0
    visits_per_pixel = shown.visits.sum() / shown.visits.size
    return min(math.sqrt(VISITS_PER_POINT / (4 * math.pi * visits_per_pixel)), _LARGEST_SMOOTHING)


def block_size(shown: np.ndarray | UpsampledMap, max_side: int = 1250) -> int:
    """Return the side of the square blocks that `display_map` averages, in pixels of the map.

    Raises:
        InvalidParameter: ``max_side`` is below 1.
    """
    if max_side < 1:
        raise InvalidParameter(f"max_side must be at least 1, got {max_side}")
    if not isinstance(shown, UpsampledMap):
        return math.ceil(max(shown.shape) / max_side)
    size, n_visits = math.ceil(max(shown.map.shape) / max_side), int(shown.visits.sum())
    return max(size, math.ceil(math.sqrt(shown.map.size / n_visits))) if n_visits else size


def display_grey(pixels: np.ndarray, *, max_side: int = 1250) -> np.ndarray:
    """Reduce an image by block means and stretch its grey values between two quantiles.

    Args:
        pixels: ``(H, W)``, finite.
        max_side: largest number of rows and columns of the result.

    Returns:
        ``(h, w)`` uint8; a constant image becomes mid-grey.

    Raises:
        InvalidInput: the image is not two-dimensional or not finite.
        InvalidParameter: ``max_side`` is below 1.
    """
    reduced = display_map(np.asarray(pixels), max_side=max_side)
    low, high = np.quantile(reduced, _GREY_QUANTILES)
    if high <= low:
        return np.full(reduced.shape, 128, dtype=np.uint8)
    return np.rint(255 * np.clip((reduced - low) / (high - low), 0, 1)).astype(np.uint8)


def overlay(
    pixels: np.ndarray,
    shown: np.ndarray | UpsampledMap,
    *,
    limit: float | None = None,
    quantile: float = 0.995,
    max_side: int = 1250,
    opacity: float = 0.9,
) -> np.ndarray:
    """Draw a map over its image, with an opacity that grows with the absolute value.

    The image is dimmed to two thirds, so that colours are visible on its white lines. The opacity grows with the square
    root of the values, so that weak ones are visible: an overlay shows where, `colorize` shows how much.

    Args:
        pixels: ``(H, W)`` image, finite.
        shown: map of the image, ``(H, W)``, or of one of its 250x250 samples, which is stretched over the image.
        limit: absolute value of the strongest colour; by default `symmetric_limit` of the reduced map.
        quantile: quantile for `symmetric_limit`.
        max_side: largest number of rows and columns of the result.
        opacity: opacity of the strongest colour, 0 to 1.

    Returns:
        ``(h, w, 3)`` uint8; dimmed grey where the map is zero.

    Raises:
        InvalidInput: image or map is not two-dimensional or not finite.
        InvalidParameter: ``max_side`` is below 1, the opacity is outside [0, 1], the quantile is outside (0, 1], or the
            limit is not positive.
    """
    if not 0 <= opacity <= 1:
        raise InvalidParameter(f"opacity must be in [0, 1], got {opacity}")
    grey = display_grey(pixels, max_side=max_side)
    reduced = display_map(shown, max_side=max_side)
    full_shape = shown.map.shape if isinstance(shown, UpsampledMap) else shown.shape
    values = _stretched(reduced, block_size(shown, max_side), full_shape, grey.shape)
    strength, sign = _strength(values, symmetric_limit(reduced, quantile) if limit is None else limit, 1.0)
    alpha = (opacity * np.sqrt(strength))[..., None]
    colours = np.where((sign < 0)[..., None], NEGATIVE, POSITIVE)
    return np.rint((1 - alpha) * _DIMMED * grey[..., None] + alpha * colours).astype(np.uint8)


def cutout(picture: np.ndarray, box: Box, *, zoom: int = 1) -> np.ndarray:
    """Return the pixels of ``box``, each repeated ``zoom`` times in both directions.

    Args:
        picture: ``(H, W)`` or ``(H, W, c)``.
        box: rectangle within the picture.
        zoom: number of repetitions, at least 1.

    Raises:
        InvalidParameter: the box is empty or extends beyond the picture, or the zoom is below 1.
    """
    if zoom < 1:
        raise InvalidParameter(f"zoom must be at least 1, got {zoom}")
    height, width = picture.shape[:2]
    inside = 0 <= box.top <= height - box.height and 0 <= box.left <= width - box.width
    if not inside or box.height < 1 or box.width < 1:
        raise InvalidParameter(f"box must lie within {height}x{width} pixels and hold at least one, got {tuple(box)}")
    part = picture[box.top : box.top + box.height, box.left : box.left + box.width]
    return part.repeat(zoom, axis=0).repeat(zoom, axis=1)


def cutout_map(shown: np.ndarray | UpsampledMap, box: Box) -> np.ndarray | UpsampledMap:
    """Return the part of a map inside ``box``, with its visits.

    Raises:
        InvalidParameter: the box is empty or extends beyond the map.
    """
    if not isinstance(shown, UpsampledMap):
        return cutout(shown, box)
    return UpsampledMap(cutout(shown.map, box), cutout(shown.visits, box), shown.n_samples, shown.normalize)


def _checked(values: np.ndarray) -> np.ndarray:
    if values.ndim != 2 or values.size == 0:
        raise InvalidInput(f"map must have 2 dimensions (H, W) and at least one value, got shape {values.shape}")
    n_bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if n_bad:
        raise InvalidInput(f"map must be finite, got {n_bad} values that are NaN or infinite")
    return values.astype(np.float64, copy=False)


def _strength(values: np.ndarray, limit: float | None, quantile: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the strength of each value, 0 to 1, and its sign."""
    if limit is None:
        limit = symmetric_limit(values, quantile)
    if not (limit > 0 and math.isfinite(limit)):
        raise InvalidParameter(f"limit must be positive, got {limit}")
    return np.minimum(np.abs(values) / limit, 1.0), np.sign(values)


def _block_sums(values: np.ndarray, size: int) -> np.ndarray:
    for axis in (0, 1):
        values = np.add.reduceat(values, np.arange(0, values.shape[axis], size), axis=axis)
    return values


def _ratio(totals: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.divide(totals, weights, out=np.zeros_like(totals), where=weights > 0)


def _stretched(reduced: np.ndarray, size: int, full_shape: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate block means linearly at the centres of ``shape`` equal steps over the extent of the map."""
    positions = [
        ((np.arange(n_out) + 0.5) * n_full / n_out) / size - 0.5
        for n_out, n_full in zip(shape, full_shape, strict=True)
    ]
    if reduced.shape == shape:
        return reduced
    return map_coordinates(reduced, np.meshgrid(*positions, indexing="ij"), order=1, mode="nearest")


def _ramp(colour: tuple[int, int, int]) -> np.ndarray:
    """Return ``(levels, 3)`` uint8, from black through the pure red or blue to ``colour``."""
    strength = np.linspace(0, 1, _N_LEVELS)[:, None]
    others = np.clip(2 * strength - 1, 0, 1)
    ramp = np.where(np.array(colour) == 255, strength * 255, others * np.array(colour))
    return np.rint(ramp).astype(np.uint8)


_TABLE = np.concatenate([_ramp(POSITIVE), _ramp(NEGATIVE)])

RAMP: np.ndarray = np.concatenate([_TABLE[:_N_LEVELS:-1], _TABLE[:_N_LEVELS]])
"""``(511, 3)`` uint8, colours from the largest negative value through zero to the largest positive value."""
