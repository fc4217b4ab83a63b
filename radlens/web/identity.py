"""Outermost layer of the app: each request has an identifier, and each error is a JSON document that states it."""

import logging
import re
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from radlens.web.refusals import Refused, error_body, error_headers
from radlens.web.uploads import ClientGone, Receive
from radlens.wire import REQUEST_ID, REQUEST_ID_PATTERN

__all__ = ["App", "Identified", "Message", "Scope", "Send", "headers_of", "request_id_of", "respond"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger("radlens.web")


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers of a request by lower-case name; repeated ones are joined (RFC 9110 section 5.2)."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def request_id_of(scope: Scope) -> str:
    """Return the identifier of a request: the client's if it is valid, otherwise a new one."""
    stated: str | None = scope.get("radlens.request_id")
    if stated is None:
        own = dict(scope["headers"]).get(REQUEST_ID.encode(), b"").decode("latin-1")
        stated = own if re.fullmatch(REQUEST_ID_PATTERN, own) else uuid4().hex
        scope["radlens.request_id"] = stated
    return stated


async def respond(send: Send, status: int, headers: MutableMapping[str, str], body: bytes) -> None:
    """Send a complete response."""
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


class Identified:
    """Middleware that gives every response its identifier, and every exception its answer.

    Args:
        app: The app behind it.
        refused: Called with status and type of each error.
    """

    def __init__(self, app: App, refused: Callable[[int, str], None]) -> None:
        self._app, self._refused = app, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientGone:
            return
        except Exception as error:
            if exchange.has_started:
                # The connection closes: the client must not take the broken answer for a complete one.
                raise ConnectionAbortedError("the answer broke off") from None
            refused = _as_refused(error, exchange.request_id)
            self._refused(refused.status, refused.kind)
            is_v2 = scope["path"].startswith("/v2/")
            body = error_body(refused.status, refused.kind, str(refused), exchange.request_id, is_v2=is_v2)
            headers = error_headers(body, exchange.request_id) | refused.headers
            await respond(exchange.send, refused.status, headers, body)


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.request_id, self.has_started = request_id_of(scope), False
        self._receive, self._send, self._was_read = receive, send, False
        self._waits = (b"expect", b"100-continue") in [(name, value.lower()) for name, value in scope["headers"]]

    async def receive(self) -> Message:
        self._was_read = True
        return await self._receive()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_started = True
            name = REQUEST_ID.encode()
            headers = [each for each in message.get("headers", []) if each[0].lower() != name]
            headers.append((name, self.request_id.encode()))
            if self._waits and not self._was_read:
                # The client may send its body or not: what follows on this connection has no certain meaning.
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)


def _as_refused(error: Exception, request_id: str) -> Refused:
    if isinstance(error, Refused):
        return error
    # An exception may quote its input: only its type and its place are logged.
    place = "".join(traceback.format_tb(error.__traceback__))
    _log.error("request %s: %s, message withheld\n%s", request_id, type(error).__name__, place)
    message = f"internal error, logged under request {request_id}"
    return Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError", message)
