"""A real TorchServe on loopback, with free ports and a directory of its own, stopped by the session that started it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from archives import LIBRARY, make_archive
from tiny_bundle import make_bundle

from radlens.client import Client
from radlens.server import Server, free_ports

TOP = LIBRARY.parent

VERSION_FILE = "radlens/__init__.py"


def versioned(version: str) -> dict[str, str]:
    """Return library code that differs from the installed library's in its version."""
    return {VERSION_FILE: (TOP / VERSION_FILE).read_text().replace("__version__ = ", f'__version__ = "{version}"  # ')}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with version 1.0, whose archived library calls itself 1.0-archived."""
    folder = tmp_path_factory.mktemp("store")
    bundle = make_bundle(tmp_path_factory.mktemp("bundle-1"))
    make_archive(bundle, folder / "cdmam-1.mar", changed=versioned("1.0-archived"))
    return folder


@pytest.fixture(scope="session")
def server(store: Path) -> Iterator[Server]:
    """A server that answers, with the configuration of the repository."""
    # Paths of sockets have at most 108 characters, so this one must be short.
    with tempfile.TemporaryDirectory(prefix="radlens-") as workdir:
        started = Server(
            TOP / "config.properties",
            store,
            {"cdmam": "cdmam-1.mar"},
            Path(workdir),
            ports=free_ports(),
            log_config=TOP / "log4j2.xml",
        )
        with started:
            family = started.state.processes()
            yield started
        assert not [process for process in family if process.is_running() and process.status() != "zombie"]


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of the server, with its keys."""
    with Client.of_server(server.state.workdir) as asked:
        yield asked


@pytest.fixture
def workers(client: Client) -> Iterator[set[int]]:
    """The workers' processes, which must be the same after the test."""
    before = {worker["pid"] for worker in client.describe()["workers"]}
    yield before
    assert {worker["pid"] for worker in client.describe()["workers"]} == before
    assert all(psutil.pid_exists(pid) for pid in before)
