"""HTTP/1.1 of uvicorn (RFC 9112), with JSON errors for requests that cannot be parsed, and an end to slow ones.

uvicorn answers what it cannot parse with a plain 400, waits for a head without end, and reads a refused body without
end. This class answers with the status that h11 names and an identifier, and closes such connections in time.
"""

import asyncio
import sys
from http import HTTPStatus
from uuid import uuid4

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from radlens.web.refusals import error_body, error_headers

__all__ = ["protocol"]

_KINDS = {
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "HeaderTooLarge",
    HTTPStatus.NOT_IMPLEMENTED: "NotImplemented",
    HTTPStatus.REQUEST_TIMEOUT: "RequestTimeout",
}


def protocol(head_s: float, linger_s: float) -> type[H11Protocol]:
    """Return the protocol for uvicorn.

    Args:
        head_s: Largest number of seconds for the head of a request.
        linger_s: Largest number of seconds for which the rest of a refused body is read.
    """

    class Protocol(_Protocol):
        limits = (head_s, linger_s)

    return Protocol


class _Protocol(H11Protocol):
    limits: tuple[float, float]
    _timer: asyncio.TimerHandle | None = None
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._limit(self.limits[0])

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        if self.conn.their_state is h11.IDLE and self._timer is None:
            self._limit(self.limits[0])
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE and not self._is_lingering():
            self._unlimit()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unlimit()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_lingering():
            self._limit(self.limits[1])

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be parsed; uvicorn calls this while it handles the error of h11."""
        error = sys.exception()
        hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else HTTPStatus.BAD_REQUEST
        # h11 says 400 for a body that is not valid as well, which may be that of a request that is being answered.
        if self.cycle is not None and not self.cycle.response_complete:
            has_started = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if has_started:
                self.transport.close()
                return
        self._refuse(HTTPStatus(hint), "expected a valid HTTP/1.1 request, got one that is not")

    def _is_lingering(self) -> bool:
        return self.cycle is not None and self.cycle.response_complete and self.conn.their_state is h11.SEND_BODY

    def _limit(self, seconds: float) -> None:
        self._unlimit()
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _unlimit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        unread, _ = self.conn.trailing_data
        if self.conn.their_state is h11.IDLE and unread:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the head must arrive within {self.limits[0]:g} s, got a part")
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        request_id = uuid4().hex
        body = error_body(status, _KINDS.get(status, "InvalidInput"), message, request_id)
        headers = [*error_headers(body, request_id).items(), ("connection", "close")]
        reason = status.phrase.encode()
        for event in (
            h11.Response(status_code=status, headers=headers, reason=reason),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            if data := self.conn.send(event):
                self.transport.write(data)
        # A client that is still sending would get a reset in place of the answer if the connection closed now.
        self._is_refused = True
        self.transport.write_eof()
        self._limit(self.limits[1])
