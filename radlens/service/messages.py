"""Requests and responses, independent of the types of any HTTP server."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl

from radlens.wire import LIVE, PARAMETER_PREFIX, QUERY, REQUEST_ID, REQUEST_ID_PATTERN

__all__ = ["KINDS", "Emit", "Request", "Response", "request_from_http"]

KINDS = ("predict", "explain")
"""Kinds of requests to a model."""

Emit = Callable[[bytes], None]


@dataclass(frozen=True, eq=False)
class Request:
    """One request.

    Attributes:
        kind: ``"predict"`` or ``"explain"``.
        body: one or several images, or a JSON object with images in base64 and parameters.
        content_type: declared media type of the body.
        accept: Accept header (RFC 9110 section 12.5.1).
        parameters: parameters by name; unknown names are refused.
        hints: plain headers by name, with ``_`` for ``-``; headers that are not parameters are ignored.
        request_id: identifier repeated in the response and in the log.
        is_waited_for: function that returns whether a client still waits for the response.
    """

    kind: str
    body: bytes
    content_type: str | None = None
    accept: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    is_waited_for: Callable[[], bool] = field(default=lambda: True)


@dataclass(frozen=True, eq=False)
class Response:
    """One response.

    Attributes:
        status: HTTP status.
        content_type: media type of the body.
        body: complete body; empty if ``stream`` is given.
        headers: further response headers.
        stream: function that produces a body in pieces and passes each to its argument. It does not raise errors of its
            own: an error becomes the last piece.
    """

    status: int
    content_type: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Callable[[Emit], None] | None = None

    @property
    def phrase(self) -> str:
        """Reason phrase of the status."""
        return HTTPStatus(self.status).phrase


def request_from_http(
    kind: str,
    body: bytes,
    headers: Mapping[str, str],
    query: Mapping[str, str],
    request_id: str,
    live_folder: Path | None = None,
) -> Request:
    """Return the request from the headers and the query string of HTTP.

    Args:
        kind: one of `KINDS`.
        body: body of the request.
        headers: headers, with names in any case.
        query: decoded query string, which has precedence over headers.
        request_id: identifier of the request, unless a header of the front door states another one.
        live_folder: folder with a file for each request of the front door whose client waits; None without one.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    proxied = dict(parse_qsl(lower.pop(QUERY, ""), keep_blank_values=True))
    prefixed = {_name(n.removeprefix(PARAMETER_PREFIX)): v for n, v in lower.items() if n.startswith(PARAMETER_PREFIX)}
    return Request(
        kind=kind,
        body=body,
        content_type=lower.get("content-type"),
        accept=lower.get("accept"),
        parameters=prefixed | proxied | dict(query),
        hints={_name(n): v for n, v in lower.items() if not n.startswith(PARAMETER_PREFIX)},
        request_id=_stated_id(lower) or request_id,
        is_waited_for=_presence(lower.get(LIVE), live_folder),
    )


def _stated_id(headers: Mapping[str, str]) -> str | None:
    stated = headers.get(REQUEST_ID, "")
    return stated if re.fullmatch(REQUEST_ID_PATTERN, stated) else None


def _presence(file: str | None, folder: Path | None) -> Callable[[], bool]:
    # A worker that is asked directly has no file to look for; the name of a file must not lead out of the folder.
    if file is None or folder is None or not re.fullmatch("[0-9a-f]{32}", file):
        return lambda: True
    return (folder / file).exists


def _name(header: str) -> str:
    return header.replace("-", "_")
