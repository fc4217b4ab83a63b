"""A request whose image, parameters and answer format are known to be good."""

from dataclasses import dataclass

from radlens.errors import InvalidParameter
from radlens.images import SAMPLED_SHAPE, Image, read, require_shape
from radlens.images.image import DICOM, NPY, PNG
from radlens.service.bodies import open_body
from radlens.service.messages import Request
from radlens.service.negotiation import negotiate
from radlens.service.parameters import Settings, evaluations, explanation_settings, prediction_settings
from radlens.wire import JSON, NDJSON

__all__ = ["MAX_PLAIN_EVALUATIONS", "MAX_STREAMED_EVALUATIONS", "Row", "Terms", "open_row"]

MAX_PLAIN_EVALUATIONS = 62_500
"""Evaluations of the network behind an answer in one piece: occlusion at every pixel of the paper's input."""

MAX_STREAMED_EVALUATIONS = 5_000_000
"""Evaluations of the network behind a stream: 100 000 samples of OMIG with the paper's 50 steps."""

_PREDICTION_FORMATS = (JSON, PNG, NPY)

_EXPLANATION_FORMATS = {
    "map": (JSON, NDJSON, PNG, NPY, DICOM),
    "sampled": (JSON, PNG),
    "overlay": (PNG, DICOM),
    "disagreement": (PNG, NPY),
}
"""Formats of each output, the default first."""


@dataclass(frozen=True)
class Terms:
    """What the model brings to a request.

    Attributes:
        sampler: the one it was trained with.
        methods: names of the explainers it allows.
        n_members: of the ensemble.
    """

    sampler: str
    methods: tuple[str, ...]
    n_members: int


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a batch, ready to be computed.

    Attributes:
        request: as it came.
        image: at least 250x250.
        settings: what is asked for.
        media_type: what the answer will be.
    """

    request: Request
    image: Image
    settings: Settings
    media_type: str

    @property
    def is_streamed(self) -> bool:
        """Whether the answer comes in pieces."""
        return self.media_type == NDJSON

    @property
    def is_sampled(self) -> bool:
        """Whether the image came at the network's own size and is taken as it is."""
        return self.image.pixels.shape == SAMPLED_SHAPE


def open_row(request: Request, terms: Terms) -> Row:
    """Check a request and read its image.

    Raises:
        InvalidInput: the request cannot be served; the kind of error says why.
    """
    opened = open_body(request)
    given = {**request.parameters, **opened.parameters}
    settings = _settings(request, given, terms)
    media_type = _media_type(request, settings)
    _require_affordable(settings, media_type)
    image = read(opened.data, opened.content_type)
    require_shape(image, SAMPLED_SHAPE)
    return Row(request, image, settings, media_type)


def _settings(request: Request, given: dict[str, str], terms: Terms) -> Settings:
    if request.kind == "predict":
        return prediction_settings(given, request.hints, sampler=terms.sampler)
    return explanation_settings(
        given, request.hints, sampler=terms.sampler, methods=terms.methods, n_members=terms.n_members
    )


def _media_type(request: Request, settings: Settings) -> str:
    if request.kind == "predict":
        return negotiate(request.accept, _PREDICTION_FORMATS)
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
