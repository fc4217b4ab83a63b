"""What a request may ask for: names, ranges and defaults of parameters, and the strict reading of their text."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal, Protocol, get_type_hints

from radlens import explainers
from radlens.errors import InvalidParameter
from radlens.explainers.upsampling import AUTO, NORMALIZATIONS
from radlens.images.sampling import SAMPLED_SHAPE, SAMPLERS
from radlens.maps import Goal

__all__ = [
    "MEMBERS",
    "NO_DEFAULTS",
    "OUTPUTS",
    "Choice",
    "Count",
    "Defaults",
    "Integer",
    "Parameter",
    "Positive",
    "Settings",
    "Share",
    "evaluations",
    "explanation_parameters",
    "explanation_settings",
    "prediction_parameters",
    "prediction_settings",
    "read_parameters",
    "require_members",
    "shown",
]

OUTPUTS = ("map", "sampled", "overlay", "disagreement")
"""A map on the grid of the sent image, the 250x250 map of one sample, the map drawn over the image, or the standard
deviation over the members."""

MEMBERS = ("mean", "each")
"""Explain the mean score of all members, or each member by itself."""

Defaults = Mapping[str, Mapping[str, Any]]
"""Defaults of a model's own, by method and parameter."""

NO_DEFAULTS: Defaults = MappingProxyType({})
"""Those of a model that has none: the methods' own hold."""

_MAX_SHOWN = 40
"""Characters of what a client sent that a message repeats."""


def shown(text: str) -> str:
    """Return ``text`` quoted, in printable ASCII and short: it may be an attack on whoever reads the message."""
    quoted = ascii(text[:_MAX_SHOWN])
    return quoted if len(text) <= _MAX_SHOWN and len(quoted) <= 2 * _MAX_SHOWN else quoted[: 2 * _MAX_SHOWN] + "..."


class Parameter(Protocol):
    """How the text of one parameter is read."""

    @property
    def default(self) -> Any:
        """The value of a parameter that is not given."""

    @property
    def expected(self) -> str:
        """What the text must be, to follow ``must be``."""

    def parse(self, text: str) -> Any:
        """Return the value, or None where the text is not as expected."""


@dataclass(frozen=True)
class Integer:
    """Decimal digits, from ``low`` to ``high``."""

    low: int
    high: int
    default: int

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        return f"an integer from {self.low} to {self.high}"

    def parse(self, text: str) -> int | None:
        """See `Parameter`."""
        if not re.fullmatch(r"[0-9]{1,20}", text):
            return None
        value = int(text)
        return value if self.low <= value <= self.high else None


@dataclass(frozen=True)
class Count(Integer):
    """As `Integer`, or the word ``auto``: as many as it takes."""

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        return f"{super().expected}, or {AUTO}"

    def parse(self, text: str) -> Any:
        """See `Parameter`."""
        return AUTO if text == AUTO else super().parse(text)


@dataclass(frozen=True)
class Positive:
    """A decimal number, with or without exponent, above 0 and finite."""

    default: float

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        return "a finite number above 0"

    def parse(self, text: str) -> float | None:
        """See `Parameter`."""
        if not re.fullmatch(r"(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?", text):
            return None
        value = float(text)
        return value if 0 < value < math.inf else None


@dataclass(frozen=True)
class Share(Positive):
    """As `Positive`, and below 1."""

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        return "a number above 0 and below 1"

    def parse(self, text: str) -> float | None:
        """See `Parameter`."""
        value = super().parse(text)
        return value if value is not None and value < 1 else None


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


_SEED = Integer(0, 2**32 - 1, 0)

_MAX_SAMPLES = 100_000

_OF_AUTO: dict[str, Parameter] = {
    "reliability": Share(Goal.reliability),
    "max_samples": Integer(2, _MAX_SAMPLES, Goal.max_samples),
}
"""Parameters that mean something with ``n_samples=auto`` alone."""

_METHOD_PARAMETERS: dict[str, Integer] = {
    "n_steps": Integer(1, 1000, 50),
    "window": Integer(1, SAMPLED_SHAPE[0], 10),
    "stride": Integer(1, SAMPLED_SHAPE[0], 10),
}
"""Narrower ranges and other defaults than a method's own, for what a server should spend on one request.

Occlusion in steps of 1 pixel, as in the paper, takes 62 500 evaluations of the network; 10 is 625.
"""

