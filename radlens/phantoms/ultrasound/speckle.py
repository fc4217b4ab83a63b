"""Speckle and log compression of a B-mode image: Wagner et al., IEEE Trans. SU 30 (1983) 156."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from radlens.phantoms.fields import check_range

__all__ = ["Scanner", "compress", "envelope", "sample_scanner"]


@dataclass(frozen=True)
class Scanner:
    """A linear probe and its settings.

    Args:
        axial_mm: standard deviation of the pulse along the beam, 0.02..2 mm.
        lateral_mm: standard deviation of the beam at its focus, 0.02..5 mm.
        focus_mm: depth of the focus, 0..200 mm.
        widening: increase of ``lateral_mm`` per mm of distance from the focus, mm per mm, 0..0.2.
        n_looks: number of averaged images with independent speckle (spatial compounding), 1..8.
        dynamic_range_db: range from black to white, 20..120 dB.
        brightness: mean pixel value to which the operator sets the gain, 20..200.
        tgc_db_per_mm: residual slope after time-gain compensation, -1..1 dB per mm of depth.

    Raises:
        InvalidParameter: a value is out of range.
    """

    axial_mm: float = 0.12
    lateral_mm: float = 0.24
    focus_mm: float = 16.0
    widening: float = 0.014
    n_looks: int = 1
    dynamic_range_db: float = 55.0
    brightness: float = 80.0
    tgc_db_per_mm: float = 0.0

    def __post_init__(self) -> None:
        check_range("axial_mm", self.axial_mm, 0.02, 2.0)
        check_range("lateral_mm", self.lateral_mm, 0.02, 5.0)
        check_range("focus_mm", self.focus_mm, 0.0, 200.0)
        check_range("widening", self.widening, 0.0, 0.2)
        check_range("n_looks", self.n_looks, 1, 8)
        check_range("dynamic_range_db", self.dynamic_range_db, 20.0, 120.0)
        check_range("brightness", self.brightness, 20.0, 200.0)
        check_range("tgc_db_per_mm", self.tgc_db_per_mm, -1.0, 1.0)


def sample_scanner(rng: np.random.Generator) -> Scanner:
    """Draw a scanner; its settings, including the mean brightness of the image, do not depend on the tissue."""
    return Scanner(
        axial_mm=rng.uniform(0.09, 0.15),
        lateral_mm=rng.uniform(0.18, 0.3),
        focus_mm=rng.uniform(10.0, 22.0),
        widening=rng.uniform(0.008, 0.018),
        n_looks=int(rng.integers(1, 4)),
        dynamic_range_db=rng.uniform(48.0, 62.0),
        brightness=rng.uniform(60.0, 105.0),
        tgc_db_per_mm=rng.uniform(-0.12, 0.12),
    )


def envelope(
    rng: np.random.Generator, echo_db: NDArray[np.float32], spacing_mm: tuple[float, float], scanner: Scanner
) -> NDArray[np.float32]:
    """Return the echo envelope of random scatterers: Rayleigh distributed where the echo level is constant.

    The point spread function is a Gaussian whose lateral width grows with the distance from the focus. The field is
    filtered with three widths and interpolated between them.

    Args:
        rng: source of randomness.
        echo_db: (H, W) level of the scatterers, dB.
        spacing_mm: (row, column) distance between pixels, mm.
        scanner: resolution and number of looks.

    Returns:
        (H, W) float32; where the level is constant, its mean square is ``10 ** (echo_db / 10)``.
    """
    amplitude = np.power(np.float32(10), echo_db / np.float32(20))
    depth = (np.arange(echo_db.shape[0]) + 0.5) * spacing_mm[0]
    power = np.zeros(echo_db.shape, dtype=np.float32)
    for _ in range(scanner.n_looks):
        for part in rng.standard_normal((2, *echo_db.shape), dtype=np.float32):
            power += np.square(_blur(part * amplitude, depth, spacing_mm, scanner))
    return np.sqrt(power / np.float32(2 * scanner.n_looks))


def _blur(
    field: NDArray[np.float32], depth_mm: NDArray[Any], spacing_mm: tuple[float, float], scanner: Scanner
) -> NDArray[np.float32]:
    field = correlate1d(field, _unit_energy(scanner.axial_mm / spacing_mm[0]), axis=0, mode="reflect")
    width = scanner.lateral_mm + scanner.widening * np.abs(depth_mm - scanner.focus_mm)
    nodes = np.linspace(width.min(), width.max(), 3)
    place = np.interp(width, nodes, np.arange(3)) if nodes[2] > nodes[0] else np.zeros_like(width)
    blurred, power = np.zeros_like(field), np.zeros_like(width)
    shares = [np.clip(1 - np.abs(place - i), 0, None) for i in range(3)]
    for i, sigma in enumerate(nodes):
        share = shares[i]
        rows = np.flatnonzero(share)
        if rows.size:
            kernel = _unit_energy(sigma / spacing_mm[1])
            blurred[rows] += share[rows, None].astype(np.float32) * correlate1d(
                field[rows], kernel, axis=1, mode="reflect"
            )
        # The root is the correlation of one white noise after two Gaussian filters of widths sigma and other.
        for other, weight in zip(nodes, shares, strict=True):
            power += share * weight * np.sqrt(2 * sigma * other / (sigma**2 + other**2))
    blurred /= np.sqrt(power).astype(np.float32)[:, None]
    return blurred


def _unit_energy(sigma_px: float) -> NDArray[np.float32]:
    """Return Gaussian weights whose squares sum to 1, which preserves the variance of white noise."""
    radius = max(math.ceil(3.5 * sigma_px), 1)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma_px, 0.2)) ** 2)
    return (weights / math.sqrt(np.sum(weights**2))).astype(np.float32)


def compress(
    echo: NDArray[np.float32], spacing_mm: tuple[float, float], scanner: Scanner, gain: float | None = None
) -> tuple[NDArray[np.float32], float]:
    """Log-compress an envelope to integer pixel values 0..255, and return them with the gain in grey levels.

    Unless given, the gain makes the mean ``scanner.brightness``. It is found by iteration, because clipping moves the
    mean by an amount that differs from image to image.
    """
    depth = (np.arange(echo.shape[0], dtype=np.float32) + 0.5) * np.float32(spacing_mm[0])
    level = 20 * np.log10(np.maximum(echo, np.float32(1e-6))) + np.float32(scanner.tgc_db_per_mm) * depth[:, None]
    values = level * np.float32(255 / scanner.dynamic_range_db)
    if gain is None:
        gain = scanner.brightness - float(values.mean())
        for _ in range(8):
            gain += scanner.brightness - float(np.clip(values + np.float32(gain), 0, 255).mean())
    return np.rint(np.clip(values + np.float32(gain), 0, 255)), gain
