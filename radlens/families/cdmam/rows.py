"""Validated requests to a CDMAM model: their images, parameters and answer format."""

from dataclasses import dataclass

import numpy as np

from radlens.errors import InvalidInput, InvalidParameter
from radlens.families.cdmam.judging import Judged
from radlens.families.cdmam.methods import ABLATION, AblationMethod, ablation_settings, defaults_of
from radlens.families.cdmam.opening import OpenedImage, PhantomOpener
from radlens.families.cdmam.settings import (
    Settings,
    evaluations,
    explanation_settings,
    prediction_settings,
)
from radlens.images import SAMPLED_SHAPE, Image, read, require_shape
from radlens.images.image import NPY, PNG
from radlens.service.bodies import open_body
from radlens.service.domain import Assessment
from radlens.service.messages import Request
from radlens.service.negotiation import negotiate
from radlens.service.objects import DICOM_FORMATS, require_dicom
from radlens.wire import JSON, NDJSON

__all__ = ["MAX_PLAIN_EVALUATIONS", "MAX_STREAMED_EVALUATIONS", "Row", "Terms", "open_row"]

MAX_PLAIN_EVALUATIONS = 62_500
"""Largest number of evaluations of the network for a plain answer: occlusion at every pixel of the paper's input."""

MAX_STREAMED_EVALUATIONS = 5_000_000
"""Largest number of evaluations of the network for a stream: 100 000 samples of OMIG with the paper's 50 steps."""

_PREDICTION_FORMATS = (JSON, PNG, NPY, *DICOM_FORMATS)

_ABLATION_FORMATS = (JSON, PNG, *DICOM_FORMATS)

_EXPLANATION_FORMATS = {
    "map": (JSON, NDJSON, PNG, NPY, *DICOM_FORMATS),
    "sampled": (JSON, PNG),
    "overlay": (PNG, *DICOM_FORMATS),
    "disagreement": (PNG, NPY, *DICOM_FORMATS),
}
"""Formats of each output, the default first."""


@dataclass(frozen=True)
class Terms:
    """Properties of the model that requests depend on.

    Attributes:
        sampler: name of the sampler of its training.
        methods: names of the methods that it allows.
        n_members: number of members of the ensemble.
        opener: opener that registers the phantom of an image.
        registered: whether the network sees registered phantoms.
    """

    sampler: str
    methods: tuple[str, ...]
    n_members: int
    opener: PhantomOpener
    registered: bool


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a batch, ready to be computed.

    Attributes:
        request: the request as it arrived.
        opened: images, each at least 250x250, with their phantoms; an explanation has one image.
        settings: settings of the request.
        media_type: media type of the answer.
        registered: whether the network sees registered phantoms.
        judged: judged prediction that precedes an explanation; None for predictions, and if the network sees whole
            images.
    """

    request: Request
    opened: tuple[OpenedImage, ...]
    settings: Settings
    media_type: str
    registered: bool = False
    judged: Judged | None = None

    @property
    def assessment(self) -> Assessment:
        """Whether the first image can be judged, as far as it is known before a prediction."""
        return self.opened[0].judged(None) if self.judged is None else self.judged.assessment

    @property
    def image(self) -> Image:
        """The first image; an explanation has no other."""
        return self.opened[0].image

    @property
    def pixels(self) -> np.ndarray:
        """The array that samples are taken from: registered values, or pixels of the image, (h, w) float32."""
        phantom = self.opened[0].phantom
        return phantom.values if self.registered and phantom is not None else self.image.pixels

    def place(self, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Convert rows and columns of `pixels` to those of the image; the last value says where the image has them."""
        phantom = self.opened[0].phantom
        if not self.registered or phantom is None:
            return rows, cols, np.ones(rows.shape, dtype=bool)
        source = phantom.source[rows, cols]
        return *np.divmod(np.maximum(source, 0), self.image.pixels.shape[1]), source >= 0

    def on_image(self, values: np.ndarray) -> np.ndarray:
        """Move values (..., h, w) from the grid of `pixels` to the grid of the image."""
        phantom = self.opened[0].phantom
        return phantom.to_image(values) if self.registered and phantom is not None else values

    @property
    def is_streamed(self) -> bool:
        """Whether the answer is a stream."""
        return self.media_type == NDJSON


def open_row(request: Request, terms: Terms) -> Row:
    """Check a request and read its image.

    Raises:
        InvalidInput: The request cannot be served; subclasses tell the reasons apart.
    """
    body = open_body(request).without_mask()
    given = {**request.parameters, **body.parameters}
    settings = _settings(request, given, terms)
    media_type = _media_type(request, settings)
    require_dicom(media_type, given)
    _require_affordable(settings, media_type)
    if request.kind != "predict" and len(body.images) > 1:
        raise InvalidInput(f"an explanation is of one image, got {len(body.images)}")
    images = [read(part.data, part.content_type) for part in body.images]
    for image in images:
        require_shape(image, SAMPLED_SHAPE)
    opened = tuple(terms.opener.open(image) for image in images)
    return Row(request, opened, settings, media_type, terms.registered)


def _settings(request: Request, given: dict[str, str], terms: Terms) -> Settings:
    if request.kind == "predict":
        return prediction_settings(given, request.hints, sampler=terms.sampler)
    if ABLATION in terms.methods and given.get("method", request.hints.get("method")) == ABLATION:
        return ablation_settings(given, request.hints, sampler=terms.sampler)
    return explanation_settings(
        given,
        request.hints,
        sampler=terms.sampler,
        methods=terms.methods,
        n_members=terms.n_members,
        defaults=defaults_of(terms.registered),
    )


def _media_type(request: Request, settings: Settings) -> str:
    if request.kind == "predict":
        return negotiate(request.accept, _PREDICTION_FORMATS)
    if isinstance(settings.explainer, AblationMethod):
        return negotiate(request.accept, _ABLATION_FORMATS)
    media_type = negotiate(request.accept, _EXPLANATION_FORMATS[settings.output])
    return NDJSON if media_type == JSON and settings.n_samples != 1 else media_type


def _require_affordable(settings: Settings, media_type: str) -> None:
    if settings.explainer is None:
        return
    n, limit = evaluations(settings), MAX_STREAMED_EVALUATIONS if media_type == NDJSON else MAX_PLAIN_EVALUATIONS
    if n > limit:
        hint = "" if media_type == NDJSON else f"; {NDJSON} allows {MAX_STREAMED_EVALUATIONS}"
        samples = "max_samples" if settings.is_automatic else "n_samples"
        raise InvalidParameter(
            f"{samples} and the method's parameters must ask for at most {limit} evaluations of the network "
            f"in one {media_type} answer, got {n}{hint}"
        )
