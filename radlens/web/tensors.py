"""Tensors of the Open Inference Protocol v2 (KServe), in JSON and in its binary extension.

Sources: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and the Binary Tensor Data
Extension of Triton. A binary body is a JSON document, whose length a header states, and after it the tensors in order;
an element of type BYTES is its length in four bytes, little endian, and its content.
"""

import base64
import binascii
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radlens.errors import InvalidInput

__all__ = ["HEADER_LENGTH", "Asked", "Tensor", "answer_body", "read_request"]

HEADER_LENGTH = "inference-header-content-length"
"""Header with the length of the JSON document of a binary body."""

_DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "FP32": "<f4",
    "FP64": "<f8",
}

_MOST_TENSORS = 64

_MOST_DIGITS = 15
"""Largest number of digits of a length."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor.

    Attributes:
        name: Name of the tensor.
        values: Array of a numeric type, or a list of byte strings for the type BYTES.
    """

    name: str
    values: np.ndarray | list[bytes]

    @property
    def datatype(self) -> str:
        """Type of the elements in the protocol."""
        if isinstance(self.values, list):
            return "BYTES"
        return next(name for name, dtype in _DTYPES.items() if np.dtype(dtype) == self.values.dtype)

    @property
    def shape(self) -> list[int]:
        """Shape of the tensor."""
        return [len(self.values)] if isinstance(self.values, list) else list(self.values.shape)

    def packed(self) -> bytes:
        """Return the tensor in the binary extension."""
        if isinstance(self.values, list):
            return b"".join(struct.pack("<I", len(each)) + each for each in self.values)
        return self.values.tobytes()

    def listed(self) -> list[Any]:
        """Return the elements for JSON; byte strings must be UTF-8."""
        if isinstance(self.values, list):
            return [each.decode() for each in self.values]
        found: list[Any] = self.values.reshape(-1).tolist()
        return found


@dataclass(frozen=True, eq=False)
class Asked:
    """A request for inference.

    Attributes:
        identifier: Identifier that the client chose; None without one.
        inputs: Input tensors by name.
        parameters: Parameters of the request.
        outputs: Names of the outputs that are asked for, and whether each is binary; None for all of them.
        binary: Whether outputs are binary unless they say otherwise.
    """

    identifier: str | None
    inputs: Mapping[str, Tensor]
    parameters: Mapping[str, Any]
    outputs: Mapping[str, bool] | None
    binary: bool


def read_request(body: bytes, header_length: str | None) -> Asked:
    """Read the body of a request.

    Args:
        body: Body.
        header_length: Value of the header `HEADER_LENGTH`; None if the whole body is JSON.

    Raises:
        InvalidInput: The body is not a request of the protocol; the message names the field.
    """
    length = len(body)
    if header_length is not None:
        is_number = header_length.isascii() and header_length.isdigit() and len(header_length) <= _MOST_DIGITS
        if not (is_number and int(header_length) <= len(body)):
            raise InvalidInput(f"{HEADER_LENGTH} must be a number up to the length of the body, got another value")
        length = int(header_length)
    try:
        document = json.loads(body[:length])
    except (ValueError, RecursionError):
        raise InvalidInput(f"expected a JSON object as the request, got {length} bytes that are not JSON") from None
    if not isinstance(document, dict):
        raise InvalidInput("expected a JSON object as the request, got another value")
    tensors = _objects(document, "inputs")
    if not 1 <= len(tensors) <= _MOST_TENSORS:
        raise InvalidInput(f"inputs must hold 1 to {_MOST_TENSORS} tensors, got {len(tensors)}")
    inputs, at = {}, length
    for each in tensors:
        tensor, at = _tensor(each, body, at)
        if tensor.name in inputs:
            raise InvalidInput(f"names of inputs must differ, got {tensor.name[:40]!a} twice")
        inputs[tensor.name] = tensor
    if at != len(body):
        raise InvalidInput(f"the body must end with its last tensor, got {len(body) - at} bytes more")
    parameters = _mapping(document, "parameters")
    binary = parameters.get("binary_data_output") is True
    outputs = None
    if document.get("outputs"):
        outputs = {
            str(each.get("name")): _mapping(each, "parameters").get("binary_data", binary) is True
            for each in _objects(document, "outputs")
        }
    identifier = document.get("id")
    return Asked(identifier if isinstance(identifier, str) else None, inputs, parameters, outputs, binary)


