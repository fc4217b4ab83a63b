"""Open Inference Protocol v2: predictions and explanations for clients of Triton and KServe.

An image is the input ``image``: of type BYTES, the content of a file (several for several images of one exposure), or a
numeric tensor of its pixels, ``(h, w)`` or with leading sides of 1, which is what a ``.npy`` file holds. An input
``mask`` may come with it. Parameters of the request are those of the model; ``explain`` true or a ``method`` asks for
an explanation.

Outputs are ``answer``, the JSON document, and the arrays of the document: the lists of a prediction by their names, and
of an explanation its ``map``.
"""

import asyncio
import io
import json
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import numpy as np

import radlens
from radlens.errors import InvalidInput, InvalidParameter, RadlensError
from radlens.web.access import Access
from radlens.web.forwarding import Forwarder
from radlens.web.heads import MODEL, MOST_DEADLINE_S, VERSION, Head
from radlens.web.health import Readiness
from radlens.web.identity import Message, Scope, Send, headers_of, request_id_of, respond
from radlens.web.openapi import OpenApi
from radlens.web.refusals import Refused, later
from radlens.web.settings import Settings
from radlens.web.tensors import HEADER_LENGTH, Asked, Tensor, answer_body, read_request
from radlens.web.uploads import Receive, StoredBody, Upload
from radlens.wire import ENCODING, JSON, NDJSON, PARAMETER_PREFIX, QUERY, array_from_json

__all__ = ["Infer", "ModelMetadata", "ModelReady", "ServerHealth", "ServerMetadata"]

_OCTETS = "application/octet-stream"

_OF_THE_PROTOCOL = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "binary_data_output", "explain"}
)
"""Parameters that are not a model's."""

_MOST_STORED = 8
"""Most bodies that are held in memory at the same time while they arrive, in predictions, and in explanations: unlike
others, they are taken apart."""


