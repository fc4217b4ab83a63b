"""TorchServe's management API, over the Unix socket in the working directory of a server."""

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from radlens.client import reaching, require_success
from radlens.errors import InvalidInput, InvalidParameter, ModelNotFound, ServerError
from radlens.server import MANAGEMENT_URL, State

__all__ = ["Management", "Version"]

_REGISTERED = re.compile(r'Model "(.+)" Version: (\S+) registered')
"""Status message of TorchServe after it has registered an archive."""

_QUIET_S = 2.0
"""Seconds for which the queue of a version must be empty and its workers idle before it counts as drained."""

_IDLE_S = 0.05
"""Processor time in seconds that workers take at most while they are idle; one that computes takes it in a moment, also
on a machine that others keep busy."""


@dataclass(frozen=True)
class Version:
    """A version of a model on a server.

    Attributes:
        model: Name of the model.
        version: Version, such as ``"1.0"``.
        is_default: Whether requests without a version use this one.
        n_ready: Number of workers that are ready.
        n_waiting: Number of requests in the queue.
    """

    model: str
    version: str
    is_default: bool
    n_ready: int
    n_waiting: int


class Management:
    """Connection to the management API. Close it after use, or use it as a context manager.

    Args:
        transport: Connection to the API.
        token: Bearer token of the API; None if it does not require one.
        timeout_s: Largest number of seconds without an answer; loading a model takes as long.
    """

    def __init__(self, transport: httpx.BaseTransport, token: str | None = None, *, timeout_s: float = 1800.0) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=MANAGEMENT_URL, headers=headers, timeout=timeout_s, transport=transport)

    @classmethod
    def of_server(cls, workdir: Path) -> Self:
        """Return a connection to the server in the working directory ``workdir``.

        Raises:
            ServerError: No server is running there.
        """
        state = State.load(workdir)
        if state is None:
            raise ServerError("a server must run in this working directory, got none; start it with radlens serve")
        if not state.management_socket.exists():
            raise ServerError(
                "TorchServe must have started, got one that does not listen yet; try again in some seconds"
            )
        return cls(httpx.HTTPTransport(uds=str(state.management_socket)), state.keys().management)

    def __enter__(self) -> Self:
        """Return the connection."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the connection."""
        self._http.close()

    def versions(self) -> list[Version]:
        """Return every version of every model.

        Raises:
            ServerError: The server cannot be reached, or failed.
        """
        names, page = [], {"limit": "100"}
        while page:
            found = self._ask("GET", "/models", **page)
            names += [model["modelName"] for model in found["models"]]
            token = found.get("nextPageToken")
            page = {"limit": "100", "next_page_token": token} if token else {}
        return [version for name in names for version in self._versions(name)]

    def describe(self, model: str, version: str | None = None) -> dict[str, Any]:
        """Return TorchServe's description of a version, or of the default version if None.

        Raises:
            ModelNotFound: The model or the version does not exist.
            ServerError: The server cannot be reached, or failed.
        """
        return self._ask("GET", _path(model, version))[0]

    def register(self, archive: str) -> tuple[str, str]:
        """Register an archive of the model store and wait until its workers are running.

        The version becomes the default only if its model does not have a default yet. A version whose workers do not
        start is removed again, so that no version is left without workers.

        Args:
            archive: Name of a file or directory in the model store of the server.

        Returns:
            Name and version of the model, as the archive states them.

        Raises:
            InvalidParameter: ``archive`` is a path or an address, and not a name.
            InvalidInput: The archive is missing or corrupt, or its version is already registered.
            ServerError: The workers do not start, or the server cannot be reached or failed.
        """
        # TorchServe checks addresses against its configuration, but takes any folder of the machine.
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]*", archive):
            raise InvalidParameter(f"archive must be the name of a file in the model store, got {archive[:80]!a}")
        before = self._registered()
        try:
            status = self._ask("POST", "/models", url=archive, synchronous="true")["status"]
        except ServerError:
            # TorchServe keeps a version whose workers failed, and its error does not name it.
            for model, version in self._registered() - before:
                self._ask("DELETE", _path(model, version))
            raise
        found = _REGISTERED.search(status)
        if found is None:
            raise ServerError(f"the server must name the registered version, got {status[:80]!a}")
        return found[1], found[2]

    def set_default(self, model: str, version: str) -> None:
        """Make a version the default, which answers requests without a version.

        Raises:
            ModelNotFound: The version does not exist.
            ServerError: The server cannot be reached, or failed.
        """
        self._ask("PUT", f"{_path(model, version)}/set-default")

    def scale(self, model: str, version: str, n_workers: int) -> None:
        """Set the number of workers of a version, and wait until they run; fewer only after the version is drained.

        Raises:
            InvalidParameter: ``n_workers`` is less than 1.
            ModelNotFound: The version does not exist.
            ServerError: The workers do not start or do not get idle, or the server cannot be reached or failed.
        """
        if n_workers < 1:
            raise InvalidParameter(f"number of workers must be at least 1, got {n_workers}; retire a version instead")
        if n_workers < len(self.describe(model, version)["workers"]):
            self.drain(model, version)
        wanted = {"min_worker": str(n_workers), "max_worker": str(n_workers), "synchronous": "true"}
        self._ask("PUT", _path(model, version), **wanted)

    def drain(self, model: str, version: str, *, timeout_s: float = 600.0) -> None:
        """Wait until a version has no requests: for two seconds none waits and no worker computes.

        TorchServe does not report requests in progress, and aborts them when their worker ends. Whether a worker
        computes is told from the time that its process takes on the processor.

        Raises:
            ModelNotFound: The version does not exist.
            ServerError: The version still has requests after ``timeout_s`` seconds.
        """
        deadline, since, before = time.monotonic() + timeout_s, time.monotonic(), None
        while True:
            described, now = self.describe(model, version), time.monotonic()
            spent = _spent([worker["pid"] for worker in described["workers"]])
            is_waited_for = described["jobQueueStatus"]["pendingRequests"] > 0
            # The quiet time begins with a measurement.
            if before is None or is_waited_for or _grown(before, spent) > _IDLE_S:
                since, before = now, spent
            elif now - since >= _QUIET_S:
                return
            if now > deadline:
                raise ServerError(f"{model} {version} must have answered all in {timeout_s:g} s, got requests left")
            time.sleep(0.1)

    def unregister(self, model: str, version: str, *, timeout_s: float = 600.0) -> None:
        """Unregister a version, which must not be the default, after it is drained.

        A request that names the version can still arrive afterwards and be lost.

        Raises:
            InvalidInput: The version is the default.
            ModelNotFound: The version does not exist.
            ServerError: The version is not drained after ``timeout_s`` seconds, or the server failed.
        """
        self.drain(model, version, timeout_s=timeout_s)
        self._ask("DELETE", _path(model, version))

    def _registered(self) -> set[tuple[str, str]]:
        return {(version.model, version.version) for version in self.versions()}

    def _versions(self, model: str) -> list[Version]:
        try:
            default = self._ask("GET", f"/models/{model}")[0]["modelVersion"]
            described = self._ask("GET", f"/models/{model}/all")
        except ModelNotFound:  # unregistered since the models were listed
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

    def _ask(self, method: str, path: str, **query: str) -> Any:
        with reaching("the management socket"):
            response = self._http.request(method, path, params=query)
        if response.status_code == 403:  # TorchServe's answer to what is not allowed, whoever asks
            raise InvalidInput(str(response.json().get("message")))
        require_success(response)
        return response.json()


def _path(model: str, version: str | None) -> str:
    return f"/models/{model}" + (f"/{version}" if version else "")


def _spent(pids: Sequence[int]) -> dict[int, float]:
    """Return the processor time in seconds of processes and of all that they started, by PID."""
    found = {}
    for pid in pids:
        with suppress(psutil.Error):
            head = psutil.Process(pid)
            for process in (head, *head.children(recursive=True)):
                times = process.cpu_times()
                found[process.pid] = times.user + times.system
    return found


def _grown(before: Mapping[int, float], now: Mapping[int, float]) -> float:
    """Return the processor time that was spent between two measurements; processes that have ended do not count."""
    return sum(max(seconds - before.get(pid, 0.0), 0.0) for pid, seconds in now.items())