def answer_body(document: Mapping[str, Any], outputs: Sequence[tuple[Tensor, bool]]) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON document if tensors follow it.

    Args:
        document: Fields of the answer beside its outputs.
        outputs: Tensors, and whether each is binary.
    """
    stated, packed = [], []
    for tensor, is_binary in outputs:
        each: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if is_binary:
            packed.append(tensor.packed())
            each["parameters"] = {"binary_data_size": len(packed[-1])}
        else:
            each["data"] = tensor.listed()
        stated.append(each)
    text = json.dumps({**document, "outputs": stated}).encode()
    return b"".join([text, *packed]), len(text) if packed else None


def _objects(document: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    found = document.get(field)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InvalidInput(f"{field} must be an array of objects, got another value")
    return found


def _mapping(document: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    found = document.get(field, {})
    if not isinstance(found, dict):
        raise InvalidInput(f"{field} must be an object, got another value")
    return found


def _tensor(each: Mapping[str, Any], body: bytes, at: int) -> tuple[Tensor, int]:
    """Return a tensor, and the place in the body behind it."""
    name, datatype, shape = each.get("name"), each.get("datatype"), each.get("shape")
    if not isinstance(name, str):
        raise InvalidInput("each input must have a name, got one without")
    what = f"input {name[:40]!a}"
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise InvalidInput(f"shape of {what} must be an array of integers of at least 0, got another value")
    if datatype != "BYTES" and datatype not in _DTYPES:
        raise InvalidInput(f"datatype of {what} must be BYTES or one of {', '.join(_DTYPES)}, got another one")
    count = int(np.prod(shape, dtype=object)) if shape else 1
    size = _mapping(each, "parameters").get("binary_data_size")
    if size is None:
        return Tensor(name, _from_json(what, datatype, shape, count, each.get("data"))), at
    if type(size) is not int or not 0 <= size <= len(body) - at:
        raise InvalidInput(f"binary_data_size of {what} must be a number of bytes of the body, got another value")
    return Tensor(name, _unpacked(what, datatype, shape, count, body[at : at + size])), at + size


def _from_json(what: str, datatype: str, shape: list[int], count: int, data: Any) -> np.ndarray | list[bytes]:
    if not isinstance(data, list):
        raise InvalidInput(f"data of {what} must be an array, got another value")
    if datatype == "BYTES":
        try:
            found = [base64.b64decode(each, validate=True) for each in data]
        except (binascii.Error, ValueError, TypeError):
            raise InvalidInput(f"data of {what} must be strings in base64, got another value") from None
        if len(found) != count:
            raise InvalidInput(f"data of {what} must have the {count} elements of its shape, got {len(found)}")
        return found
    try:
        values = np.array(data)
        if values.dtype.kind not in "biuf" or values.size != count:
            raise ValueError
        with np.errstate(over="ignore"):
            array = values.astype(_DTYPES[datatype], casting="unsafe")
        if array.dtype.kind in "biu" and not np.array_equal(array, values):
            raise ValueError
        return array.reshape(shape)
    except (ValueError, OverflowError, TypeError):
        raise InvalidInput(f"data of {what} must be {count} numbers of type {datatype}, got other values") from None


def _unpacked(what: str, datatype: str, shape: list[int], count: int, data: bytes) -> np.ndarray | list[bytes]:
    if datatype != "BYTES":
        dtype = np.dtype(_DTYPES[datatype])
        if len(data) != count * dtype.itemsize:
            raise InvalidInput(f"{what} must have {count * dtype.itemsize} bytes, got {len(data)}")
        try:
            return np.frombuffer(data, dtype).reshape(shape)
        except (ValueError, OverflowError):  # more sides, or longer ones, than an array can have
            raise InvalidInput(f"shape of {what} must be that of an array, got {len(shape)} sides") from None
    found, at = [], 0
    while at < len(data):
        length = struct.unpack_from("<I", data, at)[0] if at + 4 <= len(data) else len(data)
        if at + 4 + length > len(data):
            raise InvalidInput(f"elements of {what} must end where they say, got one that does not")
        found.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    if len(found) != count:
        raise InvalidInput(f"{what} must have the {count} elements of its shape, got {len(found)}")
    return found
