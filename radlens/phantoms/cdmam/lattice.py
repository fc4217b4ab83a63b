"""The lattice of lines in an image in which no CDMAM 3.4 was found, for a message about what it may show instead.

Regularly spaced lines in two perpendicular directions give peaks at the multiples of one frequency in the spectrum of
the image. The search returns the pitch and direction with the strongest peaks and assumes nothing else about a phantom.

CDMAM 4.0 has an upright matrix of 16 columns and 21 rows, in which each diameter has its own thicknesses; that of
CDMAM 3.4 is turned by 45 degrees. The cells of CDMAM 4.0 are assumed to measure about 8 mm.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len, rfft2
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter

from radlens.phantoms.cdmam.geometry import pair
from radlens.phantoms.cdmam.registered import binned

__all__ = ["Lattice", "lattice"]

_BIN_MM = 0.5
_SMOOTH_MM = 4.0
_PITCHES_MM = np.exp(np.linspace(np.log(4.0), np.log(16.0), 280))
_ANGLES_DEG = np.arange(0.0, 90.0, 0.5)
_N_HARMONICS = 4
_LEAST_STRENGTH = 1.5
_SAME, _NEAR = 0.7, 0.02


class Lattice(NamedTuple):
    """Regularly spaced lines in two perpendicular directions.

    Attributes:
        pitch_mm: Distance between neighbouring lines, mm.
        angle_deg: Rotation of the lines against rows and columns of the image, 0..90 degrees.
        strength: Mean decimal logarithm of the power of the peaks over the median power in all directions, for the
            weaker of the two directions.
        skewness: Skewness of the image without its slow background: positive if the lines are brighter than the gaps.
    """

    pitch_mm: float
    angle_deg: float
    strength: float
    skewness: float


def lattice(pixels: NDArray[Any], spacing_mm: float | tuple[float, float]) -> Lattice | None:
    """Return the strongest lattice of an image, or None if no lattice stands out.

    Args:
        pixels: (H, W), attenuation bright.
        spacing_mm: distance between pixel centres, one number or (row, column), mm.
    """
    spacing = pair(spacing_mm)
    factors = (max(1, round(_BIN_MM / spacing[0])), max(1, round(_BIN_MM / spacing[1])))
    bins = binned(np.asarray(pixels), factors)
    steps = (spacing[0] * factors[0], spacing[1] * factors[1])
    bins -= gaussian_filter(bins, [_SMOOTH_MM / step for step in steps])
    spread = float(bins.std())
    if not spread > 0:
        return None
    # Single bright objects, such as metal, have broad spectra.
    limited = np.clip(bins, *np.percentile(bins, (0.5, 99.5)))
    windowed = limited * np.hanning(bins.shape[0])[:, None] * np.hanning(bins.shape[1])
    strengths = _strengths(windowed, steps)
    angle, pitch = (int(index) for index in np.unravel_index(strengths.argmax(), strengths.shape))
    best = float(strengths[angle, pitch])
    if best < _LEAST_STRENGTH:
        return None
    # A fraction of the true pitch explains every second or third peak: prefer a multiple with almost the same strength.
    for multiple in (2, 3):
        near = np.flatnonzero(np.abs(_PITCHES_MM / (multiple * _PITCHES_MM[pitch]) - 1) < _NEAR)
        if near.size and strengths[angle, near].max() > _SAME * best:
            pitch = int(near[strengths[angle, near].argmax()])
            break
    skewness = float(np.mean(limited**3)) / float(limited.std()) ** 3
    pitch_mm, angle_deg = _refined(windowed, steps, float(_PITCHES_MM[pitch]), float(_ANGLES_DEG[angle]))
    return Lattice(pitch_mm, angle_deg, best, skewness)


def _strengths(bins: NDArray[np.float64], steps: tuple[float, float]) -> NDArray[np.float64]:
    """Return the strength of each lattice, (angles, pitches)."""
    shape = [next_fast_len(2 * size, real=True) for size in bins.shape]
    power = np.abs(rfft2(bins, shape)) ** 2 + 1e-12
    shown = maximum_filter(power, 3)  # peaks are narrower than the steps of the search
    total = np.zeros((2, len(_ANGLES_DEG), len(_PITCHES_MM)))
    for direction, turn in enumerate((0.0, 90.0)):
        angles = np.radians(_ANGLES_DEG + turn)
        for harmonic in range(1, _N_HARMONICS + 1):
            frequency = harmonic / _PITCHES_MM
            down = np.sin(angles)[:, None] * frequency * steps[0] * shape[0]
            right = np.cos(angles)[:, None] * frequency * steps[1] * shape[1]
            sign = np.where(right < 0, -1, 1)  # half of the spectrum is stored
            found = map_coordinates(shown, [(sign * down) % shape[0], sign * right], order=0, mode="grid-wrap")
            total[direction] += np.log10(found / np.median(found, axis=0))
    return total.min(axis=0) / _N_HARMONICS


def _refined(
    bins: NDArray[np.float64], steps: tuple[float, float], pitch_mm: float, angle_deg: float
) -> tuple[float, float]:
    """Return the pitch and angle that maximise the sum of the peaks, to 0.01 % and 0.01 degrees."""
    for reach in (1.0, 0.2, 0.04):
        pitches = pitch_mm * (1 + 0.02 * reach * np.linspace(-1, 1, 33))
        pitch_mm = float(pitches[np.argmax([_power(bins, steps, each, angle_deg) for each in pitches])])
        angles = angle_deg + 0.8 * reach * np.linspace(-1, 1, 17)
        angle_deg = float(angles[np.argmax([_power(bins, steps, pitch_mm, each) for each in angles])])
    return pitch_mm, angle_deg % 90


def _power(bins: NDArray[np.float64], steps: tuple[float, float], pitch_mm: float, angle_deg: float) -> float:
    """Return the sum of the amplitudes of all peaks of a lattice, from the Fourier sums at their frequencies."""
    rows, cols = (np.arange(size) * step for size, step in zip(bins.shape, steps, strict=True))
    total = 0.0
    for turn in (0.0, 90.0):
        angle = np.radians(angle_deg + turn)
        frequency = 2 * np.pi * np.arange(1, _N_HARMONICS + 1)[:, None] / pitch_mm
        down, right = np.exp(-1j * frequency * np.sin(angle) * rows), np.exp(-1j * frequency * np.cos(angle) * cols)
        total += float(np.abs(np.einsum("kh,kh->k", down, right @ bins.T)).sum())
    return total
