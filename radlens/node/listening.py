"""The port of the node: known addresses only, and a bounded number of connections.

pynetdicom 3.0 does the TLS handshake in the thread that accepts, without a time-out, so that one silent connection
stops all others; and it reads from sockets without a time-out, so that a half-sent PDU holds two threads for ever. A
connection that is closed before an association was requested, as health checks do, holds its threads until the ACSE
time-out (pynetdicom issue 669), so these are counted apart from associations.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from socketserver import BaseServer
from typing import Any

from pynetdicom import AE
from pynetdicom.transport import ThreadedAssociationServer

from radlens.node.settings import Peer

__all__ = ["HANDSHAKE_S", "Admission", "Port", "make_port"]

HANDSHAKE_S = 10.0
"""Seconds for a TLS handshake, and for the request of an association."""

SPARE = 32
"""Connections beyond the limit of associations, for health checks and for requests that are being rejected."""


class Admission:
    """Bound on associations; those that have ended do not count.

    Args:
        most: largest number of associations at the same time.
    """

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._admitted: list[threading.Thread] = []

    def admit(self, association: threading.Thread) -> bool:
        """Count an association in if there is room, and return whether there is."""
        with self._lock:
            self._admitted = [each for each in self._admitted if each.is_alive()]
            if len(self._admitted) >= self._most:
                return False
            self._admitted.append(association)
            return True


class Port(ThreadedAssociationServer):
    """Server of associations.

    Args:
        arguments: arguments of `ThreadedAssociationServer`; its ``ssl_context`` is used in the connection's thread.
        peers: senders whose addresses may connect.
        idle_s: seconds without data after which a read or write fails.
        most: largest number of associations.
        on_refused: called where a connection is refused.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        *arguments: Any,
        peers: Sequence[Peer],
        idle_s: float,
        most: int,
        on_refused: Callable[[str], None],
        **named: Any,
    ) -> None:
        self._peers, self._idle_s, self._most, self._on_refused = peers, idle_s, most, on_refused
        self._tls: ssl.SSLContext | None = named.pop("ssl_context", None)
        super().__init__(*arguments, **named)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether there is room for a connection."""
        if len(self.active_associations) >= self._most + SPARE:
            self._on_refused("too many connections")
            return False
        return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Check the address, do the TLS handshake, if there is one, and start the association."""
        # Not in the thread that accepts: the name of a peer may have to be resolved.
        if not any(peer.is_at(client_address[0]) for peer in self._peers):
            self._on_refused("unknown address")
            self.shutdown_request(request)
            return
        request.settimeout(HANDSHAKE_S)
        if self._tls is not None:
            try:
                request = self._tls.wrap_socket(request, server_side=True)
            except (OSError, ValueError):
                self._on_refused("TLS handshake failed")
                self.shutdown_request(request)
                return
        request.settimeout(self._idle_s)
        request.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        super().process_request_thread(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; one that the other side has reset is closed as well."""
        try:
            super().shutdown_request(request)
        except OSError:
            request.close()

    def shutdown(self) -> None:
        """Stop to listen."""
        BaseServer.shutdown(self)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Count a connection whose association could not be started; the traceback might quote what was sent."""
        self._on_refused("failed connection")


def make_port(ae: AE, address: tuple[str, int], handlers: list[Any], **named: Any) -> Port:
    """Return a server of associations that listens; the other arguments are those of `Port`."""

    def bound(*arguments: Any, **others: Any) -> Port:
        return Port(*arguments, **(others | named))

    return ae.make_server(address, evt_handlers=handlers, server_class=bound)  # type: ignore[arg-type, return-value]
