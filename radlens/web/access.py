"""Who may ask: bearer tokens (RFC 6750) of clients, and the tokens with which TorchServe is asked."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from secrets import compare_digest
from typing import NamedTuple, Protocol

from radlens.server import Keys, keys_of
from radlens.web.refusals import Refused, later

__all__ = ["Access", "Key", "TorchserveKeys", "only_key"]


class Key(Protocol):
    """A key of a client."""

    @property
    def name(self) -> str:
        """Name of the key."""

    @property
    def roles(self) -> frozenset[str]:
        """What the key allows: ``predict``, ``explain``, ``manage``, ``metrics``."""


class Access:
    """Checks the keys of clients.

    Args:
        find: Function that returns the key with a token; None if there is none.
        is_open: Whether no key is needed.
    """

    def __init__(self, find: Callable[[str], Key | None], *, is_open: bool = False) -> None:
        self._find, self._is_open = find, is_open

    def check(self, headers: Mapping[str, str], role: str) -> str | None:
        """Return the name of the client's key; None where no key is needed.

        Args:
            headers: Headers of the request, with lower-case names.
            role: Role that the request needs.

        Raises:
            Refused: The key is missing or unknown, or lacks the role.
        """
        if self._is_open:
            return None
        scheme, _, token = headers.get("authorization", "").strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise _unauthorized("expected a key as Authorization: Bearer KEY, got none", "")
        key = self._find(token.strip())
        if key is None:
            raise _unauthorized("the key must be one of this server, got an unknown one", ', error="invalid_token"')
        if role not in key.roles:
            roles = ", ".join(sorted(key.roles)) or "none"
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "Forbidden",
                f"the key must have the role {role}, got {roles}",
                {"WWW-Authenticate": f'Bearer realm="radlens", error="insufficient_scope", scope="{role}"'},
            )
        return key.name


def _unauthorized(message: str, error: str) -> Refused:
    header = {"WWW-Authenticate": f'Bearer realm="radlens"{error}'}
    return Refused(HTTPStatus.UNAUTHORIZED, "Unauthorized", message, header)


class TorchserveKeys:
    """The tokens of TorchServe, which makes new ones at each start.

    Args:
        workdir: Working directory of the server.
        is_open: Whether TorchServe asks for none.
    """

    def __init__(self, workdir: Path, *, is_open: bool = False) -> None:
        self._workdir, self._is_open = workdir, is_open

    def inference(self) -> dict[str, str]:
        """Return the header for predictions and explanations.

        Raises:
            Refused: TorchServe has not written its tokens yet.
        """
        return self._header(self._read().inference)

    def management(self) -> dict[str, str]:
        """Return the header for the management API.

        Raises:
            Refused: TorchServe has not written its tokens yet.
        """
        return self._header(self._read().management)

    def _read(self) -> Keys:
        return keys_of(self._workdir)

    def _header(self, token: str | None) -> dict[str, str]:
        if self._is_open:
            return {}
        if token is None:
            raise later("the server must have started, got one that is starting", 2)
        return {"authorization": f"Bearer {token}"}


class OnlyKey(NamedTuple):
    """TorchServe's own key of predictions and explanations, which may ask everything but management.

    Attributes:
        name: Name of the key.
        roles: What it allows.
    """

    name: str = "inference"
    roles: frozenset[str] = frozenset({"predict", "explain", "metrics"})


def only_key(workdir: Path) -> Callable[[str], Key | None]:
    """Return the function that finds TorchServe's own key of predictions and explanations."""

    def find(token: str) -> Key | None:
        own = keys_of(workdir).inference
        return OnlyKey() if own is not None and compare_digest(own.encode(), token.encode()) else None

    return find
