"""The body of a request: an image file, several image files, or a JSON object with images and parameters.

Several images are sent as ``multipart/related`` (RFC 2387), one part per image, each with its media type. A JSON object
(RFC 8259) has an image in base64 in the field ``image``, or an array of them in the field ``images``. A mask is the
part whose ``Content-Disposition`` has the name ``mask`` or whose ``Content-ID`` is ``<mask>``, or the field ``mask``.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, NamedTuple, NoReturn, Self

import numpy as np

from radlens.errors import InvalidInput, InvalidParameter, UnsupportedMediaType
from radlens.images import read
from radlens.images.image import NPY
from radlens.images.npy import decode_npy
from radlens.images.reading import require_declared
from radlens.service.messages import Request
from radlens.service.parameters import shown
from radlens.wire import JSON

__all__ = ["MASK", "MAX_IMAGES", "ImagePart", "Opened", "open_body", "read_mask"]

_REFUSED = {
    "multipart/form-data": "a form",
    "application/x-www-form-urlencoded": "a form (curl's default: add -H 'Content-Type: application/dicom')",
}
"""Refused media types; TorchServe parses forms itself, so that the original bytes are lost."""

MULTIPART = "multipart/related"

MASK = "mask"
"""Name of the part or field that holds a mask."""

MAX_IMAGES = 64
"""Largest number of images in a request; physicists take 8 to 16, some take 40."""

_MAX_FIELDS = 64
"""Largest number of fields in a JSON body; there are about ten parameters."""


class ImagePart(NamedTuple):
    """One image of a body.

    Attributes:
        data: bytes of the image file.
        content_type: declared media type; None for an image in JSON.
    """

    data: bytes
    content_type: str | None


class Opened(NamedTuple):
    """Content of a body.

    Attributes:
        images: images, at least one.
        parameters: parameters from JSON, as text by name.
        mask: mask of the image; None if there is none.
    """

    images: tuple[ImagePart, ...]
    parameters: dict[str, str]
    mask: ImagePart | None = None

    def without_mask(self) -> Self:
        """Return the body if it has no mask.

        Raises:
            InvalidInput: It has one.
        """
        if self.mask is not None:
            raise InvalidInput("expected an image alone, got a mask as well; this request does not use one")
        return self


def open_body(request: Request) -> Opened:
    """Return the images and parameters of a body.

    Raises:
        UnsupportedMediaType: the body is declared as a form.
        InvalidInput: a body declared as JSON is not an object with ``image`` or ``images`` in base64, a body declared
            as multipart is not multipart, or there are more than `MAX_IMAGES` images.
        InvalidParameter: a parameter in JSON is neither a number, a boolean nor a string.
    """
    declared = (request.content_type or "").partition(";")[0].strip().lower()
    if declared in _REFUSED:
        raise UnsupportedMediaType(f"expected the bytes of an image as the body, got {_REFUSED[declared]}")
    if declared == MULTIPART:
        parts = _parts(request)
        masks = [part for name, part in parts if name == MASK]
        if len(masks) > 1:
            raise InvalidInput(f"expected at most one part named {MASK}, got {len(masks)}")
        images = tuple(part for name, part in parts if name != MASK)
        return Opened(_limited(images), {}, masks[0] if masks else None)
    if declared != JSON:
        return Opened((ImagePart(request.body, request.content_type),), {})
    fields = _object(request.body)
    images = _limited(_images(fields))
    mask = ImagePart(_image(fields.pop(MASK), MASK), None) if MASK in fields else None
    return Opened(images, {name: _text(name, v) for name, v in fields.items()}, mask)


def read_mask(part: ImagePart, shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask ``(H, W)`` bool, True where the file is not 0.

    Args:
        part: An image file, or a ``.npy`` file of booleans.
        shape: Rows and columns of the image.

    Raises:
        InvalidInput: The mask cannot be read, or has another size than the image.
    """
    try:
        mask = _boolean(part)
        if mask is None:
            mask = read(*part).pixels
    except InvalidInput as error:
        # The image of the same body may be at fault as well: the message tells which.
        raise type(error)(f"the mask cannot be read: {error}") from None
    if mask.shape != shape:
        expected, got = (f"{rows}x{columns}" for rows, columns in (shape, mask.shape))
        raise InvalidInput(f"the mask must have the size of the image, {expected} pixels, got {got}")
    found: np.ndarray = mask != 0
    return found


