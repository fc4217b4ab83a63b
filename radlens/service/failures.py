"""Errors as answers: one clear message for the client, one line without patient data for the log."""

import json
import logging
import traceback
from typing import NamedTuple

from radlens.errors import RadlensError, http_status
from radlens.service.messages import Response
from radlens.wire import JSON

__all__ = ["Failure", "failed", "failure"]

_log = logging.getLogger("radlens.service")


class Failure(NamedTuple):
    """What a client learns of an error; the first three fields are named as in TorchServe's own errors.

    Attributes:
        code: HTTP status.
        type: kind of error.
        message: what was expected and what came.
        request_id: of the request.
    """

    code: int
    type: str
    message: str
    request_id: str


def failure(error: Exception, request_id: str) -> Failure:
    """Describe and log an error.

    Only the message of a `RadlensError` is repeated: any other exception may quote what it failed on, and so is logged
    by its type and place alone.
    """
    status, kind = http_status(error), type(error).__name__
    if isinstance(error, RadlensError):
        _log.info("request %s: %d %s", request_id, status, kind)
        return Failure(status, kind, str(error), request_id)
    place = "".join(traceback.format_tb(error.__traceback__))
    _log.error("request %s: %s, message withheld\n%s", request_id, kind, place)
    return Failure(status, "InternalError", f"internal error, logged under request {request_id}", request_id)


def failed(error: Exception, request_id: str) -> Response:
    """Return the answer to a request that cannot be served, and log it."""
    fields = failure(error, request_id)
    return Response(fields.code, JSON, json.dumps(fields._asdict()).encode())
