"""Metrics of the front door for Prometheus: what was asked, how long it took, and what became of it."""

import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import httpx
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from radlens.web.access import Access
from radlens.web.fleet import Fleet
from radlens.web.forwarding import Forwarder, Outcome
from radlens.web.identity import Scope, Send, headers_of, respond
from radlens.web.refusals import Refused
from radlens.web.uploads import Receive
from radlens.wire import BATCH, BEGUN, PROVENANCE

__all__ = ["Metrics", "MetricsPage", "stated"]

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600, 14400)

_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 32)

_UNKNOWN = "unknown"
"""Label of models that TorchServe does not have: a client could otherwise make a label of each name it thinks of."""

_MODEL = ("model", "version")


def stated(outcome: Outcome) -> Mapping[str, Any]:
    """Return the provenance of an answer; empty if it states none."""
    try:
        found = json.loads(outcome.headers.get(PROVENANCE.lower(), "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class Metrics:
    """The metrics, with a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        asked = (*_MODEL, "kind", "method")
        self._requests = Counter("radlens_requests", "Requests by HTTP status", (*asked, "status"), registry=registry)
        self._seconds = Histogram(
            "radlens_request_seconds",
            "Time from the head of a request to the end of its answer",
            asked,
            registry=registry,
            buckets=_SECONDS,
        )
        self._queue = Histogram(
            "radlens_queue_seconds",
            "Time for which a request waited in TorchServe for a worker, its upload included",
            (*_MODEL, "kind"),
            registry=registry,
            buckets=_SECONDS,
        )
        self._rows = Histogram(
            "radlens_batch_rows", "Requests in the batch of a request", _MODEL, registry=registry, buckets=_ROWS
        )
        self._engines = Counter(
            "radlens_engine_answers", "Answers by engine", (*_MODEL, "engine", "precision"), registry=registry
        )
        self._refusals = Counter("radlens_refusals", "Errors by status and type", ("status", "type"), registry=registry)
        self._unassessable = Counter(
            "radlens_not_assessable", "Images that a model could not judge", (*_MODEL, "kind"), registry=registry
        )
        self._abandoned = Counter(
            "radlens_abandoned",
            "Requests whose client left or whose deadline passed",
            (*_MODEL, "kind"),
            registry=registry,
        )
        self._audit = Counter("radlens_audit_failures", "Records that the audit log could not take", registry=registry)
        self.under_way = Gauge("radlens_under_way", "Requests at work", ("model", "kind"), registry=registry)
        self.oldest = Gauge(
            "radlens_queue_age_seconds",
            "Age of the oldest request without an answer",
            ("model", "kind"),
            registry=registry,
        )
        self.ready = Gauge("radlens_workers_ready", "Workers that are ready", _MODEL, registry=registry)
        self.workers = Gauge("radlens_workers", "Workers that should be ready", _MODEL, registry=registry)
        self.waiting = Gauge("radlens_queue_length", "Requests in the queue of TorchServe", _MODEL, registry=registry)
        self.is_reached = Gauge("radlens_torchserve_up", "Whether TorchServe answers", registry=registry)

    def refused(self, status: int, kind: str) -> None:
        """Count an error that the front door answered itself."""
        self._refusals.labels(str(int(status)), kind).inc()

    def audit_failed(self) -> None:
        """Count a record that is not in the audit log."""
        self._audit.inc()

    def seen(self, outcome: Outcome) -> None:
        """Count a request of which nothing is at work any more."""
        is_known = outcome.version is not None
        model, version = (outcome.head.model, outcome.version or "") if is_known else (_UNKNOWN, "")
        kind, found = outcome.head.kind, stated(outcome)
        method = (found.get("explainer") or {}).get("method", "")
        if outcome.abandoned or outcome.status is None:
            self._abandoned.labels(model, version, kind).inc()
        else:
            self._requests.labels(model, version, kind, method, str(int(outcome.status))).inc()
            if outcome.status < HTTPStatus.BAD_REQUEST and outcome.answered is not None:
                self._seconds.labels(model, version, kind, method).observe(outcome.answered - outcome.arrived)
        if outcome.kind and outcome.headers:
            # Others were refused by the front door, which has counted them.
            self.refused(outcome.status or 0, outcome.kind)
        if outcome.is_unassessable:
            self._unassessable.labels(model, version, kind).inc()
        if "engine" in found:
            self._engines.labels(model, version, str(found["engine"]), str(found.get("precision", ""))).inc()
        self._timing(outcome, model, version)

    def _timing(self, outcome: Outcome, model: str, version: str) -> None:
        try:
            rows, begun = int(outcome.headers[BATCH]), float(outcome.headers[BEGUN])
        except (KeyError, ValueError):
            return
        self._rows.labels(model, version).observe(rows)
        if outcome.forwarded is not None:
            self._queue.labels(model, version, outcome.head.kind).observe(max(0.0, begun - outcome.forwarded))


class MetricsPage:
    """ASGI app of ``/metrics``; needs a key with the role ``metrics``.

    Args:
        metrics: The metrics.
        access: Keys of clients.
        fleet: Models of TorchServe.
        forwarder: Requests that are at work.
    """

    def __init__(self, metrics: Metrics, access: Access, fleet: Fleet, forwarder: Forwarder) -> None:
        self._metrics, self._access, self._fleet, self._forwarder = metrics, access, fleet, forwarder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self._access.check(headers_of(scope), "metrics")
        await self._look()
        body = generate_latest(self._metrics.registry)
        headers = {"content-type": CONTENT_TYPE_PLAIN_0_0_4, "content-length": str(len(body))}
        await respond(send, HTTPStatus.OK, headers, body)

    async def _look(self) -> None:
        """Set the gauges to what is so now."""
        metrics, now = self._metrics, time.monotonic()
        for gauge in (metrics.under_way, metrics.oldest, metrics.ready, metrics.workers, metrics.waiting):
            gauge.clear()
        try:
            names = await self._fleet.names()
        except (httpx.HTTPError, Refused, ValueError, LookupError):
            names = []
        metrics.is_reached.set(bool(names))
        for name in names:
            for kind in ("predict", "explain"):
                metrics.under_way.labels(name, kind).set(0)
                metrics.oldest.labels(name, kind).set(0)
            for each in await self._fleet.versions(name):
                metrics.ready.labels(name, each.version).set(each.n_ready)
                metrics.workers.labels(name, each.version).set(each.n_workers)
                metrics.waiting.labels(name, each.version).set(each.n_waiting)
        # The oldest come last, so that their age is what remains.
        for outcome in sorted(self._forwarder.under_way, key=lambda each: -each.arrived):
            labels = (outcome.head.model, outcome.head.kind)
            if outcome.head.model in names:
                metrics.under_way.labels(*labels).inc()
                if not outcome.has_begun:
                    metrics.oldest.labels(*labels).set(now - outcome.arrived)