class ServerMetadata:
    """ASGI app of ``/v2``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await _send(send, {"name": "radlens", "version": radlens.__version__, "extensions": ["binary_tensor_data"]})


class ServerHealth:
    """ASGI app of ``/v2/health/live`` and ``/v2/health/ready``.

    Args:
        readiness: Asks the models; None for life alone.
    """

    def __init__(self, readiness: Readiness | None) -> None:
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._readiness is None:
            await _send(send, {"live": True})
            return
        is_ready = (await self._readiness.look())["status"] == "ready"
        await _send(send, {"ready": is_ready}, HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)


class ModelReady:
    """ASGI app of ``/v2/models/{model}/ready``.

    Args:
        readiness: Asks the model.
    """

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        model, version = _named(scope)
        found = await self._readiness.of_model(model, version)
        if found is None:
            raise _unknown(model, version)
        status = HTTPStatus.OK if found["ready"] else HTTPStatus.SERVICE_UNAVAILABLE
        await _send(send, {"name": model, "version": found["version"], "ready": found["ready"]}, status)


class ModelMetadata:
    """ASGI app of ``/v2/models/{model}``.

    Args:
        access: Keys of clients.
        openapi: Knows what workers have published.
    """

    def __init__(self, access: Access, openapi: OpenApi) -> None:
        self._access, self._openapi = access, openapi

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self._access.check(headers_of(scope), None)
        model, version = _named(scope)
        versions = (await self._openapi.models()).get(model, [])
        known = [each["version"] for each in versions]
        if not known or version not in (None, *known):
            raise _unknown(model, version)
        chosen = versions[0] if version is None else versions[known.index(version)]
        inputs = [
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
            {"name": "mask", "datatype": "BYTES", "shape": [1], "optional": True},
        ]
        outputs = [{"name": "answer", "datatype": "BYTES", "shape": [1]}]
        if chosen.get("explain"):
            outputs.append({"name": "map", "datatype": "FP32", "shape": [-1, -1]})
        parameters = {name: chosen[name] for name in ("task", "default_method") if name in chosen}
        stated = {"name": model, "versions": known, "platform": "radlens", "inputs": inputs, "outputs": outputs}
        await _send(send, {**stated, "parameters": parameters})


class Infer:
    """ASGI app of ``/v2/models/{model}/infer``.

    Args:
        access: Keys of clients.
        forwarder: Asks TorchServe.
        settings: Limits.
    """

    def __init__(self, access: Access, forwarder: Forwarder, settings: Settings) -> None:
        self._access, self._forwarder, self._settings = access, forwarder, settings
        self._stored = asyncio.Semaphore(_MOST_STORED)
        self._forwarded = {kind: asyncio.Semaphore(_MOST_STORED) for kind in ("predict", "explain")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers, (model, version) = headers_of(scope), _named(scope)
        self._access.check(headers, None)
        upload = Upload(receive, headers, self._settings)
        async with AsyncExitStack() as stack:
            async with self._stored:
                body = b"".join([piece async for piece in upload.pieces()])
                try:
                    # Large arrays in JSON take seconds, in which others must be answered.
                    asked = await asyncio.to_thread(read_request, body, headers.get(HEADER_LENGTH))
                    head, image = await asyncio.to_thread(_translated, model, version, asked)
                except RadlensError as error:
                    raise Refused(HTTPStatus.BAD_REQUEST, type(error).__name__, str(error)) from None
                del body
                key = self._access.check(headers, head.kind)
                place = self._forwarded[head.kind]
                # Explanations take minutes: one that waited here would hold the place of a body.
                if head.kind == "explain" and place.locked():
                    message = f"at most {_MOST_STORED} explanations by this protocol may be at work, got one more"
                    raise later(message, self._settings.retry_s)
                await stack.enter_async_context(place)
            caught = _Caught()
            stored = StoredBody(image, receive)
            await self._forwarder.forward(head, key, request_id_of(scope), stored, caught.send)
        if caught.status >= HTTPStatus.BAD_REQUEST:
            raise _refused(caught)
        answer, length = await asyncio.to_thread(_answered, model, asked, caught)
        found = {"content-type": JSON if length is None else _OCTETS, "content-length": str(len(answer))}
        if length is not None:
            found[HEADER_LENGTH] = str(length)
        await respond(send, HTTPStatus.OK, found, answer)


class _Caught:
    """A response that is kept in place of being sent."""

    def __init__(self) -> None:
        self.status, self.headers, self._pieces = 0, dict[str, str](), list[bytes]()

    @property
    def body(self) -> bytes:
        return b"".join(self._pieces)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            self._pieces.append(message.get("body", b""))


def _named(scope: Scope) -> tuple[str, str | None]:
    model, version = scope["path_params"]["model"], scope["path_params"].get("version")
    if not re.fullmatch(MODEL, model) or not re.fullmatch(VERSION, version or "1"):
        raise _unknown(model, version)
    return model, version


def _unknown(model: str, version: str | None) -> Refused:
    message = f"model must be one that this server has, got {model[:80]!a}" + (f" {version[:40]!a}" if version else "")
    return Refused(HTTPStatus.NOT_FOUND, "ModelNotFoundException", message)


def _translated(model: str, version: str | None, asked: Asked) -> tuple[Head, bytes]:
    """Return the request as TorchServe gets it: its head and its body."""
    parameters = dict(asked.parameters)
    is_explained = parameters.get("explain") is True or "method" in parameters
    path = f"/{'explanations' if is_explained else 'predictions'}/{model}" + (f"/{version}" if version else "")
    body, content_type = _body(asked.inputs)
    headers = {"accept": JSON, "content-type": content_type}
    for name, value in parameters.items():
        if name not in _OF_THE_PROTOCOL:
            headers[_header(name)] = _text(name, value)
    timeout = parameters.get("timeout")
    # Microseconds, as Triton has it.
    deadline_s = None
    if isinstance(timeout, int | float) and timeout > 0:
        deadline_s = min(timeout, 1e6 * MOST_DEADLINE_S) / 1e6
    return Head("explain" if is_explained else "predict", model, version, path, headers, deadline_s), body


def _header(name: str) -> str:
    header = PARAMETER_PREFIX + name.replace("_", "-")
    if not (name.isascii() and name.replace("_", "").isalnum() and name.islower()) or header == QUERY:
        raise InvalidParameter(f"names of parameters must be lower-case words joined by _, got {name[:40]!a}")
    return header


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | str) and str(value).isascii() and str(value).isprintable():
        return str(value)
    raise InvalidParameter(f"{name} must be a number, a boolean or printable ASCII, got another value")


def _body(inputs: Mapping[str, Tensor]) -> tuple[bytes, str]:
    """Return image and mask as the body of a request, and its media type."""
    if unknown := sorted(inputs.keys() - {"image", "mask"}):
        raise InvalidInput(f"inputs must be image and perhaps mask, got {unknown[0][:40]!a}")
    if "image" not in inputs:
        raise InvalidInput("inputs must hold image, got none of that name")
    images = _files(inputs["image"])
    masks = _files(inputs["mask"]) if "mask" in inputs else []
    if len(images) == 1 and not masks:
        return images[0], _OCTETS
    boundary = uuid4().hex
    parts = [f"--{boundary}\r\nContent-Type: {_OCTETS}\r\n\r\n".encode() + each + b"\r\n" for each in images]
    named = f"--{boundary}\r\nContent-Type: {_OCTETS}\r\nContent-ID: <mask>\r\n\r\n".encode()
    parts += [named + each + b"\r\n" for each in masks]
    ending = f"--{boundary}--\r\n".encode()
    return b"".join([*parts, ending]), f'multipart/related; type="{_OCTETS}"; boundary={boundary}'


def _files(tensor: Tensor) -> list[bytes]:
    """Return the contents of image files."""
    if isinstance(tensor.values, list):
        return tensor.values
    shape = tensor.values.shape
    if len(shape) < 2 or any(side != 1 for side in shape[:-2]):
        raise InvalidInput(f"shape of {tensor.name} must be (h, w) with sides of 1 before it, got {list(shape)[:8]}")
    file = io.BytesIO()
    np.save(file, tensor.values.reshape(shape[-2:]), allow_pickle=False)
    return [file.getvalue()]


def _refused(caught: _Caught) -> Refused:
    fields = json.loads(caught.body)
    retry = {"Retry-After": caught.headers["retry-after"]} if "retry-after" in caught.headers else {}
    return Refused(caught.status, fields["type"], fields["message"], retry)


def _answered(model: str, asked: Asked, caught: _Caught) -> tuple[bytes, int | None]:
    body = caught.body
    if caught.headers.get("content-type", "").startswith(NDJSON):
        # The last line is the result, or an error.
        body = body.rstrip(b"\n").rpartition(b"\n")[2]
    document = json.loads(body)
    if document.get("event") == "error":
        raise Refused(document["code"], document["type"], document["message"])
    outputs = {tensor.name: tensor for tensor in _outputs(document, body)}
    wanted = asked.outputs if asked.outputs is not None else dict.fromkeys(outputs, asked.binary)
    if unknown := sorted(wanted.keys() - outputs.keys()):
        message = f"outputs must be some of {', '.join(outputs)}, got {unknown[0][:40]!a}"
        raise Refused(HTTPStatus.BAD_REQUEST, "InvalidParameter", message)
    provenance = document.get("provenance", {})
    stated = {"model_name": model, "model_version": provenance.get("version", ""), "id": asked.identifier or ""}
    return answer_body(stated, [(outputs[name], is_binary) for name, is_binary in wanted.items()])


def _outputs(document: Mapping[str, Any], body: bytes) -> list[Tensor]:
    found = [Tensor("answer", [body])]
    explanation = document.get("explanation") or {}
    encoded = explanation.get("map")
    if isinstance(encoded, dict) and encoded.get("encoding") == ENCODING:
        found.append(Tensor("map", np.ascontiguousarray(array_from_json(encoded), "<f4")))
    for name, values in (document.get("prediction") or {}).items():
        if isinstance(values, list) and values and all(isinstance(each, str) for each in values):
            found.append(Tensor(name, [each.encode() for each in values]))
        elif isinstance(values, list) and values and all(type(each) in (int, float) for each in values):
            found.append(Tensor(name, np.array(values, "<f8")))
    return found


async def _send(send: Send, document: Mapping[str, Any], status: int = HTTPStatus.OK) -> None:
    body = json.dumps(document).encode()
    await respond(send, status, {"content-type": JSON, "content-length": str(len(body))}, body)
