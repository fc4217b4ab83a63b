"""HTTP gateway in front of TorchServe 0.12, which works around its treatment of requests.

- TorchServe drops the query string of ``/predictions`` and ``/explanations``. The gateway passes it in a header that
  handlers read.
- TorchServe parses bodies declared as a form, which is curl's default, and fails on images. The gateway declares them
  as bytes, and rejects multipart forms.
- TorchServe's HTTP parser is old and vulnerable to request smuggling. The gateway parses requests with h11, opens a
  separate connection to TorchServe for each request, and forwards only predictions, explanations and ``/ping``.

Bodies are streamed in both directions and are not stored. The gateway speaks HTTP/1.1 (RFC 9112) and listens only on
127.0.0.1.
"""

import argparse
import asyncio
import json
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import h11

from radlens.wire import JSON, QUERY

__all__ = ["Refused", "forwarded", "main", "serve"]

_HOST = "127.0.0.1"

_PATHS = ("/predictions/", "/explanations/", "/ping")

_NOT_FORWARDED = frozenset({b"connection", b"keep-alive", b"expect", b"te", b"trailer", b"upgrade", QUERY.encode()})
"""Headers of a single connection (RFC 9110 section 7.6.1), and the query header, which the gateway sets itself."""

_NOT_RETURNED = frozenset({b"connection", b"keep-alive", b"ts_stream_next"})

_CHUNK = 1024 * 1024
"""Largest number of bytes read at a time."""

_IDLE_S = 120.0
"""Seconds after which a connection without a request is closed."""

_LINGER_S = 10.0
"""Seconds for which the rest of a rejected body is read: a client that is still sending would miss the response."""


