"""Validation of the arguments of measures of maps; tensors are recognised without importing torch."""

from __future__ import annotations

import sys
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from radlens.errors import InvalidInput, InvalidParameter

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["finite_map", "integer", "is_tensor", "mask", "odd_side", "real_array", "real_number"]


def is_tensor(values: object) -> TypeGuard[Tensor]:
    """Return whether ``values`` is a tensor: there can be none where torch was never imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def real_array(name: str, values: ArrayLike | Tensor) -> np.ndarray:
    """Return ``values`` as a float64 array; a tensor may have any device and dtype and may require gradients.

    Raises:
        InvalidInput: the values are text or complex numbers, or rows differ in length.
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
    """Return ``value`` as a float.

    Raises:
        InvalidParameter: the value is not a real number.
    """
    if not isinstance(value, Real):
        raise InvalidParameter(f"{name} must be a number, got {value!r}")
    return float(value)


def integer(name: str, value: Any, least: int) -> int:
    """Return ``value`` as an int.

    Raises:
        InvalidParameter: the value is not an integer, or is below ``least``.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InvalidParameter(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise InvalidParameter(f"{name} must be at least {least}, got {value}")
    return int(value)


def odd_side(name: str, value: Any) -> int:
    """Return ``value`` as the side of a square with a central pixel.

    Raises:
        InvalidParameter: the value is not an odd integer of at least 1.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1 or value % 2 == 0:
        raise InvalidParameter(f"{name} must be odd and at least 1, got {value!r}")
    return int(value)


def finite_map(name: str, values: ArrayLike) -> np.ndarray:
    """Return ``values`` as a float64 map ``(h, w)``.

    Raises:
        InvalidInput: the map does not have two dimensions, has no pixels, or has values that are not finite numbers.
    """
    array = _plane(name, real_array(name, values))
    n_bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if n_bad:
        raise InvalidInput(f"{name} must be finite, got {n_bad} values that are NaN or infinite")
    return array


def mask(name: str, values: ArrayLike) -> np.ndarray:
    """Return ``values`` as a boolean mask ``(h, w)``; non-zero values are inside.

    Raises:
        InvalidInput: the mask does not have two dimensions, has no pixels, or has values that are not finite numbers.
    """
    if isinstance(values, np.ndarray) and values.dtype == bool:
        return _plane(name, values)
    return finite_map(name, values) != 0


def _plane(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 2 or array.size == 0:
        raise InvalidInput(f"{name} must have shape (h, w) with at least one pixel, got {array.shape}")
    return array
