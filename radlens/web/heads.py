"""The head of a request for a prediction or an explanation, and the headers that TorchServe gets."""

import math
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from radlens.web.refusals import Refused
from radlens.wire import LIVE, PARAMETER_PREFIX, QUERY, REQUEST_ID

__all__ = ["DEADLINE", "MODEL", "MOST_DEADLINE_S", "VERSION", "Head", "read_head"]

DEADLINE = "x-radlens-deadline-s"
"""Request header with the number of seconds after which the client does not want an answer any more."""

MOST_DEADLINE_S = 7 * 24 * 3600.0
"""Largest deadline in seconds."""

_KINDS = {"predictions": "predict", "explanations": "explain"}

MODEL, VERSION = r"[A-Za-z0-9][A-Za-z0-9_.~-]*", r"[A-Za-z0-9_][A-Za-z0-9_.~-]*"
"""Patterns of the names of models and of versions."""

_PATH = re.compile(rf"/(predictions|explanations)/({MODEL})(?:/({VERSION}))?((?:/[\x21-\x7e]*)?)")
"""Kind, model, version, and parameters after the version."""

_DOTS = re.compile(r"[/\\](?:\.|%2e){1,2}(?:[/\\#]|%2f|%5c|$)|#", re.IGNORECASE)
"""Dot segments (RFC 3986 section 5.2.4) in any spelling, and fragments."""

_NOT_FORWARDED = frozenset(
    {
        # Headers of a single connection (RFC 9110 section 7.6.1), and those that describe the body as it arrived.
        *("connection", "keep-alive", "proxy-connection", "expect", "te", "trailer", "upgrade", "transfer-encoding"),
        *("content-length", "content-encoding", "host", "cookie"),
        # Headers that the front door sets, answers itself, or replaces.
        *("authorization", QUERY, DEADLINE, LIVE, REQUEST_ID, "explain", "url_path"),
    }
)


@dataclass(frozen=True)
class Head:
    """A request to a model.

    Attributes:
        kind: ``"predict"`` or ``"explain"``.
        model: Name of the model.
        version: Version of the model; None for the default.
        path: Path for TorchServe.
        headers: Headers for TorchServe, without those of the body, of keys and of the request's identity.
        deadline_s: Seconds until the client's deadline; None without one.
    """

    kind: str
    model: str
    version: str | None
    path: str
    headers: Mapping[str, str]
    deadline_s: float | None


def read_head(scope: MutableMapping[str, Any], headers: Mapping[str, str]) -> Head:
    """Return the request to a model.

    Args:
        scope: ASGI scope.
        headers: Headers of the request with lower-case names; repeated ones are joined.

    Raises:
        Refused: The path, the media type or the deadline is not valid.
    """
    path = scope["raw_path"].decode("ascii")
    found = _PATH.fullmatch(path)
    # A client library resolves dot segments before it sends, which would lead to another path of TorchServe.
    if found is None or _DOTS.search(path):
        raise Refused(
            HTTPStatus.NOT_FOUND,
            "ResourceNotFoundException",
            "path must be /predictions/MODEL or /explanations/MODEL, with /VERSION after it if need be",
        )
    if _names_a_kind(found[4]):
        message = "parameters in the path must not hold explain; ask /predictions/MODEL or /explanations/MODEL"
        raise Refused(HTTPStatus.BAD_REQUEST, "InvalidParameter", message)
    kept = {name: value for name, value in headers.items() if name not in _NOT_FORWARDED and _is_ascii(name, value)}
    kept["content-type"] = _declared(headers.get("content-type", ""))
    query = scope["query_string"].decode("ascii", "replace") or headers.get(QUERY, "")
    if query:
        kept[QUERY] = query
    return Head(_KINDS[found[1]], found[2], found[3], path, kept, _deadline(headers.get(DEADLINE)))


def _names_a_kind(path: str) -> bool:
    """Return whether a parameter in the path is ``explain``, by which handlers of older archives choose the kind.

    TorchServe and the handler each decode once.
    """
    for _ in range(3):
        if any(part.partition("=")[0] == "explain" for part in re.split("[/&;?]", path)):
            return True
        path = unquote(path)
    return False


def _is_ascii(name: str, value: str) -> bool:
    """Return whether a header can go on; one in another alphabet, such as User-Agent, means nothing to a model."""
    if value.isascii():
        return True
    if name in ("accept", "content-type") or name.startswith(PARAMETER_PREFIX):
        message = f"header {name[:60]} must be ASCII, got other characters"
        raise Refused(HTTPStatus.BAD_REQUEST, "InvalidParameter", message)
    return False


def _declared(content_type: str) -> str:
    """Return the media type for TorchServe, which would parse forms, and bodies without a type as forms."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        message = "expected the bytes of an image as the body, got a multipart form; curl sends them with --data-binary"
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    if media_type in ("", "application/x-www-form-urlencoded"):
        return "application/octet-stream"
    return content_type


def _deadline(text: str | None) -> float | None:
    if text is None:
        return None
    seconds = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else math.nan
    if not 0 < seconds <= MOST_DEADLINE_S:
        message = f"X-Radlens-Deadline-S must be a number of seconds above 0, got {text[:40]!a}"
        raise Refused(HTTPStatus.BAD_REQUEST, "InvalidParameter", message)
    return seconds
