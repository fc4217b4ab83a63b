"""``radlens node``: run, check, status, queue, resend and drop."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_server import fake_server
from node_parts import MARKED, Pacs, free_port, image, pacs_at, send, settings_in, wait_until
from typer.testing import CliRunner

import radlens
from radlens.cli import app

ROOT = Path(radlens.__file__).parent.parent

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""pynetdicom leaves sockets of failed connections to the garbage collector."""


def run(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(app, ["node", *map(str, arguments)])


@pytest.fixture
def node_process(tmp_path):
    """Start `radlens node run` with settings, and return its process and the port it listens on."""
    started = []

    def start(settings):
        port = free_port()
        settings.file.write_text(settings.file.read_text().replace("port: 0", f"port: {port}"))
        command = [sys.executable, "-c", "from radlens.cli import main; main()", "node", "run", str(settings.file)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with open(tmp_path / "log", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        started.append(process)
        wait_until(lambda: b"listens" in (tmp_path / "log").read_bytes() or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "log").read_text()
        return process, port

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_node_from_start_to_stop(tmp_path, node_process):
    """An image goes through, status and queue tell of it, SIGTERM ends the node, and its log has no name."""
    pacs = Pacs()
    with fake_server() as server, pacs_at(pacs) as pacs_port:
        destination = f"{{ae_title: PACS, address: 127.0.0.1, port: {pacs_port}}}"
        settings = settings_in(tmp_path, destination=destination, server=server.url)
        process, port = node_process(settings)
        assert send(port, [image(1), image(2, modality="US")]) == [0, 0]
        wait_until(lambda: len(pacs.got) == 1)
        status = run("status", "--json", "--config", settings.file)
        assert json.loads(status.stdout)["running"] is True
        checked = run("check", settings.file)
        assert checked.exit_code == 0, checked.output
        assert "to pacs: answers" in checked.stdout
        server.status = 503
        assert send(port, [image(3)]) == [0]
        wait_until(lambda: "server" in run("status", "-c", settings.file).output)
        listed = json.loads(run("queue", "--json", "-c", settings.file).stdout)
        assert [(each["id"], each["state"]) for each in listed] == [(2, "waiting")]
        assert "mammograms" in run("queue", "-c", settings.file).stdout
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert json.loads(run("status", "--json", "-c", settings.file).stdout)["running"] is False
        server.status = 200
        _, port = node_process(settings)
        run("resend", "2", "-c", settings.file)
        wait_until(lambda: len(pacs.got) == 2)
    log = (tmp_path / "log").read_text()
    assert "task 2: 1 objects for pacs" in log
    assert MARKED not in log


@pytest.mark.slow
def test_drop_and_unknown_numbers(tmp_path, node_process):
    """A task is dropped while the node runs, and its files are gone; other numbers are errors with code 2."""
    settings = settings_in(tmp_path)
    _, port = node_process(settings)
    send(port, [image(1)])
    assert run("drop", "1", "-c", settings.file).exit_code == 0
    wait_until(lambda: not list((settings.folder / "images").iterdir()))
    again = run("drop", "1", "-c", settings.file)
    assert (again.exit_code, "got one that is dropped" in again.stderr) == (2, True)
    assert run("resend", "9", "-c", settings.file).exit_code == 2
    second = subprocess.run(
        [sys.executable, "-c", "from radlens.cli import main; main()", "node", "run", str(settings.file)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (second.returncode, "must be used by one node" in second.stderr) == (2, True)


def test_check_names_what_does_not_answer(tmp_path):
    """Server and destination are asked; the exit code says that they do not answer."""
    settings = settings_in(tmp_path)
    found = run("check", settings.file)
    assert found.exit_code == 5
    assert "server: cannot be reached: ConnectError" in found.stdout
    assert "to pacs: cannot be reached" in found.stdout
    assert run("check", settings.file, "--no-connect").exit_code == 0


def test_wrong_settings_are_one_line(tmp_path):
    """With file and line, and exit code 2."""
    settings = settings_in(tmp_path)
    settings.file.write_text(settings.file.read_text().replace("folder:", "foldr:"))
    found = run("run", settings.file)
    assert found.exit_code == 2
    assert f"error: {settings.file} line 1: the file must have keys of" in found.stderr


def test_a_folder_that_has_not_run(tmp_path):
    """Status of a node that never ran is an error, and makes nothing."""
    settings = settings_in(tmp_path)
    assert run("status", "-c", settings.file).exit_code == 2
    assert not settings.folder.exists()


@pytest.mark.parametrize(("token", "said"), [("right", "server: answers"), ("old", "answered 401 to /v2/models/cdmam")])
def test_check_tries_the_key(tmp_path, token, said):
    """The server says that it lives to anybody; a key that was revoked would stop all images."""
    with fake_server() as server:
        server.token = "right"
        settings = settings_in(tmp_path, server=f"{server.url}")
        text = settings.file.read_text().replace("workers: 1", "workers: 1, token_file: token")
        settings.file.write_text(text)
        (tmp_path / "token").write_text(token)
        assert said in run("check", settings.file).stdout
