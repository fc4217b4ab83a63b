"""TLS of associations and requests: the profile of PS3.15 annex B.12, version 1.2 or newer."""

from __future__ import annotations

import ssl

from radlens.errors import InvalidInput
from radlens.node.settings import Tls

__all__ = ["client_context", "server_context"]


def server_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of the node's own port; with ``ca``, senders need a certificate that goes back to it.

    Raises:
        InvalidInput: a file is not what it must be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, tls)
    if tls.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: Tls | None) -> ssl.SSLContext:
    """Return the context of a connection to another side, whose certificate and host name are checked.

    Raises:
        InvalidInput: a file is not what it must be.
    """
    context = ssl.create_default_context() if tls is None or tls.ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls is not None:
        _load(context, tls)
    return context


def _load(context: ssl.SSLContext, tls: Tls) -> None:
    try:
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError):
        raise InvalidInput(f"{tls.certificate} and {tls.key} must be a certificate and its key in PEM") from None
    try:
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except (OSError, ssl.SSLError):
        raise InvalidInput(f"{tls.ca} must be certificates in PEM") from None
