"""The threads of a node: asking the server, sending to a destination, searching a source, and keeping house."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from pydicom.uid import generate_uid

from radlens.errors import RadlensError, UnreadableImage
from radlens.node.header import Header, read_header, read_meta
from radlens.node.lanes import Lane, Refused, Unavailable
from radlens.node.overview import metrics_text, summary
from radlens.node.queue import Delivery, NewObject, Queue, Task
from radlens.node.rules import Rule
from radlens.node.sending import MOST_AT_ONCE, DicomSender, Report
from radlens.node.settings import Settings, Source
from radlens.node.web import Found, WebSource

__all__ = ["Asking", "Housekeeping", "Searching", "Sender", "Sending", "Wake"]

_LOG = logging.getLogger("radlens.node")

_POLL_S = 1.0
"""Seconds between two looks at the queue, which other processes may change."""

COMMITMENT_S = 600.0
"""Seconds without an answer after which storage commitment is asked for again."""


class Wake:
    """Event that wakes the threads that wait, and says whether the node is stopping."""

    def __init__(self) -> None:
        self._condition, self._stopping, self._turn = threading.Condition(), False, 0

    @property
    def is_stopping(self) -> bool:
        """Whether the node is stopping."""
        return self._stopping

    def stop(self) -> None:
        """Wake all threads, which then end."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()

    def work(self) -> None:
        """Wake all threads, because there is something to do."""
        with self._condition:
            self._turn += 1
            self._condition.notify_all()

    def wait(self, seconds: float, turn: int | None = None) -> int:
        """Wait, at most some seconds, and not if there was work since ``turn``; return the current turn."""
        with self._condition:
            if not self._stopping and (turn is None or turn == self._turn):
                self._condition.wait(seconds)
            return self._turn


class Asking:
    """Threads that put tasks to the server.

    Args:
        queue: the queue.
        settings: settings of the node.
        wake: event of the node.
        make_ask: function that makes, for each thread, what asks the server.
    """

    def __init__(
        self,
        queue: Queue,
        settings: Settings,
        wake: Wake,
        make_ask: Callable[[], Callable[[Rule, bytes], list[NewObject]]],
    ) -> None:
        self._queue, self._settings, self._wake, self._make_ask = queue, settings, wake, make_ask
        self._lane = Lane(queue.database, "server", settings.retry)
        self._busy: set[int] = set()
        self._claiming = threading.Lock()

    def run(self) -> None:
        """Ask until the node stops; to be run by several threads."""
        ask, turn = self._make_ask(), None
        while not self._wake.is_stopping:
            try:
                turn = self._step(ask, turn)
            except Exception as error:  # such as a full disk, on which not even a failure can be noted
                if not self._wake.is_stopping:
                    _LOG.error("asking: this machine or a defect: %s", type(error).__name__)
                    self._wake.wait(_POLL_S)

    def _step(self, ask: Callable[[Rule, bytes], list[NewObject]], turn: int | None) -> int | None:
        rest = self._lane.rest_s()
        task = None if rest else self._claim()
        if task is None:
            return self._wake.wait(min(rest, _POLL_S) or _POLL_S, turn)
        try:
            self._one(ask, task)
        finally:
            with self._claiming:
                self._busy.discard(task.id)
        return turn

    def _claim(self) -> Task | None:
        with self._claiming:
            task = self._queue.next_task(self._busy)
            if task is not None:
                self._busy.add(task.id)
            return task

    def _one(self, ask: Callable[[Rule, bytes], list[NewObject]], task: Task) -> None:
        rule = self._settings.rule(task.rule)
        if rule is None:
            self._queue.task_failed(task.id, f"rule {task.rule} is no longer in the settings", due=None, refused=False)
            return
        try:
            objects = ask(rule, task.file.read_bytes())
            if self._queue.computed(task.id, objects, rule.destinations):
                _LOG.info("task %d: %d objects for %s", task.id, len(objects), ", ".join(rule.destinations))
            self._lane.worked()
            self._wake.work()
        except Unavailable as error:
            self._held(task, str(error), rest=error.is_general)
        except Refused as error:
            self._lane.worked()
            due = self._lane.next_try_after_refusal(task.refusals, error.is_final)
            self._failed(task, str(error), due, refused=True)
        except FileNotFoundError:  # dropped meanwhile; otherwise the image is lost
            self._failed(task, "the file of the image is missing", None, refused=False)
        except (OSError, sqlite3.Error) as error:
            self._held(task, f"this machine: {type(error).__name__}")
        except Exception as error:  # a defect; its message might hold header values
            if not self._wake.is_stopping:
                due = self._lane.next_try_after_refusal(task.refusals, False)
                self._failed(task, f"defect: {type(error).__name__}", due, refused=True)

    def _held(self, task: Task, error: str, *, rest: bool = True) -> None:
        if self._wake.is_stopping:  # connections were closed
            return
        until = self._lane.failed(error) if rest else 0.0
        due = self._lane.next_try(task.attempts, task.since)
        self._failed(task, error, None if due is None else max(due, until), refused=False)

    def _failed(self, task: Task, error: str, due: float | None, *, refused: bool) -> None:
        _LOG.warning("task %d: %s: %s", task.id, "dead letter" if due is None else "tried again later", error)
        self._queue.task_failed(task.id, error, due=due, refused=refused)