_INTERNAL = frozenset({"internal_batch_size", "effect", "baseline"})
"""Parameters of methods that no request has: what changes memory alone, and what the paper settles."""

_SETTLED: dict[str, dict[str, Any]] = {"occlusion": {"effect": "rise"}}
"""Values of such parameters that differ from the method's own, by method."""


def prediction_parameters(sampler: str) -> dict[str, Parameter]:
    """Return the parameters of a prediction, by name; ``sampler`` is the model's own."""
    return {"sampler": Choice(SAMPLERS, sampler), "seed": _SEED}


def explanation_parameters(
    sampler: str, methods: Sequence[str], method: str, defaults: Defaults = NO_DEFAULTS
) -> dict[str, Parameter]:
    """Return the parameters of an explanation by ``method``, one of ``methods``, by name.

    Args:
        sampler: the default sampler, the model's own.
        methods: that the model allows.
        method: one of them.
        defaults: the model's own for parameters of methods, by method and name.
    """
    return {
        "method": Choice(tuple(methods), _default_method(methods)),
        "n_samples": Count(1, _MAX_SAMPLES, 1),
        "start": Integer(0, 2**31 - 1, 0),
        **_OF_AUTO,
        **prediction_parameters(sampler),
        "normalize": Choice(NORMALIZATIONS, NORMALIZATIONS[0]),
        "members": Choice(MEMBERS, MEMBERS[0]),
        "output": Choice(OUTPUTS, OUTPUTS[0]),
        **_own_parameters(method, defaults),
    }


def _default_method(methods: Sequence[str]) -> str:
    return "omig" if "omig" in methods else methods[0]


def _own_parameters(method: str, defaults: Defaults) -> Mapping[str, Parameter]:
    kind = explainers.get(method)
    types = get_type_hints(kind)
    own = [field for field in fields(kind) if field.name not in _INTERNAL]  # type: ignore[arg-type]
    known: dict[str, Integer | Positive] = {
        field.name: _METHOD_PARAMETERS.get(field.name) or _of(types[field.name], field.default) for field in own
    }
    return known | {name: replace(known[name], default=value) for name, value in defaults.get(method, {}).items()}


def _of(kind: type, default: Any) -> Integer | Positive:
    return Integer(0, 2**31 - 1, default) if kind is int else Positive(default)


@dataclass(frozen=True)
class Settings:
    """What one request asks for, checked.

    Attributes:
        sampler: how pixels are chosen.
        seed: of the sequence of samples.
        explainer: the method with its parameters; None for a prediction.
        n_samples: samples behind an explanation; ``"auto"`` for as many as ``reliability`` takes.
        start: number of the first of them.
        reliability: that an automatic run ends at, see :class:`radlens.explainers.Goal`.
        max_samples: that an automatic run ends at.
        normalize: see :func:`radlens.explainers.upsample`.
        members: one of `MEMBERS`.
        output: one of `OUTPUTS`.
    """

    sampler: str
    seed: int
    explainer: explainers.Explainer | None = None
    n_samples: int | Literal["auto"] = 1
    start: int = 0
    reliability: float = Goal.reliability
    max_samples: int = Goal.max_samples
    normalize: str = NORMALIZATIONS[0]
    members: str = MEMBERS[0]
    output: str = OUTPUTS[0]

    @property
    def of_each(self) -> bool:
        """Whether each member is explained by itself."""
        return self.members == "each"

    @property
    def is_automatic(self) -> bool:
        """Whether the number of samples is known only in the end."""
        return self.n_samples == AUTO

    @property
    def most_samples(self) -> int:
        """How many samples there are at most."""
        return self.max_samples if self.n_samples == AUTO else self.n_samples

    @property
    def min_samples(self) -> int:
        """Fewest samples of an automatic run."""
        return min(Goal.min_samples, self.max_samples)

    def stated(self) -> dict[str, Any]:
        """Return every setting as JSON values, for the provenance."""
        sampling = {"sampler": self.sampler, "seed": self.seed}
        if self.explainer is None:
            return {"sampling": sampling}
        own = {name: value for name, value in asdict(self.explainer).items() if name not in _INTERNAL}  # type: ignore[call-overload]
        method = {"method": self.explainer.name, "parameters": own}
        goal = {"wanted_reliability": self.reliability, "max_samples": self.max_samples} if self.is_automatic else {}
        samples = {"n_samples": self.n_samples, "start": self.start, "normalize": self.normalize}
        return {
            "sampling": {**sampling, **samples, **goal},
            "explainer": method,
            "members": self.members,
            "output": self.output,
        }


