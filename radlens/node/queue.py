"""The queue: every step from an accepted image to a confirmed result is one transaction.

An image that no rule wants is not kept. Of each other image and each rule that wants it there is one *task*: the server
is asked once, makes *objects*, and each of these has a *delivery* to each destination.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radlens.errors import InvalidInput
from radlens.node.database import Database, note
from radlens.node.files import Folder
from radlens.node.header import Header

__all__ = ["Delivery", "NewObject", "Queue", "Task", "uid_hash"]

_LONGEST_S = 86_400.0
"""Largest number of seconds until a step is due, of all settings; what is due later was noted before the clock was set
back."""


_DELIVERIES = """SELECT deliveries.*, objects.uid, objects.sop_class, objects.file
            FROM deliveries JOIN objects ON objects.id = deliveries.object"""


@dataclass(frozen=True)
class Task:
    """A question about one image that waits for the server.

    Attributes:
        id: number by which people name it.
        rule: name of the rule.
        file: path of the image.
        attempts: number of failed tries.
        refusals: number of tries at which the server worked but this image failed.
        since: when it could first be done, in seconds since 1970.
    """

    id: int
    rule: str
    file: Path
    attempts: int
    refusals: int
    since: float


@dataclass(frozen=True)
class Delivery:
    """An object that waits for a destination.

    Attributes:
        id: number of the delivery.
        uid: SOP Instance UID of the object.
        sop_class: SOP class of the object.
        file: path of the object.
        attempts: number of failed tries.
        refusals: number of tries at which the destination refused this object.
        since: when it could first be done, in seconds since 1970.
    """

    id: int
    uid: str
    sop_class: str
    file: Path
    attempts: int
    refusals: int
    since: float


@dataclass(frozen=True)
class NewObject:
    """An object that a server made.

    Attributes:
        uid: its SOP Instance UID.
        sop_class: its SOP class.
        content: the file.
    """

    uid: str
    sop_class: str
    content: bytes


class Queue:
    """The queue in a folder.

    Args:
        folder: folder of the node.
        create: whether to make the queue where it is missing.
    """

    def __init__(self, folder: Folder, *, create: bool = True) -> None:
        self.folder = folder
        self.database = Database(folder.database, create=create)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def accept(self, file: Path, header: Header, sender: str, rules: Sequence[str]) -> str:
        """Take over a received file; when this returns, the image is in the queue and on the disk.

        A rule that has had the image before does not get it again, unless its task is a dead letter: then it is tried
        again.

        Returns:
            ``accepted``; or ``unwanted`` if there are no rules, ``own`` for a result of radlens, ``repeated`` if every
            rule has had it: the file is then removed.
        """
        hashed, now = uid_hash(header.sop_instance_uid), time.time()
        is_own = header.is_result or self.has_object(header.sop_instance_uid)
        if is_own or not rules:
            event = "own" if is_own else "unwanted"
            with self.database.transaction() as run:
                note(run, event, hashed, sender=sender)
            self.folder.remove([file])
            return event
        size, name = file.stat().st_size, self.folder.adopt(file)
        # After an exception the file stays until the next start: whether the commit reached the disk is unknown.
        with self.database.transaction() as run:
            image = run("SELECT id, file FROM images WHERE uid = ?", (header.sop_instance_uid,)).fetchone()
            if image is None:
                values = (header.sop_instance_uid, hashed, name, size, sender, now)
                run("INSERT INTO images (uid, hash, file, bytes, sender, received) VALUES (?, ?, ?, ?, ?, ?)", values)
            number = image["id"] if image else run("SELECT last_insert_rowid()").fetchone()[0]
            had = {row["rule"]: row for row in run("SELECT * FROM tasks WHERE image = ?", (number,)).fetchall()}
            new = [rule for rule in rules if rule not in had]
            again = [had[rule]["id"] for rule in rules if rule in had and had[rule]["state"] == "dead"]
            event = "accepted" if new or again else "repeated"
            is_kept = image is None or (image["file"] is None and event == "accepted")
            if image is not None and is_kept:
                run("UPDATE images SET file = ?, finished = NULL WHERE id = ?", (name, number))
            for rule in new:
                insert = "INSERT INTO tasks (image, rule, state, since, due) VALUES (?, ?, 'waiting', ?, ?)"
                run(insert, (number, rule, now, now))
            for task in again:
                _revive(run, task, now)
            note(run, event, hashed, sender=sender, rules=list(rules))
        if not is_kept:
            self.folder.remove([self.folder.images / name])
        return event

    def has_object(self, uid: str) -> bool:
        """Return whether an object of this UID was made here."""
        return bool(self.database.rows("SELECT 1 FROM objects WHERE uid = ?", uid))

    def length(self) -> int:
        """Return the number of images that are kept."""
        return int(self.database.rows("SELECT count(*) FROM images WHERE file IS NOT NULL")[0][0])

    def refuse(self, uid: str, sender: str, reason: str) -> None:
        """Note that an image was not accepted."""
        with self.database.transaction() as run:
            note(run, "refused", uid_hash(uid), sender=sender, reason=reason)

    def next_task(self, busy: Collection[int]) -> Task | None:
        """Return the task that is due first, leaving out those that are being done."""
        query = """SELECT tasks.*, images.file FROM tasks JOIN images ON images.id = tasks.image
            WHERE state = 'waiting' AND (due <= ?1 OR due > ?1 + ?2) ORDER BY due LIMIT ?3"""
        for row in self.database.rows(query, time.time(), _LONGEST_S, len(busy) + 1):
            if row["id"] not in busy:
                file = self.folder.images / row["file"]
                return Task(row["id"], row["rule"], file, row["attempts"], row["refusals"], row["since"])
        return None

    def computed(self, task: int, objects: Sequence[NewObject], destinations: Collection[str]) -> bool:
        """Keep the objects of a task for its destinations; return whether the task still waited for them."""
        names = self.folder.write_results([each.content for each in objects])
        now = time.time()
        with self.database.transaction() as run:
            is_waiting = _state(run, task) == "waiting"
            if is_waiting:
                for each, name in zip(objects, names, strict=True):
                    values = (task, each.uid, each.sop_class, name)
                    run("INSERT INTO objects (task, uid, sop_class, file) VALUES (?, ?, ?, ?)", values)
                    (number,) = run("SELECT last_insert_rowid()").fetchone()
                    for destination in destinations:
                        insert = (
                            "INSERT INTO deliveries (object, destination, state, since, due) VALUES (?, ?, ?, ?, ?)"
                        )
                        run(insert, (number, destination, "waiting", now, now))
                run("UPDATE tasks SET state = 'sending', error = NULL WHERE id = ?", (task,))
                note(run, "computed", _hash(run, task), task=task, objects=len(objects))
        if not is_waiting:
            self.folder.remove([self.folder.results / name for name in names])
        return is_waiting

    def task_failed(self, task: int, error: str, *, due: float | None, refused: bool) -> None:
        """Note the failure of a try.

        Args:
            task: number of the task.
            error: reason for people, without header values.
            due: when it may be tried again; None makes it a dead letter.
            refused: whether the server worked and this image failed.
        """
        with self.database.transaction() as run:
            if _state(run, task) != "waiting":
                return
            update = (
                "UPDATE tasks SET attempts = attempts + 1, refusals = refusals + ?, due = ?, error = ? WHERE id = ?"
            )
            run(update, (refused, due or 0, error, task))
            if due is None:
                run("UPDATE tasks SET state = 'dead' WHERE id = ?", (task,))
                note(run, "dead", _hash(run, task), task=task, error=error)

    def due_deliveries(self, destination: str, most: int) -> list[Delivery]:
        """Return deliveries that are due, those of the earliest due time first."""
        query = f"""{_DELIVERIES}
            WHERE destination = ?1 AND state = 'waiting' AND (due <= ?2 OR due > ?2 + ?3)
            ORDER BY due, deliveries.id LIMIT ?4"""
        return [self._delivery(row) for row in self.database.rows(query, destination, time.time(), _LONGEST_S, most)]

    def delivered(self, delivery: int) -> None:
        """Note that a destination has an object; the last one of an image removes its files."""
        self._finish([delivery], "done", "stored")

    def delivery_failed(self, delivery: int, error: str, *, due: float | None, refused: bool) -> None:
        """Note the failure of a delivery; the arguments are those of `task_failed`."""
        with self.database.transaction() as run:
            row = _delivery_row(run, delivery)
            if row is None or row["state"] not in ("waiting", "committing"):
                return
            update = """UPDATE deliveries SET state = 'waiting', attempts = attempts + 1, refusals = refusals + ?,
                due = ?, error = ? WHERE id = ?"""
            run(update, (refused, due or 0, error, delivery))
            if due is None:
                run("UPDATE deliveries SET state = 'dead' WHERE id = ?", (delivery,))
                run("UPDATE tasks SET state = 'dead' WHERE id = ?", (row["task"],))
                details = {"task": row["task"], "destination": row["destination"], "error": error}
                note(run, "dead", _hash(run, row["task"]), **details)

    def give_up_other_destinations(self, known: Collection[str]) -> None:
        """Make dead letters of deliveries to destinations that are no longer known."""
        query = "SELECT id, destination FROM deliveries WHERE state IN ('waiting', 'committing')"
        for row in self.database.rows(query):
            if row["destination"] not in known:
                self.delivery_failed(row["id"], "is no longer in the settings", due=None, refused=False)

    def committing(self, deliveries: Collection[int], transaction: str, due: float) -> None:
        """Note that a destination has objects and is asked to commit to them; without an answer until ``due`` again."""
        with self.database.transaction() as run:
            for each in deliveries:
                update = """UPDATE deliveries SET state = 'committing', transaction_uid = ?, due = ?
                    WHERE id = ? AND state IN ('waiting', 'committing')"""
                run(update, (transaction, due, each))

    def uncommitted(self, destination: str, most: int) -> list[Delivery]:
        """Return stored objects whose commitment must be asked for."""
        query = f"""{_DELIVERIES}
            WHERE destination = ?1 AND state = 'committing' AND (due <= ?2 OR due > ?2 + ?3)
            ORDER BY due, deliveries.id LIMIT ?4"""
        return [self._delivery(row) for row in self.database.rows(query, destination, time.time(), _LONGEST_S, most)]

    def in_commitment(self, transaction: str) -> list[Delivery]:
        """Return the deliveries of a storage commitment that is not yet answered; none for an empty UID."""
        if not transaction:
            return []
        query = f"""{_DELIVERIES}
            WHERE transaction_uid = ? AND state = 'committing'"""
        return [self._delivery(row) for row in self.database.rows(query, transaction)]

    def committed(self, deliveries: Collection[int]) -> None:
        """Note that a destination has committed to objects."""
        self._finish(deliveries, "done", "committed")

    def resend(self, task: int) -> None:
        """Try a dead letter, or a waiting step, again at once.

        Raises:
            InvalidInput: there is no such task, or it is done or dropped.
        """
        with self.database.transaction() as run:
            _require_open(run, task)
            _revive(run, task, time.time())
            run("UPDATE lanes SET until = 0")
            note(run, "resent", _hash(run, task), task=task)

    def drop(self, task: int) -> None:
        """Give up a task; what has arrived stays where it is.

        Raises:
            InvalidInput: there is no such task, or it is done or dropped.
        """
        with self.database.transaction() as run:
            _require_open(run, task)
            run("UPDATE tasks SET state = 'dropped' WHERE id = ?", (task,))
            update = """UPDATE deliveries SET state = 'dropped' WHERE state IN ('waiting', 'committing', 'dead')
                AND object IN (SELECT id FROM objects WHERE task = ?)"""
            run(update, (task,))
            note(run, "dropped", _hash(run, task), task=task)
            gone = self._settle(run, task)
        self.folder.remove(gone)

    def forget(self, before: float) -> None:
        """Forget images that were finished, and UIDs of a DICOMweb source that were seen, before a time."""
        with self.database.transaction() as run:
            run("DELETE FROM images WHERE finished < ?", (before,))
            run("DELETE FROM seen WHERE at < ?", (before,))

    def named_files(self) -> tuple[set[str], set[str]]:
        """Return the names of all files in images/ and in results/ that are needed."""
        images = self.database.rows("SELECT file FROM images WHERE file IS NOT NULL")
        results = self.database.rows("SELECT file FROM objects WHERE file IS NOT NULL")
        return {row["file"] for row in images}, {row["file"] for row in results}

    def saw(self, uid: str) -> None:
        """Note that an object of a DICOMweb source need not be fetched again."""
        with self.database.transaction() as run:
            run("INSERT OR REPLACE INTO seen VALUES (?, ?)", (uid, time.time()))

    def knows(self, uid: str) -> bool:
        """Return whether an object of a DICOMweb source was fetched before, or was made here."""
        query = """SELECT 1 FROM seen WHERE uid = ? UNION SELECT 1 FROM images WHERE uid = ?
            UNION SELECT 1 FROM objects WHERE uid = ?"""
        return bool(self.database.rows(query, uid, uid, uid))

    def _delivery(self, row: Any) -> Delivery:
        file = self.folder.results / row["file"]
        return Delivery(row["id"], row["uid"], row["sop_class"], file, row["attempts"], row["refusals"], row["since"])

    def _finish(self, deliveries: Collection[int], state: str, event: str) -> None:
        gone: list[Path] = []
        with self.database.transaction() as run:
            for each in deliveries:
                row = _delivery_row(run, each)
                if row is None or row["state"] not in ("waiting", "committing"):
                    continue
                run("UPDATE deliveries SET state = ?, error = NULL WHERE id = ?", (state, each))
                details = {"task": row["task"], "destination": row["destination"]}
                note(run, event, _hash(run, row["task"]), object=uid_hash(row["uid"]), **details)
                gone += self._settle(run, row["task"])
        self.folder.remove(gone)

    def _settle(self, run: Any, task: int) -> list[Path]:
        """Finish a task whose deliveries are finished, and its image; return the files that are no longer needed."""
        query = """SELECT state FROM deliveries JOIN objects ON objects.id = deliveries.object WHERE task = ?"""
        if any(row["state"] not in ("done", "dropped") for row in run(query, (task,)).fetchall()):
            return []
        if _state(run, task) == "sending":
            run("UPDATE tasks SET state = 'done' WHERE id = ?", (task,))
            note(run, "done", _hash(run, task), task=task)
        gone = [
            self.folder.results / row["file"]
            for row in run("SELECT file FROM objects WHERE task = ? AND file IS NOT NULL", (task,)).fetchall()
        ]
        run("UPDATE objects SET file = NULL WHERE task = ?", (task,))
        (image,) = run("SELECT image FROM tasks WHERE id = ?", (task,)).fetchone()
        states = {row["state"] for row in run("SELECT state FROM tasks WHERE image = ?", (image,)).fetchall()}
        if states <= {"done", "dropped"}:
            row = run("SELECT file FROM images WHERE id = ? AND file IS NOT NULL", (image,)).fetchone()
            gone += [self.folder.images / row["file"]] if row else []
            run("UPDATE images SET file = NULL, finished = ? WHERE id = ?", (time.time(), image))
        return gone


def uid_hash(uid: str) -> str:
    """Return the SHA-256 of a UID in hexadecimal, which stands for it in audit files."""
    return hashlib.sha256(uid.encode()).hexdigest()


def _state(run: Any, task: int) -> str | None:
    row = run("SELECT state FROM tasks WHERE id = ?", (task,)).fetchone()
    return row["state"] if row else None


def _require_open(run: Any, task: int) -> None:
    state = _state(run, task)
    if state is None:
        raise InvalidInput(f"task must be one that radlens node queue lists, got {task}")
    if state in ("done", "dropped"):
        raise InvalidInput(f"task {task} must be waiting, sending or dead, got one that is {state}")


def _hash(run: Any, task: int) -> str:
    query = "SELECT hash FROM images JOIN tasks ON images.id = tasks.image WHERE tasks.id = ?"
    return str(run(query, (task,)).fetchone()["hash"])


def _delivery_row(run: Any, delivery: int) -> Any:
    query = """SELECT deliveries.*, objects.task, objects.uid FROM deliveries
        JOIN objects ON objects.id = deliveries.object WHERE deliveries.id = ?"""
    return run(query, (delivery,)).fetchone()


def _revive(run: Any, task: int, now: float) -> None:
    has_objects = run("SELECT 1 FROM objects WHERE task = ?", (task,)).fetchone()
    update = "UPDATE tasks SET state = ?, attempts = 0, refusals = 0, since = ?, due = ?, error = NULL WHERE id = ?"
    run(update, ("sending" if has_objects else "waiting", now, now, task))
    update = """UPDATE deliveries SET state = 'waiting', attempts = 0, refusals = 0, since = ?, due = ?
        WHERE state IN ('waiting', 'dead') AND object IN (SELECT id FROM objects WHERE task = ?)"""
    run(update, (now, now, task))
