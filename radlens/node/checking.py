"""Whether the other sides that settings name answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import httpx

from radlens.errors import RadlensError
from radlens.node.asking import read_token
from radlens.node.lanes import Unavailable
from radlens.node.sending import DicomSender
from radlens.node.settings import Destination, DicomPeer, Settings
from radlens.node.tls import server_context
from radlens.node.web import WebSender, WebSource

__all__ = ["checked"]


def checked(settings: Settings) -> Iterator[tuple[str, str | None]]:
    """Yield the name of each other side, and why it does not answer; None where it does."""
    checks: list[tuple[str, Callable[[], object]]] = [("server", partial(_server, settings))]
    if settings.tls is not None:
        checks.append(("listen.tls", partial(server_context, settings.tls)))
    for name, destination in settings.destinations.items():
        checks.append((f"to {name}", partial(_destination, settings, destination)))
    for source in settings.sources:
        checks.append((f"from {source.name}", WebSource(source.web).check))
    for name, check in checks:
        try:
            check()
        except RadlensError as error:
            yield name, str(error)
        else:
            yield name, None


def _server(settings: Settings) -> None:
    """Ask the server whether it lives, and for the model of each rule, which needs the key; /ping does not."""
    server = settings.server
    named = sorted({(rule.model, rule.version or "") for rule in settings.rules})
    models = [f"/v2/models/{model}" + (f"/versions/{version}" if version else "") for model, version in named]
    token = read_token(server.token_file)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with closing(httpx.Client(timeout=15.0, headers=headers)) as client:
            for path in ("/ping", *models):
                status = client.get(f"{server.url}{path}").status_code
                if status != 200:
                    raise Unavailable(f"answered {status} to {path}")
    except httpx.HTTPError as error:
        raise Unavailable(f"cannot be reached: {type(error).__name__}") from None


def _destination(settings: Settings, destination: Destination) -> None:
    if isinstance(destination, DicomPeer):
        sender = DicomSender(
            destination, settings.ae_title, is_stopping=lambda: False, on_commitment=lambda kind, result: None
        )
        sender.check()
    else:
        WebSender(destination, is_stopping=lambda: False).check()
