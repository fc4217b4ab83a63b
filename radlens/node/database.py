"""The SQLite database of a node: one transaction for each step, on the disk before the step counts as done."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from radlens.errors import InvalidInput

__all__ = ["VERSION", "Database", "count", "note"]

VERSION = 1
"""Version of the tables, kept as SQLite's user_version."""

_TABLES = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL UNIQUE,
    hash TEXT NOT NULL,           -- SHA-256 of the UID, which stands for it in the audit
    file TEXT,                    -- name in images/, NULL once it is deleted
    bytes INTEGER NOT NULL,
    sender TEXT NOT NULL,
    received REAL NOT NULL,
    finished REAL
) STRICT;
CREATE INDEX images_kept ON images (id) WHERE file IS NOT NULL;
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    image INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,
    rule TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'sending', 'done', 'dead', 'dropped')),
    attempts INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    since REAL NOT NULL,          -- when it could first be done
    due REAL NOT NULL,            -- when it may be tried
    error TEXT,
    UNIQUE (image, rule)
) STRICT;
CREATE INDEX tasks_due ON tasks (state, due);
CREATE TABLE objects (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    task INTEGER NOT NULL REFERENCES tasks ON DELETE CASCADE,
    uid TEXT NOT NULL,
    sop_class TEXT NOT NULL,
    file TEXT                     -- name in results/, NULL once it is deleted
) STRICT;
CREATE INDEX objects_task ON objects (task);
CREATE INDEX objects_uid ON objects (uid);
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    object INTEGER NOT NULL REFERENCES objects ON DELETE CASCADE,
    destination TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'committing', 'done', 'dead', 'dropped')),
    attempts INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    since REAL NOT NULL,
    due REAL NOT NULL,
    error TEXT,
    transaction_uid TEXT,         -- of the storage commitment that was asked for
    UNIQUE (object, destination)
) STRICT;
CREATE INDEX deliveries_due ON deliveries (destination, state, due);
CREATE TABLE lanes (              -- the server, each destination and each source
    name TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    since REAL NOT NULL,
    until REAL NOT NULL,
    error TEXT NOT NULL
) STRICT;
CREATE TABLE seen (uid TEXT PRIMARY KEY, at REAL NOT NULL) STRICT;
CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, line TEXT NOT NULL) STRICT;
"""


class Database:
    """A connection that threads share; each transaction has it alone.

    Args:
        file: path of the database.
        create: whether to make it where it is missing.

    Raises:
        InvalidInput: the database is missing and may not be made, or has other tables.
    """

    def __init__(self, file: Path, *, create: bool) -> None:
        if not create and not file.exists():
            raise InvalidInput(f"{file.parent} must be the folder of a node that has run, got a folder without a queue")
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(file, timeout=60, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        with self.transaction() as run:
            (version,) = run("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _TABLES.split(";"):
                    run(statement)
                run(f"PRAGMA user_version = {VERSION}")
            elif version != VERSION:
                raise InvalidInput(f"{file} must be a queue of version {VERSION}, got version {version}")

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Give ``execute`` within one transaction, which is on the disk when the block ends without an error."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite ends some failed transactions itself; a COMMIT that failed may leave one open.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()


def count(run: Any, name: str) -> None:
    """Add one to a count."""
    run("INSERT INTO counts VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1", (name,))


def note(run: Any, event: str, image: str, **details: Any) -> None:
    """Add a line to the audit, and one to the count of the event.

    Args:
        run: ``execute`` of a transaction.
        event: what happened.
        image: hash of the image's SOP Instance UID.
        details: JSON values, without header values.
    """
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = {"time": moment, "event": event, "image": image, **details}
    run("INSERT INTO audit (line) VALUES (?)", (json.dumps(line, ensure_ascii=True),))
    count(run, event)
