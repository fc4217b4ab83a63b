"""What the parameters of many methods must be."""

import math
from typing import Any

from radlens.errors import InvalidParameter

__all__ = ["above_zero", "at_least_one", "not_negative"]


def at_least_one(method: Any, *names: str) -> None:
    """Refuse numbers below 1; a value that is None is left to the method.

    Raises:
        InvalidParameter: a value is below 1.
    """
    for name in names:
        value = getattr(method, name)
        if value is not None and value < 1:
            raise InvalidParameter(f"{name} must be at least 1, got {value}")


def not_negative(method: Any, *names: str) -> None:
    """Refuse numbers below 0.

    Raises:
        InvalidParameter: a value is below 0.
    """
    for name in names:
        if getattr(method, name) < 0:
            raise InvalidParameter(f"{name} must be at least 0, got {getattr(method, name)}")


def above_zero(method: Any, *names: str) -> None:
    """Refuse numbers that are not finite and above 0.

    Raises:
        InvalidParameter: a value is not.
    """
    for name in names:
        if not 0 < getattr(method, name) < math.inf:
            raise InvalidParameter(f"{name} must be a finite number above 0, got {getattr(method, name)}")
