"""What may be asked of a classifier: parameters, their ranges and defaults."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from radlens import explainers
from radlens.errors import InvalidParameter, UnsupportedMethod
from radlens.explainers import Explainer, images_per_call
from radlens.families.classifier.manifest import ClassifierManifest
from radlens.service.parameters import MEMBERS, Choice, Integer, Parameter, read_parameters, require_members, shown

__all__ = ["OUTPUTS", "PREDICTED", "ClassifierSettings", "explanation_settings", "prediction_settings"]

OUTPUTS = ("map", "overlay", "disagreement")
"""A map on the grid of the sent image, the map drawn over the image, or the standard deviation over the members."""

PREDICTED = "predicted"
"""The target that stands for the class that is predicted for the image."""

AUTO = "auto"
"""The number of images per call that follows from the size of an image."""

_SEED = Integer(0, 2**32 - 1, 0)

_LARGEST = 10_000
"""Of steps, evaluations, windows and the like that one request may ask for."""


@dataclass(frozen=True)
class Number:
    """A decimal number of at most a million, with or without sign and exponent."""

    default: float

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        return "a number from -1e6 to 1e6"

    def parse(self, text: str) -> float | None:
        """See `Parameter`."""
        if not re.fullmatch(r"[+-]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?", text):
            return None
        value = float(text)
        return value if abs(value) <= 1e6 else None


@dataclass(frozen=True)
class Flag:
    """Yes or no."""

    default: bool

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        return "true or false"

    def parse(self, text: str) -> bool | None:
        """See `Parameter`."""
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower())


@dataclass(frozen=True)
class ImagesPerCall:
    """An integer from 1, or the word ``auto``: images that a method may have computed together.

    Args:
        high: as many as are computed together anyway; more would take memory that a server has not planned for.
    """

    high: int
    default: str = AUTO

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        return f"an integer from 1 to {self.high}, or {AUTO}"

    def parse(self, text: str) -> int | str | None:
        """See `Parameter`."""
        return AUTO if text == AUTO else Integer(1, self.high, 1).parse(text)


@dataclass(frozen=True)
class Target:
    """The name of a class, its number, or ``predicted``."""

    classes: tuple[str, ...]
    default: str = PREDICTED

    @property
    def expected(self) -> str:
        """See `Parameter`."""
        return f"{PREDICTED}, or one of {', '.join(self.classes)}, or its number from 0 to {len(self.classes) - 1}"

    def parse(self, text: str) -> int | str | None:
        """See `Parameter`."""
        if text == PREDICTED:
            return text
        if text in self.classes:
            return self.classes.index(text)
        return Integer(0, len(self.classes) - 1, 0).parse(text)


@dataclass(frozen=True)
class ClassifierSettings:
    """What one request asks for, checked.

    Attributes:
        explainer: the method with its parameters; None for a prediction.
        target: class to explain; None for the predicted one.
        members: one of `MEMBERS`.
        output: one of `OUTPUTS`.
        trust: whether the answer comes with a trust card.
    """

    explainer: Explainer | None = None
    target: int | None = None
    members: str = MEMBERS[0]
    output: str = OUTPUTS[0]
    trust: bool = False

    def stated(self) -> dict[str, Any]:
        """Return every setting as JSON values, for the provenance."""
        if self.explainer is None:
            return {}
        method = {"method": self.explainer.name, "parameters": asdict(self.explainer)}  # type: ignore[call-overload]
        return {"explainer": method, "members": self.members, "output": self.output}


def prediction_settings(given: Mapping[str, str], hints: Mapping[str, str]) -> ClassifierSettings:
    """Read the parameters of a prediction: there are none.

    Raises:
        InvalidParameter: a name is given.
    """
    read_parameters("predictions of classes", {}, given, hints)
    return ClassifierSettings()


def explanation_settings(
    given: Mapping[str, str], hints: Mapping[str, str], manifest: ClassifierManifest
) -> ClassifierSettings:
    """Read the parameters of an explanation.

    Args:
        given: text by name; each must be a parameter of the method.
        hints: used where they name a parameter that is not given.
        manifest: of the model: its classes, methods and defaults.

    Raises:
        UnsupportedMethod: a method that this model does not allow; the message names those that work.
        InvalidParameter: an unknown name, or text that is not as expected.
    """
    method = given.get("method", hints.get("method", default_method(manifest.explainers)))
    _require_allowed(method, manifest)
    own = own_parameters(method, manifest.defaults.get(method, {}), manifest.input.image_shape)
    known: dict[str, Parameter] = {
        "method": Choice(manifest.explainers, method),
        "target": Target(manifest.classes),
        "members": Choice(MEMBERS, MEMBERS[0]),
        "output": Choice(OUTPUTS, OUTPUTS[0]),
        "trust": Flag(False),
        **own,
    }
    values = read_parameters(f"explanations by {method}", known, given, hints)
    parameters = {name: None if values[name] == AUTO else values[name] for name in own}
    explainer = explainers.create(method, **parameters)
    target = None if values["target"] == PREDICTED else int(values["target"])
    members = require_members(values["members"], values["output"], manifest.n_members)
    return ClassifierSettings(explainer, target, members, values["output"], values["trust"])


def default_method(methods: Sequence[str]) -> str:
    """Return the method of requests that name none: the one that located best in Sam Millan 2023, if there is."""
    return "integrated_gradients" if "integrated_gradients" in methods else methods[0]


def own_parameters(method: str, defaults: Mapping[str, Any], image_shape: tuple[int, int, int]) -> dict[str, Parameter]:
    """Return the parameters that the fields of a method are, by name.

    Args:
        method: name.
        defaults: values that differ from the fields' own.
        image_shape: ``(c, h, w)`` of what the network takes.
    """
    kind = explainers.get(method)
    hints = get_type_hints(kind)
    values = {field.name: defaults.get(field.name, field.default) for field in fields(kind)}  # type: ignore[arg-type]
    return {name: _of(name, hints[name], value, image_shape) for name, value in values.items()}


def _of(name: str, kind: Any, default: Any, image_shape: tuple[int, int, int]) -> Parameter:
    if name == "seed":
        return _SEED
    if name == "internal_batch_size":
        return ImagesPerCall(images_per_call(torch.empty(image_shape)))
    if kind is bool:
        return Flag(default)
    if kind is int:
        return Integer(1, _LARGEST, default)
    if kind is float:
        return Number(default)
    assert get_origin(kind) is Literal, f"parameter {name} has a type that no text is read as"
    return Choice(get_args(kind), default)


def _require_allowed(method: str, manifest: ClassifierManifest) -> None:
    if method in manifest.explainers:
        return
    allowed = ", ".join(manifest.explainers)
    if method not in explainers.names():
        raise InvalidParameter(f"method must be one of {allowed}, got {shown(method)}")
    reason = manifest.refused.get(method, "it explains models of another kind")
    raise UnsupportedMethod(f"method {method} does not work with this model: {reason}; methods that do are {allowed}")