class Refused(Exception):
    """A rejected request.

    Args:
        code: HTTP status.
        kind: error type, as in the errors of TorchServe and of handlers.
        message: expected and actual value.
    """

    def __init__(self, code: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.code, self.kind = code, kind


def forwarded(request: h11.Request, max_body: int) -> h11.Request:
    """Return the request that is sent to TorchServe.

    Args:
        request: request of the client.
        max_body: largest body in bytes.

    Raises:
        Refused: the path or the media type is not forwarded, or the body is larger than ``max_body``.
    """
    path, _, query = request.target.decode("ascii").partition("?")
    if not path.startswith(_PATHS):
        raise Refused(404, "ResourceNotFoundException", "path must begin with /predictions/ or /explanations/")
    # h11 has converted the names of headers to lower case.
    headers = [(name, _declared(value) if name == b"content-type" else value) for name, value in request.headers]
    _require_size(headers, max_body)
    kept = [(name, value) for name, value in headers if name not in _NOT_FORWARDED]
    queries = [(QUERY.encode(), query.encode())] if query else [each for each in headers if each[0] == QUERY.encode()]
    return h11.Request(method=request.method, target=path, headers=[*kept, *queries, (b"connection", b"close")])


def _declared(content_type: bytes) -> bytes:
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type == b"multipart/form-data":
        message = "expected the bytes of an image as the body, got a multipart form; curl sends them with --data-binary"
        raise Refused(415, "UnsupportedMediaType", message)
    return b"application/octet-stream" if media_type == b"application/x-www-form-urlencoded" else content_type


def _require_size(headers: Sequence[tuple[bytes, bytes]], max_body: int) -> None:
    # h11 has checked that there is only one content length, and that it consists of digits.
    n_bytes = int(dict(headers).get(b"content-length", b"0"))
    if n_bytes > max_body:
        raise Refused(413, "InvalidInput", f"body must have at most {max_body} bytes, got {n_bytes}")


async def serve(port: int, torchserve_port: int, max_body: int) -> None:
    """Listen on ``port`` and forward to ``torchserve_port``, until cancelled."""
    talk = partial(_talk, torchserve_port=torchserve_port, max_body=max_body)
    async with await asyncio.start_server(talk, _HOST, port, limit=_CHUNK) as server:
        await server.serve_forever()


class _Peer:
    """Connection to a client or to TorchServe.

    Args:
        role: role of the gateway in this connection.
        reader: stream from the peer.
        writer: stream to the peer.
    """

    def __init__(self, role: type[h11.SERVER] | type[h11.CLIENT], reader: StreamReader, writer: StreamWriter) -> None:
        self.http, self.reader, self.writer = h11.Connection(role), reader, writer

    async def receive(self) -> Any:
        """Return the next event; h11 raises a protocol error if the connection ends too early."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            if self.http.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            self.http.receive_data(await self.reader.read(_CHUNK))
        return event

    async def send(self, event: Any) -> None:
        """Send an event."""
        if data := self.http.send(event):
            self.writer.write(data)
            await self.writer.drain()


async def _talk(reader: StreamReader, writer: StreamWriter, *, torchserve_port: int, max_body: int) -> None:
    """Serve the requests of one connection."""
    client = _Peer(h11.SERVER, reader, writer)
    try:
        # Errors of a connection affect only its client, who cannot be reached any more.
        with suppress(OSError, TimeoutError, h11.ProtocolError):
            while await _exchange(client, torchserve_port, max_body):
                client.http.start_next_cycle()
    finally:
        writer.close()


async def _exchange(client: _Peer, torchserve_port: int, max_body: int) -> bool:
    """Serve one request; return whether another can follow."""
    try:
        request = await asyncio.wait_for(client.receive(), _IDLE_S)
        if not isinstance(request, h11.Request):
            return False
        head = forwarded(request, max_body)
        torchserve = _Peer(h11.CLIENT, *await asyncio.open_connection(_HOST, torchserve_port, limit=_CHUNK))
    except h11.RemoteProtocolError as error:
        await _refuse(client, Refused(error.error_status_hint, "InvalidInput", "expected an HTTP/1.1 request"))
    except Refused as refused:
        await _refuse(client, refused)
    except ConnectionRefusedError:
        await _refuse(client, Refused(502, "ServerError", "TorchServe must run behind the gateway, got no connection"))
    else:
        return await _relayed(client, torchserve, head)
    return False


async def _relayed(client: _Peer, torchserve: _Peer, head: h11.Request) -> bool:
    """Relay a request and its response; return whether another request can follow."""
    try:
        await _relay(client, torchserve, head)
    except (OSError, h11.ProtocolError):
        if client.http.our_state is not h11.SEND_RESPONSE:
            raise
        await _refuse(client, Refused(502, "ServerError", "TorchServe must answer, got a connection that closed"))
    finally:
        torchserve.writer.close()
    return client.http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}


async def _relay(client: _Peer, torchserve: _Peer, head: h11.Request) -> None:
    """Forward the request, and relay the response at the same time."""
    # A response may begin before the request is complete, and both may be streams.
    sending = asyncio.create_task(_send_on(client, torchserve, head))
    try:
        while not isinstance(event := await torchserve.receive(), h11.EndOfMessage):
            await client.send(_returned(event) if isinstance(event, h11.Response) else event)
        await client.send(event)
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending


async def _send_on(client: _Peer, torchserve: _Peer, head: h11.Request) -> None:
    try:
        await torchserve.send(head)
        while not isinstance(event := await client.receive(), h11.EndOfMessage):
            await torchserve.send(event)
        await torchserve.send(event)
    except (OSError, h11.ProtocolError):
        # Wakes up _relay, which is waiting for the response.
        torchserve.writer.transport.abort()


def _returned(response: h11.Response) -> h11.Response:
    headers = [(name, value) for name, value in response.headers if name not in _NOT_RETURNED]
    return h11.Response(status_code=response.status_code, reason=response.reason, headers=headers)


async def _refuse(client: _Peer, refused: Refused) -> None:
    body = json.dumps({"code": refused.code, "type": refused.kind, "message": str(refused)}).encode()
    headers = [("Content-Type", JSON), ("Content-Length", str(len(body))), ("Connection", "close")]
    for event in (
        h11.Response(status_code=refused.code, headers=headers),
        h11.Data(data=body),
        h11.EndOfMessage(),
    ):
        await client.send(event)
    client.writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while await client.reader.read(_CHUNK):
                pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the gateway until it is killed."""
    parser = argparse.ArgumentParser(prog="python -m radlens.gateway", description="HTTP gateway before TorchServe.")
    parser.add_argument("--port", type=int, required=True, help="port of the gateway")
    parser.add_argument("--torchserve-port", type=int, required=True, help="inference port of TorchServe")
    parser.add_argument("--max-body", type=int, required=True, help="largest body of a request in bytes")
    parsed = parser.parse_args(arguments)
    asyncio.run(serve(parsed.port, parsed.torchserve_port, parsed.max_body))


if __name__ == "__main__":
    main()
