"""Ranges of the parameters of methods, stated in the annotations of their fields.

``n_steps: Annotated[int, Whole(1)] = 32`` is checked when a method is created; requests, ``--help`` and tables state
the same range. Fields of type ``bool`` and ``Literal`` need no range.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Protocol, get_args, get_origin, get_type_hints

from radlens.errors import InvalidParameter

__all__ = [
    "Finite",
    "Flag",
    "ImagesPerCall",
    "NotNegative",
    "OneOf",
    "Positive",
    "Range",
    "Seed",
    "Share",
    "Whole",
    "check",
    "ranges_of",
]


class Range(Protocol):
    """Values that a parameter may have."""

    def objection(self, value: Any) -> str | None:
        """Return the end of the sentence "NAME must be ..." for a value out of range; None if it is in range."""


@dataclass(frozen=True)
class Whole:
    """Integers.

    Attributes:
        least: Smallest value.
        most: Largest value that a request may state; a method itself has no upper limit.
    """

    least: int
    most: int = 10_000

    def objection(self, value: Any) -> str | None:
        """See `Range`."""
        if not isinstance(value, Integral) or isinstance(value, bool):
            return "an integer"
        return None if int(value) >= self.least else f"at least {self.least}"


@dataclass(frozen=True)
class Finite:
    """Finite numbers.

    Attributes:
        most: Largest absolute value that a request may state; a method itself has no limit.
    """

    most: float = math.inf

    def objection(self, value: Any) -> str | None:
        """See `Range`."""
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        return None if is_number and math.isfinite(value) else "a finite number"


@dataclass(frozen=True)
class NotNegative(Finite):
    """Finite numbers of at least 0."""

    def objection(self, value: Any) -> str | None:
        """See `Range`."""
        return super().objection(value) or (None if value >= 0 else "at least 0")


@dataclass(frozen=True)
class Positive(Finite):
    """Finite numbers above 0."""

    def objection(self, value: Any) -> str | None:
        """See `Range`."""
        return None if super().objection(value) is None and value > 0 else "positive and finite"


@dataclass(frozen=True)
class Share(Finite):
    """Numbers above 0 and below 1."""

    most: float = 1.0

    def objection(self, value: Any) -> str | None:
        """See `Range`."""
        return super().objection(value) or (None if 0 < value < 1 else "above 0 and below 1")


@dataclass(frozen=True)
class Flag:
    """True or False alone: Python takes every nonempty string, ``"false"`` too, for true."""

    def objection(self, value: Any) -> str | None:
        """See `Range`."""
        return None if isinstance(value, bool) else "True or False"


@dataclass(frozen=True)
class OneOf:
    """One of several words."""

    words: tuple[str, ...]

    def objection(self, value: Any) -> str | None:
        """See `Range`."""
        return None if value in self.words else f"one of {', '.join(self.words)}"


@dataclass(frozen=True)
class _AtOnce(Whole):
    """Number of images computed together; None to choose it by the size of an image."""

    def objection(self, value: Any) -> str | None:
        """See `Range`."""
        return None if value is None else super().objection(value)


Seed = Annotated[int, Whole(0, 2**32 - 1)]
"""Seed of a method's random numbers."""

ImagesPerCall = Annotated[int | None, _AtOnce(1)]
"""Number of images computed together; None to choose it by the size of an image."""


@cache
def ranges_of(method: type) -> Mapping[str, Range]:
    """Return the range of each parameter of a method, by name, in the order of its fields.

    Raises:
        TypeError: A field does not state its range.
    """
    hints = get_type_hints(method, include_extras=True)
    return {field.name: _range(field.name, hints[field.name]) for field in fields(method)}


def _range(name: str, hint: Any) -> Range:
    if get_origin(hint) is Annotated:
        found: Range = hint.__metadata__[0]
        return found
    if get_origin(hint) is Literal:
        return OneOf(get_args(hint))
    if hint is bool:
        return Flag()
    raise TypeError(f"parameter {name} must state its range, such as Annotated[int, Whole(1)]")


def check(method: Any) -> None:
    """Check the parameters of a method.

    Raises:
        InvalidParameter: A value is out of its range.
    """
    kind: Any = type(method)
    for name, allowed in ranges_of(kind).items():
        value = getattr(method, name)
        if (expected := allowed.objection(value)) is not None:
            raise InvalidParameter(f"{name} must be {expected}, got {value!r}")
