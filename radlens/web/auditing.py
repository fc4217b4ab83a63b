"""A line of the audit log for each request to a model: who, when, which model, which input, which result."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from radlens.audit import AuditLog
from radlens.web.forwarding import Outcome
from radlens.web.metrics import stated

__all__ = ["Auditor", "record"]

_REFUSALS_S = 1.0
"""Seconds between two records of refused keys: anybody can send wrong ones, and fill a disk."""

_log = logging.getLogger("radlens.web")


def record(outcome: Outcome) -> dict[str, Any]:
    """Return the record of a request, without patient data: an input is named by the SHA-256 of its file."""
    found = stated(outcome)
    inputs = found.get("inputs") or [found.get("input") or {}]
    explainer = found.get("explainer") or {}
    if outcome.abandoned or outcome.status is None:
        result = "abandoned"
    elif outcome.status < HTTPStatus.BAD_REQUEST:
        result = "not assessable" if outcome.is_unassessable else "answered"
    else:
        result = "refused"
    return {
        "event": outcome.head.kind,
        "request_id": outcome.request_id,
        "key": outcome.key,
        # A client may ask for a model of any name, such as a patient's.
        "model": None if outcome.version is None else outcome.head.model,
        "version": found.get("version", outcome.version),
        "bundle_hash": found.get("bundle_hash"),
        "method": explainer.get("method"),
        "inputs": [each["sha256"] for each in inputs if "sha256" in each],
        "status": None if outcome.status is None else int(outcome.status),
        "type": outcome.kind or None,
        "result": result,
    }


class Auditor:
    """Writes records in a thread of its own, one after the other.

    Args:
        log: The audit log.
        failed: Called for each record that could not be written.
    """

    def __init__(self, log: AuditLog, failed: Callable[[], None]) -> None:
        self._log, self._failed = log, failed
        self._thread = ThreadPoolExecutor(1, "audit")
        self._refused_at, self._n_refused = -1e9, 0

    def seen(self, outcome: Outcome) -> None:
        """Write the record of a request of which nothing is at work any more."""
        document, loop = record(outcome), asyncio.get_running_loop()
        self._thread.submit(self._append, document, loop)

    def refused(self, reason: str, key: str | None) -> None:
        """Write a record of a key that was refused; of a flood one a second, with the number of those before it."""
        self._n_refused += 1
        now = time.monotonic()
        if now - self._refused_at < _REFUSALS_S:
            return
        document = {"event": "unauthorised", "result": "refused", "reason": reason, "key": key, "n": self._n_refused}
        self._refused_at, self._n_refused = now, 0
        self._thread.submit(self._append, document, asyncio.get_running_loop())

    def close(self) -> None:
        """Wait until all records are written."""
        self._thread.shutdown()

    def _append(self, document: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._log.append(document)
        except Exception as error:  # any: nobody else would see it in this thread
            _log.error("%s: no audit record, %s", document.get("request_id", document["event"]), type(error).__name__)
            loop.call_soon_threadsafe(self._failed)
