"""Settings of a node, as its YAML file states them."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from radlens.node.rules import Rule

__all__ = ["Destination", "DicomPeer", "Limits", "Peer", "Retry", "ServerSettings", "Settings", "Source", "Tls", "Web"]


@dataclass(frozen=True)
class Tls:
    """Files of TLS, in PEM.

    Attributes:
        certificate: certificate with its chain; None for a client without one.
        key: private key of the certificate.
        ca: certificates that the other side's certificate must go back to; None for those of the system.
    """

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None


@dataclass(frozen=True)
class Peer:
    """A sender that may open associations.

    Attributes:
        ae_title: its AE title.
        address: its IP address, its network such as ``10.1.2.0/24``, or its host name.
    """

    ae_title: str
    address: str

    def is_at(self, address: str) -> bool:
        """Return whether an IP address is the peer's; a host name is resolved at each call."""
        try:
            return _ip(address) in ipaddress.ip_network(self.address, strict=False)
        except ValueError:
            pass
        try:
            found = socket.getaddrinfo(self.address, None, type=socket.SOCK_STREAM)
        except OSError:
            return False
        return _ip(address) in {_ip(str(each[4][0])) for each in found}


@dataclass(frozen=True)
class ServerSettings:
    """The radlens server.

    Attributes:
        url: base URL.
        token_file: file with the bearer token, or TorchServe's ``key_file.json``; None without a token.
        workers: number of requests at the same time.
        timeout_s: seconds without data from the server after which a request counts as failed.
    """

    url: str
    token_file: Path | None = None
    workers: int = 2
    timeout_s: float = 1800.0


@dataclass(frozen=True)
class DicomPeer:
    """A PACS that takes results by C-STORE.

    Attributes:
        ae_title: called AE title.
        address: host name or IP address.
        port: port.
        tls: files of TLS; None without TLS.
        commitment: whether storage commitment is asked for before results count as confirmed.
    """

    ae_title: str
    address: str
    port: int
    tls: Tls | None = None
    commitment: bool = False


@dataclass(frozen=True)
class Web:
    """A DICOMweb service.

    Attributes:
        url: base URL, below which ``/studies`` lies.
        token_file: file with a bearer token; None without.
        user: user name of basic authentication; None without.
        password_file: file with the password of ``user``.
        tls: files of TLS; None for the certificates of the system.
    """

    url: str
    token_file: Path | None = None
    user: str | None = None
    password_file: Path | None = None
    tls: Tls | None = None


Destination = DicomPeer | Web
"""Where results go."""


@dataclass(frozen=True)
class Source:
    """A DICOMweb service that is asked for new images.

    Attributes:
        name: name of the source, which rules know as the sender.
        web: the service.
        modalities: modalities of the series that are looked for.
        days: number of days before today of which studies are looked for.
        every_s: seconds between two searches.
    """

    name: str
    web: Web
    modalities: tuple[str, ...]
    days: int = 1
    every_s: float = 60.0


@dataclass(frozen=True)
class Limits:
    """What the node holds at most.

    Attributes:
        associations: associations at the same time.
        idle_s: seconds after which a silent association is ended.
        image_mb: largest size of an image, in MiB.
        keep_free_mb: space of the disk that must stay free; below it new images are refused. In MiB.
        queue: number of images in the queue from which on new ones are refused.
        keep_days: days for which finished images are remembered, so that a repeat is not processed again.
    """

    associations: int = 10
    idle_s: float = 900.0
    image_mb: int = 256
    keep_free_mb: int = 4096
    queue: int = 10_000
    keep_days: int = 90


@dataclass(frozen=True)
class Retry:
    """When failed steps are tried again.

    Attributes:
        first_s: seconds after the first failure; they double with each further one.
        longest_s: largest number of seconds between two tries.
        give_up_hours: hours after which a step that cannot be done becomes a dead letter.
        refusals: number of refusals of one image or object after which it becomes a dead letter.
    """

    first_s: float = 10.0
    longest_s: float = 600.0
    give_up_hours: float = 72.0
    refusals: int = 5


@dataclass(frozen=True)
class Settings:
    """Settings of a node.

    Attributes:
        file: file that they were read from.
        folder: folder of the queue.
        server: the radlens server.
        rules: rules in the order of the file.
        destinations: where results go, by name.
        ae_title: AE title of the node.
        address: address that it listens on; None where it takes no associations.
        port: port that it listens on.
        peers: senders that may open associations.
        tls: files of TLS for its own port; with ``ca``, senders need a certificate.
        sources: DICOMweb services that are asked for images.
        limits: what it holds at most.
        retry: when failed steps are tried again.
    """

    file: Path
    folder: Path
    server: ServerSettings
    rules: tuple[Rule, ...]
    destinations: Mapping[str, Destination]
    ae_title: str = "RADLENS"
    address: str | None = None
    port: int = 11112
    peers: tuple[Peer, ...] = ()
    tls: Tls | None = None
    sources: tuple[Source, ...] = ()
    limits: Limits = field(default_factory=Limits)
    retry: Retry = field(default_factory=Retry)

    def rule(self, name: str) -> Rule | None:
        """Return the rule of a name, if there is one."""
        return next((rule for rule in self.rules if rule.name == name), None)


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(address.partition("%")[0])
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found
