"""Audit log: who asked what, when, of which model; append-only, each line with the hash of the one before.

A log is a file of JSON lines. Each line has ``seq`` (its number, from 1, over rotated files as well), ``time`` (UTC,
ISO 8601), ``previous`` (SHA-256 of the line before, without its end) and the fields of the record. Beside it
``<name>.head`` holds number and hash of the last line, and ``<name>.lock`` is what writers wait for.

Lines are written by one ``write`` each, and are on the disk (``fdatasync``) before `AuditLog.append` returns, unless
``sync=False``: then the kernel writes them within about 30 s, and a power failure loses those of that time, while a
killed process loses none. The head is not synchronised: after a power failure it may lie behind the log.

What `verify` finds: a line that was changed, removed, inserted or moved, and the end cut off. It cannot find a log that
was written anew together with its head by somebody who may write both; for that, send the log to another machine as
well (`radlens.dicom_audit`), or keep number and hash of the last line elsewhere and give them to `verify`.
"""

import errno
import hashlib
import json
import os
import pwd
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from radlens.durable import locked
from radlens.errors import InvalidParameter, ServerError

__all__ = ["AUDIT_FILE", "FIRST", "AuditLog", "Head", "Verdict", "operator", "records", "verify"]

AUDIT_FILE = "audit.jsonl"
"""Name of a server's audit log in its working directory."""

_OWN = ("seq", "time", "previous", "torn_before")
"""Fields that the log sets itself."""

_MODE = 0o600

_LONGEST = 64 * 1024
"""Largest line in bytes."""


class Head(NamedTuple):
    """The last line of a log.

    Attributes:
        seq: Number of the line; 0 if there is none.
        sha256: SHA-256 of the line, 64 hexadecimal digits; zeros if there is none.
    """

    seq: int
    sha256: str

    @classmethod
    def parse(cls, text: str) -> "Head":
        """Return the head that is written ``SEQ:SHA256``.

        Raises:
            InvalidParameter: The text has another form.
        """
        seq, _, sha256 = text.partition(":")
        if not (seq.isascii() and seq.isdigit() and _is_hash(sha256)):
            raise InvalidParameter(f"a head must be SEQ:SHA256, such as 12:{'0' * 8}..., got {text[:90]!a}")
        return cls(int(seq), sha256)

    def __str__(self) -> str:
        """Return ``SEQ:SHA256``."""
        return f"{self.seq}:{self.sha256}"


FIRST = Head(0, "0" * 64)
"""What comes before the first line."""


class AuditLog:
    """An append-only log that several threads and processes may write.

    Args:
        path: File of the log; created with mode 0600 if it is missing. Its folder must exist.
        sync: Whether each line is on the disk before `append` returns.
    """

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        self._path, self._sync = path, sync

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record.

        A line that a crash left unfinished is closed and stays where it is; the new line says so and holds its hash.

        Args:
            record: Fields of the record; values must be JSON. Without patient data: name inputs by their hashes.

        Raises:
            InvalidParameter: A field is one that the log sets itself, a value is not JSON, or the line is longer than
                64 KB.
            OSError: The file cannot be written, for instance because the disk is full; the record is not in the log.
        """
        if taken := [name for name in _OWN if name in record]:
            raise InvalidParameter(f"fields of a record must not be {', '.join(_OWN)}, got {', '.join(taken)}")
        with locked(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
            try:
                self._append(descriptor, record)
            finally:
                os.close(descriptor)

    def _append(self, descriptor: int, record: Mapping[str, Any]) -> None:
        size = os.fstat(descriptor).st_size
        end = _end(descriptor, size)
        unfinished = end.rpartition(b"\n")[2]
        head, before = _read_head(self._path), _last(end)
        if unfinished and before is not None and before.sha256 == _sha256(unfinished):
            # All of the line but its end was written.
            unfinished, closing = b"", b"\n"
        else:
            closing = b"\n" if unfinished else b""
        if head is None:
            # Before the first line, so that a crash does not leave a line without a head.
            _write_head(self._path, FIRST)
        # A head ahead of the log, or one with another hash, means that the log was cut or changed. The chain goes on
        # from the head, so that the gap stays visible; only a head behind the log is left over from a crash.
        if head is not None and (before is None or head.seq >= before.seq):
            before = head
        before = before or FIRST
        own: dict[str, Any] = {"seq": before.seq + 1, "time": _now(), "previous": before.sha256}
        if unfinished:
            own["torn_before"] = _sha256(unfinished)
        line = _line({**own, **record})
        self._write(descriptor, closing + line + b"\n", size)
        if self._sync:
            os.fdatasync(descriptor)
        _write_head(self._path, Head(own["seq"], _sha256(line)))

    def _write(self, descriptor: int, content: bytes, size: int) -> None:
        try:
            n_written = os.write(descriptor, content)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        if n_written != len(content):
            # Part of a line would be taken for one that a crash left unfinished.
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))


def operator() -> str:
    """Return who runs this process, as ``user:NAME``; ``uid:NUMBER`` of an account without a name."""
    try:
        return f"user:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"uid:{os.getuid()}"


@dataclass(frozen=True)
class Verdict:
    """Result of the verification of a log.

    Attributes:
        n_lines: Number of complete lines.
        head: The last line.
        faults: What was changed, and where; empty for a log that is whole.
        torn: Places of lines that a crash left unfinished; their records are lost, and nothing else.
    """

    n_lines: int
    head: Head
    faults: tuple[str, ...] = ()
    torn: tuple[str, ...] = field(default=())


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a log; lines that are not records are skipped.

    Raises:
        ServerError: There is no log, such as between its rotation and the next record.
    """
    if not path.is_file():
        raise ServerError(f"an audit log must be a file, and {path.name} is missing")
    with path.open("rb") as file:
        for line in file:
            record = _parse(line.rstrip(b"\n"))
            if record is not None:
                yield record


