"""Files that several processes change: locked, replaced whole, and readable by their owner alone."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from radlens.errors import ServerError

__all__ = ["locked", "replace", "require_private", "sync_folder"]

PRIVATE = 0o600
"""Mode of files that only their owner reads and writes."""


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock of ``file`` against other threads and processes; the lock is a file beside it.

    The lock ends with the process that holds it, also if that process is killed. Not for network file systems
    without ``flock``.
    """
    lock = file.with_name(f"{file.name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace(file: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Write ``file`` so that a reader, or a crash, sees the old content or the new, and nothing between.

    The content is on the disk when this returns.

    Args:
        file: File to write; its folder must exist.
        content: New content.
        mode: Permissions of the file.
    """
    scratch = file.with_name(f".{file.name}.{uuid4().hex}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as written:
            # The umask may have taken bits away.
            os.fchmod(written.fileno(), mode)
            written.write(content)
            written.flush()
            os.fsync(written.fileno())
        scratch.replace(file)
    except BaseException:
        with suppress(OSError):
            scratch.unlink()
        raise
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Write the names of a folder's files to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_private(file: Path) -> None:
    """Check that nobody but its owner can read or write a file.

    Raises:
        ServerError: Others can; the message names the mode and the command that changes it.
        FileNotFoundError: The file is missing.
    """
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise ServerError(
            f"{file.name} must have mode 600, so that its owner alone can read it, got {mode:o}; run chmod 600 {file}"
        )
