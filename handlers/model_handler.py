"""TorchServe handler of all models: decode, call the service, encode. Archived with the radlens of its export."""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

# An archive is self-contained: its radlens must take precedence over an installed one and over PYTHONPATH.
sys.path.insert(0, str(Path(__file__).resolve().parent))

import engine_metrics
from batch_reply import Stream, reply, send_pieces
from ts.context import Context

from radlens.families import described, load, open_service
from radlens.service import KINDS, Request, Response, request_from_http
from radlens.waiting import LIVE, MODELS, SHARED_FOLDER
from radlens.wire import BATCH, BEGUN, LENGTH

NO_PARAMETERS = {"body", "model_name"}
"""Fields of a row that are not parameters: the body, and the field with which ``/invocations`` selects the model."""


class ModelHandler:
    """Serve ``/predictions`` and ``/explanations`` of one archived model."""

    def initialize(self, context: Context) -> None:
        """Load the bundle from the archive, report its engine, and publish its parameters."""
        bundle = load(Path(context.system_properties["model_dir"]))
        self.service = open_service(bundle)
        publish(described(bundle))
        engine_metrics.report(context.metrics, bundle.manifest.version, self.service.engine)

    def handle(self, rows: Sequence[Mapping[str, Any]], context: Context) -> list[bytes]:
        """Return one body per row, in the order of ``rows``, each with its own status and headers."""
        # A batch can mix predictions and explanations: the headers are read for each row, not for row 0.
        requests = [
            decode(row, context.get_all_request_header(i), context.get_request_id(i)) for i, row in enumerate(rows)
        ]
        taken = {BATCH: str(len(rows)), BEGUN: f"{time.monotonic():.6f}"}
        kinds = {kind: [i for i, request in enumerate(requests) if request.kind == kind] for kind in KINDS}
        bodies, streams = [b""] * len(rows), dict[int, Stream]()
        for kind, chosen in kinds.items():
            responses = self.service.respond([requests[i] for i in chosen]) if chosen else []
            for i, response in zip(chosen, responses, strict=True):
                state(context, i, response, taken)
                if response.stream:
                    streams[i] = response.stream
                elif kind == "predict" and len(chosen) < len(rows) and response.status == HTTPStatus.OK:
                    # An explanation of the same batch may take hours, and TorchServe ends a batch as a whole. It
                    # closes the connection of an error at its first piece.
                    context.set_response_header(i, LENGTH, str(len(response.body)))
                    send_pieces(context, i, response.body)
                else:
                    bodies[i] = response.body
        return reply(context, bodies, streams)


def state(context: Context, row: int, response: Response, taken: Mapping[str, str]) -> None:
    """Set status and headers of the response to a row."""
    # Raising would fail the whole batch for one bad image.
    context.set_response_status(response.status, response.phrase, idx=row)
    for name, value in {"content-type": response.content_type, **response.headers, **taken}.items():
        context.set_response_header(row, name, value)


def decode(row: Mapping[str, Any], headers: Mapping[str, Any], request_id: str) -> Request:
    """Return the request that TorchServe 0.12 split into ``row`` and ``headers``.

    TorchServe passes the query string of ``/models/{name}/invoke`` as fields of the row. It drops that of
    ``/predictions`` and ``/explanations``, but passes the rest of the path after the version in the header
    ``url_path``: ``/explanations/cdmam/1.0/n_steps=20``.
    """
    plain = {name: value for name, value in headers.items() if isinstance(value, str)}
    query = dict(parse_qsl(plain.pop("url_path", "").replace("/", "&"), keep_blank_values=True))
    fields = {name: raw(row[name]).decode(errors="replace") for name in row.keys() - NO_PARAMETERS}
    # TorchServe sets the header "explain" itself, except on its invoke route, where the client may set it in the query.
    # The path of a prediction must not: keys are for predictions or explanations.
    explain = fields.pop("explain", plain.pop("explain", "False")).lower() == "true"
    query |= fields
    kind, body, folder = "explain" if explain else "predict", raw(row.get("body", b"")), shared_folder()
    return request_from_http(kind, body, plain, query, request_id, None if folder is None else folder / LIVE)


def shared_folder() -> Path | None:
    """Return the folder that workers share with the front door; None without a front door."""
    folder = os.environ.get(SHARED_FOLDER)
    return Path(folder) if folder else None


def publish(document: Mapping[str, Any]) -> None:
    """Write what clients may ask of a model to the folder that the front door reads."""
    if (folder := shared_folder()) is None:
        return
    (folder / MODELS).mkdir(parents=True, exist_ok=True)
    name = f"{document['model']}-{document['version']}.json"
    # Several workers of a model write the same document at the same time.
    own = folder / MODELS / f"{name}.{os.getpid()}"
    own.write_text(json.dumps(document))
    own.replace(folder / MODELS / name)


def raw(value: object) -> bytes:
    """Return the bytes of a field or body; JSON and text that TorchServe decoded are encoded again."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
