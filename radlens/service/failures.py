"""Error responses: one clear message for the client, one line without patient data for the log."""

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
    """Description of an error for a client; the first three fields are named as in errors of TorchServe.

    Attributes:
        code: HTTP status.
        type: kind of error.
        message: message with the expected and the received value.
        request_id: identifier of the request.
    """

    code: int
    type: str
    message: str
    request_id: str


def failure(error: Exception, request_id: str) -> Failure:
    """Describe and log an error.

    Only the message of a `RadlensError` is repeated. Other exceptions may quote their input, which may contain patient
    data, so that only their type and traceback are logged.
    """
    status, kind = http_status(error), type(error).__name__
    if isinstance(error, RadlensError):
        _log.info("request %s: %d %s", request_id, status, kind)
        return Failure(status, kind, str(error), request_id)
    place = "".join(traceback.format_tb(error.__traceback__))
    _log.error("request %s: %s, message withheld\n%s", request_id, kind, place)
    return Failure(status, "InternalError", f"internal error, logged under request {request_id}", request_id)


def failed(error: Exception, request_id: str) -> Response:
    """Return the response to a failed request, and log the error."""
    fields = failure(error, request_id)
    return Response(fields.code, JSON, json.dumps(fields._asdict()).encode())
