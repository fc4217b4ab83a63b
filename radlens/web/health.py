"""Health of the server, without a key: whether the front door runs, and whether every model answers."""

import asyncio
import json
from http import HTTPStatus
from time import monotonic
from typing import Any

import httpx

from radlens.web.access import TorchserveKeys
from radlens.web.fleet import Fleet
from radlens.web.forwarding import Forwarder
from radlens.web.identity import Scope, Send, respond
from radlens.web.refusals import Refused
from radlens.web.settings import Settings
from radlens.web.uploads import Receive
from radlens.wire import JSON

__all__ = ["Live", "Readiness", "Ready"]

_FRESH_S = 2.0
"""Seconds for which an answer is used again: anybody may ask."""

_TIMEOUT_S = 5.0


class Live:
    """ASGI app of ``/health/live``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await _send_document(send, HTTPStatus.OK, {"status": "live"})


class Readiness:
    """Asks every model a question that costs nothing: a prediction of an empty body, which its handler refuses.

    Args:
        http: HTTP client.
        settings: Addresses.
        keys: Tokens of TorchServe.
        fleet: Models of TorchServe.
        forwarder: Requests that are at work.
    """

    def __init__(
        self, http: httpx.AsyncClient, settings: Settings, keys: TorchserveKeys, fleet: Fleet, forwarder: Forwarder
    ) -> None:
        self._http, self._settings, self._keys, self._fleet = http, settings, keys, fleet
        self._forwarder = forwarder
        self._asked_at, self._asking = -1e9, asyncio.Lock()
        self._found: dict[str, Any] = {}
        self._known: dict[tuple[str, str], tuple[float, dict[str, Any]]] = {}
        self._asked: dict[tuple[str, str], asyncio.Task[dict[str, Any]]] = {}

    async def look(self) -> dict[str, Any]:
        """Return ``{"status", "models": [{"model", "version", "ready", "reason"}]}``; ``reason`` is empty if ready."""
        async with self._asking:
            if monotonic() - self._asked_at > _FRESH_S:
                self._found = await self._ask()
                self._asked_at = monotonic()
        return self._found

    async def of_model(self, model: str, version: str | None = None) -> dict[str, Any] | None:
        """Return ``{"model", "version", "ready", "reason"}`` of a version; None if it is unknown."""
        standing = await self._fleet.find(model, version)
        if standing is None:
            return None
        place = (model, standing.version)
        at, found = self._known.get(place, (-1e9, {}))
        if monotonic() - at <= _FRESH_S:
            return found
        if place not in self._asked:
            self._asked[place] = asyncio.create_task(self._ask_one(place))
        return await asyncio.shield(self._asked[place])

    async def _ask_one(self, place: tuple[str, str]) -> dict[str, Any]:
        try:
            found = await self._of(*place)
            self._known[place] = (monotonic(), found)
            return found
        finally:
            del self._asked[place]

    async def _ask(self) -> dict[str, Any]:
        try:
            names = await self._fleet.names()
        except Refused:
            return {"status": "not ready", "reason": "TorchServe is starting", "models": []}
        except (httpx.HTTPError, ValueError, LookupError):
            return {"status": "not ready", "reason": "TorchServe does not answer", "models": []}
        models = await asyncio.gather(*(self._of(name, None) for name in names))
        is_ready = bool(models) and all(each["ready"] for each in models)
        reason = "" if is_ready else "some models do not answer" if models else "TorchServe has no model"
        return {"status": "ready" if is_ready else "not ready", "reason": reason, "models": models}

    async def _of(self, model: str, version: str | None) -> dict[str, Any]:
        found = await self._fleet.find(model, version, fresh_s=0)
        document = {"model": model, "version": None if found is None else found.version, "ready": False}
        if found is None:
            return {**document, "reason": "TorchServe does not describe it"}
        if not found.n_ready:
            return {**document, "reason": f"none of its {found.n_workers} workers is ready"}
        reason = await self._answers(model, found.version)
        return {**document, "ready": not reason, "reason": reason}

    async def _answers(self, model: str, version: str) -> str:
        """Return why a model does not answer; empty if it does."""
        url = f"{self._settings.inference_url}/predictions/{model}/{version}"
        headers = {"content-type": "application/octet-stream"}
        try:
            answer = await self._http.post(url, headers=headers | self._keys.inference(), timeout=_TIMEOUT_S)
            # The error of its handler; one of TorchServe has no identifier.
            return "" if "request_id" in answer.json() else f"TorchServe answers {answer.status_code} in its place"
        except Refused:
            return "TorchServe is starting"
        except httpx.TimeoutException:
            is_busy = any(outcome.head.model == model for outcome in self._forwarder.under_way)
            # Workers that compute answers for clients are well, and do not look up for this question.
            return "" if is_busy else f"it does not answer within {_TIMEOUT_S:g} s"
        except (httpx.HTTPError, ValueError, TypeError):
            return "TorchServe does not answer"


class Ready:
    """ASGI app of ``/health/ready``.

    Args:
        readiness: Asks the models.
    """

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: 200 if every model answers, otherwise 503."""
        found = await self._readiness.look()
        is_ready = found["status"] == "ready"
        await _send_document(send, HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE, found)


async def _send_document(send: Send, status: int, document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    headers = {"content-type": JSON, "content-length": str(len(body)), "cache-control": "no-store"}
    if status != HTTPStatus.OK:
        headers["retry-after"] = "5"
    await respond(send, status, headers, body)