class Sender(Protocol):
    """Destination of objects."""

    def store(self, deliveries: list[Delivery], report: Report) -> None:
        """Send objects, see `DicomSender.store`."""


class Sending:
    """Thread that sends to one destination.

    Args:
        queue: the queue.
        settings: settings of the node.
        wake: event of the node.
        name: name of the destination.
        sender: what sends.
        commitment: whether objects count as confirmed only after storage commitment; ``sender`` is a `DicomSender`.
    """

    def __init__(
        self, queue: Queue, settings: Settings, wake: Wake, name: str, sender: Sender, commitment: bool = False
    ) -> None:
        self._queue, self._wake, self._name, self._sender = queue, wake, name, sender
        self._commitment, self._lane = commitment, Lane(queue.database, f"to {name}", settings.retry)

    def run(self) -> None:
        """Send until the node stops."""
        turn = None
        while not self._wake.is_stopping:
            try:
                rest = self._lane.rest_s()
                if rest or not (self._send() or self._ask_commitment()):
                    turn = self._wake.wait(min(rest, _POLL_S) or _POLL_S, turn)
            except Exception as error:  # a defect; its message might hold header values
                if not self._wake.is_stopping:
                    _LOG.error("destination %s: %s", self._name, type(error).__name__)
                    with suppress(sqlite3.Error):
                        self._lane.failed(f"this machine or a defect: {type(error).__name__}")
                    self._wake.wait(_POLL_S)

    def _send(self) -> bool:
        deliveries = self._queue.due_deliveries(self._name, MOST_AT_ONCE)
        left = {each.id: each for each in deliveries}

        def report(delivery: Delivery, refusal: Refused | None) -> None:
            del left[delivery.id]
            if refusal is not None:
                due = self._lane.next_try_after_refusal(delivery.refusals, refusal.is_final)
                _LOG.warning("destination %s: object %d: %s", self._name, delivery.id, refusal)
                self._queue.delivery_failed(delivery.id, str(refusal), due=due, refused=True)
            elif self._commitment:
                self._queue.committing([delivery.id], "", time.time())
            else:
                self._queue.delivered(delivery.id)

        if not deliveries:
            return False
        for each in deliveries:
            try:
                read_meta(each.file)
            except UnreadableImage:
                report(each, Refused("the file of the object is missing or damaged", is_final=True))
        if not left:
            return True
        try:
            self._sender.store(list(left.values()), report)
        except Unavailable as error:
            self._held(next(iter(left.values()), None), str(error))
        else:
            self._lane.worked()
        return True

    def _held(self, delivery: Delivery | None, error: str) -> None:
        """Let the lane rest; the delivery at which it failed steps behind the others."""
        if self._wake.is_stopping:
            return
        _LOG.warning("destination %s: %s", self._name, error)
        until = self._lane.failed(error)
        if delivery is not None:
            due = self._lane.next_try(delivery.attempts, delivery.since)
            due = None if due is None else max(due, until)
            self._queue.delivery_failed(delivery.id, error, due=due, refused=False)

    def _ask_commitment(self) -> bool:
        if not self._commitment or not isinstance(self._sender, DicomSender):
            return False
        found = self._queue.uncommitted(self._name, MOST_AT_ONCE)
        deliveries = [each for each in found if self._lane.next_try(each.attempts, each.since) is not None]
        for each in found:
            if each not in deliveries:
                error = f"{self._name}: has stored the object, and never answered whether it commits to it"
                self._queue.delivery_failed(each.id, error, due=None, refused=False)
        if not deliveries:
            return bool(found)
        transaction = str(generate_uid(prefix=None))
        # The answer may come before the request returns.
        self._queue.committing([each.id for each in deliveries], transaction, time.time() + COMMITMENT_S)
        try:
            self._sender.ask_commitment(deliveries, transaction)
        except Unavailable as error:
            self._queue.committing([each.id for each in deliveries], "", time.time())
            self._held(None, str(error))
        return True


