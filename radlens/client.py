"""Client of a radlens server: predictions, and explanations with progress.

Parameters are sent as ``X-Radlens-`` headers, because TorchServe 0.12 drops the query string of ``/predictions`` and
``/explanations``.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
import numpy as np

from radlens import errors
from radlens.errors import InvalidInput, InvalidParameter, ModelNotFound, RadlensError, ServerError
from radlens.server import State
from radlens.wire import (
    DICOM,
    ENCODING,
    JSON,
    MULTIPART,
    NDJSON,
    PARAMETER_PREFIX,
    PROVENANCE,
    array_from_json,
    parts_of,
)

__all__ = ["Answer", "Client", "Progress", "reaching", "require_success"]

_PATHS = {"predict": "predictions", "explain": "explanations"}

_KINDS = {path: kind for kind, path in _PATHS.items()}

_DICOM_TYPES = f'{DICOM}, {MULTIPART}; type="{DICOM}"'
"""Accept header of DICOM objects: one as it is, several as parts."""

_NOT_OF_THE_INPUT = (401, 403, 408, 429)
"""HTTP statuses below 500 that say nothing of the input: keys, time, load."""

_OCTETS = "application/octet-stream"
"""Media type of images, whose format the server detects; TorchServe parses a body without a media type as a form."""

_NOT_FOUND = ("ModelNotFoundException", "ModelVersionNotFoundException")
"""TorchServe's error types for an unknown model or version."""

_KINDS_NOT_OF_THE_INPUT = ("Unauthorized", "Forbidden", "InvalidKeyException", ServerError.__name__)
"""Error types that say nothing of the input, whatever their status."""


@dataclass(frozen=True)
class Progress:
    """Progress of an explanation.

    Attributes:
        done: number of samples that are computed.
        total: number of requested samples, or the expected number in an automatic run; None if unknown.
        elapsed_s: seconds since the first sample.
        remaining_s: estimated remaining seconds; None before the first sample.
        reliability: reliability of the current map, see :class:`radlens.explainers.Halves`; None if unknown.
        total_is_estimated: whether ``total`` may still change.
        n_restored: number of samples that were restored from a checkpoint.
        numbers: results of the last step of a method that works in steps, such as the loss.
    """

    done: int
    total: int | None
    elapsed_s: float
    remaining_s: float | None
    reliability: float | None = None
    total_is_estimated: bool = False
    n_restored: int = 0
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Answer:
    """A response in another format than JSON: an image, an array or a DICOM file.

    Attributes:
        content: body of the response.
        media_type: media type of the body.
        provenance: provenance of the result.
    """

    content: bytes
    media_type: str
    provenance: dict[str, Any]


