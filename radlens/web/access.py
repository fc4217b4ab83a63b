"""Who may ask: bearer tokens (RFC 6750) of clients, and the tokens with which TorchServe is asked."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path

from radlens.errors import ServerError
from radlens.keys import KeyRing
from radlens.server import Keys, keys_of
from radlens.web.refusals import Refused, later

__all__ = ["Access", "TorchserveKeys"]


_RETRY_S = 60
"""Seconds after which a client may try again while nobody's key can be checked."""


class Access:
    """Checks the keys of clients.

    Args:
        keys: Keys of the server.
        is_open: Whether no key is needed.
        refused: Called where a key is refused, with the reason and the name of the key; None for an unknown one.
    """

    def __init__(
        self, keys: KeyRing, *, is_open: bool = False, refused: Callable[[str, str | None], None] | None = None
    ) -> None:
        self._keys, self._is_open, self._refused = keys, is_open, refused

    def check(self, headers: Mapping[str, str], role: str | None) -> str | None:
        """Return the name of the client's key; None where no key is needed.

        Args:
            headers: Headers of the request, with lower-case names.
            role: Role that the request needs; None if any key will do.

        Raises:
            Refused: The key is missing or unknown, or lacks the role.
        """
        if self._is_open:
            return None
        scheme, _, token = headers.get("authorization", "").strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise _unauthorized("expected a key as Authorization: Bearer KEY, got none", "")
        try:
            key = self._keys.find(token.strip())
        except ServerError as error:
            # The file of keys is damaged or can be read by others; its message names no path.
            raise later(str(error), _RETRY_S, "ServerError") from None
        if key is None:
            self._tell("unknown key", None)
            raise _unauthorized("the key must be one of this server, got an unknown one", ', error="invalid_token"')
        if role is not None and role not in key.roles:
            self._tell(f"no role {role}", key.name)
            roles = ", ".join(sorted(key.roles)) or "none"
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "Forbidden",
                f"the key must have the role {role}, got {roles}",
                {"WWW-Authenticate": f'Bearer realm="radlens", error="insufficient_scope", scope="{role}"'},
            )
        return key.name

    def _tell(self, reason: str, key: str | None) -> None:
        if self._refused is not None:
            self._refused(reason, key)


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
