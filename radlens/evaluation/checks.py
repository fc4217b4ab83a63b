"""What the measures of a map ask of their input; tensors are known without importing torch."""

from __future__ import annotations

import sys
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from radlens.errors import InvalidInput, InvalidParameter

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["finite_map", "is_tensor", "mask", "odd_side", "real_array", "real_number", "whole_number"]


def is_tensor(values: object) -> TypeGuard[Tensor]:
    """Return whether ``values`` is a tensor: there can be none where torch was never imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def real_array(name: str, values: ArrayLike | Tensor) -> np.ndarray:
    """Return ``values`` as a float64 array; a tensor may be of any device and type, and part of a graph.

    Raises:
        InvalidInput: they are text, complex, or of rows that differ in length.
    """
    if is_tensor(values) and not values.is_complex():
        return np.asarray(values.detach().cpu().to_dense().double().numpy())
    try:
        array = np.asarray(values)
        if array.dtype.kind in "biufO":
            return array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"{name} must be an array of real numbers, got {type(values).__name__}") from error
    raise InvalidInput(f"{name} must be an array of real numbers, got {array.dtype}")


def real_number(name: str, value: Any) -> float:
    """Return ``value``.

    Raises:
        InvalidParameter: it is no real number.
    """
    if not isinstance(value, Real):
        raise InvalidParameter(f"{name} must be a number, got {value!r}")
    return float(value)


def whole_number(name: str, value: Any, least: int) -> int:
    """Return ``value``.

    Raises:
        InvalidParameter: it is no whole number, or below ``least``.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InvalidParameter(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise InvalidParameter(f"{name} must be at least {least}, got {value}")
    return int(value)


def odd_side(name: str, value: Any) -> int:
    """Return the side of a square that has a middle.

    Raises:
        InvalidParameter: it is no odd whole number of at least 1.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1 or value % 2 == 0:
        raise InvalidParameter(f"{name} must be odd and at least 1, got {value!r}")
    return int(value)


def finite_map(name: str, values: ArrayLike) -> np.ndarray:
    """Return ``values`` as a float64 map ``(h, w)``.

    Raises:
        InvalidInput: it has not two dimensions, no pixels, or values that are no numbers, NaN or infinite.
    """
    array = _plane(name, real_array(name, values))
    n_bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if n_bad:
        raise InvalidInput(f"{name} must be finite, got {n_bad} values that are NaN or infinite")
    return array


def mask(name: str, values: ArrayLike) -> np.ndarray:
    """Return ``values`` as a boolean mask ``(h, w)``; every number but 0 is inside.

    Raises:
        InvalidInput: it has not two dimensions, no pixels, or values that are no numbers, NaN or infinite.
    """
    if isinstance(values, np.ndarray) and values.dtype == bool:
        return _plane(name, values)
    return finite_map(name, values) != 0


def _plane(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 2 or array.size == 0:
        raise InvalidInput(f"{name} must have shape (h, w) with at least one pixel, got {array.shape}")
    return array
