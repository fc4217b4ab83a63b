"""``radlens serve``: what it decides before and after TorchServe runs; tests/serving has a real one."""

import json
import os
from pathlib import Path

import pytest

from radlens.errors import ServerError
from radlens.server import Pid, Ports, State
from radlens.versions.stored import archives, newest_archives


@pytest.fixture
def store(tmp_path):
    """A store with two versions of a model, one of another, and what is no archive."""
    folder = tmp_path / "model_store"
    for archive, name, version in (("a-9.1", "a", "9.1"), ("a-10.0", "a", "10.0"), ("b", "b", "1.0")):
        (folder / archive / "MAR-INF").mkdir(parents=True)
        manifest = {"model": {"modelName": name, "modelVersion": version}}
        (folder / archive / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "bundles").mkdir()
    (folder / "README.md").write_text("no archive")
    return folder


@pytest.fixture
def servers(monkeypatch, tmp_path):
    """Servers that only note what happens to them; their process is this one."""
    made = []

    class Noted:
        def __init__(self, config, store, models, workdir, *, log_config, worker):
            self.models, self.log_config, self.events = models, log_config, []
            self.workdir = workdir
            made.append(self)

        def __enter__(self):
            self.events.append("started")
            return self

        def __exit__(self, *error):
            self.events.append("stopped")

        @property
        def state(self):
            return State(self.workdir, Pid.of(os.getpid()), Pid.of(os.getpid()), Ports(), tuple(self.models))

    monkeypatch.setattr("radlens.server.Server", Noted)
    (tmp_path / "config.properties").touch()
    (tmp_path / "log4j2.xml").touch()
    return made


@pytest.fixture
def running(tmp_path):
    """The state of a server: this process, and its keys."""
    workdir = tmp_path / ".run"
    workdir.mkdir()
    State(workdir, Pid.of(os.getpid()), Pid.of(os.getpid()), Ports(), ("a",)).save()
    keys = {"inference": {"key": "of inference"}, "management": {"key": "of management"}}
    (workdir / "key_file.json").write_text(json.dumps(keys))


def test_archives_are_known_by_their_manifests(store):
    """Names of files say nothing; what is no archive is passed over."""
    assert [(found.name, found.version) for found in archives(store)] == [("a", "10.0"), ("a", "9.1"), ("b", "1.0")]


def test_the_highest_version_of_each_model_is_served(store):
    """10.0 comes after 9.1."""
    assert newest_archives(store) == {"a": "a-10.0", "b": "b"}


def test_an_empty_store_is_refused(tmp_path):
    """The message says how to make an archive."""
    with pytest.raises(ServerError, match="must hold an archive, got none: make one with `radlens export`"):
        newest_archives(tmp_path / "missing")


def test_detached_leaves_the_server_running(run, store, servers):
    """The command ends, the server does not."""
    result = run("serve")
    assert result.exit_code == 0, result.stderr
    (server,) = servers
    assert server.events == ["started"]
    assert {name: archive[:-17] for name, archive in server.models.items()} == {"a": "a-10.0", "b": "b-1.0"}
    assert server.log_config == Path("log4j2.xml")
    assert "predictions and explanations: http://127.0.0.1:8080" in result.stdout


def test_foreground_stops_it_with_ctrl_c(run, store, servers, monkeypatch):
    """Ctrl-C ends the server, and then the command with 130."""

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("radlens.cli.serve.time.sleep", interrupted)
    result = run("serve", "--foreground", "--model", "a=a-9.1")
    assert result.exit_code == 130
    (server,) = servers
    assert list(server.models) == ["a"]
    assert server.models["a"].startswith("a-9.1-")
    assert server.events == ["started", "stopped"]


def test_what_is_registered_is_served_again(run, store, servers):
    """Not the latest version of the store, which is named; a change of the store does not reach the server."""
    assert run("serve", "--model", "a=a-9.1").exit_code == 0
    (store / "a-9.1" / "later.txt").write_text("changed")
    result = run("serve")
    assert result.exit_code == 0, result.stderr
    assert [next(iter(server.models.values()))[:6] for server in servers] == ["a-9.1-", "a-9.1-"]
    assert servers[0].models == servers[1].models
    assert "a 10.0 is in model_store and not registered: radlens models register a-10.0" in result.stderr
    assert "model_store/a-9.1 is not the registered a 9.1, which is served" in result.stderr
    assert "b 1.0 is in model_store and not registered" in result.stderr


def test_a_start_that_fails_changes_nothing(run, store, servers, tmp_path, monkeypatch):
    """What was registered before is served by the next start."""
    assert run("serve", "--model", "a=a-9.1").exit_code == 0
    kept = (tmp_path / ".run" / "versions.json").read_bytes()

    def fail(self):
        raise ServerError("workers must start, got none")

    with monkeypatch.context() as patch:
        patch.setattr(type(servers[0]), "__enter__", fail)
        assert run("serve", "--model", "a=a-10.0").exit_code == 5
    assert (tmp_path / ".run" / "versions.json").read_bytes() == kept
    assert run("serve").exit_code == 0
    assert servers[-1].models == servers[0].models


def test_a_changed_archive_is_not_served(run, store, servers, tmp_path):
    """What the server keeps must be what was registered."""
    assert run("serve", "--model", "a=a-9.1").exit_code == 0
    (copy,) = (each for each in (tmp_path / ".run" / "archives").iterdir() if each.is_dir())
    (copy / "evil.py").write_text("import os")
    result = run("serve")
    assert result.exit_code == 3
    assert "the archive of a 9.1 was changed after it was registered: its SHA-256 is " in result.stderr
    assert len(servers) == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_a_damaged_archive_is_not_passed_over(run, store, servers, content):
    """It might be the newest, and the one before must not be served in its place without a word."""
    (store / "a-11.0.mar").write_bytes(content)
    result = run("serve")
    assert result.exit_code == 5
    assert "archives in model_store must be whole, got a-11.0.mar, which cannot be read" in result.stderr
    assert servers == []
    assert run("serve", "--model", "b=b").exit_code == 0


def test_an_archive_must_be_of_the_model_that_is_named(run, store, servers):
    """Other versions would be registered under the name in the archive."""
    result = run("serve", "--model", "b=a-9.1")
    assert result.exit_code == 2
    assert "a-9.1 must be an archive of b, got one of a" in result.stderr


def test_key_prints_the_key_alone(run, running):
    """For ``curl -H "Authorization: Bearer $(radlens serve --key)"``."""
    assert run("serve", "--key").stdout == "of inference\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--status"], 5, "no server runs here"),
        (["--key"], 5, "no server runs here"),
        (["--status", "--stop"], 2, "--status, --key and --stop exclude each other, got several"),
        (["--model", "cdmam"], 2, "--model must be NAME=ARCHIVE, got 'cdmam'"),
        ([], 5, "model_store must hold an archive, got none: make one with `radlens export`"),
        (["--model", "a=b"], 5, "a server needs its configuration, and config.properties is missing"),
    ],
)
def test_refuses_what_it_cannot_do(run, arguments, code, message):
    """One line, and the exit code of its kind."""
    result = run("serve", *arguments)
    assert (result.exit_code, result.stderr) == (code, f"error: {message}\n")


def test_stopping_nothing_is_no_error(run):
    """``make stop`` can be repeated."""
    result = run("serve", "--stop")
    assert (result.exit_code, result.stderr) == (0, "no server was running\n")
