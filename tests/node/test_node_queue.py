"""The queue on disk: what is in it survives, each image is asked once, and nothing is left over."""

import errno
import os
import sqlite3
import time

import pytest
from node_parts import MARKED, answering, encoded, image, new_object, result_of

from radlens.errors import InvalidInput
from radlens.node import Folder, Queue
from radlens.node.header import read_header
from radlens.node.lanes import Lane
from radlens.node.overview import listed, metrics_text, summary
from radlens.node.settings import Retry


@pytest.fixture
def queue(tmp_path):
    """A queue in an empty folder."""
    folder = Folder(tmp_path / "queue")
    folder.make()
    opened = Queue(folder)
    yield opened
    opened.close()


def received(queue, number, rules=("r",), **attributes):
    """Let an image be received, and return what became of it."""
    file = queue.folder.incoming / "new.dcm"
    file.write_bytes(encoded(image(number, **attributes)))
    event = queue.accept(file, read_header(file), "MODALITY", rules)
    assert not list(queue.folder.incoming.iterdir())
    return event


def computed(queue, destinations=("pacs",)):
    """Let the server answer the next task."""
    task = queue.next_task(())
    queue.computed(task.id, answering(None, task.file.read_bytes()), destinations)
    return task


def files(queue):
    """Return the numbers of images and results on the disk."""
    return len(list(queue.folder.images.iterdir())), len(list(queue.folder.results.iterdir()))


def test_an_image_goes_through(queue):
    """From accepted to done; then its files are gone, and its row says so."""
    assert received(queue, 1) == "accepted"
    assert files(queue) == (1, 0)
    task = computed(queue)
    assert files(queue) == (1, 1)
    assert queue.next_task(()) is None
    (delivery,) = queue.due_deliveries("pacs", 10)
    assert delivery.file.read_bytes() == result_of(encoded(image(1)))
    queue.delivered(delivery.id)
    assert files(queue) == (0, 0)
    assert summary(queue)["tasks"] == {"done": 1}
    assert task.attempts == 0


def test_it_is_there_after_a_restart(queue):
    """Another connection, as after a crash, sees the same at each step."""
    received(queue, 1)
    again = Queue(queue.folder)
    assert again.next_task(()).file.read_bytes() == encoded(image(1))
    computed(queue)
    assert len(again.due_deliveries("pacs", 10)) == 1
    again.close()


def test_files_without_a_row_are_swept(queue):
    """A crash between file and row leaves a file that the next start removes, and no other."""
    received(queue, 1)
    computed(queue)
    for folder in (queue.folder.images, queue.folder.results, queue.folder.incoming):
        (folder / "orphan.dcm").touch()
    assert queue.folder.sweep(*queue.named_files()) == 3
    assert files(queue) == (1, 1)


def test_a_repeat_is_not_asked_again(queue):
    """Neither while it waits nor when it is done."""
    received(queue, 1)
    assert received(queue, 1) == "repeated"
    computed(queue)
    queue.delivered(queue.due_deliveries("pacs", 1)[0].id)
    assert received(queue, 1) == "repeated"
    assert queue.next_task(()) is None
    assert files(queue) == (0, 0)


def test_a_repeat_goes_to_a_new_rule_alone(queue):
    """A rule that was added since gets the image, also if its file was removed."""
    received(queue, 1)
    computed(queue)
    queue.delivered(queue.due_deliveries("pacs", 1)[0].id)
    assert received(queue, 1, ("r", "new")) == "accepted"
    assert queue.next_task(()).rule == "new"
    computed(queue)
    queue.delivered(queue.due_deliveries("pacs", 1)[0].id)
    assert files(queue) == (0, 0)
    assert summary(queue)["counts"]["computed"] == 2


def test_a_repeat_revives_a_dead_letter(queue):
    """The sender wants it done, so it is tried again."""
    received(queue, 1)
    queue.task_failed(1, "no", due=None, refused=True)
    assert queue.next_task(()) is None
    assert received(queue, 1) == "accepted"
    assert queue.next_task(()).refusals == 0
    assert files(queue) == (1, 0)


def test_own_results_are_not_asked_about(queue):
    """By their contributing equipment, and by their UID where that is gone."""
    file = queue.folder.incoming / "new.dcm"
    file.write_bytes(result_of(encoded(image(1))))
    assert queue.accept(file, read_header(file), "PACS", ["r"]) == "own"
    received(queue, 1)
    computed(queue)
    (delivery,) = queue.due_deliveries("pacs", 1)
    assert received(queue, 2, SOPInstanceUID=delivery.uid) == "own"
    assert files(queue) == (1, 1)


