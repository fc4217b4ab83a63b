"""The first part of a ``multipart/related`` body, written as it arrives: RFC 2387 and RFC 2046 section 5.1."""

from __future__ import annotations

from email.message import Message
from typing import BinaryIO

from radlens.node.lanes import Refused, Unavailable

__all__ = ["PartWriter"]

_MOST_HEADER = 65_536
"""Largest number of bytes before the content of the part."""


class PartWriter:
    """Writer of the first part of a body.

    Args:
        content_type: Content-Type of the body.
        stream: file that the content of the part is written to.
        most_bytes: largest size of the content.

    Raises:
        Refused: the body is not ``multipart/related`` with a boundary.
    """

    def __init__(self, content_type: str, stream: BinaryIO, most_bytes: int) -> None:
        message = Message()
        message["Content-Type"] = content_type
        boundary = message.get_param("boundary")
        if message.get_content_type() != "multipart/related" or not isinstance(boundary, str) or not boundary:
            raise Refused("must answer WADO-RS as multipart/related with a boundary, got another type")
        self._open, self._close = f"--{boundary}".encode(), f"\r\n--{boundary}".encode()
        self._stream, self._most = stream, most_bytes
        self._held, self._is_inside, self._is_done, self._written = b"", False, False, 0

    def feed(self, piece: bytes) -> None:
        """Take more of the body.

        Raises:
            Refused: the part has no header, or is too large.
        """
        if self._is_done:
            return
        self._held += piece
        if not self._is_inside and not self._enter():
            return
        end = self._held.find(self._close)
        # The boundary may begin in the last bytes.
        ready = end if end >= 0 else max(0, len(self._held) - len(self._close) + 1)
        self._written += ready
        if self._written > self._most:
            raise Refused(f"instance must have at most {self._most} bytes, got more", is_final=True)
        self._stream.write(self._held[:ready])
        self._held, self._is_done = self._held[ready:], end >= 0

    def close(self) -> None:
        """End the body.

        Raises:
            Unavailable: the part is not complete.
        """
        if not self._is_done:
            raise Unavailable("must answer WADO-RS with a complete part, got a body that broke off")

    def _enter(self) -> bool:
        start = self._held.find(self._open)
        end = self._held.find(b"\r\n\r\n", start) if start >= 0 else -1
        if end < 0:
            if len(self._held) > _MOST_HEADER:
                raise Refused("must answer WADO-RS with parts, got a body without")
            return False
        self._held, self._is_inside = self._held[end + 4 :], True
        return True
