"""DICOM audit messages, received by sockets of the test."""

import base64
import json
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from radlens.audit import AuditLog, records
from radlens.dicom_audit import Syslog, forward, frame, message
from radlens.errors import InvalidParameter, ServerError

ASKED = {
    "event": "explain",
    "status": 200,
    "result": "answered",
    "key": "viewer",
    "client": "10.0.0.7",
    "model": "cdmam",
    "version": "2.0",
    "bundle_hash": "b" * 64,
    "inputs": ["a" * 64, "c" * 64],
    "request_id": "r1",
}

ORDER = [
    "EventIdentification",
    "ActiveParticipant",
    "AuditSourceIdentification",
    "ParticipantObjectIdentification",
]
"""Elements of a message, in the order of the schema of PS3.15 A.5.1."""


@pytest.fixture
def log(tmp_path):
    """A log of one explanation, one refused key and one promotion."""
    log = AuditLog(tmp_path / "audit.jsonl")
    log.append(ASKED)
    log.append({"event": "unauthorised", "status": 401, "result": "refused", "client": "viewer.example.org"})
    log.append({"event": "promote", "outcome": "failed", "reason": "no <samples> & more", "model": "cdmam", "who": "é"})
    return tmp_path / "audit.jsonl"


def parsed(record):
    """Return the message of a record as an element."""
    return ElementTree.fromstring(message(record, host="server"))


def codes(root, name):
    """Return the codes of all elements of a name."""
    return [(each.get("csd-code"), each.get("codeSystemName")) for each in root.iter(name)]


def test_a_request_is_a_query(log):
    """Who, from where, which model, which input, when; all fields of the record come with it."""
    record = next(records(log))
    root = parsed(record)
    assert [ORDER.index(each.tag) for each in root] == sorted(ORDER.index(each.tag) for each in root)
    event = root.find("EventIdentification")
    assert (event.get("EventActionCode"), event.get("EventOutcomeIndicator")) == ("E", "0")
    assert event.get("EventDateTime") == record["time"]
    assert codes(root, "EventID") == [("110112", "DCM")]
    assert codes(root, "EventTypeCode") == [("explain", "99RADLENS")]
    who, own = root.findall("ActiveParticipant")
    assert (who.get("UserID"), who.get("UserIsRequestor")) == ("viewer", "true")
    assert (who.get("NetworkAccessPointID"), who.get("NetworkAccessPointTypeCode")) == ("10.0.0.7", "2")
    assert own.get("UserIsRequestor") == "false"
    model, asked, other = root.findall("ParticipantObjectIdentification")
    assert model.get("ParticipantObjectID") == "cdmam/2.0"
    assert (asked.get("ParticipantObjectID"), asked.get("ParticipantObjectTypeCodeRole")) == ("a" * 64, "24")
    assert other.get("ParticipantObjectID") == "c" * 64
    query = json.loads(base64.b64decode(asked.find("ParticipantObjectQuery").text))
    assert query == {"seq": 1, "status": 200, "result": "answered", "bundle_hash": "b" * 64, "request_id": "r1"}


def test_events_have_the_codes_of_the_standard(log):
    """A refused key is a login that failed, a change of versions an alert about the software."""
    _, refused, promoted = records(log)
    assert codes(parsed(refused), "EventID") == [("110114", "DCM")]
    assert codes(parsed(refused), "EventTypeCode") == [("110122", "DCM"), ("unauthorised", "99RADLENS")]
    assert parsed(refused).find("EventIdentification").get("EventOutcomeIndicator") == "4"
    assert parsed(refused).find("ActiveParticipant").get("NetworkAccessPointTypeCode") == "1"
    root = parsed(promoted)
    assert codes(root, "EventID") == [("110113", "DCM")]
    assert ("110131", "DCM") in codes(root, "EventTypeCode")
    assert root.find("EventIdentification/EventOutcomeDescription").text == "no <samples> & more"
    assert root.find("ActiveParticipant").get("UserID") == "é"