def prediction_settings(given: Mapping[str, str], hints: Mapping[str, str], *, sampler: str) -> Settings:
    """Read the parameters of a prediction.

    Args:
        given: text by name; each must be a parameter of a prediction.
        hints: used where they name a parameter that is not given.
        sampler: the default sampler, the model's own.

    Raises:
        InvalidParameter: an unknown name, or text that is not as expected.
    """
    return Settings(**read_parameters("predictions", prediction_parameters(sampler), given, hints))


def explanation_settings(
    given: Mapping[str, str],
    hints: Mapping[str, str],
    *,
    sampler: str,
    methods: Sequence[str],
    n_members: int,
    defaults: Defaults = NO_DEFAULTS,
) -> Settings:
    """Read the parameters of an explanation; arguments and errors as in `prediction_settings`.

    Args:
        given: text of the parameters by name.
        hints: values used where a parameter is not given.
        sampler: name of the default sampler.
        methods: names of the explainers that the model allows, at least one.
        n_members: of the model.
        defaults: the model's own for parameters of methods, by method and name.
    """
    choice = Choice(tuple(methods), _default_method(methods))
    method = _value("method", choice, given, hints)
    known = explanation_parameters(sampler, methods, method, defaults)
    _require_auto(_value("n_samples", known["n_samples"], given, hints), given)
    values = read_parameters(f"explanations by {method}", known, given, hints)
    own = {name: values.pop(name) for name in _own_parameters(method, defaults)}
    del values["method"]
    values["members"] = require_members(values["members"], values["output"], n_members)
    settings = Settings(explainer=explainers.create(method, **own, **_SETTLED.get(method, {})), **values)
    if settings.output == "sampled" and settings.n_samples != 1:
        raise InvalidParameter(f"n_samples must be 1 for output 'sampled', got {settings.n_samples}")
    return settings


def require_members(members: str, output: str, n_members: int) -> str:
    """Return which of `MEMBERS` is meant: a disagreement is between each of them.

    Raises:
        InvalidParameter: each of a model that has one.
    """
    if output == "disagreement":
        members = "each"
    if n_members == 1 and members == "each":
        raise InvalidParameter(
            "members must be mean and output another than disagreement for a model of one member, got each"
        )
    return members


def _require_auto(n_samples: Any, given: Mapping[str, str]) -> None:
    """Refuse a goal that would be ignored."""
    ignored = [name for name in _OF_AUTO if name in given]
    if ignored and n_samples != AUTO:
        raise InvalidParameter(f"n_samples must be {AUTO} with {' and '.join(ignored)}, got {n_samples}")


def read_parameters(
    what: str, known: Mapping[str, Parameter], given: Mapping[str, str], hints: Mapping[str, str]
) -> dict[str, Any]:
    """Read the text of parameters.

    Args:
        what: has them, for messages.
        known: all there are, by name.
        given: text by name; each must be known.
        hints: used where they name a parameter that is not given.

    Returns:
        A value for each known parameter.

    Raises:
        InvalidParameter: an unknown name, or text that is not as expected.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InvalidParameter(f"parameters of {what} are {', '.join(known) or 'none'}; got {_first_few(unknown)}")
    return {name: _value(name, parameter, given, hints) for name, parameter in known.items()}


def _first_few(names: Iterable[str]) -> str:
    first, *more = names
    return shown(first) + (f" and {len(more)} more" if more else "")


def _value(name: str, parameter: Parameter, given: Mapping[str, str], hints: Mapping[str, str]) -> Any:
    text = given.get(name, hints.get(name))
    if text is None:
        return parameter.default
    value = parameter.parse(text)
    if value is None:
        raise InvalidParameter(f"{name} must be {parameter.expected}, got {shown(text)}")
    return value


def evaluations(settings: Settings) -> int:
    """Return how often the network is evaluated for an explanation at most: its cost to within a factor of about 3."""
    explainer = settings.explainer
    if (each := getattr(explainer, "evaluations_per_sample", None)) is not None:
        return settings.most_samples * int(each)
    n_windows = math.ceil(SAMPLED_SHAPE[0] / stride) if (stride := getattr(explainer, "stride", None)) else 1
    return settings.most_samples * getattr(explainer, "n_steps", 1) * n_windows**2
