"""What comes in and what goes out: one HTTP request and one HTTP response, free of any server's types."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl

from radlens.wire import PARAMETER_PREFIX, QUERY

__all__ = ["KINDS", "Emit", "Request", "Response", "request_from_http"]

KINDS = ("predict", "explain")
"""What can be asked of a model."""

Emit = Callable[[bytes], None]


@dataclass(frozen=True, eq=False)
class Request:
    """One request.

    Attributes:
        kind: ``"predict"`` or ``"explain"``.
        body: the image, or a JSON object that holds it in base64 beside parameters.
        content_type: media type of the body as it was declared.
        accept: the Accept header, see RFC 9110 section 12.5.1.
        parameters: by name; a name that the request cannot have is refused.
        hints: plain headers by name, ``-`` written as ``_``; used where they name a parameter, otherwise ignored.
        request_id: repeated in the answer and in the log.
    """

    kind: str
    body: bytes
    content_type: str | None = None
    accept: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""


@dataclass(frozen=True, eq=False)
class Response:
    """One answer.

    Attributes:
        status: HTTP status.
        content_type: media type of the body.
        body: all of it, or empty where ``stream`` is given.
        headers: further response headers.
        stream: where the body comes in pieces, a function that makes them and hands each to its argument. It never
            raises by itself: an error becomes the last piece.
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
    kind: str, body: bytes, headers: Mapping[str, str], query: Mapping[str, str], request_id: str
) -> Request:
    """Collect what HTTP spreads over headers and query string.

    Args:
        kind: one of `KINDS`.
        body: of the request.
        headers: names in any case.
        query: decoded query string; it wins over headers.
        request_id: see `Request`.
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
        request_id=request_id,
    )


def _name(header: str) -> str:
    return header.replace("-", "_")
