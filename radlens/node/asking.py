"""The radlens server is asked for the DICOM objects of an image."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from radlens.client import Client
from radlens.errors import InvalidInput, ModelNotFound, RadlensError, ServerError, UnreadableImage
from radlens.node.header import read_meta
from radlens.node.lanes import Refused, Unavailable
from radlens.node.queue import NewObject
from radlens.node.rules import Rule
from radlens.node.settings import ServerSettings

__all__ = ["Ask", "Server", "read_token"]

Ask = Callable[[Rule, bytes], list[NewObject]]
"""Function that returns the objects of an image.

Raises:
    Unavailable: the server cannot be reached, or has no resources now.
    Refused: the server refuses this image, or fails at it.
"""

_BUSY = (401, 403, 429, 502, 503, 504)
"""HTTP statuses that say nothing of the image."""


class Server:
    """A radlens server, asked by one thread.

    Args:
        settings: address, token and time-out.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._clients: dict[tuple[str, str | None], Client] = {}

    def __call__(self, rule: Rule, image: bytes) -> list[NewObject]:
        """Return the objects of an image, see `Ask`."""
        parameters: dict[str, Any] = dict(rule.parameters) | ({"version": rule.version} if rule.version else {})
        try:
            files = self._client(rule.model).dicom(image, kind=rule.kind, objects=rule.objects, **parameters)
        except ModelNotFound as error:
            raise Unavailable(str(error), is_general=False) from None
        except InvalidInput as error:
            raise Refused(str(error), is_final=True) from None
        except ServerError as error:
            raise _failure(error) from None
        except RadlensError as error:  # of the server's own bundle or engine
            raise Refused(str(error)) from None
        if not files:
            raise Refused("the server must answer with at least one DICOM object, got none")
        return [_object(file) for file in files]

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _client(self, model: str) -> Client:
        token = read_token(self._settings.token_file)
        if (model, token) not in self._clients:
            if any(known == model for known, _ in self._clients):
                self.close()  # the token has changed
            client = Client(self._settings.url, model=model, token=token, timeout_s=self._settings.timeout_s)
            self._clients[model, token] = client
        return self._clients[model, token]


def read_token(file: Path | None) -> str | None:
    """Return the token in a file: the whole text, or ``inference.key`` of TorchServe's ``key_file.json``.

    Raises:
        Unavailable: the file cannot be read, or holds no printable token.
    """
    if file is None:
        return None
    try:
        text = file.read_text("utf-8").strip()
        if text.startswith("{"):
            text = json.loads(text)["inference"]["key"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Unavailable(f"{file} must hold a token, got {type(error).__name__}") from None
    if not isinstance(text, str) or not text or not (text.isascii() and text.isprintable()):
        raise Unavailable(f"{file} must hold a token of printable ASCII, got another text")
    return text


def _failure(error: ServerError) -> RadlensError:
    cause = error.__cause__
    is_slow = isinstance(cause, httpx.ReadTimeout)
    is_of_image = error.status is not None and error.status >= 500 and error.status not in _BUSY
    return Refused(str(error)) if is_slow or is_of_image else Unavailable(str(error))


def _object(content: bytes) -> NewObject:
    try:
        meta = read_meta(io.BytesIO(content))
    except UnreadableImage:
        raise Refused(f"the server must answer with DICOM files, got {len(content)} other bytes") from None
    return NewObject(meta.sop_instance_uid, meta.sop_class_uid, content)
