"""Parameters of requests: names, ranges, defaults, and strict parsing of their text."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal, Protocol, get_type_hints

from radlens import explainers
from radlens.errors import InvalidParameter
from radlens.explainers.reliability import Goal
from radlens.explainers.upsampling import AUTO, NORMALIZATIONS
from radlens.images.sampling import SAMPLED_SHAPE, SAMPLERS

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
"""Outputs: a map on the grid of the sent image, the 250x250 map of one sample, the map drawn over the image, or the
standard deviation over the members."""

MEMBERS = ("mean", "each")
"""Explanation of the mean score of all members, or of each member separately."""

Defaults = Mapping[str, Mapping[str, Any]]
"""Defaults of a model for parameters of methods, by method and parameter."""

NO_DEFAULTS: Defaults = MappingProxyType({})
"""Defaults of a model that uses those of the methods."""

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
    default: int

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
class Positive:
    """A finite decimal number above 0, with or without exponent."""

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
    """A `Positive` number below 1."""

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
"""Parameters that are valid only with ``n_samples=auto``."""

_METHOD_PARAMETERS: dict[str, Integer] = {
    "n_steps": Integer(1, 1000, 50),
    "window": Integer(1, SAMPLED_SHAPE[0], 10),
    "stride": Integer(1, SAMPLED_SHAPE[0], 10),
}
"""Narrower ranges and other defaults than those of the methods, to limit the cost of one request.

Occlusion with a stride of 1 pixel, as in the paper, takes 62 500 evaluations of the network; with 10 it takes 625.
"""

_INTERNAL = frozenset({"internal_batch_size", "effect", "baseline"})
"""Parameters of methods that requests cannot set: they affect only memory, or the paper fixes them."""

_SETTLED: dict[str, dict[str, Any]] = {"occlusion": {"effect": "rise"}}
"""Values of fixed parameters that differ from the defaults of the method, by method."""


def prediction_parameters(sampler: str) -> dict[str, Parameter]:
    """Return the parameters of a prediction, by name; ``sampler`` is the default sampler of the model."""
    return {"sampler": Choice(SAMPLERS, sampler), "seed": _SEED}


def explanation_parameters(
    sampler: str, methods: Sequence[str], method: str, defaults: Defaults = NO_DEFAULTS
) -> dict[str, Parameter]:
    """Return the parameters of an explanation by ``method``, one of ``methods``, by name.

    Args:
        sampler: default sampler of the model.
        methods: methods that the model allows.
        method: method of the explanation.
        defaults: defaults of the model for parameters of methods, by method and name.
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
        field.name: _METHOD_PARAMETERS.get(field.name) or _parser(types[field.name], field.default) for field in own
    }
    return known | {name: replace(known[name], default=value) for name, value in defaults.get(method, {}).items()}


def _parser(kind: type, default: Any) -> Integer | Positive:
    return Integer(0, 2**31 - 1, default) if kind is int else Positive(default)


@dataclass(frozen=True)
class Settings:
    """Validated settings of one request.

    Attributes:
        sampler: name of the sampler of pixels.
        seed: seed of the sequence of samples.
        explainer: the method with its parameters; None for a prediction.
        n_samples: number of samples of an explanation; ``"auto"`` for as many as ``reliability`` needs.
        start: number of the first sample.
        reliability: reliability at which an automatic run ends, as in :class:`radlens.explainers.Goal`.
        max_samples: largest number of samples of an automatic run.
        normalize: normalisation, as in :func:`radlens.explainers.upsample`.
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
        """Whether each member is explained separately."""
        return self.members == "each"

    @property
    def is_automatic(self) -> bool:
        """Whether the number of samples is determined during the computation."""
        return self.n_samples == AUTO

    @property
    def most_samples(self) -> int:
        """Largest possible number of samples."""
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
        given: text of parameters by name; each must be a parameter of a prediction.
        hints: text by name for parameters that are not given; other names are ignored.
        sampler: default sampler of the model.

    Raises:
        InvalidParameter: a name is unknown, or a text is invalid.
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
        given: text of parameters by name; each must be a parameter of an explanation.
        hints: text by name for parameters that are not given; other names are ignored.
        sampler: default sampler of the model.
        methods: names of the explainers that the model allows, at least one.
        n_members: number of members of the model.
        defaults: defaults of the model for parameters of methods, by method and name.
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


def _require_auto(n_samples: Any, given: Mapping[str, str]) -> None:
    """Raise for parameters that would be ignored without ``n_samples=auto``."""
    ignored = [name for name in _OF_AUTO if name in given]
    if ignored and n_samples != AUTO:
        raise InvalidParameter(f"n_samples must be {AUTO} with {' and '.join(ignored)}, got {n_samples}")


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
    """Return the largest number of network evaluations of an explanation, its cost to within a factor of about 3."""
    explainer = settings.explainer
    if (each := getattr(explainer, "evaluations_per_sample", None)) is not None:
        return settings.most_samples * int(each)
    n_windows = math.ceil(SAMPLED_SHAPE[0] / stride) if (stride := getattr(explainer, "stride", None)) else 1
    return settings.most_samples * getattr(explainer, "n_steps", 1) * n_windows**2
