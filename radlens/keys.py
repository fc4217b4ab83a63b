"""Named keys of a server's clients, with roles; revocable while the server runs.

A key is a bearer token (RFC 6750). ``keys.json`` in the working directory of the server holds names, roles and the
SHA-256 of each token, never a token. Tokens are 256 random bits, so a plain hash cannot be searched. Beside these keys
the server has one of its own for predictions and explanations, new at each start, in ``key_file.json``; the commands on
the same machine use it.
"""

import hashlib
import hmac
import json
import re
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from radlens.durable import locked, replace, require_private
from radlens.errors import InvalidParameter, ServerError

__all__ = ["ROLES", "SERVER_KEY", "Key", "KeyRing"]

ROLES = ("predict", "explain", "manage", "metrics")
"""What a key may be for: predictions, explanations, versions of models, and reading metrics."""

SERVER_KEY = "server"
"""Name of the server's own key for predictions and explanations."""

_FILE, _SERVER_FILE = "keys.json", "key_file.json"

_FORMAT = 1

_SERVER_ROLES = {"inference": frozenset({"predict", "explain", "metrics"}), "management": frozenset({"manage"})}
"""Roles of the server's own keys, by their names in ``key_file.json``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_SHA256 = re.compile(r"[0-9a-f]{64}")

_PREFIX = "radlens-"
"""Start of every token, by which scanners of repositories and logs find one that leaked."""


@dataclass(frozen=True)
class Key:
    """A key of a client.

    Attributes:
        name: Name of the key, which audit records hold.
        roles: What the key is for, of :data:`ROLES`.
        sha256: SHA-256 of the token, 64 hexadecimal digits.
        created: Time of its creation, ISO 8601 in UTC; empty for the server's own keys.
    """

    name: str
    roles: frozenset[str]
    sha256: str
    created: str = ""

    def __post_init__(self) -> None:
        """Check name, roles and hash."""
        if not _NAME.fullmatch(self.name):
            raise InvalidParameter(
                f"name of a key must be 1 to 64 letters, digits, dots, underscores or hyphens, got {self.name[:80]!a}"
            )
        if not (isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256)):
            raise InvalidParameter(f"sha256 of key {self.name} must be 64 hexadecimal digits, got another value")
        if not self.roles:
            raise InvalidParameter(f"roles must be some of {', '.join(ROLES)}, got none")
        if unknown := sorted(self.roles - set(ROLES)):
            raise InvalidParameter(f"roles must be some of {', '.join(ROLES)}, got {', '.join(unknown)}")


class KeyRing:
    """All keys of the server in one working directory.

    Args:
        workdir: Working directory of the server; its files need not exist.
    """

    def __init__(self, workdir: Path) -> None:
        self._file, self._server_file = workdir / _FILE, workdir / _SERVER_FILE
        self._seen: tuple[Any, ...] | None = None
        self._known: tuple[Key, ...] = ()

    @classmethod
    def of(cls, workdir: Path) -> Self:
        """Return the keys of the server in ``workdir``."""
        return cls(workdir)

    def find(self, token: str) -> Key | None:
        """Return the key with this token; None if there is none.

        The files are read again when they have changed, so that a revoked key ends with the next request. Comparisons
        take the same time whether and where a key matches.

        Raises:
            ServerError: ``keys.json`` can be read by others, or is damaged; then no key is valid.
        """
        seen = (_signature(self._file), _signature(self._server_file))
        if seen != self._seen:
            self._known = (*self.keys(), *self._server_keys())
            self._seen = seen
        given, found = _digest(token), None
        for key in self._known:
            if hmac.compare_digest(key.sha256, given):
                found = key
        return found

    def keys(self) -> tuple[Key, ...]:
        """Return the named keys, oldest first.

        Raises:
            ServerError: ``keys.json`` can be read by others, or is damaged.
        """
        try:
            require_private(self._file)
            text = self._file.read_bytes()
        except FileNotFoundError:
            return ()
        try:
            document = json.loads(text)
            if document["format"] != _FORMAT:
                raise ValueError(document["format"])
            return tuple(
                Key(each["name"], frozenset(each["roles"]), each["sha256"], each["created"])
                for each in document["keys"]
            )
        except (ValueError, KeyError, TypeError, InvalidParameter) as error:
            raise ServerError(
                f"{_FILE} must hold keys in format {_FORMAT}, got a damaged file ({type(error).__name__}); "
                "restore it from a backup, or remove it and add the keys again"
            ) from error

    def add(self, name: str, roles: Iterable[str]) -> str:
        """Add a key; return its token, which is not stored and cannot be shown again.

        Raises:
            InvalidParameter: The name is taken, reserved or of another form, or a role is unknown.
            ServerError: ``keys.json`` can be read by others, or is damaged.
        """
        token = _PREFIX + secrets.token_urlsafe(32)
        created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        key = Key(name, frozenset(roles), _digest(token), created)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._file):
            keys = self.keys()
            if name.startswith(SERVER_KEY) or name in {each.name for each in keys}:
                raise InvalidParameter(f"name of a key must be new and not begin with {SERVER_KEY}, got {name!r}")
            self._write((*keys, key))
        return token

    def revoke(self, name: str) -> Key:
        """Remove a key; a server that runs refuses it from the next request on.

        Raises:
            InvalidParameter: There is no key of this name; the message names those that exist.
            ServerError: ``keys.json`` can be read by others, or is damaged.
        """
        with locked(self._file):
            keys = {key.name: key for key in self.keys()}
            if name not in keys:
                raise InvalidParameter(f"name must be one of {', '.join(keys) or 'no keys'}, got {name!r}")
            revoked = keys.pop(name)
            self._write(keys.values())
        return revoked

    def _write(self, keys: Iterable[Key]) -> None:
        rows = [
            {"name": key.name, "roles": sorted(key.roles), "sha256": key.sha256, "created": key.created} for key in keys
        ]
        replace(self._file, json.dumps({"format": _FORMAT, "keys": rows}, indent=1).encode() + b"\n")

    def _server_keys(self) -> tuple[Key, ...]:
        try:
            # TorchServe writes the file first and protects it afterwards.
            if stat.S_IMODE(self._server_file.stat().st_mode) & 0o077:
                return ()
            values = json.loads(self._server_file.read_bytes())
            return tuple(
                Key(SERVER_KEY if kind == "inference" else f"{SERVER_KEY}-{kind}", roles, _digest(values[kind]["key"]))
                for kind, roles in _SERVER_ROLES.items()
                if kind in values
            )
        except (OSError, ValueError, KeyError, TypeError):
            return ()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def _signature(file: Path) -> tuple[int, ...] | None:
    """Return what changes with a file's content or permissions; None for a missing file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_mode
