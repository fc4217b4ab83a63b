"""A model in this process: the client talks to its service as to a server, so that both give the same."""

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
    """Return the newest bundle in a model store: unpacked, in a directory archive, or in a ``.mar`` file.

    Args:
        store: the model store.
        fits: told what ``bundle.json`` says, whether a bundle is looked for.

    Raises:
        BundleError: there is none.
    """
    unpacked = [found.parent for found in [*store.glob(f"bundles/*/{MANIFEST}"), *store.glob(f"*/{MANIFEST}")]]
    candidates = [path for path in (*unpacked, *store.glob("*.mar")) if fits(_document(path))]
    if not candidates:
        raise BundleError(f"{store} must hold a bundle or an archive, got none: make one with `radlens export`")
    # Of two of the same time the unpacked one wins: an archive is made from it.
    return max(candidates, key=lambda path: (path.stat().st_mtime, path.is_dir()))


def _document(path: Path) -> dict[str, Any]:
    """Return what ``bundle.json`` says in a bundle or an archive; nothing if it cannot be read."""
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
    """Give the bundle in a directory or in a ``.mar`` file, which is unpacked for as long as it is needed.

    Raises:
        BundleError: there is none, or it is damaged.
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
    """Hands HTTP requests to a service in this process.

    Args:
        bundle: The model.
        options: Options of its service, see :func:`radlens.families.open_service`; those that are None are left out.

    Raises:
        InvalidInput: An option that models of this task do not have.
    """

    def __init__(self, bundle: StoredBundle[Any], **options: Any) -> None:
        self._name, self._version = bundle.manifest.name, bundle.manifest.version
        self._service = open_service(bundle, **options)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request; a body that comes in pieces is computed by a thread while it is read."""
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
        message = f"model must be {self._name}/{self._version}, the one of this bundle, got {asked}"
        return httpx.Response(
            404,
            headers={"content-type": JSON},
            content=json.dumps({"code": 404, "type": "ModelNotFound", "message": message}).encode(),
        )


class _Abandoned(Exception):
    """Nobody reads any more."""


class Pieces(httpx.SyncByteStream):
    """The body of a response whose pieces are pushed, for a reader who pulls them."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._pieces: Queue[bytes | None] = Queue()
        self._closed = Event()

    def __iter__(self) -> Iterator[bytes]:
        # A daemon, so that Ctrl-C need not wait for the samples that are being explained.
        Thread(target=self._work, daemon=True).start()
        while (piece := self._pieces.get()) is not None:
            yield piece

    def close(self) -> None:
        """Break off at the next piece."""
        self._closed.set()

    def _work(self) -> None:
        assert self._response.stream is not None, "only a response that streams comes in pieces"
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
