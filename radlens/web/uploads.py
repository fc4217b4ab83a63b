"""The body of a request as it arrives: bounded in size and time, decoded from gzip (RFC 1952), not stored."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, Protocol

from radlens.web.refusals import Refused
from radlens.web.settings import Settings

__all__ = ["Body", "ClientGone", "Receive", "StoredBody", "Upload"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_CODINGS = ("gzip", "x-gzip")

_PIECE = 256 * 1024
"""Largest number of inflated bytes in memory."""


class ClientGone(Exception):
    """The connection of the client has ended."""


class Body(Protocol):
    """A body that is forwarded.

    Attributes:
        is_complete: Whether all of the body has been read.
        ended: Event that is set as soon as nobody reads the body any more.
    """

    is_complete: bool
    ended: asyncio.Event

    @property
    def headers(self) -> dict[str, str]:
        """Headers that describe the length of what `pieces` yields."""

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body; can be read once."""

    async def until_gone(self) -> None:
        """Wait until the client leaves after its body has ended."""


async def _until_gone(ended: asyncio.Event, receive: Receive) -> None:
    await ended.wait()
    while (await receive())["type"] != "http.disconnect":
        pass


class StoredBody:
    """A body in memory, of a request whose own body has been read.

    Args:
        content: The body.
        receive: ASGI function of the request.

    Attributes:
        is_complete: Whether all of the body has been read.
        ended: Event that is set as soon as nobody reads the body any more.
    """

    def __init__(self, content: bytes, receive: Receive) -> None:
        self._content, self._receive = content, receive
        self.is_complete, self.ended = False, asyncio.Event()

    @property
    def headers(self) -> dict[str, str]:
        """Headers that describe the length of the body."""
        return {"content-length": str(len(self._content))}

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        yield self._content
        self.is_complete = True
        self.ended.set()

    async def until_gone(self) -> None:
        """Wait until the client leaves."""
        await _until_gone(self.ended, self._receive)


class Upload:
    """The body of one request; can be read once.

    Args:
        receive: ASGI function of the request.
        headers: Headers of the request, with lower-case names.
        settings: Limits.

    Attributes:
        is_complete: Whether all of the body has been read.
        ended: Event that is set as soon as nobody reads the body any more.

    Raises:
        Refused: The stated length exceeds the limit or is missing, or the body is coded in another way than gzip.
    """

    def __init__(self, receive: Receive, headers: Mapping[str, str], settings: Settings) -> None:
        self._receive, self._settings = receive, settings
        self._inflate = _coding(headers) is not None
        self.length = _stated_length(headers, settings.max_body)
        self.is_complete = False
        self.ended = asyncio.Event()

    @property
    def headers(self) -> dict[str, str]:
        """Headers that describe the length of what `pieces` yields."""
        # The length after inflating is not known.
        if self.length is None or self._inflate:
            return {"transfer-encoding": "chunked"}
        return {"content-length": str(self.length)}

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the decoded body.

        Raises:
            Refused: The body exceeds the limit, stalls, takes too long, or is not valid gzip.
            ClientGone: The connection ended before the body did.
        """
        try:
            inflated, n_bytes, n_received = _Inflated() if self._inflate else None, 0, 0
            async for received in self._received():
                n_received += len(received)
                if n_received > self._settings.max_body:
                    # Also of gzip that inflates to nothing, such as empty members without end.
                    raise _too_large(self._settings.max_body, "one that is larger")
                for piece in [received] if inflated is None else inflated.feed(received):
                    n_bytes += len(piece)
                    if n_bytes > self._settings.max_body:
                        got = "one that is larger" + (" when it is inflated" if inflated else "")
                        raise _too_large(self._settings.max_body, got)
                    if piece:
                        yield piece
            if inflated is not None:
                inflated.require_end()
            self.is_complete = True
        finally:
            self.ended.set()

    async def until_gone(self) -> None:
        """Wait until the client leaves after its body has ended."""
        await _until_gone(self.ended, self._receive)

    async def _received(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.upload_s
        while True:
            try:
                async with asyncio.timeout_at(min(end, loop.time() + self._settings.stall_s)):
                    message = await self._receive()
            except TimeoutError:
                raise Refused(
                    HTTPStatus.REQUEST_TIMEOUT,
                    "RequestTimeout",
                    f"the body must arrive within {self._settings.upload_s:g} s and never pause for "
                    f"{self._settings.stall_s:g} s, got one that did not",
                    {"Connection": "close"},
                ) from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            yield message.get("body", b"")
            if not message.get("more_body", False):
                return


class _Inflated:
    """A gzip stream that is inflated in bounded pieces; members follow each other (RFC 1952 section 2.2)."""

    def __init__(self) -> None:
        self._decoder, self._began = self._new(), False

    @staticmethod
    def _new() -> Any:
        return zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` adds."""
        self._began |= bool(data)
        try:
            while data:
                if self._decoder.eof:
                    self._decoder = self._new()
                piece = self._decoder.decompress(data, _PIECE)
                data = self._decoder.unconsumed_tail or self._decoder.unused_data
                yield piece
            # A full piece may leave more inside the decoder without any input that is left.
            while not self._decoder.eof and (piece := self._decoder.decompress(b"", _PIECE)):
                yield piece
        except zlib.error:
            raise _damaged() from None

    def require_end(self) -> None:
        """Check that the stream is complete."""
        if not (self._began and self._decoder.eof):
            raise _damaged()


def _damaged() -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, "InvalidInput", "expected a complete gzip stream, got a damaged one")


def _coding(headers: Mapping[str, str]) -> str | None:
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        return None
    if coding in _CODINGS:
        return coding
    raise Refused(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "UnsupportedMediaType",
        f"Content-Encoding must be gzip or identity, got {coding[:40]!a}",
        # RFC 9110 section 12.5.3
        {"Accept-Encoding": "gzip, identity"},
    )


def _stated_length(headers: Mapping[str, str], max_body: int) -> int | None:
    """Return the length of the body; None for a body in chunks."""
    if "transfer-encoding" in headers:
        return None
    if "content-length" not in headers:
        message = "expected a body with its Content-Length or in chunks, got neither"
        raise Refused(HTTPStatus.LENGTH_REQUIRED, "InvalidInput", message)
    # The parser has checked that there is one length, and that it consists of digits.
    length = int(headers["content-length"])
    if length > max_body:
        raise _too_large(max_body, str(length))
    return length


def _too_large(max_body: int, got: str) -> Refused:
    message = f"body must have at most {max_body} bytes, got {got}"
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "InvalidInput", message)
