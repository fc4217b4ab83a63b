"""What the measures of a map ask of their input."""

import numpy as np
from numpy.typing import ArrayLike

from radlens.errors import InvalidInput

__all__ = ["finite_map", "mask"]


def finite_map(name: str, values: ArrayLike) -> np.ndarray:
    """Return ``values`` as a float64 map ``(h, w)``.

    Raises:
        InvalidInput: it has not two dimensions, no pixels, or values that are NaN or infinite.
    """
    array = _plane(name, np.asarray(values, dtype=np.float64))
    n_bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if n_bad:
        raise InvalidInput(f"{name} must be finite, got {n_bad} values that are NaN or infinite")
    return array


def mask(name: str, values: ArrayLike) -> np.ndarray:
    """Return ``values`` as a boolean mask ``(h, w)``; every number but 0 is inside.

    Raises:
        InvalidInput: it has not two dimensions, no pixels, or values that are NaN or infinite.
    """
    array = np.asarray(values)
    return _plane(name, array) if array.dtype == bool else finite_map(name, array) != 0


def _plane(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 2 or array.size == 0:
        raise InvalidInput(f"{name} must have shape (h, w) with at least one pixel, got {array.shape}")
    return array
