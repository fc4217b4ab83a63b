"""Audit records as DICOM audit messages (PS3.15 A.5.1), sent by syslog (RFC 5424) over UDP, TCP or TLS.

A request is a Query event (110112), a start or stop an Application Activity (110100), a change of versions a Security
Alert of type Software Configuration (110113, 110131), a change of keys one of type User Security Attributes Changed
(110137), and a refused key a User Authentication (110114, 110122).

Messages hold no patient: inputs are named by their SHA-256. Codes that DICOM does not have are of the scheme 99RADLENS.
"""

import base64
import json
import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from xml.etree import ElementTree

from radlens import durable
from radlens.audit import records
from radlens.errors import InvalidParameter, ServerError

__all__ = ["Syslog", "forward", "frame", "message"]

Code = tuple[str, str, str]
"""Code value, coding scheme and meaning."""

_OWN = "99RADLENS"

_QUERY: Code = ("110112", "DCM", "Query")
_ALERT: Code = ("110113", "DCM", "Security Alert")
_SOFTWARE: Code = ("110131", "DCM", "Software Configuration")
_KEYS: Code = ("110137", "DCM", "User Security Attributes Changed")

_EVENTS: dict[str, tuple[Code, str, tuple[Code, ...]]] = {
    "predict": (_QUERY, "E", ()),
    "explain": (_QUERY, "E", ()),
    "infer": (_QUERY, "E", ()),
    "start": (("110100", "DCM", "Application Activity"), "E", (("110120", "DCM", "Application Start"),)),
    "stop": (("110100", "DCM", "Application Activity"), "E", (("110121", "DCM", "Application Stop"),)),
    "unauthorised": (("110114", "DCM", "User Authentication"), "E", (("110122", "DCM", "Login"),)),
    "register": (_ALERT, "C", (_SOFTWARE,)),
    "promote": (_ALERT, "U", (_SOFTWARE,)),
    "rollback": (_ALERT, "U", (_SOFTWARE,)),
    "scale": (_ALERT, "U", (_SOFTWARE,)),
    "retire": (_ALERT, "D", (_SOFTWARE,)),
    "key added": (_ALERT, "C", (_KEYS,)),
    "key revoked": (_ALERT, "D", (_KEYS,)),
}
"""Event, action (Create, Read, Update, Delete, Execute) and types of an event of the log (PS3.15 A.5.3)."""

_UNKNOWN = (("110100", "DCM", "Application Activity"), "E", ())
"""Of events that are not in the table; their name is the type."""

_SUCCESS, _MINOR_FAILURE = "0", "4"
"""Values of Event Outcome Indicator."""

_PRIORITY = 10 * 8 + 5
"""Facility 10 (security), severity 5 (notice): PS3.15 A.6."""

_LONGEST_DATAGRAM = 65507
"""Largest content of a UDP datagram in bytes; PS3.15 A.6.1 allows that messages be cut, which would break the XML."""

_TIMEOUT_S = 10.0


def message(record: Mapping[str, Any], *, host: str) -> bytes:
    """Return the DICOM audit message of a record, as XML in UTF-8.

    Args:
        record: Record of the log; ``event``, ``outcome`` or ``result``, ``who`` or ``key``, ``client``, ``model``,
            ``version``, ``inputs`` and ``time`` have a place of their own, the other fields are a detail.
        host: Name of this machine.
    """
    event = str(record.get("event", ""))
    identifier, action, types = _EVENTS.get(event, _UNKNOWN)
    root = ElementTree.Element("AuditMessage")
    identification = ElementTree.SubElement(
        root,
        "EventIdentification",
        EventActionCode=action,
        EventDateTime=str(record["time"]),
        EventOutcomeIndicator=_SUCCESS if _succeeded(record) else _MINOR_FAILURE,
    )
    _coded(identification, "EventID", identifier)
    for each in (*types, (event or "unknown", _OWN, event or "unknown")):
        _coded(identification, "EventTypeCode", each)
    if not _succeeded(record):
        reason = str(record.get("reason") or record.get("outcome") or record.get("result"))
        ElementTree.SubElement(identification, "EventOutcomeDescription").text = reason
    _participants(root, record, host)
    ElementTree.SubElement(root, "AuditSourceIdentification", AuditSourceID=f"radlens@{host}")
    _objects(root, record)
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content


