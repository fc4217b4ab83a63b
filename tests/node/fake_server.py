"""A server in this process that answers explanations as DICOM, each time with another UID, and counts its answers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from node_parts import result_of

from radlens.wire import related


class FakeServer(ThreadingHTTPServer):
    """Server on loopback.

    Attributes:
        n_answers: number of answers.
        status: status of the answers; other than 200 an error.
        longest_s: largest number of seconds until an answer.
        asked: headers of the requests.
        token: key that questions about models need, and /ping does not; None for none.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.n_answers, self.status, self.longest_s = 0, 200, 0.0
        self.token: str | None = None
        self.asked: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_GET(self) -> None:
        has_key = self.headers["Authorization"] == f"Bearer {self.server.token}" or self.server.token is None
        self._send(200 if has_key or self.path == "/ping" else 401, "application/json", b"{}")

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append({"path": self.path, **{key.lower(): value for key, value in self.headers.items()}})
        time.sleep(random.uniform(0, self.server.longest_s))
        if self.server.status != 200:
            message = b'{"code": %d, "type": "InternalError", "message": "asked to fail"}' % self.server.status
            self._send(self.server.status, "application/json", message)
            return
        self.server.n_answers += 1
        self._send(200, *related([result_of(content, is_new=True)]))

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


@contextmanager
def fake_server() -> Iterator[FakeServer]:
    """Give a server that listens until the block ends."""
    with FakeServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
