"""Validated requests to a classifier: their image, parameters and answer format."""

import hashlib
from dataclasses import dataclass, replace

import torch

from radlens.datasets import Prepared
from radlens.errors import InvalidInput, InvalidParameter
from radlens.families.classifier.domain import ImageDomain
from radlens.families.classifier.manifest import ClassifierManifest
from radlens.families.classifier.settings import (
    STRIP,
    ClassifierSettings,
    explanation_settings,
    prediction_settings,
)
from radlens.images import Image, read
from radlens.images.image import NPY, PNG
from radlens.service.bodies import Opened, open_body, read_mask
from radlens.service.domain import Assessment
from radlens.service.messages import Request
from radlens.service.negotiation import negotiate
from radlens.service.objects import DICOM_FORMATS, require_dicom
from radlens.wire import APNG, JSON, NDJSON

__all__ = ["MAX_EVALUATIONS", "ClassifierRow", "open_row"]

MAX_EVALUATIONS = 20_000
"""Largest number of evaluations of the network for an answer: occlusion of a mammogram in steps of 5 pixels."""

_PREDICTION_FORMATS = (JSON, NPY, *DICOM_FORMATS)

_EXPLANATION_FORMATS = {
    "map": (JSON, NDJSON, PNG, NPY, *DICOM_FORMATS),
    "overlay": (PNG, *DICOM_FORMATS),
    "disagreement": (PNG, NPY, *DICOM_FORMATS),
    STRIP: (PNG, APNG, *DICOM_FORMATS),
}
"""Formats of each output, the default first."""

_PICTURE_FORMATS = (PNG, NPY, *DICOM_FORMATS)
"""Formats of a picture of a method."""


@dataclass(frozen=True, eq=False)
class ClassifierRow:
    """One row of a batch, ready to be computed.

    Attributes:
        request: the request as it arrived.
        image: the sent image.
        prepared: the preprocessed image.
        assessment: whether the image can be judged.
        settings: settings of the request.
        media_type: media type of the answer.
    """

    request: Request
    image: Image
    prepared: Prepared
    assessment: Assessment
    settings: ClassifierSettings
    media_type: str

    @property
    def is_streamed(self) -> bool:
        """Whether the answer is a stream."""
        return self.media_type == NDJSON


def open_row(request: Request, manifest: ClassifierManifest, domain: ImageDomain | None = None) -> ClassifierRow:
    """Check a request, read its image, and decide whether the model can judge it.

    Args:
        request: the request.
        manifest: manifest of the model.
        domain: the images that the model was trained on; None if the bundle does not know them. Then only uniform
            images are refused.

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
        media_type = negotiate(request.accept, _EXPLANATION_FORMATS.get(settings.output, _PICTURE_FORMATS))
        if media_type == JSON and settings.explainer is not None and settings.explainer.streams:
            media_type = NDJSON
        _require_affordable(settings, manifest)
    require_dicom(media_type, given)
    image = read(*opened.images[0])
    prepared = manifest.input.prepare(image.pixels)
    settings = _within(settings, opened, image, prepared, manifest)
    return ClassifierRow(request, image, prepared, _assessed(prepared, domain), settings, media_type)


def _within(
    settings: ClassifierSettings, opened: Opened, image: Image, prepared: Prepared, manifest: ClassifierManifest
) -> ClassifierSettings:
    """Return settings whose method is limited to the mask of the request, if there is one."""
    explainer = settings.explainer
    if opened.mask is None or explainer is None or not explainer.takes_mask:
        opened.without_mask()
        return settings
    organ = prepared.to_network(read_mask(opened.mask, image.pixels.shape), manifest.input.shape)
    limited = explainer.within(torch.from_numpy(organ))
    return replace(settings, explainer=limited, mask=hashlib.sha256(opened.mask.data).hexdigest())


def _assessed(prepared: Prepared, domain: ImageDomain | None) -> Assessment:
    if prepared.is_even:
        return Assessment(False, ("all pixels have one value; there is nothing to see",))
    return Assessment(True) if domain is None else domain.assess(prepared.pixels)


def _require_affordable(settings: ClassifierSettings, manifest: ClassifierManifest) -> None:
    assert settings.explainer is not None, "a prediction has no cost of this kind"
    n = settings.explainer.cost(*manifest.input.shape) * manifest.n_members
    if n > MAX_EVALUATIONS:
        raise InvalidParameter(
            f"the method's parameters must ask for at most {MAX_EVALUATIONS} evaluations of the network, got {n}"
        )
