"""Images arrive: who may send what, how much, and what is answered when they cannot be kept."""

import io
import socket
import sqlite3
import threading
from typing import Any

import pydicom
import pytest
from node_parts import MARKED, free_port, image, running, send, settings_in, wait_until
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE, build_context
from pynetdicom.dimse_primitives import C_STORE

from radlens.errors import InvalidInput
from radlens.images.dicom import TRANSFER_SYNTAXES
from radlens.node import Node
from radlens.node.lanes import Unavailable
from radlens.node.loops import Housekeeping
from radlens.node.overview import summary
from radlens.node.queue import Queue
from radlens.node.reading import read_settings

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""pynetdicom leaves sockets of failed connections to the garbage collector."""

STORE = "1.2.840.10008.5.1.4.1.1.1.2"


def holding(rule, content):
    """Fail as a server does that is away."""
    raise Unavailable("away")


def associate(port, *contexts, ae_title="MODALITY", called="NODE"):
    """Open an association with the node."""
    ae = AE(ae_title)
    ae.acse_timeout = ae.connection_timeout = 10
    return ae.associate("127.0.0.1", port, list(contexts) or [build_context(STORE)], ae_title=called)


def counts(node):
    """Return what a node has counted."""
    Housekeeping(node.queue, node.settings, node._wake, node._take_counts).write_metrics()
    return summary(node.queue)["counts"]


def test_echo(tmp_path):
    """C-ECHO is answered with success."""
    with running(settings_in(tmp_path)) as node:
        association = associate(node.port, build_context("1.2.840.10008.1.1"))
        assert association.send_c_echo().Status == 0
        association.release()


def test_each_transfer_syntax_that_is_read_is_accepted(tmp_path):
    """All of `radlens.images` are, for mammograms and ultrasound; no other is."""
    others = [DeflatedExplicitVRLittleEndian, MPEG2MPML]
    with running(settings_in(tmp_path)) as node:
        for sop_class in (STORE, "1.2.840.10008.5.1.4.1.1.6.1"):
            contexts = [build_context(sop_class, syntax) for syntax in [*TRANSFER_SYNTAXES, *others]]
            association = associate(node.port, *contexts)
            accepted = {each.transfer_syntax[0] for each in association.accepted_contexts}
            association.release()
            assert accepted == set(TRANSFER_SYNTAXES)
    assert {ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLSLossless} < accepted
    assert {JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1} < accepted


def test_what_is_kept_is_what_was_sent(tmp_path):
    """The data set is kept as its bytes, also big endian and compressed ones."""
    compressed = image(2)
    compressed.compress(RLELossless, generate_instance_uid=False)
    big = pydicom.dcmread(_encoded_as(image(3), ExplicitVRBigEndian))
    sent = {str(each.SOPInstanceUID): each for each in (image(1), compressed, big)}
    with running(settings_in(tmp_path), holding) as node:
        assert send(node.port, list(sent.values())) == [0, 0, 0]
        kept = [pydicom.dcmread(file) for file in node.queue.folder.images.iterdir()]
    assert len(kept) == 3
    for each in kept:
        original = sent[each.SOPInstanceUID]
        assert each.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
        assert each.PixelData == original.PixelData
        assert each.PatientName == MARKED


def _encoded_as(dataset, syntax):
    """Return a dataset as a file in another uncompressed transfer syntax."""
    stream = io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = syntax
    del dataset.PixelData
    dataset.PixelData, dataset["PixelData"].VR = bytes(128), "OW"
    pydicom.dcmwrite(stream, dataset, implicit_vr=False, little_endian=False, enforce_file_format=True)
    stream.seek(0)
    return stream


@pytest.mark.parametrize(("calling", "called"), [("STRANGER", "NODE"), ("MODALITY", "OTHER")])
def test_unknown_titles_are_rejected(tmp_path, calling, called):
    """Titles of the caller, and of the node itself."""
    with running(settings_in(tmp_path)) as node:
        assert associate(node.port, ae_title=calling, called=called).is_rejected


def test_unknown_addresses_are_not_answered(tmp_path):
    """A known title from an unknown address is rejected, and so is every connection from it."""
    settings = settings_in(tmp_path)
    text = settings.file.read_text().replace("MODALITY, address: 127.0.0.1", "MODALITY, address: 192.0.2.7")
    settings.file.write_text(text)
    with running(read_settings(settings.file)) as node:
        assert associate(node.port).is_rejected
        assert counts(node)["turned away: unknown AE title or address"] == 1
    settings.file.write_text(text.replace("PACS, address: 127.0.0.1}", "PACS, address: 192.0.2.8}", 1))
    with running(read_settings(settings.file)) as node:
        refused = associate(node.port)
        assert not refused.is_established
        assert not refused.is_rejected
        assert counts(node)["turned away: unknown address"] == 1


def test_associations_are_bounded(tmp_path):
    """The fifth of four is rejected for now; once one has ended there is room."""
    with running(settings_in(tmp_path)) as node:
        opened = [associate(node.port) for _ in range(4)]
        assert all(each.is_established for each in opened)
        assert associate(node.port).is_rejected
        opened[0].release()
        wait_until(lambda: associate(node.port).is_established)
        for each in opened[1:]:
            each.release()


def test_a_pause_within_an_association(tmp_path):
    """A sender that pauses for longer than pynetdicom's own time-outs would allow keeps its association."""
    with running(settings_in(tmp_path, idle=2), holding) as node:
        assert send(node.port, [image(1), image(2)], pause_s=1.2) == [0, 0]


