"""Building blocks of simulated tissue: power-law random fields, closed contours, strands.

Mammographic background has a power spectrum of about ``1 / f^3``: Burgess et al., Med. Phys. 28 (2001) 419.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from radlens.errors import InvalidParameter

__all__ = [
    "Box",
    "Seed",
    "check_choice",
    "check_range",
    "check_shape",
    "generator",
    "harmonics",
    "pair",
    "power_law",
    "strands",
    "tight_box",
    "walks",
    "wave",
]

Seed = int | Sequence[int]
"""A seed: one non-negative integer or several, such as (seed of the data set, number of the case)."""

Box = tuple[int, int, int, int]
"""Bounding box ``(x0, y0, x1, y1)`` in pixels, half open."""


def generator(seed: Seed) -> np.random.Generator:
    """Return a generator for a seed; raise `InvalidParameter` if the seed is negative."""
    if np.min(seed) < 0:
        raise InvalidParameter(f"seed must not be negative, got {seed}")
    return np.random.default_rng(seed)


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise `InvalidParameter` unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise InvalidParameter(f"{name} must be between {low:g} and {high:g}, got {value}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise `InvalidParameter` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise InvalidParameter(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_shape(image_shape: Sequence[int], smallest: int) -> tuple[int, int]:
    """Return ``image_shape`` as (height, width); raise `InvalidParameter` if a side is under ``smallest`` pixels."""
    if len(image_shape) != 2 or min(image_shape) < smallest:
        raise InvalidParameter(f"image_shape must be two sides of at least {smallest} pixels, got {tuple(image_shape)}")
    return int(image_shape[0]), int(image_shape[1])


def pair(spacing_mm: float | Sequence[float]) -> tuple[float, float]:
    """Return a pixel spacing as (row, column) in mm; raise `InvalidParameter` unless both are 0.01 to 10 mm."""
    values = (spacing_mm, spacing_mm) if isinstance(spacing_mm, int | float) else tuple(spacing_mm)
    if len(values) != 2 or not all(0.01 <= value <= 10.0 for value in values):
        raise InvalidParameter(f"spacing_mm must be one or two numbers between 0.01 and 10, got {spacing_mm}")
    return float(values[0]), float(values[1])


def power_law(
    rng: np.random.Generator,
    image_shape: tuple[int, int],
    spacing_mm: tuple[float, float],
    *,
    beta: float = 3.0,
    outer_mm: float = 40.0,
    inner_mm: float = 0.0,
    stretch: float = 1.0,
) -> NDArray[np.float32]:
    """Draw a Gaussian field with power spectrum ``1 / (f^2 + outer_mm^-2)^(beta / 2)``.

    Args:
        rng: source of randomness.
        image_shape: (height, width).
        spacing_mm: (row, column) distance between pixels, mm.
        beta: exponent of the spectrum.
        outer_mm: size of the largest structures, mm; the spectrum is flat below ``1 / outer_mm``.
        inner_mm: standard deviation of a Gaussian blur, mm, that removes the smallest structures.
        stretch: length of structures along rows over their length along columns.

    Returns:
        (height, width) float32 with mean 0 and expected standard deviation 1.
    """
    padded = fft.next_fast_len(image_shape[0], real=True), fft.next_fast_len(image_shape[1], real=True)
    amplitude = _amplitude(padded, spacing_mm, beta, outer_mm, inner_mm, stretch)
    spectrum = rng.standard_normal((*amplitude.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    spectrum *= amplitude
    return fft.irfft2(spectrum, s=padded, workers=1, overwrite_x=True)[: image_shape[0], : image_shape[1]]


@lru_cache(maxsize=8)
def _amplitude(
    padded: tuple[int, int],
    spacing_mm: tuple[float, float],
    beta: float,
    outer_mm: float,
    inner_mm: float,
    stretch: float,
) -> NDArray[np.float32]:
    """Return the standard deviation of the real and imaginary part of each coefficient, (height, width // 2 + 1)."""
    across = fft.fftfreq(padded[0], spacing_mm[0]).astype(np.float32)[:, None]
    along = fft.rfftfreq(padded[1], spacing_mm[1]).astype(np.float32)[None, :] * np.float32(stretch)
    square = across**2 + along**2
    amplitude = (square + np.float32(outer_mm**-2)) ** np.float32(-beta / 4)
    if inner_mm > 0:
        amplitude *= np.exp(np.float32(-2 * (math.pi * inner_mm) ** 2) * square)
    amplitude[0, 0] = 0
    # irfft2 mirrors the half spectrum to get the other half, except for the first column: there it keeps only the part
    # with Hermitian symmetry, which halves the power.
    amplitude[:, 0] *= np.float32(math.sqrt(2))
    power = 4 * np.sum(amplitude[:, 1:].astype(np.float64) ** 2) + np.sum(amplitude[:, 0].astype(np.float64) ** 2)
    return amplitude * np.float32(padded[0] * padded[1] / math.sqrt(power))


def harmonics(rng: np.random.Generator, amplitudes: dict[int, float]) -> NDArray[np.float64]:
    """Draw the terms of ``sum a_k cos(k angle + phase)``: (n, 3) rows of order, amplitude and phase."""
    return np.array(
        [(order, size * rng.uniform(0.4, 1.0), rng.uniform(0, math.tau)) for order, size in amplitudes.items()]
    )


def wave(terms: NDArray[np.float64], angle: NDArray[Any]) -> NDArray[np.float32]:
    """Evaluate the sum of terms from `harmonics` at ``angle``, radians, any shape."""
    total = np.zeros(angle.shape, dtype=np.float32)
    for order, size, phase in terms:
        total += np.float32(size) * np.cos(np.float32(order) * angle + np.float32(phase)).astype(np.float32)
    return total


def strands(
    image_shape: tuple[int, int],
    spacing_mm: tuple[float, float],
    y: NDArray[Any],
    x: NDArray[Any],
    crest: NDArray[Any],
    *,
    sigma_mm: float,
    step_mm: float,
) -> NDArray[np.float32]:
    """Draw curves with a Gaussian cross-section.

    Args:
        image_shape: (height, width).
        spacing_mm: (row, column) distance between pixels, mm.
        y: rows of points ``step_mm`` apart along the curves, mm, any shape.
        x: columns of the points, mm, same shape as ``y``.
        crest: height of the curve at each point, same shape as ``y``; points of height 0 are not drawn.
        sigma_mm: standard deviation of the cross-section, mm; at least half a pixel is drawn.
        step_mm: distance between neighbouring points of a curve, mm; at most half a pixel.

    Returns:
        (height, width) float32, 0 away from the curves.
    """
    row, col = np.floor(y / spacing_mm[0]).astype(np.intp), np.floor(x / spacing_mm[1]).astype(np.intp)
    inside = (row >= 0) & (row < image_shape[0]) & (col >= 0) & (col < image_shape[1]) & (crest != 0)
    if not inside.any():
        return np.zeros(image_shape, dtype=np.float32)
    place = row[inside] * image_shape[1] + col[inside]
    canvas = np.bincount(place, crest[inside], minlength=image_shape[0] * image_shape[1])
    sigma = [max(sigma_mm / step, 0.5) for step in spacing_mm]
    # A line of unit mass per pixel has a crest of 1 / (sigma sqrt(2 pi)) after the blur.
    scale = step_mm / math.sqrt(spacing_mm[0] * spacing_mm[1]) * math.sqrt(math.tau * sigma[0] * sigma[1])
    image = (canvas * scale).astype(np.float32).reshape(image_shape)
    return gaussian_filter(image, sigma, truncate=3.0, mode="constant")


def walks(
    rng: np.random.Generator, headings: NDArray[Any], longest_mm: float, step_mm: float, bend: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw smooth random paths that start at the origin.

    Args:
        rng: source of randomness.
        headings: (n,) initial directions, radians from the row direction downwards.
        longest_mm: length of every path, mm.
        step_mm: distance between neighbouring points, mm.
        bend: standard deviation of the turn in each centimetre, radians.

    Returns:
        y and x in mm, (n, points) each.
    """
    # The heading is interpolated between knots one centimetre apart.
    points, knots = max(int(longest_mm / step_mm), 2), max(int(longest_mm / 10.0), 1) + 2
    turns = np.cumsum(rng.normal(0.0, bend, (len(headings), knots)), axis=1)
    place = np.linspace(0, knots - 1.001, points)  # below knots - 1, so that knot + 1 exists
    knot = place.astype(np.intp)
    angle = headings[:, None] + turns[:, knot] + (turns[:, knot + 1] - turns[:, knot]) * (place - knot)
    return np.cumsum(np.sin(angle), axis=1) * step_mm, np.cumsum(np.cos(angle), axis=1) * step_mm


def tight_box(mask: NDArray[np.bool_]) -> Box:
    """Return the smallest half-open box ``(x0, y0, x1, y1)`` around a non-empty mask."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1
