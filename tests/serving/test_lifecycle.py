"""Servers start, say why they do not, and end without leaving anything behind."""

import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from archives import make_archive
from shared_server import TOP
from tiny_bundle import make_bundle

from radlens.errors import ServerError
from radlens.server import Server, State, free_ports, stop
from radlens.versions.management import Management

pytestmark = [pytest.mark.serving, pytest.mark.slow]

START = """
import sys
from pathlib import Path
from radlens.server import Server, free_ports
config, store, workdir = map(Path, sys.argv[1:])
server = Server(config, store, {"cdmam": "cdmam-1.mar"}, workdir, ports=free_ports())
server.start()
server.wait_ready()
"""


@pytest.fixture
def workdir():
    """Return a short path: those of sockets have at most 108 characters."""
    with tempfile.TemporaryDirectory(prefix="radlens-") as path:
        yield Path(path)


def test_a_server_outlives_the_process_that_started_it(store, workdir):
    """Another one finds it, asks it, and stops it with all its workers."""
    subprocess.run([sys.executable, "-c", START, TOP / "config.properties", store, workdir], check=True, cwd=TOP)
    family = State.load(workdir).processes()
    # The front door, Java and two workers.
    assert len(family) >= 4
    with Management.of_server(workdir) as management:
        assert management.describe("cdmam")["modelVersion"] == "1.0"
    assert stop(workdir) is True
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert stop(workdir) is False
    assert State.load(workdir) is None
    assert sorted(path.name for path in workdir.iterdir()) == ["config.properties", "console.log", "logs"]


def test_workers_that_crash_are_told(store, workdir, tmp_path):
    """With the reason, in seconds: TorchServe says Healthy and tries for five minutes."""
    broken = {"radlens/families/cdmam/service.py": "import nothing_of_that_name"}
    make_archive(make_bundle(tmp_path / "bundle"), store / "crashes.mar", changed=broken)
    crashing = Server(TOP / "config.properties", store, {"cdmam": "crashes.mar"}, workdir, ports=free_ports())
    with pytest.raises(ServerError, match="No module named 'nothing_of_that_name'"), crashing:
        pass
    assert State.load(workdir) is None


def test_waiting_has_an_end(store, workdir):
    """Half a second is not enough for Java to start."""
    slow = Server(TOP / "config.properties", store, {"cdmam": "cdmam-1.mar"}, workdir, ports=free_ports())
    slow.start()
    try:
        with pytest.raises(ServerError, match=r"cdmam must answer within 0\.5 s, got none"):
            slow.wait_ready(timeout_s=0.5)
    finally:
        assert slow.stop() is True
