"""Talk to a running radlens server: predictions, explanations with progress, and the management of versions.

Parameters travel as ``X-Radlens-`` headers, because TorchServe 0.12 drops the query string of ``/predictions`` and
``/explanations`` before any model sees it.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
import numpy as np

from radlens import errors
from radlens.errors import InvalidInput, InvalidParameter, ModelNotFound, RadlensError, ServerError
from radlens.server import State
from radlens.wire import ENCODING, JSON, NDJSON, PARAMETER_PREFIX, PROVENANCE, array_from_json

__all__ = ["Answer", "Client", "Progress", "Version"]

_PATHS = {"predict": "predictions", "explain": "explanations"}

_OCTETS = "application/octet-stream"
"""Media type of images: their bytes tell what they are; without a declared type, TorchServe takes them for a form."""

_NOT_FOUND = ("ModelNotFoundException", "ModelVersionNotFoundException")
"""TorchServe's names for a model or version it does not have."""

_REGISTERED = re.compile(r'Model "(.+)" Version: (\S+) registered')
"""What TorchServe says of an archive that it has registered."""

_QUIET_S = 2.0
"""How long a version's queue must be empty before it counts as drained."""


@dataclass(frozen=True)
class Progress:
    """How far an explanation is.

    Attributes:
        done: samples explained.
        total: samples asked for; of an automatic run those it will probably take, None if that is unknown.
        elapsed_s: seconds since the first.
        remaining_s: seconds to go, as far as can be told; None before the first.
        reliability: of the map so far, see :class:`radlens.explainers.Halves`; None if that is unknown.
        total_is_estimated: whether ``total`` may still change.
        n_restored: how many of the samples came from a checkpoint.
    """

    done: int
    total: int | None
    elapsed_s: float
    remaining_s: float | None
    reliability: float | None = None
    total_is_estimated: bool = False
    n_restored: int = 0


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer that is no JSON: a picture, an array or a DICOM file.

    Attributes:
        content: its bytes.
        media_type: what they are.
        provenance: where it comes from.
    """

    content: bytes
    media_type: str
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Version:
    """One version of a model on a server.

    Attributes:
        model: its name.
        version: such as ``"1.0"``.
        is_default: whether requests that name no version get this one.
        n_ready: workers that can answer.
        n_waiting: requests that wait for a worker.
    """

    model: str
    version: str
    is_default: bool
    n_ready: int
    n_waiting: int


class Client:
    """Ask one model of one server; to be closed, or used as a context manager.

    Args:
        url: such as ``http://127.0.0.1:8080``.
        management_url: such as ``http://127.0.0.1:8081``; only versions need it.
        model: name of the model.
        token: bearer token of ``url``, if it requires one.
        management_token: bearer token of ``management_url``, if it requires one.
        timeout_s: longest silence of the server that is waited for.
        transport: instead of the network, for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        management_url: str | None = None,
        model: str = "cdmam",
        token: str | None = None,
        management_token: str | None = None,
        timeout_s: float = 1800.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url, self.management_url, self.model = url.rstrip("/"), (management_url or "").rstrip("/"), model
        self._headers, self._management_headers = _bearer(token), _bearer(management_token)
        self._http = httpx.Client(timeout=httpx.Timeout(timeout_s, connect=10.0), transport=transport)

    @classmethod
    def of_server(cls, workdir: Path, *, model: str = "cdmam") -> Self:
        """Return a client of the server that was started in ``workdir``, with its keys.

        Raises:
            ServerError: none runs there.
        """
        state = State.load(workdir)
        if state is None:
            raise ServerError("a server must run in this working directory, got none; start it with radlens serve")
        keys = state.keys()
        return cls(
            state.url,
            management_url=state.management_url,
            model=model,
            token=keys.inference,
            management_token=keys.management,
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def predict(
        self, image: bytes | Path | Sequence[bytes | Path], *, version: str | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """Return what the model says of an image, or of several of one exposure, with warnings and provenance.

        Of CDMAM the curve with its uncertainty, and a verdict; of a classifier its ``classes`` and ``probabilities``.

        Args:
            image: a DICOM, PNG, TIFF or ``.npy`` file, or its bytes; of CDMAM also a sequence of them, whose curves are
                combined.
            version: of the model; the server's default if None.
            parameters: such as ``seed`` of CDMAM; classifiers have none.

        Raises:
            InvalidInput: the server refused the request; the message is the server's.
            ServerError: it cannot be reached, or failed.
        """
        with self._ask("predict", image, version, JSON, parameters) as response:
            return _json(response.read())

    def explain(
        self,
        image: bytes | Path,
        *,
        version: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_partial: Callable[[np.ndarray], None] | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Return a map with its warnings and provenance; arrays are decoded.

        Args:
            image: see `predict`.
            version: see `predict`.
            on_progress: called now and then if there is more than one sample.
            on_partial: called with a reduced map of the samples so far, less often.
            parameters: such as ``method`` and ``n_steps``. Of CDMAM also ``n_samples``; ``n_samples="auto"`` with
                ``reliability`` and ``max_samples`` ends at that reliability. Of a classifier ``target`` and ``trust``.
                Of an ensemble ``members="each"``: the answer holds the map of each member and their ``disagreement``.

        Raises:
            InvalidInput: see `predict`.
            ServerError: the server failed, or broke off before the map was complete.
        """
        with self._ask("explain", image, version, JSON, parameters) as response:
            if response.headers.get("content-type", "") != NDJSON:
                return _decoded(_json(response.read()))
            members: list[np.ndarray] = []
            for event in _events(response):
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
        self, kind: str, image: bytes | Path, media_type: str, *, version: str | None = None, **parameters: Any
    ) -> Answer:
        """Return a prediction or an explanation in another format than JSON.

        Args:
            kind: ``"predict"`` or ``"explain"``.
            image: see `predict`.
            media_type: ``image/png``, ``application/x-npy`` or, for explanations, ``application/dicom``.
            version: see `predict`.
            parameters: see `explain`.

        Raises:
            InvalidInput: see `predict`.
            ServerError: see `predict`.
        """
        with self._ask(kind, image, version, media_type, parameters) as response:
            content = response.read()
            return Answer(content, response.headers.get("content-type", ""), json.loads(response.headers[PROVENANCE]))

    def models(self) -> list[Version]:
        """Return every version of every model on the server.

        Raises:
            ServerError: it cannot be reached, or failed.
        """
        names = [model["modelName"] for model in self._manage("GET", "/models")["models"]]
        return [version for name in names for version in self._versions(name)]

    def describe(self, version: str | None = None) -> dict[str, Any]:
        """Return what TorchServe says of a version; of the default one if None.

        Raises:
            ModelNotFound: there is none.
            ServerError: see `models`.
        """
        return self._manage("GET", self._path(version))[0]

    def register(self, archive: str) -> str:
        """See :meth:`register_archive`; return the version alone."""
        return self.register_archive(archive)[1]

    def register_archive(self, archive: str) -> tuple[str, str]:
        """Register an archive of the server's model store, of any model, and wait until its workers run.

        It does not become the default if there is one already. An archive whose workers do not start is removed again.

        Returns:
            Name and version of the model, which the archive says.

        Raises:
            InvalidInput: the archive is missing or corrupt, or its version is registered.
            ServerError: its workers do not start, or see `models`.
        """
        before = self._registered()
        try:
            status = self._manage("POST", "/models", url=archive, synchronous="true")["status"]
        except ServerError:
            for model, version in self._registered() - before:
                self._manage("DELETE", f"/models/{model}/{version}")
            raise
        found = _REGISTERED.search(status)
        if found is None:
            raise ServerError(f"the server must say what it registered, got {status[:80]!a}")
        return found[1], found[2]

    def set_default(self, version: str) -> None:
        """Make ``version`` the one that requests get which name none.

        Raises:
            ModelNotFound: unknown version.
            ServerError: see `models`.
        """
        self._manage("PUT", f"{self._path(version)}/set-default")

    def unregister(self, version: str, *, timeout_s: float = 600.0) -> None:
        """Remove ``version``, which must not be the default, once no request waits for it.

        TorchServe breaks off what a worker computes at that moment and tells nobody what that is: its queue has to be
        empty for two seconds first. A client that names the version explicitly can still come too late.

        Raises:
            InvalidInput: it is the default version.
            ModelNotFound: unknown version.
            ServerError: requests still wait for it after ``timeout_s``, or see `models`.
        """
        quiet_since, deadline = time.monotonic(), time.monotonic() + timeout_s
        while time.monotonic() - quiet_since < _QUIET_S:
            if self.describe(version)["jobQueueStatus"]["pendingRequests"] > 0:
                quiet_since = time.monotonic()
            if time.monotonic() > deadline:
                raise ServerError(f"version {version} must have no waiting requests within {timeout_s:g} s, got some")
            time.sleep(0.1)
        self._manage("DELETE", self._path(version))

    def _registered(self) -> set[tuple[str, str]]:
        return {(version.model, version.version) for version in self.models()}

    def _path(self, version: str | None) -> str:
        return f"/models/{self.model}" + (f"/{version}" if version else "")

    def _versions(self, model: str) -> list[Version]:
        try:
            default = self._manage("GET", f"/models/{model}")[0]["modelVersion"]
            described = self._manage("GET", f"/models/{model}/all")
        except ModelNotFound:
            return []
        return [
            Version(
                model,
                each["modelVersion"],
                each["modelVersion"] == default,
                sum(worker["status"] == "READY" for worker in each["workers"]),
                each["jobQueueStatus"]["pendingRequests"],
            )
            for each in described
        ]

    def _manage(self, method: str, path: str, **query: str) -> Any:
        if not self.management_url:
            raise InvalidParameter("management_url must be given to manage versions, got none")
        with _reaching(self.management_url):
            url, headers = f"{self.management_url}{path}", self._management_headers
            response = self._http.request(method, url, params=query, headers=headers)
        _require_success(response)
        return _json(response.content)

    @contextmanager
    def _ask(
        self,
        kind: str,
        image: bytes | Path | Sequence[bytes | Path],
        version: str | None,
        accept: str,
        parameters: Mapping[str, Any],
    ) -> Iterator[httpx.Response]:
        if kind not in _PATHS:
            raise InvalidParameter(f"kind must be one of {', '.join(_PATHS)}, got {kind!r}")
        url = f"{self.url}/{_PATHS[kind]}/{self.model}" + (f"/{version}" if version else "")
        content, content_type = _body(image)
        headers = {"Accept": accept, "Content-Type": content_type, **self._headers}
        headers |= {PARAMETER_PREFIX + name.replace("_", "-"): _text(name, value) for name, value in parameters.items()}
        with _reaching(self.url), self._http.stream("POST", url, content=content, headers=headers) as response:
            if response.is_error:
                response.read()
            _require_success(response)
            yield response


def _body(image: bytes | Path | Sequence[bytes | Path]) -> tuple[bytes, str]:
    """Return the body of a request and its media type: an image as it is, or ``multipart/related`` of several."""
    if isinstance(image, bytes | Path):
        return _bytes(image), _OCTETS
    boundary = uuid4().hex
    head = f"--{boundary}\r\nContent-Type: {_OCTETS}\r\n\r\n".encode()
    parts = [head + _bytes(each) + b"\r\n" for each in image]
    content_type = f'multipart/related; type="{_OCTETS}"; boundary={boundary}'
    return b"".join([*parts, b"--%b--\r\n" % boundary.encode()]), content_type


def _bytes(image: bytes | Path) -> bytes:
    return image if isinstance(image, bytes) else image.read_bytes()


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.ConnectError:
        raise ServerError(f"a server must listen at {url}, got no connection") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerError(f"the server at {url} must answer in full, got {type(error).__name__}") from error


def _require_success(response: httpx.Response) -> None:
    if not response.is_error:
        return
    try:
        fields = json.loads(response.content)
        message = fields["message"]
    except (ValueError, KeyError, TypeError):
        fields, message = {}, f"the server answered {response.status_code} without a message"
    raise _error({**fields, "code": response.status_code, "message": message})


def _error(fields: Mapping[str, Any]) -> RadlensError:
    """Return the error that the server's ``code``, ``type`` and ``message`` describe."""
    kind, code, message = fields.get("type"), fields["code"], fields["message"]
    named = getattr(errors, str(kind), None)
    if isinstance(named, type) and issubclass(named, RadlensError):
        return named(message)
    if kind in _NOT_FOUND or code == 404:
        return ModelNotFound(message)
    return ServerError(message) if code >= 500 or kind == "InvalidKeyException" else InvalidInput(message)


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    return (_json(line) for line in response.iter_lines() if line)


def _json(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ServerError(f"the server must answer in JSON, got {len(text)} bytes of something else") from None


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