def verify(paths: Path | Sequence[Path], *, after: Head = FIRST, known: Head | None = None) -> Verdict:
    """Check that no line of a log was changed, removed, inserted or moved.

    Args:
        paths: File of the log, or rotated files and then the log, oldest first; the head beside the last one counts.
        after: Last line of the file before ``paths``, if that was archived.
        known: Number and hash of a line that was kept elsewhere; it must be in the log.

    Raises:
        ServerError: A file is missing.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    if missing := [file.name for file in files if not file.is_file()]:
        raise ServerError(f"an audit log must be a file, and {missing[0]} is missing")
    chain = _Chain(after)
    kept = _read_head(files[-1])
    wanted = {each for each in (kept, known) if each is not None and each.seq > after.seq}
    for path in files:
        line = b"\n"
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                chain.add(line, f"{path.name} line {number}")
                wanted.discard(chain.head)
        chain.end(is_open=not line.endswith(b"\n"))
    faults = list(chain.faults)
    if kept is None and chain.n_lines:
        faults.append(f"{files[-1].name}.head must hold the last line, got none: whether the end was cut is unknown")
    for each in sorted(wanted):
        where = f"the log must hold line {each.seq} with SHA-256 {each.sha256[:12]}..., "
        missed = f"got an end at line {chain.head.seq}" if chain.head.seq < each.seq else "got another line"
        faults.append(where + missed)
    return Verdict(chain.n_lines, chain.head, tuple(faults), tuple(chain.torn))


class _Chain:
    """Walk over the lines of a log."""

    def __init__(self, after: Head) -> None:
        self.head, self.n_lines = after, 0
        self.faults: list[str] = []
        self.torn: list[str] = []
        self._unread: tuple[str, bytes] | None = None

    def add(self, line: bytes, place: str) -> None:
        """Check one line against the line before."""
        text = line.rstrip(b"\n")
        record = _parse(text)
        if record is None:
            self._report()
            self._unread = (place, text)
            return
        if self._unread is not None and record.get("torn_before") == _sha256(self._unread[1]):
            self.torn.append(f"{self._unread[0]} was left unfinished by a crash; its record is lost")
            self._unread = None
        self._report()
        if record["seq"] != self.head.seq + 1:
            self.faults.append(_numbering(record["seq"], self.head.seq, place))
        elif record["previous"] != self.head.sha256:
            self.faults.append(f"{place} (number {record['seq']}) does not follow the line before: that was changed")
        self.n_lines += 1
        self.head = Head(record["seq"], _sha256(text))

    def end(self, *, is_open: bool) -> None:
        """Report a last line that is not a record.

        Args:
            is_open: Whether the file ends without the end of a line, as after a crash.
        """
        if self._unread is not None and is_open:
            self.torn.append(f"{self._unread[0]} was left unfinished by a crash; its record is lost")
            self._unread = None
        self._report()

    def _report(self) -> None:
        if self._unread is not None:
            place, text = self._unread
            self._unread = None
            self.faults.append(f"{place} is not a record ({len(text)} bytes)")


def _numbering(got: int, before: int, place: str) -> str:
    if got > before + 1:
        missing = f"line {before + 1} is" if got == before + 2 else f"lines {before + 1} to {got - 1} are"
        return f"{place} has number {got}: {missing} missing before it"
    return f"{place} has number {got} after number {before}: it was moved or inserted"


def _parse(text: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None if it is not one."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_own = isinstance(record, dict) and type(record.get("seq")) is int and _is_hash(record.get("previous"))
    return record if is_own and isinstance(record.get("time"), str) else None


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as error:
        raise InvalidParameter(f"values of a record must be JSON, got one that is not: {error}") from error
    if len(line) > _LONGEST:
        raise InvalidParameter(f"a record must take at most {_LONGEST} bytes, got {len(line)}")
    return line


def _end(descriptor: int, size: int) -> bytes:
    """Return the end of a file: at least its last complete line, and what follows."""
    n_bytes = min(size, 2 * (_LONGEST + 1))
    return os.pread(descriptor, n_bytes, size - n_bytes)


def _last(end: bytes) -> Head | None:
    """Return the last complete record at the end of a file."""
    for line in reversed(end.split(b"\n")):
        record = _parse(line)
        if record is not None:
            return Head(record["seq"], _sha256(line))
    return None


def _head_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.head")


def _read_head(path: Path) -> Head | None:
    try:
        return Head.parse(_head_file(path).read_text(encoding="ascii", errors="replace").strip())
    except (OSError, InvalidParameter):
        return None


def _write_head(path: Path, head: Head) -> None:
    # In place and of one length: one write of less than a page, so that a killed process leaves the old or the new.
    descriptor = os.open(_head_file(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _MODE)
    try:
        os.pwrite(descriptor, f"{head.seq:020d}:{head.sha256}\n".encode(), 0)
    finally:
        os.close(descriptor)


def _sha256(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _is_hash(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
