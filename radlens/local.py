"""A model in this process, which the client calls like a server, so that both give the same answers."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import httpx

from radlens.bundles import MANIFEST, StoredBundle
from radlens.errors import BundleError
from radlens.families import load, open_service
from radlens.service import Response, request_from_http
from radlens.wire import JSON

__all__ = ["LocalTransport", "Pieces", "newest_bundle", "open_bundle_at"]

_KINDS = {"predictions": "predict", "explanations": "explain"}


def newest_bundle(store: Path, fits: Callable[[Mapping[str, Any]], bool] = lambda document: True) -> Path:
    """Return the newest bundle in a model store: an unpacked one, a directory archive, or a ``.mar`` file.

    Args:
        store: model store.
        fits: predicate of the contents of ``bundle.json`` that a bundle must satisfy.

    Raises:
        BundleError: The store does not hold a fitting bundle.
    """
    unpacked = [found.parent for found in [*store.glob(f"bundles/*/{MANIFEST}"), *store.glob(f"*/{MANIFEST}")]]
    candidates = [path for path in (*unpacked, *store.glob("*.mar")) if fits(_document(path))]
    if not candidates:
        raise BundleError(f"{store} must hold a bundle or an archive, got none: make one with `radlens export`")
    # Of two with the same time the unpacked bundle wins, because archives are made from bundles.
    return max(candidates, key=lambda path: (path.stat().st_mtime, path.is_dir()))


def _document(path: Path) -> dict[str, Any]:
    """Return the contents of ``bundle.json`` in a bundle or an archive; empty if it cannot be read."""
    try:
        if path.is_dir():
            document = json.loads((path / MANIFEST).read_bytes())
        else:
            with zipfile.ZipFile(path) as archive:
                document = json.loads(archive.read(MANIFEST))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


@contextmanager
def open_bundle_at(path: Path) -> Iterator[StoredBundle[Any]]:
    """Yield the bundle of a directory or of a ``.mar`` file, which is unpacked for the duration of the block.

    Raises:
        BundleError: There is no bundle, or it is damaged.
    """
    if path.is_dir():
        yield load(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                names = [MANIFEST, *json.loads(archive.read(MANIFEST))["files"]]
                archive.extractall(folder, names)
        except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
            raise BundleError(f"archive must be a zip file that holds a bundle, got {type(error).__name__}") from None
        yield load(folder)


class LocalTransport(httpx.BaseTransport):
    """Transport that passes HTTP requests to a service in this process.

    Args:
        bundle: Bundle of the model.
        options: Options of :func:`radlens.families.open_service`; options of None are left out.

    Raises:
        InvalidInput: Models of this task do not have an option.
    """

    def __init__(self, bundle: StoredBundle[Any], **options: Any) -> None:
        self._name, self._version = bundle.manifest.name, bundle.manifest.version
        self._service = open_service(bundle, **options)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request; a thread computes a streamed body while the caller reads it."""
        route, model, *version = request.url.path.strip("/").split("/")
        if model != self._name or version not in ([], [self._version]):
            return self._not_found("/".join([model, *version]))
        asked = request_from_http(_KINDS[route], request.read(), request.headers, {}, str(uuid4()))
        (response,) = self._service.respond([asked])
        headers = {"content-type": response.content_type, **response.headers}
        if response.stream is None:
            return httpx.Response(response.status, headers=headers, content=response.body)
        return httpx.Response(response.status, headers=headers, stream=Pieces(response))

    def _not_found(self, asked: str) -> httpx.Response:
        message = f"model must be {self._name}/{self._version}, the model of this bundle, got {asked}"
        return httpx.Response(
            404,
            headers={"content-type": JSON},
            content=json.dumps({"code": 404, "type": "ModelNotFound", "message": message}).encode(),
        )


class _Abandoned(Exception):
    """The reader has closed the stream."""


class Pieces(httpx.SyncByteStream):
    """Body of a streamed response: a thread pushes its pieces to a queue, from which the reader pulls them."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._pieces: Queue[bytes | None] = Queue()
        self._closed = Event()

    def __iter__(self) -> Iterator[bytes]:
        # A daemon thread, so that Ctrl-C does not wait for running computations.
        Thread(target=self._work, daemon=True).start()
        while (piece := self._pieces.get()) is not None:
            yield piece

    def close(self) -> None:
        """Stop the computation at its next piece."""
        self._closed.set()

    def _work(self) -> None:
        assert self._response.stream is not None, "only streamed responses have pieces"
        try:
            self._response.stream(self._emit)
        except _Abandoned:
            return
        finally:
            self._pieces.put(None)

    def _emit(self, piece: bytes) -> None:
        if self._closed.is_set():
            raise _Abandoned
        self._pieces.put(piece)
