"""What the parameters of many methods must be."""

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

from radlens.errors import InvalidParameter

__all__ = ["at_least", "finite", "flag", "not_negative"]


def at_least(least: int, method: Any, *names: str) -> None:
    """Refuse what is no whole number or below ``least``; None is allowed where it is the default.

    Raises:
        InvalidParameter: a value is refused.
    """
    for name in names:
        value = getattr(method, name)
        if value is None and getattr(type(method), name) is None:
            continue
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise InvalidParameter(f"{name} must be a whole number, got {value!r}")
        if value < least:
            raise InvalidParameter(f"{name} must be at least {least}, got {value}")


def finite(method: Any, *names: str) -> None:
    """Refuse what is no finite number.

    Raises:
        InvalidParameter: a value is refused.
    """
    _require(
        method,
        names,
        lambda value: isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value),
        "a finite number",
    )


def not_negative(method: Any, *names: str) -> None:
    """Refuse what is no finite number or below 0.

    Raises:
        InvalidParameter: a value is refused.
    """
    finite(method, *names)
    for name in names:
        if getattr(method, name) < 0:
            raise InvalidParameter(f"{name} must be at least 0, got {getattr(method, name)}")


def flag(method: Any, *names: str) -> None:
    """Refuse what is neither True nor False: any text but the empty one would count as True.

    Raises:
        InvalidParameter: a value is refused.
    """
    _require(method, names, lambda value: isinstance(value, bool), "True or False")


def _require(method: Any, names: Iterable[str], is_right: Callable[[Any], bool], expected: str) -> None:
    for name in names:
        if not is_right(value := getattr(method, name)):
            raise InvalidParameter(f"{name} must be {expected}, got {value!r}")
