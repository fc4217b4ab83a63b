"""``radlens keys`` and ``radlens audit``."""

import json
import socket

import pytest

from radlens.audit import AuditLog, records
from radlens.keys import KeyRing


def test_keys_are_added_listed_and_revoked(run, tmp_path):
    """The token alone is on stdout, and works."""
    added = run("keys", "add", "viewer", "--roles", "predict, explain")
    assert added.exit_code == 0, added.stderr
    ring = KeyRing.of(tmp_path / ".run")
    assert ring.find(added.stdout.strip()).roles == {"predict", "explain"}
    listed = run("keys", "list")
    assert "viewer" in listed.stdout
    assert "explain, predict" in listed.stdout
    assert added.stdout.strip() not in listed.stdout
    assert run("keys", "revoke", "viewer").exit_code == 0
    assert ring.find(added.stdout.strip()) is None


def test_unknown_roles_are_named(run):
    """With those that there are."""
    result = run("keys", "add", "viewer", "--roles", "admin")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "roles must be some of predict, explain, manage, metrics, got admin" in result.stderr


@pytest.fixture
def log(tmp_path):
    """The audit log of the server in the usual working directory."""
    (tmp_path / ".run").mkdir()
    log = AuditLog(tmp_path / ".run" / "audit.jsonl")
    for i in range(3):
        log.append({"event": "predict", "who": "viewer", "n": i, "model": "cdmam [1]"})
    return tmp_path / ".run" / "audit.jsonl"


def test_records_are_shown(run, log):
    """As text, without hashes, or as JSON."""
    text = run("audit", "show", "--last", "2").stdout.splitlines()
    assert [line.split()[0] for line in text] == ["2", "3"]
    assert text[0].endswith("event=predict who=viewer n=1 model=cdmam [1]")
    assert [json.loads(line)["n"] for line in run("audit", "show", "--json").stdout.splitlines()] == [0, 1, 2]


def test_a_whole_log_is_verified(run, log):
    """Exit code 0, and number and hash of the last line, to be kept elsewhere."""
    result = run("audit", "verify")
    assert (result.exit_code, result.stderr) == (0, "3 lines, 0 faults\n")
    assert run("audit", "verify", "--known", result.stdout.strip()).exit_code == 0


def test_a_changed_log_is_not(run, log):
    """Exit code 1, and the place."""
    log.write_bytes(log.read_bytes().replace(b'"n":1', b'"n":7'))
    result = run("audit", "verify", log)
    assert result.exit_code == 1
    assert "error: audit.jsonl line 3 (number 3) does not follow the line before: that was changed" in result.stderr


def test_records_are_forwarded(run, log):
    """Once each; how many is told."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        to = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        assert f"sent 3 records to {to}" in run("audit", "forward", "--to", to).stderr
        assert f"sent 0 records to {to}" in run("audit", "forward", "--to", to).stderr
        received = [receiver.recv(65536) for _ in range(3)]
    assert all(b"<AuditMessage>" in each for each in received)


def test_a_server_that_follows_is_tried_again(run, log, monkeypatch):
    """Nobody listens at first; new records follow until Ctrl-C."""
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("radlens.cli.audit.time.sleep", wait)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        to = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    result = run("audit", "forward", "--to", to, "--follow")
    assert result.exit_code == 130
    assert waits == [10.0, 10.0]
    assert "trying again in 10 s" in result.stderr


def test_commands_are_recorded_with_who_ran_them(run, tmp_path, monkeypatch):
    """By name, or by number where the account has none; never with a token."""
    token = run("keys", "add", "viewer", "--roles", "predict").stdout.strip()
    monkeypatch.setattr("radlens.audit.os.getuid", lambda: 2**31 - 2)
    run("keys", "revoke", "viewer")
    added, revoked = records(tmp_path / ".run" / "audit.jsonl")
    assert (added["event"], added["of"], added["who"][:5]) == ("key added", "viewer", "user:")
    assert (revoked["event"], revoked["who"]) == ("key revoked", f"uid:{2**31 - 2}")
    assert token not in (tmp_path / ".run" / "audit.jsonl").read_text()
