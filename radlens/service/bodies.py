"""The body of a request: an image as it is, or a JSON object that holds one in base64 beside parameters (RFC 8259)."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from radlens.errors import InvalidInput, InvalidParameter, UnsupportedMediaType
from radlens.service.messages import Request
from radlens.service.parameters import shown
from radlens.wire import JSON

__all__ = ["Opened", "open_body"]

_REFUSED = {
    "multipart/form-data": "a form",
    "application/x-www-form-urlencoded": "a form (curl's default: add -H 'Content-Type: application/dicom')",
}
"""Media types that never hold the image as it is; TorchServe takes them apart before anyone can look at them."""

_MAX_FIELDS = 64
"""Fields of a JSON body that are read; there are about ten parameters."""


class Opened(NamedTuple):
    """What a body holds.

    Attributes:
        data: the bytes of the image file.
        content_type: their declared media type; None if they came in JSON.
        parameters: those that came in JSON, as text by name.
    """

    data: bytes
    content_type: str | None
    parameters: dict[str, str]


def open_body(request: Request) -> Opened:
    """Take the image out of a body.

    Raises:
        UnsupportedMediaType: the body is declared to be a form.
        InvalidInput: the body is declared to be JSON and is not an object with an ``image`` in base64.
        InvalidParameter: another field of it is neither a number, a boolean nor a string.
    """
    declared = (request.content_type or "").partition(";")[0].strip().lower()
    if declared in _REFUSED:
        raise UnsupportedMediaType(f"expected the bytes of an image as the body, got {_REFUSED[declared]}")
    if declared != JSON:
        return Opened(request.body, request.content_type, {})
    fields = _object(request.body)
    return Opened(_image(fields.pop("image", None)), None, {name: _text(name, v) for name, v in fields.items()})


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        # The parser's own message quotes nothing, but its exception holds the whole document.
        raise InvalidInput(
            f"expected a JSON object as the body, got {len(body)} bytes that are no valid JSON"
        ) from None
    if not isinstance(fields, dict):
        raise InvalidInput(f"expected a JSON object as the body, got {_kind(fields)}")
    if len(fields) > _MAX_FIELDS:
        raise InvalidInput(f"expected at most {_MAX_FIELDS} fields in the JSON body, got {len(fields)}")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _image(value: Any) -> bytes:
    if not isinstance(value, str):
        raise InvalidInput(f"field image must be a base64 string, got {_kind(value)}")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"field image must be valid base64, got {len(value)} characters that are not") from None


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise InvalidParameter(f"field {shown(name)} must be a number, a boolean or a string, got {_kind(value)}")


def _kind(value: Any) -> str:
    names: Mapping[type, str] = {dict: "an object", list: "an array", bool: "a boolean", str: "a string"}
    return "nothing" if value is None else names.get(type(value), "a number")
