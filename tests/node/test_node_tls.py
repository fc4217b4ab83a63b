"""TLS of the node's port and of its connections."""

import datetime
import ipaddress
import socket

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from node_parts import Pacs, image, pacs_at, running, settings_in, wait_until
from pynetdicom import AE, build_context

from radlens.errors import InvalidInput
from radlens.node.reading import read_settings
from radlens.node.settings import Tls
from radlens.node.tls import client_context, server_context

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""pynetdicom leaves sockets of failed connections to the garbage collector."""


def make_certificate(folder, name, issuer=None):
    """Write a key and a certificate for 127.0.0.1, self-signed or issued, and return certificate and key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issued_by, issuing_key = issuer or (None, key)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issued_by.subject if issued_by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(issuing_key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / f"{name}.key").write_bytes(key.private_bytes(*form))
    return certificate, key


@pytest.fixture
def files(tmp_path):
    """An authority, certificates of node and sender by it, and one of a stranger."""
    authority = make_certificate(tmp_path, "ca")
    for name in ("node", "sender"):
        make_certificate(tmp_path, name, authority)
    make_certificate(tmp_path, "stranger")
    return tmp_path


def tls_of(folder, name):
    """Return the files of a name, with the authority."""
    return Tls(folder / f"{name}.pem", folder / f"{name}.key", folder / "ca.pem")


def associate(port, tls):
    """Open an association with a certificate."""
    ae = AE("MODALITY")
    ae.acse_timeout = ae.connection_timeout = 5
    arguments = (client_context(tls), "127.0.0.1") if tls else None
    contexts = [build_context("1.2.840.10008.5.1.4.1.1.1.2", image(1).file_meta.TransferSyntaxUID)]
    return ae.associate("127.0.0.1", port, contexts, ae_title="NODE", tls_args=arguments)


def test_senders_need_a_certificate(files):
    """With ca: one by the authority is accepted; none, a stranger's, and a connection without TLS are not."""
    tls = ", tls: {certificate: node.pem, key: node.key, ca: ca.pem}"
    with running(settings_in(files, tls=tls)) as node:
        good = associate(node.port, tls_of(files, "sender"))
        assert good.is_established
        assert good.send_c_store(image(1)).Status == 0
        good.release()
        for wrong in (tls_of(files, "stranger"), Tls(ca=files / "ca.pem"), None):
            assert not associate(node.port, wrong).is_established


def test_a_silent_handshake_stops_nobody(files):
    """A connection that does not begin TLS does not keep others from theirs."""
    tls = ", tls: {certificate: node.pem, key: node.key}"
    with running(settings_in(files, tls=tls)) as node, socket.create_connection(("127.0.0.1", node.port)):
        association = associate(node.port, tls_of(files, "sender"))
        assert association.is_established
        association.release()


def test_results_go_out_over_tls(files):
    """To a PACS that wants a certificate; one whose own certificate does not hold gets nothing."""
    pacs = Pacs()
    context = server_context(tls_of(files, "sender"))
    with pacs_at(pacs, ssl_context=context) as port:
        tls = "{certificate: node.pem, key: node.key, ca: ca.pem}"
        good = f"{{ae_title: PACS, address: 127.0.0.1, port: {port}, tls: {tls}}}"
        with running(settings_in(files, destination=good)) as node:
            _send_one(node.port)
            wait_until(lambda: len(pacs.got) == 1)
        settings = settings_in(files, destination=good.replace("ca: ca.pem", "ca: stranger.pem"))
        settings.file.write_text(settings.file.read_text().replace("folder: queue", "folder: other"))
        with running(read_settings(settings.file)) as node:
            _send_one(node.port)
            wait_until(lambda: node.queue.database.rows("SELECT * FROM lanes"))
    assert len(pacs.got) == 1


def _send_one(port):
    association = associate(port, None)
    assert association.send_c_store(image(1)).Status == 0
    association.release()


def test_wrong_files_are_named(files):
    """A key of another certificate, a file that is not PEM, and one that is missing."""
    with pytest.raises(InvalidInput, match=r"node\.pem and .*sender\.key must be a certificate and its key in PEM"):
        server_context(Tls(files / "node.pem", files / "sender.key"))
    (files / "bad.pem").write_text("none")
    with pytest.raises(InvalidInput, match=r"bad\.pem must be certificates in PEM"):
        client_context(Tls(ca=files / "bad.pem"))
    with pytest.raises(InvalidInput, match=r"listen\.tls\.ca must be a file, got .*none\.pem, which is missing"):
        settings_in(files, tls=", tls: {certificate: node.pem, key: node.key, ca: none.pem}")
    with pytest.raises(InvalidInput, match="must have both certificate and key, or neither"):
        settings_in(files, tls=", tls: {certificate: node.pem}")
