"""An HTTP server in this process, for commands that ask one."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from radlens.families.cdmam.manifest import Bundle
from radlens.families.classifier.manifest import ClassifierBundle
from radlens.local import LocalTransport


@contextmanager
def serving(bundle: Bundle | ClassifierBundle, *others: str) -> Iterator[str]:
    """Give the address of an HTTP server in this process that answers with a bundle and wants the key ``secret``.

    Args:
        bundle: Model that answers.
        others: Names of models that it has as well, as it says.
    """
    transport, names = LocalTransport(bundle), (bundle.manifest.name, *others)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.headers["Authorization"] != "Bearer secret":
                self.send_error(400)
                return
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = httpx.Request("POST", f"http://local{self.path}", headers=dict(self.headers), content=body)
            response = transport.handle_request(request)
            self.send_response(response.status_code)
            for name, value in response.headers.items():
                if name != "content-length":
                    self.send_header(name, value)
            self.end_headers()
            for piece in response.stream:
                self.wfile.write(piece)

        def do_GET(self) -> None:
            if self.path != "/health/ready":
                self.send_error(404)
                return
            models = [{"model": name, "version": "1.0", "ready": True, "reason": ""} for name in names]
            body = json.dumps({"status": "ready", "models": models}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
