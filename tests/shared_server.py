"""The TorchServe that the tests of ``tests/serving`` share: it starts while other tests run."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archives import LIBRARY, make_archive
from tiny_bundle import make_bundle

from radlens.server import Server, free_ports

TOP = LIBRARY.parent

HOST = "gw0"
"""Process of pytest-xdist that starts it."""

_VERSION_FILE = "radlens/__init__.py"


def needs_shared_server(nodeid: str) -> bool:
    """Return whether a test asks the TorchServe of the session; those of the life cycle start their own."""
    return "/serving/" in nodeid and "test_lifecycle" not in nodeid


def versioned(version: str) -> dict[str, str]:
    """Return library code that differs from the installed library's in its version."""
    code = (TOP / _VERSION_FILE).read_text()
    return {_VERSION_FILE: code.replace("__version__ = ", f'__version__ = "{version}"  # ')}


def make_store(folder: Path) -> Path:
    """Fill a model store with version 1.0, whose archived library calls itself 1.0-archived."""
    bundle = make_bundle(folder / "bundle-1")
    make_archive(bundle, folder / "cdmam-1.mar", changed=versioned("1.0-archived"))
    return folder


@contextmanager
def starting(store: Path) -> Iterator[Server]:
    """Start a server with the configuration of the repository; it need not answer yet. Stop it at the end."""
    # Paths of sockets have at most 108 characters, so this one must be short.
    with tempfile.TemporaryDirectory(prefix="radlens-") as workdir:
        server = Server(
            TOP / "config.properties",
            store,
            {"cdmam": "cdmam-1.mar"},
            Path(workdir),
            ports=free_ports(),
            log_config=TOP / "log4j2.xml",
        )
        family = server.start().processes()
        try:
            yield server
            family = server.state.processes()
        finally:
            server.stop()
        assert not [process for process in family if process.is_running() and process.status() != "zombie"]
