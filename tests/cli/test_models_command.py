"""``radlens models``, against TorchServe's answers."""

import httpx
import pytest

from radlens.client import Client


@pytest.fixture
def asked(monkeypatch):
    """Requests that a management address got; it has version 1.0, the default, and 2.0."""
    seen = []

    def described(version):
        return {
            "modelVersion": version,
            "workers": [{"status": "READY"}, {"status": "UNLOADING"}],
            "jobQueueStatus": {"pendingRequests": 0},
        }

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.path, dict(request.url.params), request.headers.get("authorization")))
        if request.method == "POST":
            return httpx.Response(200, json={"status": 'Model "cdmam" Version: 2.0 registered with 2 initial workers'})
        if request.method != "GET":
            return httpx.Response(200, json={"status": "done"})
        if request.url.path == "/models":
            return httpx.Response(200, json={"models": [{"modelName": "cdmam"}]})
        versions = ["1.0", "2.0"] if request.url.path.endswith("/all") else [request.url.path.rpartition("/")[2]]
        return httpx.Response(200, json=[described("1.0" if v == "cdmam" else v) for v in versions])

    real = Client.__init__

    def connected(self, url, **options):
        real(self, url, **options, transport=httpx.MockTransport(answer))

    monkeypatch.setattr(Client, "__init__", connected)
    monkeypatch.setattr("radlens.client._QUIET_S", 0.0)
    return seen


HERE = ("--management", "http://127.0.0.1:8081", "--management-token", "key")


def test_list_shows_every_version(run, asked):
    """Name, version, default, workers and queue."""
    result = run("models", "list", *HERE)
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("│")]
    assert [row[1:10:2] for row in rows] == [["cdmam", "1.0", "yes", "1", "0"], ["cdmam", "2.0", "│", "│", "│"]]
    assert all(key == "Bearer key" for *_, key in asked)


def test_register_names_the_next_step(run, asked):
    """The archive is loaded beside the default."""
    result = run("models", "register", "cdmam-2.0.mar", *HERE)
    assert result.exit_code == 0, result.stderr
    assert ("POST", "/models", {"url": "cdmam-2.0.mar", "synchronous": "true"}, "Bearer key") in asked
    assert "radlens models set-default 2.0" in result.stderr


def test_register_names_the_model_of_the_archive(run, asked, monkeypatch):
    """Nobody has to say which it is."""
    monkeypatch.setattr(Client, "register_archive", lambda self, archive: ("lesions", "1.0"))
    result = run("models", "register", "lesions-1.0.mar", *HERE)
    assert result.exit_code == 0, result.stderr
    assert "lesions 1.0 answers at /predictions/lesions/1.0" in result.stderr
    assert "radlens models set-default 1.0 --model lesions" in result.stderr


def test_set_default(run, asked):
    """One request."""
    assert run("models", "set-default", "2.0", *HERE).exit_code == 0
    assert [request[:2] for request in asked] == [("PUT", "/models/cdmam/2.0/set-default")]


def test_remove_waits_until_nobody_waits(run, asked):
    """The queue is asked for before the version is deleted."""
    assert run("models", "remove", "1.0", *HERE).exit_code == 0
    assert asked[-1][:2] == ("DELETE", "/models/cdmam/1.0")


def test_without_a_server_nothing_is_managed(run):
    """One line that says how to start one."""
    result = run("models", "list")
    assert result.exit_code == 5
    assert "error: a server must run in this working directory, got none" in result.stderr