def test_a_silent_association_ends(tmp_path):
    """After limits.idle_s, so that it does not hold its place for ever."""
    with running(settings_in(tmp_path, idle=1)) as node:
        association = associate(node.port)
        wait_until(lambda: not association.is_established, 20)


def test_health_checks_hold_no_place(tmp_path, monkeypatch):
    """Connections that are opened and closed leave no thread behind, and do not count as associations."""
    monkeypatch.setattr("radlens.node.receiving.HANDSHAKE_S", 1.0)
    with running(settings_in(tmp_path)) as node:
        before = threading.active_count()
        for _ in range(25):
            socket.create_connection(("127.0.0.1", node.port)).close()
        association = associate(node.port)
        assert association.is_established
        association.release()
        wait_until(lambda: threading.active_count() <= before, 40)


def test_half_a_pdu_holds_no_place(tmp_path, monkeypatch):
    """A connection that sends a part of a request and stops is closed after limits.idle_s."""
    monkeypatch.setattr("radlens.node.receiving.HANDSHAKE_S", 1.0)
    with running(settings_in(tmp_path, idle=1)) as node:
        before = threading.active_count()
        with socket.create_connection(("127.0.0.1", node.port)) as half:
            half.sendall(b"\x01\x00\x00\x00\x00\xff" + bytes(20))
            half.settimeout(30)
            assert half.recv(1000) == b""
            wait_until(lambda: threading.active_count() <= before, 40)


def test_a_short_disk_refuses_images(tmp_path, monkeypatch):
    """A700H while less than limits.keep_free_mb is free; success once there is room again."""
    with running(settings_in(tmp_path), holding) as node:
        with monkeypatch.context() as short:
            short.setattr(type(node.queue.folder), "free_mb", lambda folder: 7.9)
            assert send(node.port, [image(1)]) == [0xA700]
        assert summary(node.queue)["counts"] == {"refused": 1}
        assert not list(node.queue.folder.incoming.iterdir())
        assert send(node.port, [image(1)]) == [0]


def test_a_full_queue_refuses_images(tmp_path):
    """A700H from limits.queue images on."""
    settings = settings_in(tmp_path)
    settings.file.write_text(settings.file.read_text().replace("limits: {", "limits: {queue: 2, "))
    with running(read_settings(settings.file), holding) as node:
        assert send(node.port, [image(i) for i in range(3)]) == [0, 0, 0xA700]


def test_a_failing_database_refuses_images(tmp_path, monkeypatch):
    """Success is answered only where the image is safe."""

    def failing(*arguments):
        raise sqlite3.OperationalError("database or disk is full")

    with running(settings_in(tmp_path), holding) as node:
        monkeypatch.setattr(node.queue, "accept", failing)
        assert send(node.port, [image(1)]) == [0xA700]


def test_too_large_images_end_the_association(tmp_path):
    """They are not kept, neither in memory nor on the disk, and the next association works."""
    with running(settings_in(tmp_path), holding) as node:
        large = image(1, Rows=1024, Columns=2048)
        large.PixelData = bytes(2 * 1024 * 2048)
        assert send(node.port, [large]) == [-1]
        assert send(node.port, [image(2)]) == [0]
        assert counts(node)["turned away: image larger than limits.image_mb"] == 1
        assert not list(node.queue.folder.incoming.iterdir())


def test_uids_must_agree(tmp_path, monkeypatch):
    """A data set with another UID than the request says is refused as not matching."""
    with running(settings_in(tmp_path), holding) as node:
        association = associate(node.port, build_context(STORE, ExplicitVRLittleEndian))
        lied = image(1)
        assert association.send_c_store(lied).Status == 0
        original: Any = C_STORE.AffectedSOPInstanceUID
        lying = property(original.fget, lambda request, uid: original.fset(request, "1.2.3"))
        monkeypatch.setattr(C_STORE, "AffectedSOPInstanceUID", lying)
        assert association.send_c_store(image(2)).Status == 0xA900
        association.release()


def test_a_port_in_use_is_an_error(tmp_path):
    """The node does not start without its port."""
    port = free_port()
    settings = settings_in(tmp_path)
    settings.file.write_text(settings.file.read_text().replace("port: 0", f"port: {port}"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with (
            pytest.raises(InvalidInput, match=r"must be an address and a free port.*in use"),
            running(read_settings(settings.file)),
        ):
            pass


@pytest.mark.parametrize("fails", ["_room", "refuse"])
def test_a_refusal_that_cannot_be_noted_is_one_of_resources(tmp_path, monkeypatch, fails):
    """A700H, which senders try again, and no status of pynetdicom's for a handler that failed."""

    def failing(*arguments):
        raise sqlite3.OperationalError("database or disk is full")

    settings = settings_in(tmp_path)
    node_class = Queue if fails == "refuse" else Node
    monkeypatch.setattr(node_class, fails, failing)
    if fails == "refuse":
        monkeypatch.setattr(Node, "_room", lambda self: "disk is short")
    with running(settings, holding) as node:
        assert send(node.port, [image(1)]) == [0xA700]
