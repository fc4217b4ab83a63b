"""Parameters of requests: names, ranges and defaults, and the strict reading of their text.

Parsers are ours: libraries for validation were seen to read ``1_0``, ``" 5"`` and ``5.0`` as integers.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from radlens import explainers
from radlens.errors import InvalidParameter
from radlens.explainers.ranges import Finite, Flag, NotNegative, OneOf, Positive, Range, Share, Whole, ranges_of
from radlens.explainers.upsampling import AUTO

__all__ = [
    "MEMBERS",
    "SEED",
    "Above",
    "Choice",
    "Count",
    "Integer",
    "Number",
    "Parameter",
    "Several",
    "YesOrNo",
    "method_parameters",
    "read_parameter",
    "read_parameters",
    "require_members",
    "shown",
]

MEMBERS = ("mean", "each")
"""Explanation of the mean score of all members, or of each member separately."""

_MAX_SHOWN = 40
"""Largest number of characters from a client that a message repeats."""


def shown(text: str) -> str:
    """Return ``text`` quoted, shortened and in printable ASCII: it may contain an attack, such as log injection."""
    quoted = ascii(text[:_MAX_SHOWN])
    return quoted if len(text) <= _MAX_SHOWN and len(quoted) <= 2 * _MAX_SHOWN else quoted[: 2 * _MAX_SHOWN] + "..."


class Parameter(Protocol):
    """Parser of one parameter."""

    @property
    def default(self) -> Any:
        """Value of a parameter that is not given."""

    @property
    def expected(self) -> str:
        """Description of valid text, which completes "must be ..."."""

    def parse(self, text: str) -> Any:
        """Return the value, or None for invalid text."""


@dataclass(frozen=True)
class Integer:
    """Decimal digits, from ``low`` to ``high``."""

    low: int
    high: int
    default: Any

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        return f"an integer from {self.low} to {self.high}"

    def parse(self, text: str) -> int | None:
        """See `Parameter`."""
        # Not int(): it accepts signs, underscores and digits of other scripts, and takes long for long texts.
        if not re.fullmatch(r"[0-9]{1,20}", text):
            return None
        value = int(text)
        return value if self.low <= value <= self.high else None


@dataclass(frozen=True)
class Count(Integer):
    """An `Integer`, or the word ``auto`` for a number that is determined during the computation."""

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        return f"{super().expected}, or {AUTO}"

    def parse(self, text: str) -> Any:
        """See `Parameter`."""
        return AUTO if text == AUTO else super().parse(text)


@dataclass(frozen=True)
class Number:
    """A decimal number, with or without sign and exponent, finite.

    Args:
        default: Value of a parameter that is not given.
        low: Smallest value.
        high: Largest value.
    """

    default: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        if math.isinf(self.low):
            return "a finite number"
        return f"a number from {self.low:.10g} to {self.high:.10g}"

    def parse(self, text: str) -> float | None:
        """See `Parameter`."""
        value = _decimal(text)
        return value if value is not None and self.low <= value <= self.high else None


@dataclass(frozen=True)
class Above:
    """A decimal number above 0, finite; with a largest value, below that."""

    default: float
    below: float = math.inf

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        return "a finite number above 0" if math.isinf(self.below) else f"a number above 0 and below {self.below:g}"

    def parse(self, text: str) -> float | None:
        """See `Parameter`."""
        value = _decimal(text)
        return value if value is not None and 0 < value < self.below else None


def _decimal(text: str) -> float | None:
    if not re.fullmatch(r"[+-]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?", text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Choice:
    """One of several words."""

    options: tuple[str, ...]
    default: str

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        return "one of " + ", ".join(self.options)

    def parse(self, text: str) -> str | None:
        """See `Parameter`."""
        return text if text in self.options else None


@dataclass(frozen=True)
class Several:
    """Some of several words, separated by commas; ``all`` stands for each of them.

    The value is text as well, with the words in the order of ``options``.
    """

    options: tuple[str, ...]
    default: str

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        return f"a comma-separated list of {', '.join(self.options)}, or all"

    def parse(self, text: str) -> str | None:
        """See `Parameter`."""
        words = set(self.options if text == "all" else text.split(","))
        return ",".join(word for word in self.options if word in words) if words <= set(self.options) else None


@dataclass(frozen=True)
class YesOrNo:
    """True or false."""

    default: bool

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        return "true or false"

    def parse(self, text: str) -> bool | None:
        """See `Parameter`."""
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower())


SEED = Integer(0, 2**32 - 1, 0)
"""Parameter for the seed of what is drawn."""


def method_parameters(
    method: str,
    defaults: Mapping[str, Any],
    *,
    hidden: Collection[str] = (),
    most: Mapping[str, int] | None = None,
    most_images: int | None = None,
) -> dict[str, Parameter]:
    """Return the parameters that the fields of a method are, by name.

    Args:
        method: Name of the method.
        defaults: Values that differ from the fields' own.
        hidden: Fields that requests do not set.
        most: Largest values that differ from those of the fields' ranges, by name.
        most_images: Largest number of images that a method may have computed together; more would take memory that a
            server has not planned for.
    """
    kind = explainers.get(method)
    values = {field.name: defaults.get(field.name, field.default) for field in fields(kind)}  # type: ignore[arg-type]
    found: dict[str, Parameter] = {}
    for name, allowed in ranges_of(kind).items():
        if name not in hidden:
            found[name] = _parameter(allowed, values[name], (most or {}).get(name), most_images)
    return found


def _parameter(allowed: Range, default: Any, most: int | None, most_images: int | None) -> Parameter:
    match allowed:
        case Whole() if default is None:
            return Count(allowed.least, most_images or allowed.most, AUTO)
        case Whole():
            return Integer(allowed.least, most or allowed.most, default)
        case Flag():
            return YesOrNo(default)
        case OneOf():
            return Choice(allowed.words, default)
        case Positive():
            return Above(default)
        case Share():
            return Above(default, 1.0)
        case NotNegative():
            return Number(default, 0, allowed.most)
        case Finite():
            return Number(default, -allowed.most, allowed.most)
    raise TypeError(f"no text is read as a value of {type(allowed).__name__}")


def require_members(members: str, output: str, n_members: int) -> str:
    """Return the effective value of ``members``: the output "disagreement" implies "each".

    Raises:
        InvalidParameter: the value is "each" for a model with one member.
    """
    if output == "disagreement":
        members = "each"
    if n_members == 1 and members == "each":
        raise InvalidParameter(
            "members must be mean and output must not be disagreement for a model with one member, got each"
        )
    return members


def read_parameters(
    what: str, known: Mapping[str, Parameter], given: Mapping[str, str], hints: Mapping[str, str]
) -> dict[str, Any]:
    """Read the text of parameters.

    Args:
        what: kind of request, for messages.
        known: known parameters, by name.
        given: text of parameters by name; each must be known.
        hints: text by name for parameters that are not given; other names are ignored.

    Returns:
        A value for each known parameter.

    Raises:
        InvalidParameter: a name is unknown, or a text is invalid.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InvalidParameter(f"parameters of {what} are {', '.join(known) or 'none'}; got {_first_few(unknown)}")
    return {name: read_parameter(name, parameter, given, hints) for name, parameter in known.items()}


def _first_few(names: Iterable[str]) -> str:
    first, *more = names
    return shown(first) + (f" and {len(more)} more" if more else "")


def read_parameter(name: str, parameter: Parameter, given: Mapping[str, str], hints: Mapping[str, str]) -> Any:
    """Read the text of one parameter; see `read_parameters`."""
    text = given.get(name, hints.get(name))
    if text is None:
        return parameter.default
    value = parameter.parse(text)
    if value is None:
        raise InvalidParameter(f"{name} must be {parameter.expected}, got {shown(text)}")
    return value
