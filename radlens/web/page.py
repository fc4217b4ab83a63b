"""The page ``/docs``: the OpenAPI document of this server for readers, without any file from elsewhere."""

from http import HTTPStatus
from importlib.resources import files

from radlens.web.identity import Scope, Send, respond
from radlens.web.uploads import Receive

__all__ = ["DocsPage"]

_POLICY = (
    "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: the page reaches this server and nothing else."""


class DocsPage:
    """ASGI app of ``/docs``; the page asks the reader for a key, and fetches the document with it."""

    def __init__(self) -> None:
        self._page = files("radlens.web").joinpath("docs.html.j2").read_bytes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = {
            "content-type": "text/html; charset=utf-8",
            "content-length": str(len(self._page)),
            "content-security-policy": _POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
        }
        await respond(send, HTTPStatus.OK, headers, self._page)
