"""Errors that the front door answers itself, in the form of the errors of handlers."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from radlens.wire import JSON, REQUEST_ID

__all__ = ["Refused", "error_body", "error_headers", "later"]


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        kind: Error type, as in the errors of handlers.
        message: Expected and actual value.
        headers: Further response headers.
    """

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.headers = status, kind, dict(headers or {})


def later(message: str, retry_s: int, kind: str = "ServiceUnavailable") -> Refused:
    """Return the error that asks a client to try again (RFC 9110 section 10.2.3)."""
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, kind, message, {"Retry-After": str(retry_s)})


def error_body(status: int, kind: str, message: str, request_id: str, *, is_v2: bool = False) -> bytes:
    """Return the JSON document of an error; with a field ``error`` for clients of the Open Inference Protocol v2."""
    fields = {"code": status, "type": kind, "message": message, "request_id": request_id}
    return json.dumps({**fields, "error": message} if is_v2 else fields).encode()


def error_headers(body: bytes, request_id: str) -> dict[str, str]:
    """Return the headers of an error."""
    return {"content-type": JSON, "content-length": str(len(body)), REQUEST_ID: request_id}
