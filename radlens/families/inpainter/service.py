"""The service of an inpainter: an image and a mask of holes give the image with its holes filled.

Holes are filled on the network's grid, and the filling is resized to the grid of the image; pixels outside the holes
keep their values exactly.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from radlens.datasets.model_input import Prepared
from radlens.dicom import write
from radlens.engines.base import BatchEngine, Refusal
from radlens.errors import InvalidInput, UnreadableImage, UnsupportedMethod
from radlens.families.inpainter.findings import findings
from radlens.families.inpainter.manifest import InpainterBundle
from radlens.families.inpainter.network_engine import open_inpainter
from radlens.figures import display_grey
from radlens.images import Image, read, to_npy, to_png
from radlens.images.image import NPY, PNG
from radlens.service.batching import BatchService, Work
from radlens.service.bodies import open_body, read_mask
from radlens.service.messages import Request, Response
from radlens.service.negotiation import negotiate
from radlens.service.objects import DICOM_FORMATS, as_body, objects_parameter, require_dicom
from radlens.service.parameters import Choice, Parameter, read_parameters
from radlens.service.provenance import header_value, provenance
from radlens.wire import JSON, PROVENANCE, array_to_json

__all__ = ["OUTPUTS", "InpainterService", "prediction_parameters"]

OUTPUTS = ("filled", "change", "mask")
"""Pictures of an answer: the filled image, filled minus sent image, and the mask that was filled, 1 = hole."""

_FORMATS = (JSON, PNG, NPY, *DICOM_FORMATS)


def prediction_parameters() -> Mapping[str, Parameter]:
    """Return the parameters of a prediction, by name."""
    return {"output": Choice(OUTPUTS, OUTPUTS[0]), "objects": objects_parameter()}


@dataclass(frozen=True, eq=False)
class Row:
    """A validated request.

    Attributes:
        request: The request as it arrived.
        image: The sent image.
        mask: ``(H, W)`` bool, True in holes.
        mask_sha256: Hexadecimal digest of the file of the mask.
        prepared: The preprocessed image.
        holes: ``(h, w)`` bool, holes on the network's grid.
        output: One of `OUTPUTS`.
        media_type: Media type of the answer.
        objects: DICOM objects of the answer, some of `radlens.wire.OBJECTS`, separated by commas.
    """

    request: Request
    image: Image
    mask: np.ndarray
    mask_sha256: str
    prepared: Prepared
    holes: np.ndarray
    output: str
    media_type: str
    objects: str

    def stated(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the provenance."""
        return {"output": self.output, "mask_sha256": self.mask_sha256, "hole_pixels": int(self.mask.sum())}


@dataclass(frozen=True, eq=False)
class ServingEngine:
    """Engine of the service, for metrics.

    Attributes:
        opened: The opened engine.
        precision: Precision of the arithmetic.
        refused: Engines that must not compute the graph.
    """

    opened: BatchEngine
    precision: str
    refused: tuple[Refusal, ...]

    @property
    def name(self) -> str:
        """Name of the engine."""
        return self.opened.name


