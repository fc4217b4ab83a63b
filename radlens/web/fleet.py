"""What TorchServe says of its models and workers, asked at most once a second."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import httpx

from radlens.server import MANAGEMENT_URL
from radlens.web.access import TorchserveKeys
from radlens.web.refusals import Refused

__all__ = ["Fleet", "Standing"]

_FRESH_S = 1.0
"""Seconds for which an answer is used again."""

_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Standing:
    """A version of a model.

    Attributes:
        version: Version.
        is_default: Whether it answers requests without a version.
        n_workers: Number of its workers, ready or not.
        n_ready: Number of workers that are ready.
        n_waiting: Number of requests in its queue.
    """

    version: str
    is_default: bool
    n_workers: int
    n_ready: int
    n_waiting: int


class Fleet:
    """The models of a TorchServe.

    Args:
        socket: Unix socket of the management API; need not exist yet.
        keys: Tokens of TorchServe.
    """

    def __init__(self, socket: Path, keys: TorchserveKeys) -> None:
        self._socket, self._keys = socket, keys
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)), base_url=MANAGEMENT_URL, timeout=_TIMEOUT_S
        )
        self._known: dict[str, tuple[float, tuple[Standing, ...]]] = {}
        self._asking: dict[str, asyncio.Task[tuple[Standing, ...]]] = {}

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def versions(self, model: str, *, fresh_s: float = _FRESH_S) -> tuple[Standing, ...]:
        """Return the versions of a model, none if it is unknown or TorchServe does not answer.

        Args:
            model: Name of the model.
            fresh_s: Seconds for which an earlier answer is used.
        """
        at, found = self._known.get(model, (-1e9, ()))
        if found and monotonic() - at < fresh_s:
            return found
        if model not in self._asking:
            # Requests of the same moment share a question.
            self._asking[model] = asyncio.create_task(self._ask(model))
        return await asyncio.shield(self._asking[model])

    async def find(self, model: str, version: str | None, *, fresh_s: float = _FRESH_S) -> Standing | None:
        """Return a version of a model, the default if ``version`` is None; None if it is not known."""
        for each in await self.versions(model, fresh_s=fresh_s):
            if each.version == version or (version is None and each.is_default):
                return each
        return None

    async def names(self) -> list[str]:
        """Return the names of all models.

        Raises:
            Refused: TorchServe is starting.
            httpx.HTTPError: TorchServe does not answer.
        """
        found: list[str] = []
        page = {"limit": "100"}
        while True:
            document = await self._get("/models", page)
            found += [each["modelName"] for each in document["models"]]
            if not document.get("nextPageToken"):
                return found
            page = {"limit": "100", "next_page_token": document["nextPageToken"]}

    async def _ask(self, model: str) -> tuple[Standing, ...]:
        try:
            (default,) = await self._get(f"/models/{model}")
            every = await self._get(f"/models/{model}/all")
            found = tuple(_standing(each, default["modelVersion"]) for each in every)
        except (Refused, httpx.HTTPError, ValueError, LookupError, TypeError):
            found = ()
        finally:
            self._asking.pop(model, None)
        if found:
            self._known[model] = (monotonic(), found)
        else:
            self._known.pop(model, None)
        return found

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        if not self._socket.exists():
            raise httpx.ConnectError("TorchServe does not listen")
        response = await self._http.get(path, params=query, headers=self._keys.management())
        response.raise_for_status()
        return response.json()


def _standing(described: Mapping[str, Any], default: str) -> Standing:
    workers = described["workers"]
    return Standing(
        version=described["modelVersion"],
        is_default=described["modelVersion"] == default,
        n_workers=max(len(workers), described.get("minWorkers", 0)),
        n_ready=sum(worker["status"] == "READY" for worker in workers),
        n_waiting=described["jobQueueStatus"]["pendingRequests"],
    )