def test_unwanted_images_are_counted_and_dropped(queue):
    """They leave a line of audit and no file."""
    assert received(queue, 1, ()) == "unwanted"
    assert files(queue) == (0, 0)
    assert summary(queue)["counts"] == {"unwanted": 1}


def test_several_destinations(queue):
    """Files stay until the last destination has them."""
    received(queue, 1)
    computed(queue, ("pacs", "archive"))
    queue.delivered(queue.due_deliveries("pacs", 1)[0].id)
    assert (files(queue), summary(queue)["tasks"]) == ((1, 1), {"sending": 1})
    queue.delivered(queue.due_deliveries("archive", 1)[0].id)
    assert (files(queue), summary(queue)["tasks"]) == ((0, 0), {"done": 1})


def test_several_rules(queue):
    """The image stays until the last rule is done."""
    received(queue, 1, ("a", "b"))
    computed(queue)
    queue.delivered(queue.due_deliveries("pacs", 1)[0].id)
    assert files(queue) == (1, 0)
    assert queue.next_task(()).rule == "b"
    assert queue.next_task({2}) is None


def test_failures_wait_until_they_are_due(queue):
    """A task that failed is not due before its time, and neither is a delivery."""
    received(queue, 1)
    queue.task_failed(1, "server is away", due=time.time() + 60, refused=False)
    assert queue.next_task(()) is None
    queue.resend(1)
    computed(queue)
    (delivery,) = queue.due_deliveries("pacs", 1)
    queue.delivery_failed(delivery.id, "refused", due=time.time() + 60, refused=True)
    assert queue.due_deliveries("pacs", 1) == []
    assert listed(queue, ("sending",), 9)[0]["error"] == "pacs: refused"


def test_dead_letters_are_shown_resent_and_dropped(queue):
    """A dead delivery makes its task a dead letter; resending sends its objects, without another answer."""
    received(queue, 1)
    computed(queue)
    (delivery,) = queue.due_deliveries("pacs", 1)
    queue.delivery_failed(delivery.id, "refused with status C000H", due=None, refused=True)
    (row,) = listed(queue, ("dead",), 9)
    assert (row["id"], row["error"]) == (1, "pacs: refused with status C000H")
    queue.resend(1)
    assert queue.next_task(()) is None
    (again,) = queue.due_deliveries("pacs", 1)
    assert (again.uid, again.refusals) == (delivery.uid, 0)
    queue.drop(1)
    assert files(queue) == (0, 0)
    queue.delivered(again.id)  # it was on its way
    assert summary(queue)["tasks"] == {"dropped": 1}
    with pytest.raises(InvalidInput, match="task 1 must be waiting, sending or dead, got one that is dropped"):
        queue.resend(1)
    with pytest.raises(InvalidInput, match="task must be one that radlens node queue lists, got 7"):
        queue.drop(7)


def test_an_answer_to_a_dropped_task_is_not_kept(queue):
    """It was dropped while the server worked on it."""
    received(queue, 1)
    task = queue.next_task(())
    queue.drop(task.id)
    assert queue.computed(task.id, [new_object(result_of(encoded(image(1))))], ["pacs"]) is False
    queue.task_failed(task.id, "late", due=None, refused=True)
    assert (files(queue), summary(queue)["tasks"]) == ((0, 0), {"dropped": 1})


def test_storage_commitment(queue):
    """An object that a PACS has counts as confirmed once the PACS commits to it."""
    received(queue, 1)
    computed(queue)
    (delivery,) = queue.due_deliveries("pacs", 1)
    queue.committing([delivery.id], "", time.time())
    assert queue.in_commitment("") == []  # an answer without a Transaction UID confirms nothing
    assert [each.uid for each in queue.uncommitted("pacs", 9)] == [delivery.uid]
    queue.committing([delivery.id], "1.2.3", time.time() + 60)
    assert queue.uncommitted("pacs", 9) == []
    assert queue.in_commitment("1.2.4") == []
    assert files(queue) == (1, 1)
    queue.committed([each.id for each in queue.in_commitment("1.2.3")])
    assert files(queue) == (0, 0)
    assert summary(queue)["counts"]["committed"] == 1


