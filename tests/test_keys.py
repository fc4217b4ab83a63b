"""Named keys: found by their token, revoked at once, and never stored."""

import json
import multiprocessing
import os
import stat

import pytest

from radlens.errors import InvalidParameter, ServerError
from radlens.keys import KeyRing


def test_a_key_is_found_by_its_token(tmp_path):
    """With its name and its roles; other tokens are not found."""
    ring = KeyRing.of(tmp_path)
    token = ring.add("viewer", ["predict", "explain"])
    found = ring.find(token)
    assert (found.name, found.roles) == ("viewer", frozenset({"predict", "explain"}))
    assert ring.find(token[:-1]) is None
    assert ring.find("") is None
    assert ring.find("\udcff") is None


def test_tokens_are_not_stored(tmp_path):
    """Only their hashes, in a file that its owner alone can read."""
    token = KeyRing.of(tmp_path).add("viewer", ["predict"])
    file = tmp_path / "keys.json"
    assert token not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {name.name for name in tmp_path.iterdir()} == {"keys.json", "keys.json.lock"}


def test_a_revoked_key_ends_at_once(tmp_path):
    """In a server that runs, which has read the file before; another key goes on."""
    server, admin = KeyRing.of(tmp_path), KeyRing.of(tmp_path)
    gone, kept = (admin.add(name, ["predict"]) for name in ("gone", "kept"))
    assert server.find(gone).name == "gone"
    admin.revoke("gone")
    assert server.find(gone) is None
    assert server.find(kept).name == "kept"


def test_the_servers_own_key_is_one(tmp_path):
    """That of `radlens serve --key`, in the form in which TorchServe writes it; a new start gives a new one."""
    ring = KeyRing.of(tmp_path)
    assert ring.find("of inference") is None
    file = tmp_path / "key_file.json"
    file.write_text(json.dumps({"inference": {"key": "of inference"}, "management": {"key": "of management"}}))
    file.chmod(0o600)
    found = ring.find("of inference")
    assert (found.name, found.roles) == ("server", frozenset({"predict", "explain", "metrics"}))
    assert ring.find("of management").roles == frozenset({"manage"})
    file.write_text(json.dumps({"inference": {"key": "another"}}))
    assert ring.find("of inference") is None
    assert ring.find("another").name == "server"
    file.chmod(0o644)
    assert ring.find("another") is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_files_that_others_can_read_are_refused(tmp_path, mode):
    """With the command that repairs it."""
    ring = KeyRing.of(tmp_path)
    token = ring.add("viewer", ["predict"])
    assert ring.find(token)
    (tmp_path / "keys.json").chmod(mode)
    for ask in (ring.keys, lambda: ring.find(token), lambda: ring.add("other", ["predict"])):
        with pytest.raises(ServerError, match=rf"keys\.json must have mode 600.*got {mode:o}; run chmod 600 "):
            ask()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2, "keys": []}', '{"format": 1, "keys": [{}]}'])
def test_damaged_files_are_refused(tmp_path, text):
    """No key is valid rather than some."""
    file = tmp_path / "keys.json"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ServerError, match=r"keys\.json must hold keys in format 1, got a damaged file"):
        KeyRing.of(tmp_path).find("x")


@pytest.mark.parametrize(
    ("name", "roles", "message"),
    [
        ("a", ["admin"], "roles must be some of predict, explain, manage, metrics, got admin"),
        ("a", [], "roles must be some of predict, explain, manage, metrics, got none"),
        ("", ["predict"], "name of a key must be 1 to 64 letters"),
        ("a b", ["predict"], "name of a key must be 1 to 64 letters"),
        ("taken", ["predict"], "name of a key must be new and not begin with server, got 'taken'"),
        ("server", ["predict"], "name of a key must be new and not begin with server, got 'server'"),
    ],
)
def test_wrong_keys_are_refused(tmp_path, name, roles, message):
    """And nothing is written."""
    ring = KeyRing.of(tmp_path)
    ring.add("taken", ["predict"])
    before = (tmp_path / "keys.json").read_bytes()
    with pytest.raises(InvalidParameter, match=message):
        ring.add(name, roles)
    assert (tmp_path / "keys.json").read_bytes() == before


def test_unknown_keys_cannot_be_revoked(tmp_path):
    """Those that exist are named."""
    ring = KeyRing.of(tmp_path)
    with pytest.raises(InvalidParameter, match="name must be one of no keys, got 'x'"):
        ring.revoke("x")
    ring.add("viewer", ["predict"])
    with pytest.raises(InvalidParameter, match="name must be one of viewer, got 'x'"):
        ring.revoke("x")


def _add_some(workdir, process):
    for i in range(10):
        KeyRing.of(workdir).add(f"key-{process}-{i}", ["predict"])


def test_processes_do_not_lose_each_others_keys(tmp_path):
    """Three of them add ten keys each at the same time."""
    context = multiprocessing.get_context("fork" if os.name == "posix" else None)
    processes = [context.Process(target=_add_some, args=(tmp_path, i)) for i in range(3)]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    assert len(KeyRing.of(tmp_path).keys()) == 30


@pytest.mark.parametrize("sha256", [5, None, "é" * 64, "ab"])
def test_a_hash_that_is_none_is_a_damaged_file(tmp_path, sha256):
    """Which is said, in place of an error of each request."""
    row = {"name": "reader", "roles": ["predict"], "sha256": sha256, "created": ""}
    file = tmp_path / "keys.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps({"format": 1, "keys": [row]}))
    with pytest.raises(ServerError, match="damaged file"):
        KeyRing.of(tmp_path).find("token")
