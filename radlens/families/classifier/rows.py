"""Validated requests to a classifier: their image, parameters and answer format."""

from dataclasses import dataclass

from radlens.datasets import Prepared
from radlens.errors import InvalidInput, InvalidParameter
from radlens.families.classifier.manifest import ClassifierManifest
from radlens.families.classifier.settings import ClassifierSettings, explanation_settings, prediction_settings
from radlens.images import Image, read
from radlens.images.image import DICOM, NPY, PNG
from radlens.service.bodies import open_body
from radlens.service.messages import Request
from radlens.service.negotiation import negotiate
from radlens.wire import JSON

__all__ = ["MAX_EVALUATIONS", "ClassifierRow", "open_row"]

MAX_EVALUATIONS = 20_000
"""Largest number of evaluations of the network for an answer: occlusion of a mammogram in steps of 5 pixels."""

_PREDICTION_FORMATS = (JSON, NPY)

_EXPLANATION_FORMATS = {
    "map": (JSON, PNG, NPY, DICOM),
    "overlay": (PNG, DICOM),
    "disagreement": (PNG, NPY),
}
"""Formats of each output, the default first."""


@dataclass(frozen=True, eq=False)
class ClassifierRow:
    """One row of a batch, ready to be computed.

    Attributes:
        request: the request as it arrived.
        image: the sent image.
        prepared: the preprocessed image.
        settings: settings of the request.
        media_type: media type of the answer.
    """

    request: Request
    image: Image
    prepared: Prepared
    settings: ClassifierSettings
    media_type: str


def open_row(request: Request, manifest: ClassifierManifest) -> ClassifierRow:
    """Check a request and read its image.

    Raises:
        InvalidInput: The request cannot be served; subclasses tell the reasons apart.
    """
    opened = open_body(request)
    if len(opened.images) != 1:
        raise InvalidInput(f"a classifier takes one image in a request, got {len(opened.images)}")
    given = {**request.parameters, **opened.parameters}
    if request.kind == "predict":
        settings = prediction_settings(given, request.hints)
        media_type = negotiate(request.accept, _PREDICTION_FORMATS)
    else:
        settings = explanation_settings(given, request.hints, manifest)
        media_type = negotiate(request.accept, _EXPLANATION_FORMATS[settings.output])
        _require_affordable(settings, manifest)
    image = read(*opened.images[0])
    return ClassifierRow(request, image, manifest.input.prepare(image.pixels), settings, media_type)


def _require_affordable(settings: ClassifierSettings, manifest: ClassifierManifest) -> None:
    assert settings.explainer is not None, "a prediction has no cost of this kind"
    n = settings.explainer.cost(*manifest.input.shape) * manifest.n_members
    if n > MAX_EVALUATIONS:
        raise InvalidParameter(
            f"the method's parameters must ask for at most {MAX_EVALUATIONS} evaluations of the network, got {n}"
        )
