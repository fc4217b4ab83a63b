"""Forward predictions and explanations to TorchServe; bodies stream in both directions and are not stored.

TorchServe does not notice that a client leaves. The answer is then read to its end and dropped, so that the turn of the
request ends when its worker is free, and not before; the worker itself ends between two steps (`radlens.waiting`).
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx

from radlens import waiting
from radlens.errors import NotAssessable
from radlens.web.access import Access, TorchserveKeys
from radlens.web.fleet import Fleet, Standing
from radlens.web.heads import Head, read_head
from radlens.web.identity import Scope, Send, headers_of, request_id_of
from radlens.web.presence import Presence, Presences
from radlens.web.refusals import Refused, error_body, later
from radlens.web.settings import Settings
from radlens.web.turns import Turns, most_explanations
from radlens.web.uploads import Body, ClientGone, Receive, Upload
from radlens.wire import BATCH, BEGUN, JSON, LENGTH, LIVE, NDJSON, REQUEST_ID

__all__ = ["Forwarder", "Outcome", "Seen"]

_NOT_RETURNED = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "ts_stream_next", "date", REQUEST_ID, BATCH, BEGUN, LENGTH}
)

_MOST_ERROR = 1024 * 1024
"""Largest error of TorchServe in bytes that is read."""

_POLL_S = 1.0

_UNASSESSABLE = b'"assessable": false'
"""Field of every JSON answer about an image that a model cannot judge."""

_INSUFFICIENT_STORAGE = 507


@dataclass(eq=False)
class Outcome:
    """What became of a request.

    Attributes:
        head: The request.
        key: Name of the client's key; None where no key is needed.
        request_id: Identifier of the request.
        arrived: Second of the machine's monotonic clock at which it arrived.
        status: HTTP status of the answer; None before there is one.
        headers: Headers of the worker's answer.
        abandoned: Whether its client left, or its deadline passed, after it was forwarded.
        answered: Second of the same clock at which its answer was complete; None if it was not.
        work_ended: Second of the same clock at which nothing of it was at work any more.
        version: Version that answers, as far as it is known.
        forwarded: Second of the machine's monotonic clock at which it was handed to TorchServe; None if it was not.
        has_begun: Whether its answer has begun.
        is_unassessable: Whether its answer says, in JSON, that the image cannot be judged.
        kind: Type of the error; empty for an answer.
    """

    head: Head
    key: str | None
    request_id: str
    arrived: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    abandoned: bool = False
    answered: float | None = None
    work_ended: float | None = None
    version: str | None = None
    forwarded: float | None = None
    has_begun: bool = False
    is_unassessable: bool = False
    kind: str = ""


Seen = Callable[[Outcome], None]
"""Called once for each request, when nothing of it is at work any more."""


class Forwarder:
    """ASGI app of the routes of predictions and explanations.

    Args:
        http: HTTP client.
        settings: Addresses and limits.
        access: Keys of clients.
        keys: Keys of TorchServe.
        fleet: Models of TorchServe.
        seen: Functions that are told of each request.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        settings: Settings,
        access: Access,
        keys: TorchserveKeys,
        fleet: Fleet,
        seen: tuple[Seen, ...] = (),
    ) -> None:
        self._http, self._settings, self._access, self._keys, self._fleet = http, settings, access, keys, fleet
        self._presences = Presences(settings.shared_folder / waiting.LIVE)
        self._turns = Turns(settings.turn_s, settings.retry_s)
        self._seen = seen
        self._work: set[asyncio.Task[None]] = set()
        self.under_way: set[Outcome] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = headers_of(scope)
        head = read_head(scope, headers)
        key = self._access.check(headers, head.kind)
        await self.forward(head, key, request_id_of(scope), Upload(receive, headers, self._settings), send)

    async def forward(self, head: Head, key: str | None, request_id: str, upload: Body, send: Send) -> None:
        """Ask TorchServe, and send its answer.

        Args:
            head: The request.
            key: Name of the client's key.
            request_id: Identifier of the request.
            upload: Its body.
            send: ASGI function of the response.

        Raises:
            Refused: The request cannot be answered, and nothing has been sent.
            ClientGone: The client has left before its body was complete.
        """
        outcome = Outcome(head, key, request_id, time.monotonic())
        if len(self._work) >= self._settings.most_requests:
            raise later(f"at most {self._settings.most_requests} requests may be at work, got one more", self._retry_s)
        exchange = _Exchange(self, outcome, upload, send)
        work = asyncio.create_task(exchange.run())
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        await exchange.watch(work)

    async def close(self) -> None:
        """End all work that is left."""
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    @property
    def _retry_s(self) -> int:
        return self._settings.retry_s

    async def _standing(self, head: Head) -> Standing | None:
        """Return the version that is asked for; None if it is unknown, which TorchServe will say itself."""
        found = await self._fleet.find(head.model, head.version)
        if found is not None and not found.n_ready:
            found = await self._fleet.find(head.model, head.version, fresh_s=0)
        if found is not None and not found.n_ready:
            raise self._no_worker(head, found)
        return found

    def _no_worker(self, head: Head, found: Standing) -> Refused:
        message = f"a worker of {head.model} {found.version} must be ready, got none of {found.n_workers}"
        return later(message, self._retry_s)

    async def _lost(self, head: Head) -> None:
        """Raise as soon as the model of a request has had no worker for a while."""
        since = None
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_POLL_S)
            found = await self._fleet.find(head.model, head.version)
            since = (since or loop.time()) if found is not None and not found.n_ready else None
            if found is not None and since is not None and loop.time() - since >= self._settings.lost_s:
                raise self._no_worker(head, found)


