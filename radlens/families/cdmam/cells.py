"""Cells of the phantom above and below the predicted threshold line."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radlens.errors import InvalidInput
from radlens.phantoms.cdmam.geometry import CDC_ROWS, CELL_EXISTS, DIAMETERS_MM, THICKNESSES_UM
from radlens.phantoms.cdmam.reading import HUMAN_FACTORS

__all__ = ["automated_um", "distance_from_line", "threshold_line"]


def threshold_line(mean_um: ArrayLike) -> NDArray[np.float64]:
    """Return the threshold of each of the 16 diameters, um of gold, largest diameter first.

    The curve has 12 points; the three largest diameters and the smallest one get the value of the nearest point.

    Args:
        mean_um: (12,) thresholds of the curve, um of gold, positive.

    Raises:
        InvalidInput: The shape is wrong, or a value is not positive and finite.
    """
    mean = np.asarray(mean_um, np.float64)
    if mean.shape != (12,) or not (np.isfinite(mean).all() and mean.min() > 0):
        raise InvalidInput(f"mean_um must be 12 positive and finite thresholds, got shape {mean.shape}")
    before, after = CDC_ROWS.start, len(DIAMETERS_MM) - CDC_ROWS.stop
    return np.pad(mean, (before, after), mode="edge")


def automated_um(mean_um: ArrayLike) -> NDArray[np.float64]:
    """Convert human-equivalent thresholds to those of the automated read-out, (12,) um of gold."""
    return np.asarray(mean_um, np.float64) / np.array(HUMAN_FACTORS)


def distance_from_line(mean_um: ArrayLike) -> NDArray[np.float64]:
    """Return the natural logarithm of thickness over threshold for each cell, (16, 16); nan where there is no cell.

    Args:
        mean_um: (12,) thresholds of the curve, um of gold, positive.

    Raises:
        InvalidInput: The shape is wrong, or a value is not positive and finite.
    """
    distance = np.log(np.array(THICKNESSES_UM) / threshold_line(mean_um)[:, None])
    return np.where(CELL_EXISTS, distance, np.nan)