def test_a_failed_transaction_changes_nothing(queue, monkeypatch):
    """Where the database cannot be written, the image is not accepted, and is asked about once it is sent again."""
    monkeypatch.setattr("radlens.node.queue.note", failing)
    with pytest.raises(sqlite3.OperationalError, match="disk is full"):
        received(queue, 1)
    monkeypatch.undo()
    assert summary(queue)["tasks"] == {}
    assert queue.folder.sweep(*queue.named_files()) == 1
    assert received(queue, 1) == "accepted"


def failing(*arguments, **details):
    """Fail as SQLite does on a full disk."""
    raise sqlite3.OperationalError("database or disk is full")


def test_done_images_are_forgotten(queue):
    """After the days that they are kept; what waits is never forgotten."""
    received(queue, 1)
    received(queue, 2)
    computed(queue)
    queue.delivered(queue.due_deliveries("pacs", 1)[0].id)
    queue.forget(time.time() + 1)
    assert summary(queue)["tasks"] == {"waiting": 1}
    assert received(queue, 1) == "accepted"


def test_writes_reach_the_disk(queue):
    """WAL with synchronous = FULL: a commit that returned survives a loss of power."""
    assert queue.database.rows("PRAGMA journal_mode")[0][0] == "wal"
    assert queue.database.rows("PRAGMA synchronous")[0][0] == 2


def test_a_folder_without_a_queue_is_named(tmp_path):
    """`radlens node status` makes no queue."""
    with pytest.raises(InvalidInput, match="must be the folder of a node that has run"):
        Queue(Folder(tmp_path), create=False)


def test_metrics_have_the_form_of_prometheus(queue):
    """Parsed by Prometheus's own client."""
    from prometheus_client.parser import text_string_to_metric_families

    received(queue, 1)
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics_text(summary(queue)))
        for sample in family.samples
    }
    assert found["radlens_node_events_total", "accepted"] == 1
    assert found["radlens_node_tasks", "waiting"] == 1
    assert found["radlens_node_images",] == 1


def test_audit_has_no_name(queue):
    """Lines have hashes of UIDs, and the database has no name of a patient."""
    received(queue, 1)
    lines = [row["line"] for row in queue.database.rows("SELECT line FROM audit")]
    assert len(lines) == 1
    assert str(image(1).SOPInstanceUID) not in lines[0]
    assert MARKED.encode() not in queue.folder.database.read_bytes()


def test_a_commit_that_fails_stops_no_later_one(queue):
    """It may leave its transaction open, in which no other can begin; here a reference to nothing fails at the end."""

    def end_badly():
        with queue.database.transaction() as run:
            run("PRAGMA defer_foreign_keys = ON")
            run("INSERT INTO tasks (image, rule, state, since, due) VALUES (99, 'r', 'waiting', 0, 0)")

    with pytest.raises(sqlite3.IntegrityError):
        end_badly()
    received(queue, 1)
    assert queue.next_task(()) is not None


def test_objects_that_do_not_fit_the_disk_leave_nothing(queue, monkeypatch):
    """Each try would otherwise take more of a disk that is full already."""
    received(queue, 1)
    written = []

    def full(descriptor):
        written.append(descriptor)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        queue.folder.write_results([b"one", b"two", b"three"])
    assert list(queue.folder.results.iterdir()) == []


def test_a_clock_that_was_set_back_stops_nothing(queue, monkeypatch):
    """What was to rest for some seconds does not rest for years."""
    received(queue, 1)
    task, lane = queue.next_task(()), Lane(queue.database, "server", Retry())
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: 4e9)
        queue.task_failed(task.id, "away", due=time.time() + 5, refused=False)
        lane.failed("away")
        assert lane.rest_s() > 0
        assert queue.next_task(()) is None
    assert lane.rest_s() == 0
    assert queue.next_task(()).id == task.id


@pytest.mark.parametrize("stated", ["MAMMO\\LEFT", ["MAMMO", "LEFT"]])
def test_a_backslash_in_a_description_is_read_as_it_stands(tmp_path, stated):
    """A rule for MAMMO* meets it, although DICOM has a backslash between values."""
    file = tmp_path / "image.dcm"
    file.write_bytes(encoded(image(1, StudyDescription=stated)))
    assert read_header(file).study_description == "MAMMO\\LEFT"
