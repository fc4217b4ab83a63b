"""Protocol of radlens servers and clients: names of tasks, media types and headers, arrays as JSON values, and parts.

An array is encoded as ``.npy`` bytes (NEP 1), compressed with zlib (RFC 1950), in base64 (RFC 4648). Several DICOM
objects travel as ``multipart/related`` (RFC 2387, PS3.18 section 8.7.1).
"""

import base64
import binascii
import hashlib
import io
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radlens.errors import InvalidInput
from radlens.images import to_npy
from radlens.images.image import DICOM

__all__ = [
    "ABLATION",
    "APNG",
    "CDC",
    "CLASSIFICATION",
    "DICOM",
    "ENCODING",
    "INPAINTING",
    "JSON",
    "MULTIPART",
    "NDJSON",
    "OBJECTS",
    "PARAMETER_PREFIX",
    "PROVENANCE",
    "QUERY",
    "array_from_json",
    "array_to_json",
    "parts_of",
    "related",
]

CDC, CLASSIFICATION, INPAINTING = "cdmam-cdc", "classification", "inpainting"
"""Tasks, one for each family of models; values of ``"task"`` in bundles, training records and responses."""

ABLATION = "ablation"
"""Name of disk ablation in requests; it is asked for like a method of explanation, and answers with no map."""

JSON, NDJSON = "application/json", "application/x-ndjson"

APNG = "image/apng"
"""Animated PNG; programs that do not know it show its first picture."""

MULTIPART = "multipart/related"

OBJECTS = ("capture", "report", "map", "segmentation", "presentation")
"""DICOM objects of an answer, values of the parameter ``objects``: Secondary Capture, Comprehensive 3D SR, Parametric
Map, fractional Segmentation and Grayscale Softcopy Presentation State."""

PARAMETER_PREFIX = "x-radlens-"
"""Prefix of request headers with parameters: ``X-Radlens-N-Steps: 50`` is ``n_steps=50``."""

QUERY = "x-radlens-query"
"""Request header with the query string, set by a proxy because TorchServe 0.12 drops the query string."""

PROVENANCE = "X-Radlens-Provenance"
"""Response header with the provenance of every response, as compact JSON in ASCII."""

ENCODING = "npy+zlib+base64"
"""Name of the encoding, repeated in every encoded array."""

_LEVEL = 1
"""zlib level. Maps of one sample are mostly zeros, maps of many samples are noise, so higher levels are only slower."""


def array_to_json(array: np.ndarray) -> dict[str, Any]:
    """Encode an array as ``{"encoding", "shape", "dtype", "data"}``, in C order and little endian."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    data = base64.b64encode(zlib.compress(to_npy(little), _LEVEL)).decode("ascii")
    return {"encoding": ENCODING, "shape": list(array.shape), "dtype": array.dtype.name, "data": data}


def array_from_json(value: Mapping[str, Any]) -> np.ndarray:
    """Return the array that `array_to_json` encoded.

    Raises:
        InvalidInput: another encoding, damaged data, or another shape than stated.
    """
    if value.get("encoding") != ENCODING:
        raise InvalidInput(f"array must be encoded as {ENCODING}, got another encoding")
    try:
        data = zlib.decompress(base64.b64decode(value["data"], validate=True))
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (KeyError, TypeError, ValueError, EOFError, binascii.Error, zlib.error):
        raise InvalidInput("array data must be complete, got damaged ones") from None
    if list(array.shape) != list(value.get("shape", [])):
        raise InvalidInput(f"array must have the shape it states, got {list(array.shape)}")
    return array


def related(files: Sequence[bytes]) -> tuple[str, bytes]:
    """Return the Content-Type and the body with one part for each DICOM file; the same files give the same bytes."""
    # A boundary that is a hash of the files does not occur in them.
    digest = hashlib.sha256()
    for file in files:
        digest.update(file)
    boundary = digest.hexdigest()
    head = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
    body = b"".join(piece for file in files for piece in (head, file, b"\r\n"))
    return f'{MULTIPART}; type="{DICOM}"; boundary={boundary}', body + f"--{boundary}--\r\n".encode()


def parts_of(content_type: str, body: bytes) -> list[bytes]:
    """Return the contents of the parts of a ``multipart/related`` body.

    Raises:
        InvalidInput: Another media type, no boundary, or a body that does not end with the closing boundary.
    """
    media_type, *parameters = [part.strip() for part in content_type.split(";")]
    named = {name.strip().lower(): value.strip() for name, _, value in (each.partition("=") for each in parameters)}
    boundary = named.get("boundary", "").strip('"').encode()
    if media_type.lower() != MULTIPART or not boundary:
        raise InvalidInput(f"expected {MULTIPART} with a boundary, got another media type or no boundary")
    # The delimiter begins a line (RFC 2046 section 5.1.1); the first one may open the body.
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary)
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise InvalidInput(f"expected parts up to the closing boundary, got {len(body)} bytes that break off")
    return [_content(piece) for piece in pieces[1:-1]]


def _content(piece: bytes) -> bytes:
    """Return a part without its headers."""
    found = re.match(rb"[ \t]*\r\n(?:[^\r\n]+\r\n)*\r\n", piece)
    if found is None:
        raise InvalidInput("expected parts with headers and an empty line, got another form")
    return piece[found.end() :]