class Searching:
    """Thread that searches one DICOMweb source.

    Args:
        queue: the queue.
        settings: settings of the node.
        wake: event of the node.
        source: what is searched for.
        web: what searches.
        accept: function that takes over a file, with its header and its sender.
        room: function that returns why nothing can be accepted now.
    """

    def __init__(
        self,
        queue: Queue,
        settings: Settings,
        wake: Wake,
        source: Source,
        web: WebSource,
        accept: Callable[..., str],
        room: Callable[[], str | None],
    ) -> None:
        self._queue, self._wake, self._source, self._web = queue, wake, source, web
        self._accept, self._room = accept, room
        self._most_bytes = settings.limits.image_mb * 2**20
        self._lane = Lane(queue.database, f"from {source.name}", settings.retry)

    def run(self) -> None:
        """Search until the node stops."""
        following = 0.0
        while not self._wake.is_stopping:
            try:
                if self._lane.rest_s() or time.monotonic() < following:
                    self._wake.wait(0.2)
                    continue
                self._search()
                self._lane.worked()
                following = time.monotonic() + self._source.every_s
            except Exception as error:  # also a defect; its message might hold header values
                if not self._wake.is_stopping:
                    is_known = isinstance(error, RadlensError)
                    reason = str(error) if is_known else f"this machine or a defect: {type(error).__name__}"
                    _LOG.warning("source %s: %s", self._source.name, reason)
                    with suppress(sqlite3.Error):
                        self._lane.failed(reason)
                    self._wake.wait(0.2)

    def _search(self) -> None:
        for modality in self._source.modalities:
            for found in self._web.find(modality, self._source.days):
                if self._wake.is_stopping:
                    return
                if not self._queue.knows(found.instance):
                    self._take(found)

    def _take(self, found: Found) -> None:
        reason = self._room()
        if reason is not None:
            raise Unavailable(reason)
        file = self._queue.folder.incoming / f"{uuid.uuid4().hex}.dcm"
        try:
            self._web.fetch(found, file, self._most_bytes)
            header: Header = read_header(file)
            event = self._accept(file, header, self._source.name)
        except (Refused, RadlensError) as error:
            if isinstance(error, Unavailable):
                raise
            self._queue.refuse(found.instance, self._source.name, str(error))
            event = "refused"
        finally:
            self._queue.folder.remove([file])
        if event != "accepted":
            self._queue.saw(found.instance)


class Housekeeping:
    """Thread that writes audit and metrics, and removes what is left over.

    Args:
        queue: the queue.
        settings: settings of the node.
        wake: event of the node.
        take_counts: function that returns counts of events since it was called last.
    """

    def __init__(self, queue: Queue, settings: Settings, wake: Wake, take_counts: Callable[[], dict[str, int]]) -> None:
        self._queue, self._settings, self._wake, self._take_counts = queue, settings, wake, take_counts

    def run(self) -> None:
        """Keep house until the node stops."""
        jobs = ((self.write_audit, 1.0), (self.write_metrics, 15.0), (self.sweep, 60.0), (self.forget, 3600.0))
        next_at = [0.0] * len(jobs)
        while not self._wake.is_stopping:
            for i, (job, every_s) in enumerate(jobs):
                if time.monotonic() >= next_at[i]:
                    next_at[i] = time.monotonic() + every_s
                    try:
                        job()
                    except Exception as error:  # such as a full disk; it goes on once there is room
                        _LOG.error("keeping house: %s", type(error).__name__)
            self._wake.wait(0.2)

    def write_audit(self) -> None:
        """Move audit lines from the database to the file of this month; after a crash a line may stand there twice."""
        rows = self._queue.database.rows("SELECT id, line FROM audit ORDER BY id LIMIT 1000")
        if not rows:
            return
        file = self._queue.folder.audit / time.strftime("audit-%Y-%m.jsonl", time.gmtime())
        with open(file, "a", encoding="utf-8") as stream:
            stream.writelines(f'{{"id": {row["id"]}, {row["line"][1:]}\n' for row in rows)
            stream.flush()
            os.fsync(stream.fileno())
        with self._queue.database.transaction() as run:
            run("DELETE FROM audit WHERE id <= ?", (rows[-1]["id"],))

    def write_metrics(self) -> None:
        """Write the metrics, and add the counts that are kept in memory to the database."""
        counts = self._take_counts()
        with self._queue.database.transaction() as run:
            for name, number in counts.items():
                insert = """INSERT INTO counts VALUES (?, ?)
                    ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"""
                run(insert, (name, number))
        self._queue.folder.replace_text(self._queue.folder.metrics, metrics_text(summary(self._queue)))

    def sweep(self) -> None:
        """Remove what associations that broke off have left."""
        before = time.time() - self._settings.limits.idle_s - 60
        folder = self._queue.folder
        folder.remove([file for file in folder.incoming.iterdir() if file.stat().st_mtime < before])

    def forget(self) -> None:
        """Forget what was finished long ago."""
        self._queue.forget(time.time() - 86_400 * self._settings.limits.keep_days)
