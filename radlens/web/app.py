"""The front door as an ASGI app (Starlette's router), and the server that runs it (uvicorn)."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus

import httpx
import uvicorn
from starlette.routing import Route, Router

from radlens.audit import AUDIT_FILE, AuditLog
from radlens.keys import KeyRing
from radlens.waiting import MODELS
from radlens.web.access import Access, TorchserveKeys
from radlens.web.auditing import Auditor
from radlens.web.fleet import Fleet
from radlens.web.forwarding import Forwarder
from radlens.web.health import Live, Readiness, Ready
from radlens.web.identity import App, Identified, Scope, Send, respond
from radlens.web.inference import Infer, ModelMetadata, ModelReady, ServerHealth, ServerMetadata
from radlens.web.metrics import Metrics, MetricsPage
from radlens.web.openapi import OpenApi
from radlens.web.page import DocsPage
from radlens.web.protocol import protocol
from radlens.web.refusals import Refused
from radlens.web.settings import Settings
from radlens.web.uploads import Receive

__all__ = ["make_app", "make_server"]

_HOST = "127.0.0.1"

_PING_TIMEOUT_S = 5.0


def make_app(settings: Settings) -> App:
    """Return the app.

    Args:
        settings: Addresses and limits.
    """
    # A connection of its own for each request, so that nothing of one can be read as part of another.
    http = httpx.AsyncClient(
        timeout=httpx.Timeout(None, connect=10.0),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        trust_env=False,
        headers={"accept-encoding": "identity", "user-agent": "radlens"},
    )
    keys = TorchserveKeys(settings.workdir, is_open=settings.is_open)
    fleet = Fleet(settings.management_socket, keys)
    metrics = Metrics()
    auditor = Auditor(AuditLog(settings.workdir / AUDIT_FILE), metrics.audit_failed)
    access = Access(KeyRing.of(settings.workdir), is_open=settings.is_open, refused=auditor.refused)
    forwarder = Forwarder(http, settings, access, keys, fleet, (metrics.seen, auditor.seen))
    readiness = Readiness(http, settings, keys, fleet, forwarder)

    openapi = OpenApi(access, fleet, settings.shared_folder / MODELS, settings.max_body)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        await forwarder.close()
        await http.aclose()
        await fleet.close()
        auditor.close()

    routes = [
        _route("/predictions/{rest:path}", forwarder, "POST"),
        _route("/explanations/{rest:path}", forwarder, "POST"),
        _route("/health/live", Live(), "GET", "HEAD"),
        _route("/health/ready", Ready(readiness), "GET", "HEAD"),
        _route("/metrics", MetricsPage(metrics, access, fleet, forwarder), "GET", "HEAD"),
        _route("/openapi.json", openapi, "GET", "HEAD"),
        _route("/docs", DocsPage(), "GET", "HEAD"),
        _route("/v2", ServerMetadata(), "GET", "HEAD"),
        _route("/v2/health/live", ServerHealth(None), "GET", "HEAD"),
        _route("/v2/health/ready", ServerHealth(readiness), "GET", "HEAD"),
        *_of_model("", ModelMetadata(access, openapi), "GET", "HEAD"),
        *_of_model("/ready", ModelReady(readiness), "GET", "HEAD"),
        *_of_model("/infer", Infer(access, forwarder, settings), "POST"),
        _route("/ping", _Ping(http, settings), "GET", "HEAD"),
    ]
    return Identified(Router(routes, redirect_slashes=False, default=_nowhere, lifespan=lifespan), metrics.refused)


def make_server(app: App, port: int, settings: Settings) -> uvicorn.Server:
    """Return the server of an app on a port of 127.0.0.1; it is not started."""
    # No line for a request, and none for one that cannot be parsed: either may hold what a log must not.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        app,
        host=_HOST,
        port=port,
        http=protocol(settings.head_s, settings.linger_s),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(settings.idle_s),
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=settings.max_head,
    )
    return uvicorn.Server(config)


def _route(path: str, endpoint: App, *methods: str) -> Route:
    return Route(path, _Methods(endpoint, methods))


def _of_model(suffix: str, endpoint: App, *methods: str) -> tuple[Route, Route]:
    path = "/v2/models/{model}"
    return _route(path + suffix, endpoint, *methods), _route(path + "/versions/{version}" + suffix, endpoint, *methods)


class _Methods:
    """An endpoint that answers some methods, and OPTIONS."""

    def __init__(self, endpoint: App, methods: Sequence[str]) -> None:
        self._endpoint, self._methods, self._allow = endpoint, methods, ", ".join(sorted([*methods, "OPTIONS"]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in self._methods:
            await self._endpoint(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await respond(send, HTTPStatus.NO_CONTENT, {"Allow": self._allow}, b"")
        else:
            message = f"the method must be one of {self._allow}, got another one"
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", message, {"Allow": self._allow})


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise RuntimeError(f"expected an HTTP request, got {scope['type']}")
    if scope["method"] == "OPTIONS" and scope["path"] == "*":
        await respond(send, HTTPStatus.NO_CONTENT, {"Allow": "GET, HEAD, OPTIONS, POST"}, b"")
        return
    message = "path must be one that this server has, such as /predictions/MODEL or /explanations/MODEL"
    raise Refused(HTTPStatus.NOT_FOUND, "ResourceNotFoundException", message)


class _Ping:
    """TorchServe's own sign of life, which says nothing of its models."""

    def __init__(self, http: httpx.AsyncClient, settings: Settings) -> None:
        self._http, self._url = http, f"{settings.inference_url}/ping"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._http.get(self._url, timeout=_PING_TIMEOUT_S)
        except httpx.HTTPError:
            message = "TorchServe must run behind the front door, got no answer"
            raise Refused(HTTPStatus.BAD_GATEWAY, "ServerError", message) from None
        headers = {"content-type": "application/json", "content-length": str(len(answer.content))}
        await respond(send, answer.status_code, headers, answer.content)
