"""A front door before a TorchServe that is a few lines of ASGI, both in threads of this process, on loopback."""

import asyncio
import json
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from radlens.server import free_ports
from radlens.web.app import make_app, make_server
from radlens.web.settings import Settings

MAX_BODY = 1_000_000

TOKEN, MANAGEMENT = "secret-of-clients", "secret-of-management"

KEY = {"Authorization": f"Bearer {TOKEN}"}

Answer = Callable[["Asked", Callable[[Mapping[str, Any]], Awaitable[None]]], Awaitable[None]]


@dataclass
class Asked:
    """A request as it arrived behind the front door."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


async def whole(asked, send):
    """Answer with the length of the body."""
    text = json.dumps({"length": len(asked.body), "path": asked.path}).encode()
    await reply(send, 200, text, {"X-Radlens-Provenance": "{}", "ts_stream_next": "false"})


async def reply(send, status, body, headers=None):
    """Send a complete answer."""
    every = {"Content-Length": str(len(body)), "Content-Type": "application/json", **(headers or {})}
    raw = [(name.encode(), value.encode()) for name, value in every.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Torchserve:
    """What stands behind the front door; ``answer`` and ``models`` can be changed while it runs."""

    answer: Answer = whole
    models: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"cdmam": [version_of("1.0")]})
    seen: list[Asked] = field(default_factory=list)
    is_open: bool = False

    async def __call__(self, scope, receive, send):
        """Answer as TorchServe would."""
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        asked = Asked(scope["method"], scope["path"], headers, body)
        if scope["path"].startswith("/models"):
            await self.manage(asked, send)
        elif scope["path"] == "/ping":
            await reply(send, 200, b'{"status": "Healthy"}')
        else:
            assert self.is_open or headers["authorization"] == f"Bearer {TOKEN}"
            self.seen.append(asked)
            await self.answer(asked, send)

    async def manage(self, asked, send):
        """Describe models."""
        assert self.is_open or asked.headers["authorization"] == f"Bearer {MANAGEMENT}"
        _, _, name, *rest = [*asked.path.split("/"), ""] if asked.path == "/models" else asked.path.split("/")
        if not name:
            body: Any = {"models": [{"modelName": each, "modelUrl": f"{each}.mar"} for each in self.models]}
        elif name not in self.models:
            await reply(send, 404, json.dumps({"code": 404, "type": "ModelNotFoundException", "message": "x"}).encode())
            return
        else:
            body = self.models[name] if rest == ["all"] else self.models[name][:1]
        await reply(send, 200, json.dumps(body).encode())


def eventually(is_so: Callable[[], bool], within_s: float = 10.0) -> bool:
    """Return whether something comes true; the front door tidies up after the client has its answer."""
    end = time.monotonic() + within_s
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
    return is_so()


def version_of(version: str, *, ready: int = 2, workers: int = 2) -> dict[str, Any]:
    """Return TorchServe's description of a version."""
    states = ["READY"] * ready + ["UNLOADING"] * (workers - ready)
    return {
        "modelVersion": version,
        "minWorkers": workers,
        "workers": [{"status": state} for state in states],
        "jobQueueStatus": {"pendingRequests": 0},
    }


@dataclass
class Site:
    """A running site."""

    torchserve: Torchserve
    port: int
    workdir: Path
    app: Any
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        """Base URL of the front door."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def live(self) -> list[str]:
        """Names of the files of requests whose clients wait."""
        return [file.name for file in (self.workdir / "tmp" / "front-door" / "live").iterdir()]

    def ask(self, path="/predictions/cdmam", content=b"abc", method="POST", key=KEY, **headers):
        """Ask the front door."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.request(method, self.url + path, content=content, headers={**key, **named}, timeout=20)

    def raw(self, text: bytes, *, wait: bool = True) -> bytes:
        """Send bytes as they are, and return all that comes back until the connection ends."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(text)
            got = b""
            while wait and (piece := connection.recv(65536)):
                got += piece
            return got


@contextmanager
def serving(server: uvicorn.Server) -> Iterator[asyncio.AbstractEventLoop]:
    """Run a server in a thread."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.005)
        yield loops[0]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def site(workdir: Path, torchserve: Torchserve | None = None, **limits: Any) -> Iterator[Site]:
    """Run a site; ``torchserve`` of None is the one that answers everything."""
    ports, behind = free_ports(), torchserve or Torchserve()
    keys = {"inference": {"key": TOKEN}, "management": {"key": MANAGEMENT}, "API": {"key": "x"}}
    (workdir / "key_file.json").touch(mode=0o600)
    (workdir / "key_file.json").write_text(json.dumps(keys))
    # Paths of sockets have at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="radlens-") as short:
        socket_file = Path(short) / "management.sock"
        stated = {
            "inference_url": f"http://127.0.0.1:{ports.inference}",
            "management_socket": socket_file,
            "workdir": workdir,
            "max_body": MAX_BODY,
        }
        settings = Settings(**(stated | limits))
        app = make_app(settings)
        quiet: dict[str, Any] = {"log_config": None, "access_log": False, "lifespan": "off"}
        with (
            serving(uvicorn.Server(uvicorn.Config(behind, port=ports.inference, **quiet))),
            serving(uvicorn.Server(uvicorn.Config(behind, uds=str(socket_file), **quiet))),
            serving(make_server(app, ports.gateway, settings)) as loop,
        ):
            yield Site(behind, ports.gateway, workdir, app, loop)
