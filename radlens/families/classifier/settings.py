"""Settings of a request to a classifier: parameters, their ranges and defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from radlens import explainers
from radlens.errors import InvalidParameter, UnsupportedMethod
from radlens.explainers import Explainer, images_per_call
from radlens.explainers.upsampling import AUTO
from radlens.families.classifier.manifest import ClassifierManifest
from radlens.service.objects import WITHOUT_MAP, objects_parameter
from radlens.service.parameters import (
    MEMBERS,
    Choice,
    Integer,
    Parameter,
    YesOrNo,
    method_parameters,
    read_parameters,
    require_members,
    shown,
)
from radlens.wire import OBJECTS

__all__ = [
    "OUTPUTS",
    "PREDICTED",
    "STRIP",
    "ClassifierSettings",
    "explanation_parameters",
    "explanation_settings",
    "prediction_parameters",
    "prediction_settings",
]

OUTPUTS = ("map", "overlay", "disagreement")
"""Outputs of an explanation: a map on the grid of the sent image, the map drawn over the image, or the standard
deviation over the members."""

STRIP = "strip"
"""Output of methods that have one: images between two pictures, with the image in the middle and scores below."""

PREDICTED = "predicted"
"""Target that stands for the predicted class of the image."""


@dataclass(frozen=True)
class Target:
    """Parameter whose value is the name of a class, its index, or ``predicted``."""

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
    """Validated settings of a request.

    Attributes:
        explainer: method with its parameters; None for a prediction.
        target: index of the class to explain; None for the predicted class.
        members: one of `MEMBERS`.
        output: one of `OUTPUTS`, a picture of the method, or `STRIP`.
        trust: whether the answer includes a trust card.
        mask: SHA-256 of the mask to which the method is limited; None without a mask.
        objects: DICOM objects of the answer, some of `radlens.wire.OBJECTS`, separated by commas.
    """

    explainer: Explainer | None = None
    target: int | None = None
    members: str = MEMBERS[0]
    output: str = OUTPUTS[0]
    trust: bool = False
    mask: str | None = None
    objects: str = OBJECTS[0]

    def stated(self) -> dict[str, Any]:
        """Return every setting as JSON values, for the provenance."""
        if self.explainer is None:
            return {}
        method = {"method": self.explainer.name, "parameters": asdict(self.explainer)}  # type: ignore[call-overload]
        limited = {} if self.mask is None else {"mask_sha256": self.mask}
        return {"explainer": method, "members": self.members, "output": self.output, **limited}


def prediction_parameters() -> dict[str, Parameter]:
    """Return the parameters of a prediction, by name."""
    return {"objects": objects_parameter(WITHOUT_MAP)}


def prediction_settings(given: Mapping[str, str], hints: Mapping[str, str]) -> ClassifierSettings:
    """Read the parameters of a prediction.

    Raises:
        InvalidParameter: A parameter is unknown, or its text is invalid.
    """
    return ClassifierSettings(**read_parameters("predictions of classes", prediction_parameters(), given, hints))


def explanation_settings(
    given: Mapping[str, str], hints: Mapping[str, str], manifest: ClassifierManifest
) -> ClassifierSettings:
    """Read the parameters of an explanation.

    Args:
        given: texts of the parameters by name.
        hints: texts for parameters that are not given; other names are ignored.
        manifest: manifest with the model's classes, methods and defaults.

    Raises:
        UnsupportedMethod: The model does not allow the method, with these parameters; the message gives the reason.
        InvalidParameter: A parameter is unknown, or its text is invalid.
    """
    method = given.get("method", hints.get("method", default_method(manifest.explainers)))
    _require_allowed(method, manifest)
    own, known = _own_parameters(manifest, method), explanation_parameters(manifest, method)
    values = read_parameters(f"explanations by {method}", known, given, hints)
    parameters = {name: None if values[name] == AUTO else values[name] for name in own}
    explainer = explainers.create(method, **parameters).drawn_as(values["output"])
    if (reason := manifest.refused.get(explainer.variant)) is not None:
        raise UnsupportedMethod(f"{explainer.variant} does not work with this model: {reason}")
    target = None if values["target"] == PREDICTED else int(values["target"])
    members = require_members(values["members"], values["output"], manifest.n_members)
    if members == "each" and values["output"] in _outputs(explainer):
        raise InvalidParameter(f"members must be mean for output {values['output']}, got each")
    return ClassifierSettings(explainer, target, members, values["output"], values["trust"], objects=values["objects"])


def explanation_parameters(manifest: ClassifierManifest, method: str | None = None) -> dict[str, Parameter]:
    """Return the parameters of an explanation, by name.

    Args:
        manifest: Manifest of the model.
        method: One of its methods; the default method if None.

    Raises:
        UnsupportedMethod: The model does not allow the method; the message names the methods that it allows.
        InvalidParameter: The method is unknown.
    """
    method = method or default_method(manifest.explainers)
    _require_allowed(method, manifest)
    return {
        "method": Choice(manifest.explainers, method),
        "target": Target(manifest.classes),
        "members": Choice(MEMBERS, MEMBERS[0]),
        "output": Choice((*OUTPUTS, *_outputs(explainers.get(method))), OUTPUTS[0]),
        "trust": YesOrNo(False),
        "objects": objects_parameter(),
        **_own_parameters(manifest, method),
    }


def _outputs(method: Explainer | type[Explainer]) -> tuple[str, ...]:
    """Return the outputs of a method beside `OUTPUTS`."""
    return (*method.pictures, *([STRIP] if method.strip else []))


def _own_parameters(manifest: ClassifierManifest, method: str) -> dict[str, Parameter]:
    most_images = images_per_call(torch.empty(manifest.input.image_shape))
    return method_parameters(method, manifest.defaults.get(method, {}), most_images=most_images)


def default_method(methods: Sequence[str]) -> str:
    """Return the default method: the one that located lesions best in Sam Millan 2023, if the model allows it."""
    return "integrated_gradients" if "integrated_gradients" in methods else methods[0]


def _require_allowed(method: str, manifest: ClassifierManifest) -> None:
    if method in manifest.explainers:
        return
    allowed = ", ".join(manifest.explainers)
    if method not in explainers.names():
        raise InvalidParameter(f"method must be one of {allowed}, got {shown(method)}")
    reason = manifest.refused.get(method, "it explains models of another kind")
    raise UnsupportedMethod(f"method {method} does not work with this model: {reason}; methods that do are {allowed}")
