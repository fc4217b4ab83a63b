"""A real TorchServe on loopback, with free ports and a directory of its own, stopped by the session that started it."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from radlens.client import Client
from radlens.server import Server
from radlens.versions.management import Management


@pytest.fixture(scope="session")
def store(starting_store: Path) -> Path:
    """A model store with version 1.0, whose archived library calls itself 1.0-archived."""
    return starting_store


@pytest.fixture(scope="session")
def server(starting_server: Server) -> Server:
    """A server that answers, with the configuration of the repository."""
    starting_server.wait_ready()
    return starting_server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of the server, with its keys."""
    with Client.of_server(server.state.workdir) as asked:
        yield asked


@pytest.fixture(scope="session")
def management(server: Server) -> Iterator[Management]:
    """The management API of the server."""
    with Management.of_server(server.state.workdir) as asked:
        yield asked


@pytest.fixture
def behind(server: Server) -> Iterator[Client]:
    """A client that asks TorchServe itself: behind the front door, where explanations do not take turns."""
    state = server.state
    with Client(f"http://127.0.0.1:{state.ports.inference}", token=state.keys().inference) as asked:
        yield asked


@pytest.fixture
def workers(management: Management) -> Iterator[set[int]]:
    """The workers' processes, which must be the same after the test."""
    before = {worker["pid"] for worker in management.describe("cdmam")["workers"]}
    yield before
    assert {worker["pid"] for worker in management.describe("cdmam")["workers"]} == before
    assert all(psutil.pid_exists(pid) for pid in before)