class InpainterService(BatchService):
    """Answers requests with one inpainter.

    Args:
        bundle: The model.
        engine: Name of the engine, or ``"auto"`` for the fastest.
        precision: Precision of the arithmetic.
        memory_limit: Most bytes that the engine may take; None for the default.
        now: Clock of the provenance.

    Raises:
        BundleError: No engine computes the graph correctly.
    """

    def __init__(
        self,
        bundle: InpainterBundle,
        *,
        engine: str = "auto",
        precision: str = "f32",
        memory_limit: int | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bundle, self._now = bundle, now
        self._graph, refused = open_inpainter(bundle, engine, precision, memory_limit=memory_limit)
        self.engine = ServingEngine(self._graph, precision, refused)

    def _open(self, request: Request) -> Row:
        if request.kind != "predict":
            raise UnsupportedMethod("an inpainter has no explanations; ask for a prediction")
        opened = open_body(request)
        if len(opened.images) != 1:
            raise InvalidInput(f"an inpainter takes one image in a request, got {len(opened.images)}")
        if opened.mask is None:
            raise InvalidInput(
                "expected an image and its holes: multipart/related with parts named image and mask, or JSON with both "
                "in base64; got no mask"
            )
        given = {**request.parameters, **opened.parameters}
        values = read_parameters("fillings", prediction_parameters(), given, request.hints)
        media_type = negotiate(request.accept, _FORMATS)
        require_dicom(media_type, given)
        image = read(*opened.images[0])
        mask = read_mask(opened.mask, image.pixels.shape)
        prepared = self._bundle.manifest.input.prepare(image.pixels)
        holes = prepared.to_network(mask, self._bundle.manifest.input.shape)
        if holes.all():
            raise InvalidInput("the mask must leave known pixels for the inpainter to continue, got holes everywhere")
        digest = hashlib.sha256(opened.mask.data).hexdigest()
        return Row(request, image, mask, digest, prepared, holes, values["output"], media_type, values["objects"])

    def _work(self, rows: Sequence[Row]) -> Iterator[Work]:
        if rows:
            yield self._compute, self._respond, list(rows)

    def _compute(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Return the filled image of each row, ``(H, W)`` float32."""
        images = np.stack([row.prepared.pixels for row in rows])
        masks = np.stack([~row.holes for row in rows])[:, None].astype(np.float32)
        found = self._graph.run({"images": images, "masks": masks})["inpainted"]
        return [self._on_image(row, drawn) for row, drawn in zip(rows, found, strict=True)]

    def _on_image(self, row: Row, drawn: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            filling = row.prepared.on_image(row.prepared.in_pixels(drawn))
        inside = row.prepared.on_image(np.ones(row.holes.shape, dtype=np.float32)) > 0
        filled = np.where(row.mask & inside, filling, row.image.pixels).astype(np.float32)
        if not np.isfinite(filled).all():
            raise UnreadableImage("pixels must be small enough to be filled, got values that overflow the model")
        return filled

    def _context(self, row: Row) -> dict[str, Any]:
        manifest = self._bundle.manifest
        model = {"model": manifest.name, "version": manifest.version, "bundle_hash": self._bundle.bundle_hash}
        return provenance(model | self.stated(), row.image, row, row.request.request_id, self._now())

    def stated(self) -> dict[str, Any]:
        """Return the provenance of the engine as JSON values."""
        return {
            "engine": self.engine.name,
            "precision": self.engine.precision,
            "refused_engines": [vars(refusal) for refusal in self.engine.refused],
        }

    def _respond(self, row: Row, filled: np.ndarray, stated: dict[str, Any]) -> Response:
        values = {"filled": filled, "change": filled - row.image.pixels, "mask": row.mask.astype(np.float32)}
        content_type, body = row.media_type, b""
        if row.media_type in DICOM_FORMATS:
            found = findings(self._answer_fields(row, values, stated), [row.image])
            content_type, body = as_body(write(found, row.objects.split(",")), row.media_type)
        elif row.media_type == JSON:
            encoded = {name: array_to_json(each) for name, each in values.items()}
            body = json.dumps(self._answer_fields(row, encoded, stated)).encode()
        elif row.media_type == NPY:
            body = to_npy(values[row.output].astype(np.float32))
        else:
            body = to_png(display_grey(values[row.output]))
        return Response(200, content_type, body, {PROVENANCE: header_value(stated)})

    def _answer_fields(self, row: Row, values: Mapping[str, Any], stated: dict[str, Any]) -> dict[str, Any]:
        return {
            "prediction": dict(values),
            "task": self._bundle.manifest.task,
            "assessable": True,
            "reasons": [],
            "warnings": _cautions(row),
            "provenance": stated,
        }


def _cautions(row: Row) -> list[str]:
    found = list(row.image.notes)
    if not row.prepared.has_frame:
        found.append("no breast was found in the image; the whole image was used")
    inside = row.prepared.on_image(np.ones(row.holes.shape, dtype=np.float32)) > 0
    if outside := int((row.mask & ~inside).sum()):
        found.append(f"{outside} pixels of the mask lie outside the breast and were not filled")
    if not row.mask.any():
        found.append("the mask has no hole; nothing was filled")
    return found