def frame(content: bytes, *, time: str, host: str) -> bytes:
    """Return a syslog message (RFC 5424) with an audit message; MSGID as PS3.15 A.6 states it."""
    head = f"<{_PRIORITY}>1 {time} {_printable(host)} radlens {os.getpid()} DICOM+RFC3881 - "
    # A byte order mark announces UTF-8 (RFC 5424 section 6.4).
    return head.encode("ascii") + b"\xef\xbb\xbf" + content


class Syslog:
    """Connection to a syslog server. Close it after use, or use it as a context manager.

    Args:
        url: ``udp://host:514`` (RFC 5426), ``tcp://host:601`` (RFC 6587, octet counting) or ``tls://host:6514`` (RFC
            5425).
        ca: File with the certificates that sign the server's; None for those of the system.
        certificate: File with certificate and key of this client, for servers that ask for one; None for none.

    Raises:
        InvalidParameter: The URL has another form.
        ServerError: The server cannot be reached, or its certificate is not valid.
    """

    def __init__(self, url: str, *, ca: Path | None = None, certificate: Path | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("udp", "tcp", "tls") or not parts.hostname or parts.path or parts.query:
            raise InvalidParameter(f"a syslog server must be udp://, tcp:// or tls://HOST:PORT, got {url[:80]!a}")
        default = {"udp": 514, "tcp": 601, "tls": 6514}[parts.scheme]
        address = (parts.hostname, parts.port or default)
        self._is_datagram = parts.scheme == "udp"
        try:
            if self._is_datagram:
                family, _, _, _, place = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
                self._socket = socket.socket(family, socket.SOCK_DGRAM)
                self._socket.connect(place)
            else:
                self._socket = socket.create_connection(address, timeout=_TIMEOUT_S)
            if parts.scheme == "tls":
                context = ssl.create_default_context(cafile=None if ca is None else str(ca))
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                if certificate is not None:
                    context.load_cert_chain(certificate)
                self._socket = context.wrap_socket(self._socket, server_hostname=parts.hostname)
        except OSError as error:
            if hasattr(self, "_socket"):
                self._socket.close()
            raise ServerError(f"a syslog server must answer at {url}, got {error}") from error
        self._url = url

    def __enter__(self) -> Self:
        """Return the connection."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection, after the server has read what was sent."""
        # A socket that is closed while it holds unread bytes, such as the tickets of TLS 1.3, resets the connection,
        # and the server loses what it has not read.
        with suppress(OSError):
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket = self._socket.unwrap()
            if not self._is_datagram:
                self._socket.shutdown(socket.SHUT_WR)
                while self._socket.recv(65536):
                    pass
        self._socket.close()

    def send(self, framed: bytes) -> None:
        """Send one syslog message.

        UDP tells of no loss, and TCP only of a connection that is known to be closed: syslog has no receipts.

        Raises:
            InvalidParameter: The message does not fit into a datagram.
            ServerError: The connection is closed.
        """
        if self._is_datagram and len(framed) > _LONGEST_DATAGRAM:
            raise InvalidParameter(f"a message by UDP must have at most {_LONGEST_DATAGRAM} bytes, got {len(framed)}")
        try:
            self._socket.sendall(framed if self._is_datagram else b"%d %b" % (len(framed), framed))
        except OSError as error:
            raise ServerError(f"the syslog server at {self._url} must take all messages, got {error}") from error


@dataclass(frozen=True)
class _Position:
    """Number of the last record that was sent, in a file beside the log."""

    file: Path

    def read(self) -> int:
        try:
            return int(self.file.read_text())
        except (OSError, ValueError):
            return 0

    def write(self, seq: int) -> None:
        durable.replace(self.file, f"{seq}\n".encode())


def forward(log: Path, syslog: Syslog, *, host: str | None = None) -> int:
    """Send the records of a log that were not sent yet; return their number.

    The number of the last record that was sent is kept in ``<log>.sent``, so that records wait while the server cannot
    be reached; a record can be sent twice after a crash. Before a log is rotated, it must be forwarded.

    Raises:
        ServerError: The connection broke; what was sent until then is kept.
    """
    position, n_sent = _Position(log.with_name(f"{log.name}.sent")), 0
    with durable.locked(position.file):
        last, name = position.read(), host or socket.gethostname()
        reached = last
        try:
            for record in records(log):
                if record["seq"] <= last:
                    continue
                syslog.send(frame(message(record, host=name), time=record["time"], host=name))
                reached, n_sent = record["seq"], n_sent + 1
        finally:
            if reached != last:
                position.write(reached)
    return n_sent


def _participants(root: ElementTree.Element, record: Mapping[str, Any], host: str) -> None:
    who = ElementTree.SubElement(
        root,
        "ActiveParticipant",
        UserID=str(record.get("who") or record.get("key") or "unknown"),
        UserIsRequestor="true",
    )
    client = record.get("client")
    if client:
        who.set("NetworkAccessPointID", str(client))
        who.set("NetworkAccessPointTypeCode", "2" if _is_address(str(client)) else "1")
    _coded(who, "RoleIDCode", ("110153", "DCM", "Source Role ID"))
    own = ElementTree.SubElement(root, "ActiveParticipant", UserID="radlens", UserIsRequestor="false")
    own.set("NetworkAccessPointID", host)
    own.set("NetworkAccessPointTypeCode", "1")
    _coded(own, "RoleIDCode", ("110152", "DCM", "Destination Role ID"))


def _objects(root: ElementTree.Element, record: Mapping[str, Any]) -> None:
    placed = ("event", "outcome", "who", "key", "client", "model", "version", "inputs", "time", "reason", "previous")
    rest = {name: value for name, value in record.items() if name not in placed}
    details = base64.b64encode(json.dumps(rest, sort_keys=True).encode()).decode("ascii")
    if record.get("model"):
        version = f"/{record['version']}" if record.get("version") else ""
        # A system object (2) in the role of a master file (5).
        model = ElementTree.SubElement(
            root,
            "ParticipantObjectIdentification",
            ParticipantObjectID=f"{record['model']}{version}",
            ParticipantObjectTypeCode="2",
            ParticipantObjectTypeCodeRole="5",
        )
        _coded(model, "ParticipantObjectIDTypeCode", ("model", _OWN, "Model and version"))
        ElementTree.SubElement(model, "ParticipantObjectName").text = str(record["model"])
        ElementTree.SubElement(model, "ParticipantObjectDetail", type="radlens", value=details)
    for sha256 in record.get("inputs") or ():
        # A system object (2) in the role of a query (24).
        asked = ElementTree.SubElement(
            root,
            "ParticipantObjectIdentification",
            ParticipantObjectID=str(sha256),
            ParticipantObjectTypeCode="2",
            ParticipantObjectTypeCodeRole="24",
        )
        _coded(asked, "ParticipantObjectIDTypeCode", ("input", _OWN, "SHA-256 of the input"))
        ElementTree.SubElement(asked, "ParticipantObjectQuery").text = details


def _coded(parent: ElementTree.Element, name: str, code: Code) -> None:
    value, scheme, meaning = code
    attributes = {"csd-code": value, "codeSystemName": scheme, "originalText": meaning}
    ElementTree.SubElement(parent, name, attributes)


def _succeeded(record: Mapping[str, Any]) -> bool:
    return record.get("outcome", record.get("result", "done")) in ("done", "answered", "not assessable")


def _is_address(text: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except OSError:
            continue
        return True
    return False


def _printable(host: str) -> str:
    """Return a host name as RFC 5424 allows it: at most 255 characters of printable ASCII, ``-`` if none is left."""
    return "".join(each for each in host if each.isascii() and each.isprintable() and each != " ")[:255] or "-"