class Client:
    """Client of one model on a server. Close it after use, or use it as a context manager.

    Args:
        url: base URL of the server, such as ``http://127.0.0.1:8080``.
        model: name of the model, or a function that finds it out before the first request.
        token: bearer token of ``url``, if required.
        timeout_s: largest number of seconds without data from the server.
        transport: transport that replaces the network, for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | Callable[[], str] = "cdmam",
        token: str | None = None,
        timeout_s: float = 1800.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url, self._model = url.rstrip("/"), model
        self._headers = _bearer(token)
        self._http = httpx.Client(timeout=httpx.Timeout(timeout_s, connect=10.0), transport=transport)

    @classmethod
    def of_server(cls, workdir: Path, *, model: str = "cdmam") -> Self:
        """Return a client of the server in the working directory ``workdir``, with its tokens.

        Raises:
            ServerError: no server is running there.
        """
        state = State.load(workdir)
        if state is None:
            raise ServerError("a server must run in this working directory, got none; start it with radlens serve")
        return cls(state.url, model=model, token=state.keys().inference)

    @property
    def model(self) -> str:
        """Name of the model."""
        if callable(self._model):
            self._model = self._model()
        return self._model

    @model.setter
    def model(self, name: str) -> None:
        """Ask another model from now on."""
        self._model = name

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def predict(
        self,
        image: bytes | Path | Sequence[bytes | Path],
        *,
        version: str | None = None,
        mask: bytes | Path | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Return the prediction for an image, or for several images of one exposure, with warnings and provenance.

        A CDMAM model predicts the curve with its uncertainty, and a verdict; a classifier predicts ``classes`` and
        ``probabilities``; an inpainter predicts the ``filled`` image. Arrays are decoded.

        Args:
            image: path or content of a DICOM, PNG, TIFF or ``.npy`` file. For a CDMAM model also a sequence of images,
                whose curves are combined.
            version: version of the model; None for the server's default.
            mask: path or content of a PNG or ``.npy`` file of the size of the image, not 0 in the holes that an
                inpainter fills; None for other models.
            parameters: parameters of the prediction, such as ``seed`` of a CDMAM model; classifiers do not have any.

        Raises:
            InvalidInput: the server rejected the request; the message is the server's.
            ServerError: the server cannot be reached, or failed.
        """
        with self._ask("predict", image, version, JSON, parameters, mask) as response:
            return _decoded(_json(response.read()))

    def explain(
        self,
        image: bytes | Path,
        *,
        version: str | None = None,
        mask: bytes | Path | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_partial: Callable[[np.ndarray], None] | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Return an explanation with warnings and provenance; arrays are decoded.

        Args:
            image: path or content of a DICOM, PNG, TIFF or ``.npy`` file.
            version: version of the model; None for the server's default.
            mask: path or content of a PNG or ``.npy`` file of the size of the image, not 0 in the organ to which a
                method that takes a mask is limited, such as ``counterfactual``.
            on_progress: callback for progress; called only if there is more than one sample.
            on_partial: callback for a downsampled map of the samples so far; called less often.
            parameters: parameters of the explanation, such as ``method`` and ``n_steps``. A CDMAM model also has
                ``n_samples``; with ``n_samples="auto"``, ``reliability`` and ``max_samples`` determine when sampling
                ends. A classifier also has ``target`` and ``trust``. With ``members="each"``, an ensemble returns the
                map of each member and their ``disagreement``.

        Raises:
            InvalidInput: the server rejected the request; the message is the server's.
            ServerError: the server cannot be reached or failed, or the connection broke before the map was complete.
        """
        with self._ask("explain", image, version, JSON, parameters, mask) as response:
            if response.headers.get("content-type", "") != NDJSON:
                return _decoded(_json(response.read()))
            members: list[np.ndarray] = []
            for event in (_json(line) for line in response.iter_lines() if line):
                kind = event.pop("event", None)
                if kind == "progress" and on_progress:
                    on_progress(Progress(**event))
                elif kind == "partial" and on_partial:
                    on_partial(array_from_json(event["map"]))
                elif kind == "member":
                    members.append(array_from_json(event["map"]))
                elif kind == "result" and event.pop("complete", False):
                    if members:
                        event["explanation"] |= {"members": members}
                    return _decoded(event)
                elif kind == "error":
                    raise _error(event)
        raise ServerError("the stream must end with a complete map, got one that broke off")

    def fetch(
        self,
        kind: str,
        image: bytes | Path,
        media_type: str,
        *,
        version: str | None = None,
        mask: bytes | Path | None = None,
        **parameters: Any,
    ) -> Answer:
        """Return a prediction or an explanation in another format than JSON.

        Args:
            kind: ``"predict"`` or ``"explain"``.
            image: path or content of a DICOM, PNG, TIFF or ``.npy`` file.
            media_type: ``image/png``, ``application/x-npy`` or, for explanations and filled images,
                ``application/dicom``.
            version: version of the model; None for the server's default.
            mask: as in `predict` and `explain`.
            parameters: parameters as in `predict` or `explain`.

        Raises:
            InvalidParameter: unknown kind, or a parameter that is not printable ASCII.
            InvalidInput: the server rejected the request; the message is the server's.
            ServerError: the server cannot be reached, or failed.
        """
        with self._ask(kind, image, version, media_type, parameters, mask) as response:
            content = response.read()
            return Answer(content, response.headers.get("content-type", ""), json.loads(response.headers[PROVENANCE]))

    def dicom(
        self,
        image: bytes | Path | Sequence[bytes | Path],
        *,
        kind: str = "explanations",
        objects: Sequence[str] = ("capture", "report"),
        version: str | None = None,
        mask: bytes | Path | None = None,
        **parameters: Any,
    ) -> list[bytes]:
        """Return a prediction or an explanation as DICOM files, one for each object.

        Args:
            image: path or content of an image, as in `predict` and `explain`.
            kind: ``"explanations"`` or ``"predictions"``.
            objects: some of `radlens.wire.OBJECTS`; the files come in that order. ``("all",)`` for those that the
                answer has. Objects that need a map are left out where the model cannot judge the image, unless nothing
                would remain.
            version: version of the model; None for the server's default.
            mask: as in `predict` and `explain`.
            parameters: parameters as in `predict` or `explain`.

        Raises:
            InvalidParameter: unknown kind, an object that this kind of answer does not have, or no object.
            InvalidInput: the server rejected the request; the message is the server's.
            ServerError: the server cannot be reached or failed, or the answer broke off.
        """
        if kind not in _KINDS:
            raise InvalidParameter(f"kind must be one of {', '.join(_KINDS)}, got {kind!r}")
        asked = {**parameters, "objects": ",".join(objects)}
        with self._ask(_KINDS[kind], image, version, _DICOM_TYPES, asked, mask) as response:
            content_type, content = response.headers.get("content-type", ""), response.read()
        if content_type == DICOM:
            return [content]
        try:
            return parts_of(content_type, content)
        except InvalidInput as error:
            raise ServerError(f"the server must answer with DICOM objects in full: {error}") from error

    @contextmanager
    def _ask(
        self,
        kind: str,
        image: bytes | Path | Sequence[bytes | Path],
        version: str | None,
        accept: str,
        parameters: Mapping[str, Any],
        mask: bytes | Path | None = None,
    ) -> Iterator[httpx.Response]:
        if kind not in _PATHS:
            raise InvalidParameter(f"kind must be one of {', '.join(_PATHS)}, got {kind!r}")
        url = f"{self.url}/{_PATHS[kind]}/{self.model}" + (f"/{version}" if version else "")
        content, content_type = _body(image, mask)
        headers = {"Accept": accept, "Content-Type": content_type, **self._headers}
        headers |= {PARAMETER_PREFIX + name.replace("_", "-"): _text(name, value) for name, value in parameters.items()}
        with reaching(self.url), self._http.stream("POST", url, content=content, headers=headers) as response:
            if response.is_error:  # httpx reads the body of a stream only on request
                response.read()
            require_success(response)
            yield response


def _body(image: bytes | Path | Sequence[bytes | Path], mask: bytes | Path | None = None) -> tuple[bytes, str]:
    """Return the body of a request and its media type: one image, or several parts as ``multipart/related``.

    The mask is the part with the ``Content-ID`` (RFC 2392) ``<mask>``.
    """
    alone = isinstance(image, bytes | Path)
    if alone and mask is None:
        return _bytes(image), _OCTETS  # type: ignore[arg-type]
    boundary = uuid4().hex
    head = f"--{boundary}\r\nContent-Type: {_OCTETS}\r\n".encode()
    images = [image] if alone else image
    parts = [head + b"\r\n" + _bytes(each) + b"\r\n" for each in images]  # type: ignore[union-attr, arg-type]
    if mask is not None:
        parts.append(head + b"Content-ID: <mask>\r\n\r\n" + _bytes(mask) + b"\r\n")
    content_type = f'multipart/related; type="{_OCTETS}"; boundary={boundary}'
    return b"".join([*parts, b"--%b--\r\n" % boundary.encode()]), content_type


def _bytes(image: bytes | Path) -> bytes:
    return image if isinstance(image, bytes) else image.read_bytes()


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn errors of connections into a `ServerError` that names ``url``."""
    try:
        yield
    except httpx.ConnectError:
        raise ServerError(f"a server must listen at {url}, got no connection") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerError(f"the server at {url} must answer in full, got {type(error).__name__}") from error


def require_success(response: httpx.Response) -> None:
    """Raise the exception of an error that a server answered with; its message is the server's."""
    if not response.is_error:
        return
    try:
        fields = json.loads(response.content)
        message = fields["message"]
    except (ValueError, KeyError, TypeError):
        fields, message = {}, f"the server answered {response.status_code} without a message"
    raise _error({**fields, "code": response.status_code, "message": message})


def _error(fields: Mapping[str, Any]) -> RadlensError:
    """Return the exception for the ``code``, ``type`` and ``message`` of the server's error."""
    kind, code, message = fields.get("type"), fields["code"], fields["message"]
    # Handlers send the name of the exception; TorchServe's own errors have other names.
    named = getattr(errors, str(kind), None)
    if isinstance(named, type) and issubclass(named, RadlensError) and named is not ServerError:
        return named(message)
    if kind in _NOT_FOUND or code == 404:
        return ModelNotFound(message)
    # TorchServe answers a wrong token with 400, although the request itself is valid.
    if code < 500 and code not in _NOT_OF_THE_INPUT and kind not in _KINDS_NOT_OF_THE_INPUT:
        return InvalidInput(message)
    failed = ServerError(message)
    failed.status = code
    return failed


def _json(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ServerError(f"the server must answer in JSON, got {len(text)} bytes of another format") from None


def _decoded(value: Any) -> Any:
    """Return ``value`` with every encoded array in it decoded."""
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("encoding") == ENCODING:
        return array_from_json(value)
    return {key: _decoded(each) for key, each in value.items()}


def _text(name: str, value: Any) -> str:
    text = str(value)
    if not (text.isascii() and text.isprintable()):
        raise InvalidParameter(f"{name} must be printable ASCII, got {text[:40]!a}")
    return text


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}