def _boolean(part: ImagePart) -> np.ndarray | None:
    """Return the values of a ``.npy`` file of booleans; None for another file."""
    try:
        require_declared(part.content_type, NPY)
        return decode_npy(part.data, "b").pixels
    except InvalidInput:
        return None


def _limited(images: tuple[ImagePart, ...]) -> tuple[ImagePart, ...]:
    if not 1 <= len(images) <= MAX_IMAGES:
        raise InvalidInput(f"expected 1 to {MAX_IMAGES} images in the body, got {len(images)}")
    return images


def _parts(request: Request) -> tuple[tuple[str | None, ImagePart], ...]:
    """Return the parts of a multipart body with their names; it is parsed with the Content-Type of the request."""
    head = f"Content-Type: {request.content_type}\r\nMIME-Version: 1.0\r\n\r\n"
    try:
        message = message_from_bytes(head.encode("ascii") + request.body, policy=policy.HTTP)
        is_multipart = isinstance(message, EmailMessage) and message.is_multipart()
        parts: list[Any] = list(message.iter_parts()) if is_multipart else []
        found = tuple((_name(part), ImagePart(_payload(part), _media_type(part))) for part in parts)
    except (ValueError, LookupError, AttributeError, TypeError):  # the email parser raises these for malformed input
        found, message = (), None
    if not found or message is None or message.defects:
        raise InvalidInput(
            f"expected {MULTIPART} with a boundary and one part per image, got {len(request.body)} bytes"
        )
    return found


def _payload(part: EmailMessage) -> bytes:
    if part.is_multipart():
        raise ValueError("a part must not have parts")
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _media_type(part: EmailMessage) -> str | None:
    return None if part["content-type"] is None else part.get_content_type()


def _name(part: EmailMessage) -> str | None:
    disposition = part["content-disposition"]
    named = None if disposition is None else disposition.params.get("name")
    identifier = str(part["content-id"] or "").strip().strip("<>")
    return named or identifier or None


def _images(fields: dict[str, Any]) -> tuple[ImagePart, ...]:
    several = fields.pop("images", None)
    if several is None:
        return (ImagePart(_image(fields.pop("image", None)), None),)
    if "image" in fields:
        raise InvalidInput("expected the field image or the field images, got both")
    if not isinstance(several, list):
        raise InvalidInput(f"field images must be an array of base64 strings, got {_kind(several)}")
    return tuple(ImagePart(_image(each), None) for each in several)


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        # "from None": the exception of the parser holds the whole document, which may contain patient data.
        raise InvalidInput(
            f"expected a JSON object as the body, got {len(body)} bytes that are not valid JSON"
        ) from None
    if not isinstance(fields, dict):
        raise InvalidInput(f"expected a JSON object as the body, got {_kind(fields)}")
    if len(fields) > _MAX_FIELDS:
        raise InvalidInput(f"expected at most {_MAX_FIELDS} fields in the JSON body, got {len(fields)}")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _image(value: Any, field: str = "image") -> bytes:
    if not isinstance(value, str):
        raise InvalidInput(f"field {field} must be a base64 string, got {_kind(value)}")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"field {field} must be valid base64, got {len(value)} characters that are not") from None


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise InvalidParameter(f"field {shown(name)} must be a number, a boolean or a string, got {_kind(value)}")


def _kind(value: Any) -> str:
    names: Mapping[type, str] = {dict: "an object", list: "an array", bool: "a boolean", str: "a string"}
    return "nothing" if value is None else names.get(type(value), "a number")
