"""Results go to a PACS that refuses, drops, is away, or commits to storage; and the server that is asked fails."""

import io
import socket
import sqlite3
import threading
import time
from dataclasses import replace

import pydicom
import pytest
from node_parts import (
    CAPTURE,
    MARKED,
    Pacs,
    answering,
    encoded,
    free_port,
    image,
    pacs_at,
    result_of,
    running,
    send,
    settings_in,
    wait_until,
)
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

from radlens.errors import InvalidInput
from radlens.node import Node
from radlens.node.lanes import Lane, Refused, Unavailable, delay_s
from radlens.node.overview import listed, summary
from radlens.node.reading import read_settings
from radlens.node.sending import STORAGE_COMMITMENT
from radlens.node.settings import Retry

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""pynetdicom leaves sockets of failed connections to the garbage collector."""


def at(port, more=""):
    """Return a destination on a port."""
    return f"{{ae_title: PACS, address: 127.0.0.1, port: {port}{more}}}"


def is_empty(node):
    """Return whether a node holds no file."""
    folder = node.queue.folder
    return not any(list(part.iterdir()) for part in (folder.images, folder.results))


def test_results_arrive_as_they_were_made(tmp_path):
    """Bit for bit, and the files of the node are gone then."""
    pacs = Pacs()
    with pacs_at(pacs) as port, running(settings_in(tmp_path, destination=at(port))) as node:
        assert send(node.port, [image(i) for i in range(3)]) == [0, 0, 0]
        wait_until(lambda: len(pacs.got) == 3 and is_empty(node))
        made = [pydicom.dcmread(_stream(result_of(encoded(image(i))))) for i in range(3)]
        got = {str(each.SOPInstanceUID): each for each in map(pydicom.dcmread, map(_stream, pacs.kept))}
        assert all(got[str(each.SOPInstanceUID)] == each for each in made)


def _stream(content):
    return io.BytesIO(content)


def test_a_pacs_that_knows_implicit_vr_alone(tmp_path):
    """The result is encoded again, and every element arrives."""
    pacs = Pacs()
    with (
        pacs_at(pacs, contexts=[CAPTURE], syntax=ImplicitVRLittleEndian) as port,
        running(settings_in(tmp_path, destination=at(port))) as node,
    ):
        send(node.port, [image(1)])
        wait_until(lambda: pacs.got and is_empty(node))
    got = pydicom.dcmread(_stream(pacs.kept[0]))
    assert got.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    made = pydicom.dcmread(_stream(result_of(encoded(image(1)))))
    assert (got.PixelData, got.PatientName) == (made.PixelData, made.PatientName)


def test_out_of_resources_is_held(tmp_path):
    """A700H, and later success: nothing is lost, nothing is sent twice after success."""
    pacs, asked = Pacs(), []

    def busy(event):
        asked.append(1)
        return 0xA700 if len(asked) < 6 else 0

    pacs.answer = busy
    with pacs_at(pacs) as port, running(settings_in(tmp_path, destination=at(port))) as node:
        send(node.port, [image(1), image(2)])
        wait_until(lambda: summary(node.queue)["lanes"])
        assert "out of resources (A700H)" in summary(node.queue)["lanes"][0]["error"]
        wait_until(lambda: len(pacs.got) == 2 and is_empty(node) and summary(node.queue)["lanes"] == [])
    assert len(set(pacs.got)) == 2


def test_a_dropped_association_is_held(tmp_path):
    """A PACS that accepts and drops the association; an object at which it always does steps behind the others."""
    pacs, poison = Pacs(), pydicom.dcmread(_stream(result_of(encoded(image(1))))).SOPInstanceUID

    def dropping(event):
        if event.request.AffectedSOPInstanceUID == poison:
            event.assoc.abort()
        return 0 if event.request.AffectedSOPInstanceUID != poison else 0xA700

    pacs.answer = dropping
    with pacs_at(pacs) as port, running(settings_in(tmp_path, destination=at(port))) as node:
        send(node.port, [image(1), image(2), image(3)])
        wait_until(lambda: len(pacs.got) == 2)
        pacs.answer = lambda event: 0
        wait_until(lambda: len(pacs.got) == 3 and is_empty(node))
    assert len(set(pacs.got)) == 3


def test_a_pacs_that_is_away(tmp_path):
    """Results wait, are shown with the reason, and go out once it is there."""
    port, pacs = free_port(), Pacs()
    with running(settings_in(tmp_path, destination=at(port))) as node:
        send(node.port, [image(i) for i in range(3)])
        wait_until(lambda: summary(node.queue)["lanes"] and summary(node.queue)["tasks"] == {"sending": 3})
        assert "cannot be reached" in summary(node.queue)["lanes"][0]["error"]
        assert any("cannot be reached" in (row["error"] or "") for row in listed(node.queue, ("sending",), 9))
        with pacs_at(pacs, port):
            wait_until(lambda: len(pacs.got) == 3 and is_empty(node))


def test_given_up_after_its_time(tmp_path):
    """A destination that is away for longer than retry.give_up_hours makes dead letters, which can be sent again."""
    port, pacs = free_port(), Pacs()
    settings = settings_in(tmp_path, destination=at(port))
    settings.file.write_text(settings.file.read_text().replace("retry: {", "retry: {give_up_hours: 0, "))
    with running(read_settings(settings.file)) as node:
        send(node.port, [image(1)])
        wait_until(lambda: listed(node.queue, ("dead",), 9))
        assert not is_empty(node)
        with pacs_at(pacs, port):
            node.queue.resend(1)
            wait_until(lambda: pacs.got and is_empty(node))


def test_a_refusal_becomes_a_dead_letter(tmp_path):
    """C000H for one object: tried three times, then shown; the others go through."""
    pacs, tries = Pacs(), []
    bad = pydicom.dcmread(_stream(result_of(encoded(image(1))))).SOPInstanceUID

    def refusing(event):
        if event.request.AffectedSOPInstanceUID != bad:
            return 0
        tries.append(1)
        return 0xC000

    pacs.answer = refusing
    with pacs_at(pacs) as port, running(settings_in(tmp_path, destination=at(port))) as node:
        send(node.port, [image(1), image(2)])
        wait_until(lambda: listed(node.queue, ("dead",), 9) and len(pacs.got) == 1)
        assert len(tries) == 3
        assert listed(node.queue, ("dead",), 9)[0]["error"] == "pacs: refused with status C000H"


def test_a_pacs_without_the_class_refuses(tmp_path):
    """A PACS that does not take the SOP class of a result: a dead letter that names the class."""
    with (
        pacs_at(Pacs(), contexts=["1.2.840.10008.5.1.4.1.1.2"]) as port,
        running(settings_in(tmp_path, destination=at(port))) as node,
    ):
        send(node.port, [image(1)])
        wait_until(lambda: listed(node.queue, ("dead",), 9))
        error = f"pacs: does not accept SOP class {CAPTURE} in the association"
        assert listed(node.queue, ("dead",), 9)[0]["error"] == error
        assert summary(node.queue)["lanes"] == []


@pytest.mark.parametrize("is_committed", [True, False])
def test_storage_commitment(tmp_path, is_committed):
    """Files are deleted only after the PACS committed; what it does not commit to is sent again."""
    pacs, asked, answers = Pacs(), [], []

    def on_action(event):
        asked.append(event.action_information)
        threading.Thread(target=report, args=(event.action_information,)).start()
        return 0, None

    def report(request):
        """Answer over an association of its own, as most PACS do."""
        result = pydicom.Dataset()
        result.TransactionUID = request.TransactionUID
        result.ReferencedSOPSequence, result.FailedSOPSequence = [], []
        is_done = is_committed or len(asked) > 1
        for item in request.ReferencedSOPSequence:
            if is_done:
                result.ReferencedSOPSequence.append(item)
            else:
                item.FailureReason = 0x0110
                result.FailedSOPSequence.append(item)
        if is_done:
            del result.FailedSOPSequence
        wait_until(lambda: node_port)
        ae = AE("PACS")
        ae.add_requested_context(STORAGE_COMMITMENT)
        role = build_role(STORAGE_COMMITMENT, scp_role=True)
        association = ae.associate("127.0.0.1", node_port[0], ae_title="NODE", ext_neg=[role])
        assert association.is_established
        kind = 1 if is_done else 2
        status, _ = association.send_n_event_report(result, kind, STORAGE_COMMITMENT, "1.2.840.10008.1.20.1.1")
        answers.append(status.Status)
        association.release()

    node_port = []
    handlers = [(evt.EVT_N_ACTION, on_action)]
    contexts = [CAPTURE, "1.2.840.10008.1.20.1"]
    with (
        pacs_at(pacs, contexts=contexts, syntax=None, handlers=handlers) as port,
        running(settings_in(tmp_path, destination=at(port, ", commitment: true"))) as node,
    ):
        send(node.port, [image(1)])
        wait_until(lambda: asked)
        assert not is_empty(node)
        node_port.append(node.port)
        wait_until(lambda: is_empty(node) and len(answers) == (1 if is_committed else 2))
        counts = summary(node.queue)["counts"]
    assert answers == ([0] if is_committed else [0, 0])
    assert len(pacs.got) == (1 if is_committed else 2)
    assert (counts["committed"], counts["done"]) == (1, 1)


def test_storage_commitment_that_is_never_answered(tmp_path, monkeypatch):
    """A dead letter in the end, which keeps its files."""
    monkeypatch.setattr("radlens.node.loops.COMMITMENT_S", 0.05)
    pacs, asked = Pacs(), []

    def on_action(event):
        asked.append(event.action_information.TransactionUID)
        return 0, None

    with pacs_at(
        pacs, contexts=[CAPTURE, "1.2.840.10008.1.20.1"], syntax=None, handlers=[(evt.EVT_N_ACTION, on_action)]
    ) as port:
        settings = settings_in(tmp_path, destination=at(port, ", commitment: true"))
        settings = replace(settings, retry=replace(settings.retry, give_up_hours=1 / 3600))
        with running(settings) as node:
            send(node.port, [image(1)])
            wait_until(lambda: summary(node.queue)["tasks"] == {"dead": 1})
            assert "never answered whether it commits to it" in listed(node.queue, ("dead",), 9)[0]["error"]
            assert not is_empty(node)
    assert len(pacs.got) == 1
    assert len(asked) > 1


def test_a_server_that_is_away(tmp_path):
    """Images wait for it; they are neither lost nor refused."""
    calls, pacs = [], Pacs()

    def away(rule, content):
        calls.append(1)
        if len(calls) < 5:
            raise Unavailable("a server must listen at http://127.0.0.1:1, got no connection")
        return answering(rule, content)

    with pacs_at(pacs) as port, running(settings_in(tmp_path, destination=at(port)), away) as node:
        assert send(node.port, [image(1), image(2)]) == [0, 0]
        wait_until(lambda: len(pacs.got) == 2)


def test_a_model_that_is_missing_stops_no_other(tmp_path):
    """Images of its rule wait, and those of other rules go through at once."""
    pacs = Pacs()

    def lacking(rule, content):
        if pydicom.dcmread(_stream(content)).InstanceNumber == 1:
            raise Unavailable("model must exist, got none", is_general=False)
        return answering(rule, content)

    with pacs_at(pacs) as port, running(settings_in(tmp_path, destination=at(port)), lacking) as node:
        send(node.port, [image(i) for i in range(1, 6)])
        wait_until(lambda: len(pacs.got) == 4)
        wait_until(
            lambda: [each["error"] for each in listed(node.queue, ("waiting",), 9)] == ["model must exist, got none"]
        )
        assert summary(node.queue)["lanes"] == []


@pytest.mark.parametrize(("is_final", "n_tries"), [(True, 1), (False, 3)])
def test_an_image_that_the_server_refuses(tmp_path, is_final, n_tries):
    """One that it calls invalid is not tried again; one at which it fails is, a few times."""
    calls = []

    def refusing(rule, content):
        calls.append(1)
        raise Refused("expected a single frame, got 2", is_final=is_final)

    with running(settings_in(tmp_path), refusing) as node:
        send(node.port, [image(1)])
        wait_until(lambda: listed(node.queue, ("dead",), 9))
        assert listed(node.queue, ("dead",), 9)[0]["error"] == "expected a single frame, got 2"
        assert not is_empty(node)
    assert len(calls) == n_tries


def test_a_defect_is_a_refusal_without_its_text(tmp_path):
    """An exception of any type ends neither the thread nor the queue, and its text is not kept."""

    def defect(rule, content):
        raise KeyError(MARKED)

    with running(settings_in(tmp_path), defect) as node:
        send(node.port, [image(1)])
        wait_until(lambda: listed(node.queue, ("dead",), 9))
        assert listed(node.queue, ("dead",), 9)[0]["error"] == "defect: KeyError"


def test_a_rule_that_is_gone(tmp_path):
    """Its tasks are dead letters that say so."""
    settings = settings_in(tmp_path)

    def away(rule, content):
        raise Unavailable("away")

    with running(settings, away) as node:
        send(node.port, [image(1)])
    settings.file.write_text(settings.file.read_text().replace("name: mammograms", "name: others"))
    with running(read_settings(settings.file)) as node:
        wait_until(lambda: listed(node.queue, ("dead",), 9))
        assert "rule mammograms is no longer in the settings" in listed(node.queue, ("dead",), 9)[0]["error"]


def test_a_destination_that_is_gone(tmp_path):
    """What waits for it is a dead letter that says so."""
    settings = settings_in(tmp_path)
    with running(settings) as node:
        send(node.port, [image(1)])
        wait_until(lambda: summary(node.queue)["tasks"] == {"sending": 1})
    text = settings.file.read_text().replace("  pacs:", "  other:").replace("to: pacs", "to: other")
    settings.file.write_text(text)
    with running(read_settings(settings.file)) as node:
        assert listed(node.queue, ("dead",), 9)[0]["error"] == "pacs: is no longer in the settings"


def test_a_lost_file_stops_nobody(tmp_path):
    """An object whose file is gone is a dead letter, and the others go out."""
    port, pacs = free_port(), Pacs()
    with running(settings_in(tmp_path, destination=at(port))) as node:
        send(node.port, [image(1), image(2)])
        wait_until(lambda: summary(node.queue)["tasks"] == {"sending": 2})
        next(iter(node.queue.folder.results.iterdir())).unlink()
        with pacs_at(pacs, port):
            wait_until(lambda: len(pacs.got) == 1 and listed(node.queue, ("dead",), 9))
        assert "missing or damaged" in listed(node.queue, ("dead",), 9)[0]["error"]


def test_results_that_come_back_are_not_asked_about(tmp_path):
    """A PACS that forwards everything to the node does not make a loop."""
    pacs = Pacs()
    with pacs_at(pacs) as port, running(settings_in(tmp_path, destination=at(port))) as node:
        send(node.port, [image(1)])
        wait_until(lambda: pacs.kept and is_empty(node))
        back = pydicom.dcmread(_stream(pacs.kept[0]))
        back.Modality = "MG"
        assert send(node.port, [back], ae_title="PACS") == [0]
        counts = summary(node.queue)["counts"]
    assert (counts["own"], counts["computed"]) == (1, 1)


def test_one_folder_has_one_node(tmp_path):
    """A second node in the same folder is refused while the first runs."""
    settings = settings_in(tmp_path)
    with running(settings), pytest.raises(InvalidInput, match="must be used by one node, got a second one"):
        Node(settings)
    Node(settings).stop()


def test_delays_double_up_to_the_longest():
    """And are spread by up to a half, so that senders do not come back at the same moment."""
    retry = Retry(first_s=1, longest_s=60)
    for failures, longest in ((1, 1), (2, 2), (3, 4), (7, 60), (1000, 60)):
        delays = [delay_s(retry, failures) for _ in range(200)]
        assert longest / 2 <= min(delays) < 0.6 * longest
        assert 0.9 * longest < max(delays) <= longest


def test_no_name_leaves_objects_and_queue(tmp_path, capfd, caplog):
    """Audit, metrics, logs, database and what libraries print are free of the marked name, whatever fails."""
    pacs, port = Pacs(), free_port()
    statuses = iter([0xC000, 0xA700, 0, 0, 0, 0])
    pacs.answer = lambda event: next(statuses, 0)
    broken = image(3)
    broken["PatientBirthDate"]._value = MARKED  # not a date, and pydicom would quote it
    caplog.clear()
    with caplog.at_level("DEBUG"), running(settings_in(tmp_path, destination=at(port))) as node:
        send(node.port, [image(1), image(2), broken])
        with pacs_at(pacs, port):
            wait_until(lambda: len(pacs.got) == 3 and is_empty(node))
        folder = node.queue.folder
    printed = capfd.readouterr()
    for file in [*folder.audit.iterdir(), folder.metrics, folder.database]:
        assert MARKED.encode() not in file.read_bytes(), file
        assert b"Marked" not in file.read_bytes(), file
    lines = [record.getMessage() for record in caplog.records]
    assert "Marked" not in printed.out + printed.err + "".join(lines)
    assert len(next(folder.audit.iterdir()).read_text().splitlines()) >= 12


def test_stopping_leaves_the_rest_to_the_next_start(tmp_path):
    """A stop while the server works is neither a failure nor a loss."""
    pacs, begun = Pacs(), threading.Event()

    def slow(rule, content):
        begun.set()
        time.sleep(0.3)
        return answering(rule, content)

    with pacs_at(pacs) as port:
        settings = settings_in(tmp_path, destination=at(port))
        with running(settings, slow) as node:
            send(node.port, [image(i) for i in range(6)])
            begun.wait()
        with running(settings) as node:
            wait_until(lambda: len(pacs.got) == 6 and is_empty(node))
            assert summary(node.queue)["counts"]["done"] == 6
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("fails", ["rest_s", "failed"])
def test_a_disk_that_was_full_for_a_while_stops_nobody(tmp_path, monkeypatch, fails):
    """The threads live on, although their failures could not be noted either."""
    full, lanes, tries = threading.Event(), set(), []
    full.set()
    whole = getattr(Lane, fails)

    def failing(self, *arguments):
        if full.is_set():
            lanes.add(self.name)
            raise sqlite3.OperationalError("database or disk is full")
        return whole(self, *arguments)

    def ask(rule, content):
        tries.append(content)
        if full.is_set():
            raise Unavailable("away")
        return answering(rule, content)

    monkeypatch.setattr(Lane, fails, failing)
    kept, port = Pacs(), free_port()
    with pacs_at(kept, port), running(settings_in(tmp_path, destination=at(port)), ask) as node:
        assert send(node.port, [image(1)]) == [0]
        wait_until(lambda: "server" in lanes and (fails == "failed" or "to pacs" in lanes))
        full.clear()
        wait_until(lambda: is_empty(node))
    assert len(kept.got) == 1


def test_damaged_objects_alone_are_no_failure_of_the_destination(tmp_path):
    """Nothing is left to send, so that nobody is asked, and the destination does not rest."""
    settings = replace(settings_in(tmp_path), retry=Retry(first_s=60, longest_s=60))
    with running(settings) as node:
        assert send(node.port, [image(1)]) == [0]
        # The destination is away: after the first try it rests, so that nothing is on its way.
        wait_until(lambda: summary(node.queue)["lanes"])
        for file in node.queue.folder.results.iterdir():
            file.write_bytes(b"damaged")
        node.queue.database.rows("DELETE FROM lanes")
        node.queue.resend(1)
        node._wake.work()
        wait_until(lambda: summary(node.queue)["tasks"] == {"dead": 1})
        time.sleep(0.1)
        assert node.queue.database.rows("SELECT error FROM lanes") == []
