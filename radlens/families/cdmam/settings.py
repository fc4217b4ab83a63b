"""Settings of a request to the phantom model: parameters, their ranges and defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from radlens import explainers
from radlens.errors import InvalidParameter
from radlens.explainers.upsampling import AUTO, NORMALIZATIONS
from radlens.images.sampling import SAMPLED_SHAPE, SAMPLERS
from radlens.maps import Goal
from radlens.service.parameters import (
    MEMBERS,
    SEED,
    Above,
    Choice,
    Count,
    Integer,
    Parameter,
    method_parameters,
    read_parameter,
    read_parameters,
    require_members,
)

__all__ = [
    "NO_DEFAULTS",
    "OUTPUTS",
    "Defaults",
    "Settings",
    "evaluations",
    "explanation_parameters",
    "explanation_settings",
    "prediction_parameters",
    "prediction_settings",
]

OUTPUTS = ("map", "sampled", "overlay", "disagreement")
"""A map on the grid of the sent image, the 250x250 map of one sample, the map drawn over the image, or the standard
deviation over the members."""

Defaults = Mapping[str, Mapping[str, Any]]
"""Defaults of a model's own, by method and parameter."""

NO_DEFAULTS: Defaults = MappingProxyType({})
"""Those of a model that has none: the methods' own hold."""

_MAX_SAMPLES = 100_000

_OF_AUTO: dict[str, Parameter] = {
    "reliability": Above(Goal.reliability, below=1),
    "max_samples": Integer(2, _MAX_SAMPLES, Goal.max_samples),
}
"""Parameters that mean something with ``n_samples=auto`` alone."""

_SERVED: Defaults = MappingProxyType({"occlusion": MappingProxyType({"window": 10, "stride": 10, "effect": "rise"})})
"""Values that differ from those of the methods.

Occlusion in steps of 1 pixel, as in the paper, takes 62 500 evaluations of the network; 10 is 625. A lower score is a
better image (Amanova et al. 2022, section 2.3.1), so covering a disk makes it rise.
"""

_MOST = {"window": SAMPLED_SHAPE[0], "stride": SAMPLED_SHAPE[0]}
"""Largest values, pixels of a sample."""

_HIDDEN = frozenset({"internal_batch_size", "effect", "baseline"})
"""Fields of methods that no request sets: one changes memory alone, the paper settles the others."""


def prediction_parameters(sampler: str) -> dict[str, Parameter]:
    """Return the parameters of a prediction, by name; ``sampler`` is the model's own."""
    return {"sampler": Choice(SAMPLERS, sampler), "seed": SEED}


def explanation_parameters(
    sampler: str, methods: Sequence[str], method: str | None = None, defaults: Defaults = NO_DEFAULTS
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
        **_own_parameters(method or _default_method(methods), defaults),
    }


def _default_method(methods: Sequence[str]) -> str:
    return "omig" if "omig" in methods else methods[0]


def _own_parameters(method: str, defaults: Defaults) -> dict[str, Parameter]:
    values = {**_SERVED.get(method, {}), **defaults.get(method, {})}
    return method_parameters(method, values, hidden=_HIDDEN, most=_MOST)


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
        own = {name: value for name, value in asdict(self.explainer).items() if name not in _HIDDEN}  # type: ignore[call-overload]
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
    method = read_parameter("method", choice, given, hints)
    known = explanation_parameters(sampler, methods, method, defaults)
    _require_auto(read_parameter("n_samples", known["n_samples"], given, hints), given)
    values = read_parameters(f"explanations by {method}", known, given, hints)
    own = {name: values.pop(name) for name in _own_parameters(method, defaults)}
    del values["method"]
    values["members"] = require_members(values["members"], values["output"], n_members)
    hidden = {name: value for name, value in _SERVED.get(method, {}).items() if name in _HIDDEN}
    settings = Settings(explainer=explainers.create(method, **own, **hidden), **values)
    if settings.output == "sampled" and settings.n_samples != 1:
        raise InvalidParameter(f"n_samples must be 1 for output 'sampled', got {settings.n_samples}")
    return settings


def _require_auto(n_samples: Any, given: Mapping[str, str]) -> None:
    """Refuse a goal that would be ignored."""
    ignored = [name for name in _OF_AUTO if name in given]
    if ignored and n_samples != AUTO:
        raise InvalidParameter(f"n_samples must be {AUTO} with {' and '.join(ignored)}, got {n_samples}")


def evaluations(settings: Settings) -> int:
    """Return how often the network is evaluated for an explanation at most."""
    assert settings.explainer is not None, "a prediction has no cost of this kind"
    return settings.most_samples * settings.explainer.cost(*SAMPLED_SHAPE)