class _Exchange:
    """One request on its way: ``run`` asks TorchServe, ``watch`` waits for the client to leave."""

    def __init__(self, door: Forwarder, outcome: Outcome, upload: Body, send: Send) -> None:
        self._door, self._outcome, self._upload, self._send = door, outcome, upload, send
        self._settings = door._settings
        self._lock = asyncio.Lock()
        self._presence: Presence | None = None
        self._has_started = self._is_over = False
        self._is_lines, self._ends_a_line = False, True

    async def watch(self, work: asyncio.Task[None]) -> None:
        """Wait until the answer is complete, the client has left, or its deadline has passed."""
        gone = asyncio.create_task(self._upload.until_gone())
        try:
            deadline_s = self._outcome.head.deadline_s
            await asyncio.wait({work, gone}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            elif self._is_over:
                # The answer is complete, and what TorchServe has to say beside it is nobody's business.
                work.add_done_callback(_drop)
            elif gone.done():
                await self._leave(work)
                raise ClientGone
            else:
                await self._expire(work)
        except asyncio.CancelledError:
            await self._leave(work)
            raise
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone

    async def run(self) -> None:
        """Ask TorchServe and send the answer; without a client, wait for its end."""
        outcome = self._outcome
        self._door.under_way.add(outcome)
        try:
            await self._ask()
        except Refused as refused:
            outcome.status, outcome.kind = refused.status, refused.kind
            raise
        finally:
            outcome.work_ended = time.monotonic()
            self._door.under_way.discard(outcome)
            for seen in self._door._seen:
                seen(outcome)

    async def _ask(self) -> None:
        head, door = self._outcome.head, self._door
        async with AsyncExitStack() as stack:
            standing = await door._standing(head)
            self._outcome.version = None if standing is None else standing.version
            if head.kind == "explain" and standing is not None:
                place = (head.model, standing.version)
                await stack.enter_async_context(door._turns.one(place, most_explanations(standing.n_workers)))
            self._presence = stack.enter_context(door._presences.one())
            response = await stack.enter_async_context(self._answer())
            self._upload.ended.set()
            self._outcome.headers, self._outcome.has_begun = response.headers, True
            if response.is_error and "json" in response.headers.get("content-type", "json"):
                await self._return_error(response)
            else:
                await self._return(response)

    @asynccontextmanager
    async def _answer(self) -> AsyncIterator[httpx.Response]:
        """Send the request to TorchServe, and yield its answer, whose body is not read yet."""
        head, door = self._outcome.head, self._door
        assert self._presence is not None, "a request that is forwarded has a file"
        headers = {**head.headers, **self._upload.headers, **door._keys.inference()}
        headers |= {REQUEST_ID: self._outcome.request_id, LIVE: self._presence.name}
        request = door._http.build_request(
            "POST", self._settings.inference_url + head.path, headers=headers, content=self._upload.pieces()
        )
        self._outcome.forwarded = time.monotonic()
        asking = asyncio.create_task(door._http.send(request, stream=True))
        lost = asyncio.create_task(door._lost(head))
        try:
            await asyncio.wait({asking, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                lost.result()
            response = await asking
        except httpx.ConnectError:
            message = "TorchServe must run behind the front door, got no connection"
            raise Refused(HTTPStatus.BAD_GATEWAY, "ServerError", message) from None
        except httpx.HTTPError:
            message = "TorchServe must answer, got a connection that closed"
            raise Refused(HTTPStatus.BAD_GATEWAY, "ServerError", message) from None
        finally:
            for task in (asking, lost):
                task.cancel()
            await asyncio.gather(asking, lost, return_exceptions=True)
        try:
            yield response
        finally:
            await response.aclose()

    async def _return_error(self, response: httpx.Response) -> None:
        raw = b""
        with suppress(httpx.HTTPError):
            async for piece in response.aiter_raw():
                raw += piece[: _MOST_ERROR - len(raw)]
        try:
            document = json.loads(raw)
            kind, message = str(document["type"]), str(document["message"])
            self._outcome.kind, self._outcome.is_unassessable = kind, kind == NotAssessable.__name__
        except (ValueError, LookupError, TypeError):
            document, kind, message = (
                {},
                "ServerError",
                "TorchServe must answer in JSON, got another error",
            )
        if "request_id" not in document:
            raise self._from_torchserve(response.status_code, kind, message)
        headers = _returned(response, len(raw))
        if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", str(self._settings.retry_s).encode()))
        await self._begin(response.status_code, headers)
        await self._pass_on(raw, more=False)

    def _from_torchserve(self, status: int, kind: str, message: str) -> Refused:
        """Return the error of the front door for an error of TorchServe itself."""
        retry_s = self._settings.retry_s
        if status == _INSUFFICIENT_STORAGE:
            return later("a worker must live until it has answered, got one that ended or had no memory left", retry_s)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return later("TorchServe must have room in its queue and a worker, got one that lacks either", retry_s)
        if kind == "InvalidKeyException":
            return later("the server must have started, got one that is starting", 2)
        return Refused(status, kind, message)

    async def _return(self, response: httpx.Response) -> None:
        length = response.headers.get(LENGTH, response.headers.get("content-length"))
        is_json = response.headers.get("content-type", "").startswith((JSON, NDJSON))
        self._is_lines = response.headers.get("content-type", "").startswith(NDJSON)
        await self._begin(response.status_code, _returned(response, None if length is None else int(length)))
        try:
            n_bytes, end = 0, b""
            async for piece in response.aiter_raw():
                n_bytes += len(piece)
                # The response of TorchServe may go on after the answer is complete, and is read to its end.
                await self._pass_on(piece, more=LENGTH not in response.headers or n_bytes < int(length))
                self._outcome.is_unassessable |= is_json and _UNASSESSABLE in end + piece
                end = piece[-len(_UNASSESSABLE) :]
        except httpx.HTTPError:
            if self._is_over:
                return
            await self._end_broken(HTTPStatus.BAD_GATEWAY, "ServerError", "a worker must finish its answer, got an end")
            return
        await self._pass_on(b"", more=False)

    async def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        async with self._lock:
            if not self._is_over:
                self._has_started, self._outcome.status = True, status
                await self._sent({"type": "http.response.start", "status": status, "headers": headers})

    async def _pass_on(self, piece: bytes, *, more: bool) -> None:
        async with self._lock:
            if not self._is_over:
                self._ends_a_line = piece.endswith(b"\n") if piece else self._ends_a_line
                if not more:
                    self._is_over, self._outcome.answered = True, time.monotonic()
                    self._end_presence()
                await self._sent({"type": "http.response.body", "body": piece, "more_body": more})

    async def _sent(self, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._settings.stall_s):
                await self._send(message)
        except TimeoutError:
            # The client does not read: it counts as one that has left.
            self._outcome.abandoned = True
            self._end_presence()
            raise ClientGone from None

    async def _end_broken(self, status: int, kind: str, message: str) -> None:
        """End an answer that has begun: JSON lines with a line that says so, others by closing the connection."""
        if not self._is_lines:
            raise ConnectionAbortedError("the answer broke off")
        fields = json.loads(error_body(status, kind, message, self._outcome.request_id))
        line = json.dumps({"event": "error", "complete": False, **fields}).encode() + b"\n"
        await self._pass_on(line if self._ends_a_line else b"\n" + line, more=False)

    async def _leave(self, work: asyncio.Task[None]) -> None:
        """Go on without the client: the worker is told, and an upload that is not complete ends."""
        self._is_over, self._outcome.abandoned = True, self._presence is not None
        self._end_presence()
        if not self._upload.is_complete:
            work.cancel()
        else:
            work.add_done_callback(_drop)

    async def _expire(self, work: asyncio.Task[None]) -> None:
        message = f"the answer must be complete within {self._outcome.head.deadline_s:g} s, got a deadline that passed"
        status, kind = HTTPStatus.GATEWAY_TIMEOUT, "DeadlineExceeded"
        if self._has_started:
            try:
                await self._end_broken(status, kind, message)
            finally:
                await self._leave(work)
            return
        await self._leave(work)
        self._outcome.status, self._outcome.kind = status, kind
        raise Refused(status, kind, message)

    def _end_presence(self) -> None:
        if self._presence is not None:
            self._presence.end()


def _drop(work: asyncio.Task[None]) -> None:
    """Take the result of work that nobody waits for."""
    if not work.cancelled():
        work.exception()


def _returned(response: httpx.Response, length: int | None) -> list[tuple[bytes, bytes]]:
    kept = [
        (name.lower(), value)
        for name, value in response.headers.raw
        if name.lower().decode("latin-1") not in _NOT_RETURNED | {"content-length"}
    ]
    return kept if length is None else [*kept, (b"content-length", str(length).encode())]
