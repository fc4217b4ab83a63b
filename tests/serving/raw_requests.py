"""Requests over connections of their own, which a test can close in the middle."""

import socket
import time
from pathlib import Path

LONG = {"application/x-ndjson": "n_samples=50000&n_steps=100", "image/png": "n_samples=600&n_steps=100"}
"""Evaluations of the model for hours on two cores, and as many as one plain answer may take."""


def begin(server, path, body, accept, **headers):
    """Ask for an explanation over a connection of its own, and return the connection."""
    head = {
        "Host": "h",
        "Authorization": f"Bearer {server.state.keys().inference}",
        "Accept": accept,
        "Content-Length": str(len(body)),
        **headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    connection = socket.create_connection(("127.0.0.1", server.state.ports.gateway), timeout=60)
    connection.sendall(f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
    return connection


def live(server) -> list[Path]:
    """Return the files of requests that are waited for."""
    return list((server.state.workdir / "tmp" / "front-door" / "live").iterdir())


def until(is_so, within_s=60.0):
    """Wait until something is so."""
    end = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.05)
