"""The decision of the automated reader and its expected outcome: EUREF supplement, CDCOM.

For each cell the reader compares the four corners. The statistic of a corner is the mean of the pixels under a blurred
disk (a non-prewhitening matched filter) minus the mean of a ring around it. Signal and variance of that statistic have
closed forms, because template, point spread function and noise filter are all Gaussian:
with ``H(R, t) = pi R^2 (1 - i0e(z) - i1e(z))``, ``z = R^2 / (2 t^2)``, the integral of the squared transfer of a disk
of radius R times ``exp(-4 pi^2 t^2 f^2)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import i0e, i1e, ndtr

from radlens.phantoms.cdmam.acquisition import Acquisition
from radlens.phantoms.cdmam.geometry import CELL_EXISTS, DIAMETERS_MM, THICKNESSES_UM, pair
from radlens.phantoms.cdmam.signal import total_blur_mm

__all__ = ["RING_MM", "TEMPLATE_BLUR_MM", "corner_moments", "detectability", "expected_hit_rates", "four_alternatives"]

TEMPLATE_BLUR_MM = 0.1
"""Blur of the template, mm, the pixel excluded: that of a typical system, since the reader does not know the actual
blur."""

RING_MM = (1.5, 2.0)
"""Inner and outer radius of the ring that gives the local background, mm; it touches neither the grid nor another
disk."""


def expected_hit_rates(acquisitions: Sequence[Acquisition], spacing_mm: float | tuple[float, float] = 0.07) -> NDArray:
    """Return the probability that the reader finds the true corner of each cell.

    Args:
        acquisitions: n exposures.
        spacing_mm: one number, or (row, column).

    Returns:
        (n, 16, 16) float64, 0.25..1; nan where the phantom has no cell.
    """
    rates = four_alternatives(detectability(acquisitions, spacing_mm))
    return np.where(CELL_EXISTS, rates, np.nan)


def detectability(acquisitions: Sequence[Acquisition], spacing_mm: float | tuple[float, float] = 0.07) -> NDArray:
    """Return d' of every pair of diameter and thickness, (n, 16, 16): mean over standard deviation of the statistic."""
    spacing = pair(spacing_mm)
    signal = np.array([item.exposure_signal for item in acquisitions])
    contrast = np.array([item.contrast(np.array(THICKNESSES_UM)) for item in acquisitions])
    white = np.array([item.noise_level for item in acquisitions])
    filters = np.array([item.noise_sigma_px for item in acquisitions])
    blur = np.array([total_blur_mm(item.blur_mm, spacing) for item in acquisitions])
    response, deviation = corner_moments(blur, filters, spacing)
    with np.errstate(divide="ignore"):
        per_contrast = signal[:, None] * response / (white[:, None] * deviation)
    return per_contrast[:, :, None] * contrast[:, None, :]


def four_alternatives(d_prime: NDArray[Any]) -> NDArray[Any]:
    """Return the fraction correct among four alternatives, ``int phi(z - d') Phi(z)^3 dz``; any shape."""
    grid = np.linspace(0.0, 10.0, 1001)
    z = np.linspace(-8.0, 18.0, 1301)
    density = np.exp(-0.5 * (z - grid[:, None]) ** 2) / math.sqrt(2 * math.pi)
    table = np.trapezoid(density * ndtr(z) ** 3, z, axis=1)
    return np.interp(d_prime, grid, table)  # beyond d' = 10 the last value holds, which is 1


def corner_moments(
    blur_mm: NDArray[Any], filter_px: NDArray[Any], spacing: tuple[float, float]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the statistic at a disk of unit contrast and its standard deviation for unit white noise, (n, 16) each.

    Args:
        blur_mm: (n,) blur of the detector, its pixels included, mm.
        filter_px: (n,) standard deviation of the noise filter, pixels.
        spacing: (row, column) distance between pixels, mm.
    """
    radius = np.array(DIAMETERS_MM)[None, :] / 2
    area, pixel = math.pi * radius**2, spacing[0] * spacing[1]
    template = total_blur_mm(TEMPLATE_BLUR_MM, spacing) ** 2
    overlap = _overlap(radius, ((template + blur_mm**2) / 2)[:, None])
    variance = _overlap(radius, (template + filter_px**2 * pixel)[:, None])
    ring = pixel / (math.pi * (RING_MM[1] ** 2 - RING_MM[0] ** 2))
    return overlap / area, np.sqrt(variance * pixel / area**2 + ring)


def _overlap(radius: NDArray[Any], tau_squared: NDArray[Any]) -> NDArray[Any]:
    """Return H(R, t) of the module docstring, mm^2."""
    z = radius**2 / (2 * tau_squared)
    return math.pi * radius**2 * (1 - i0e(z) - i1e(z))
