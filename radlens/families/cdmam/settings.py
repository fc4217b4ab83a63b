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
from radlens.service.objects import WITHOUT_MAP, objects_parameter
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
from radlens.wire import OBJECTS

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
"""Outputs of an explanation: a map on the grid of the sent image, the 250x250 map of one sample, the map drawn over the
image, or the standard deviation over the members."""

Defaults = Mapping[str, Mapping[str, Any]]
"""Default values by method and parameter."""

NO_DEFAULTS: Defaults = MappingProxyType({})
"""Defaults of a model that uses those of the methods."""

_MAX_SAMPLES = 100_000

_OF_AUTO: dict[str, Parameter] = {
    "reliability": Above(Goal.reliability, below=1),
    "max_samples": Integer(2, _MAX_SAMPLES, Goal.max_samples),
}
"""Parameters that apply to ``n_samples=auto`` alone."""

_SERVED: Defaults = MappingProxyType({"occlusion": MappingProxyType({"window": 10, "stride": 10, "effect": "rise"})})
"""Default values that differ from those of the methods.

Occlusion in steps of 1 pixel, as in the paper, takes 62 500 evaluations of the network, in steps of 10 pixels 625. A
lower score is a better image (Amanova et al. 2022, section 2.3.1), so covering a disk makes the score rise.
"""

_MOST = {"window": SAMPLED_SHAPE[0], "stride": SAMPLED_SHAPE[0]}
"""Largest values of parameters, in pixels of a sample."""

_HIDDEN = frozenset({"internal_batch_size", "effect", "baseline"})
"""Parameters of methods that requests cannot set: the first affects memory alone, the paper fixes the others."""


def prediction_parameters(sampler: str) -> dict[str, Parameter]:
    """Return the parameters of a prediction by name; ``sampler`` is the default sampler."""
    return {**_sampling_parameters(sampler), "objects": objects_parameter(WITHOUT_MAP)}


def _sampling_parameters(sampler: str) -> dict[str, Parameter]:
    return {"sampler": Choice(SAMPLERS, sampler), "seed": SEED}


def explanation_parameters(
    sampler: str, methods: Sequence[str], method: str | None = None, defaults: Defaults = NO_DEFAULTS
) -> dict[str, Parameter]:
    """Return the parameters of an explanation by name.

    Args:
        sampler: the default sampler, that of the model.
        methods: names of the methods that the model allows.
        method: one of ``methods``; the default method if None.
        defaults: defaults of the model for parameters of methods, by method and name.
    """
    return {
        "method": Choice(tuple(methods), _default_method(methods)),
        "n_samples": Count(1, _MAX_SAMPLES, 1),
        "start": Integer(0, 2**31 - 1, 0),
        **_OF_AUTO,
        **_sampling_parameters(sampler),
        "normalize": Choice(NORMALIZATIONS, NORMALIZATIONS[0]),
        "members": Choice(MEMBERS, MEMBERS[0]),
        "output": Choice(OUTPUTS, OUTPUTS[0]),
        "objects": objects_parameter(),
        **_own_parameters(method or _default_method(methods), defaults),
    }


def _default_method(methods: Sequence[str]) -> str:
    return "omig" if "omig" in methods else methods[0]


def _own_parameters(method: str, defaults: Defaults) -> dict[str, Parameter]:
    values = {**_SERVED.get(method, {}), **defaults.get(method, {})}
    return method_parameters(method, values, hidden=_HIDDEN, most=_MOST)


@dataclass(frozen=True)
class Settings:
    """Validated settings of a request.

    Attributes:
        sampler: name of the sampler, which chooses the pixels of each sample.
        seed: seed of the sequence of samples.
        explainer: method with its parameters; None for a prediction.
        n_samples: number of samples of an explanation; ``"auto"`` for as many as ``reliability`` needs.
        start: number of the first sample.
        reliability: reliability that ends an automatic run.
        max_samples: largest number of samples of an automatic run.
        normalize: divisor of the sum over samples, ``"paper"`` or ``"visits"``.
        members: one of `MEMBERS`.
        output: one of `OUTPUTS`.
        objects: DICOM objects of the answer, some of `radlens.wire.OBJECTS`, separated by commas.
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
    objects: str = OBJECTS[0]

    @property
    def of_each(self) -> bool:
        """Whether each member is explained separately."""
        return self.members == "each"

    @property
    def is_automatic(self) -> bool:
        """Whether the reliability decides the number of samples."""
        return self.n_samples == AUTO

    @property
    def most_samples(self) -> int:
        """Largest possible number of samples."""
        return self.max_samples if self.n_samples == AUTO else self.n_samples

    @property
    def min_samples(self) -> int:
        """Smallest number of samples of an automatic run."""
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
        given: texts of the parameters by name.
        hints: texts for parameters that are not given; other names are ignored.
        sampler: the default sampler, that of the model.

    Raises:
        InvalidParameter: A parameter is unknown, or its text is invalid.
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
    """Read the parameters of an explanation.

    Args:
        given: texts of the parameters by name.
        hints: texts for parameters that are not given; other names are ignored.
        sampler: the default sampler, that of the model.
        methods: names of the methods that the model allows, at least one.
        n_members: number of members of the model.
        defaults: defaults of the model for parameters of methods, by method and name.

    Raises:
        InvalidParameter: A parameter is unknown, its text is invalid, or parameters contradict each other.
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
    """Raise if parameters of automatic runs are given for another run, where they would have no effect."""
    ignored = [name for name in _OF_AUTO if name in given]
    if ignored and n_samples != AUTO:
        raise InvalidParameter(f"n_samples must be {AUTO} with {' and '.join(ignored)}, got {n_samples}")


def evaluations(settings: Settings) -> int:
    """Return the largest possible number of evaluations of the network for an explanation."""
    assert settings.explainer is not None, "a prediction has no cost of this kind"
    return settings.most_samples * settings.explainer.cost(*SAMPLED_SHAPE)