def test_the_frame_is_that_of_rfc_5424():
    """Priority of facility 10 and severity 5, version 1, MSGID, no structured data, a byte order mark."""
    head, _, content = frame(b"<x/>", time="2026-01-01T00:00:00.000Z", host="a host").partition(b"\xef\xbb\xbf")
    assert head.startswith(b"<85>1 2026-01-01T00:00:00.000Z ahost radlens ")
    assert head.endswith(b" DICOM+RFC3881 - ")
    assert content == b"<x/>"


def counted(stream):
    """Yield the messages of a stream with octet counting (RFC 6587, RFC 5425)."""
    while stream:
        length, _, rest = stream.partition(b" ")
        yield rest[: int(length)]
        stream = rest[int(length) :]


def received(listener, into, context=None):
    """Collect all bytes of one connection in a thread."""

    def run():
        connection, _ = listener.accept()
        if context is not None:
            connection = context.wrap_socket(connection, server_side=True)
        with connection:
            while piece := connection.recv(65536):
                into.append(piece)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def root_of(framed):
    """Return the message in a frame."""
    return ElementTree.fromstring(framed.partition(b"\xef\xbb\xbf")[2])


def test_records_are_sent_by_udp(log):
    """One datagram each, and each once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        with Syslog(f"udp://127.0.0.1:{receiver.getsockname()[1]}") as syslog:
            assert forward(log, syslog, host="server") == 3
            assert forward(log, syslog, host="server") == 0
            AuditLog(log).append(ASKED)
            assert forward(log, syslog, host="server") == 1
        found = [root_of(receiver.recv(65536)) for _ in range(4)]
    assert [codes(each, "EventID")[0][0] for each in found] == ["110112", "110114", "110113", "110112"]


def test_records_are_sent_by_tcp_and_wait_while_nobody_listens(log):
    """Octets are counted; a server that cannot be reached loses nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ServerError, match="a syslog server must answer at tcp://"):
        Syslog(url)
    pieces = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = received(listener, pieces)
        with Syslog(f"tcp://127.0.0.1:{listener.getsockname()[1]}") as syslog:
            assert forward(log, syslog, host="server") == 3
        thread.join()
    found = [root_of(each) for each in counted(b"".join(pieces))]
    assert [codes(each, "EventID")[0][0] for each in found] == ["110112", "110114", "110113"]


def test_a_connection_that_breaks_keeps_its_place(log):
    """What was sent is not sent again, and the rest is."""

    class Breaking:
        def __init__(self):
            self.sent = []

        def send(self, framed):
            if len(self.sent) == 2:
                raise ServerError("gone")
            self.sent.append(framed)

    breaking = Breaking()
    with pytest.raises(ServerError, match="gone"):
        forward(log, breaking, host="server")
    whole = Breaking()
    assert forward(log, whole, host="server") == 1
    assert len(breaking.sent) == 2


@pytest.fixture
def certificate(tmp_path):
    """A certificate of 127.0.0.1 with its key, which signs itself."""
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "server.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    (tmp_path / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return tmp_path


def test_records_are_sent_by_tls(log, certificate):
    """To a server whose certificate is known, and to no other."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "server.pem")
    pieces = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = received(listener, pieces, context)
        url = f"tls://127.0.0.1:{listener.getsockname()[1]}"
        with Syslog(url, ca=certificate / "ca.pem") as syslog:
            assert forward(log, syslog, host="server") == 3
        thread.join()
    assert len([root_of(each) for each in counted(b"".join(pieces))]) == 3
    refused = []

    def refuse(listener):
        connection, _ = listener.accept()
        with connection:
            try:
                context.wrap_socket(connection, server_side=True).close()
            except OSError as error:
                refused.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse, args=(listener,))
        thread.start()
        with pytest.raises(ServerError, match="certificate verify failed"):
            Syslog(f"tls://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert refused


@pytest.mark.parametrize("url", ["", "http://x", "udp://", "tls://host/path", "host:514"])
def test_other_addresses_are_refused(url):
    """Before anything is opened."""
    with pytest.raises(InvalidParameter, match="a syslog server must be udp://, tcp:// or tls://HOST:PORT, got"):
        Syslog(url)
