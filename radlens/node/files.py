"""Files of a node: written whole and synchronised before the database names them, removed after it no longer does."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

__all__ = ["Folder", "sync"]


class Folder:
    """The folder of a node's queue; only its user may read it.

    Attributes:
        top: the folder.
        incoming: files that are being received.
        images: accepted images.
        results: objects that wait for their destinations.
        audit: audit files, one for each month.
        database: SQLite database of the queue.
        metrics: metrics in the text format of Prometheus.
    """

    def __init__(self, top: Path) -> None:
        self.top = top
        self.incoming, self.images, self.results = top / "incoming", top / "images", top / "results"
        self.audit, self.database, self.metrics = top / "audit", top / "queue.sqlite", top / "metrics.prom"

    def make(self) -> None:
        """Make what is missing."""
        self.top.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (self.incoming, self.images, self.results, self.audit):
            each.mkdir(mode=0o700, exist_ok=True)

    def adopt(self, file: Path) -> str:
        """Move a received file to the images, durably, and return its new name."""
        name = f"{uuid.uuid4().hex}.dcm"
        sync(file)
        os.replace(file, self.images / name)
        sync(self.images)
        return name

    def write_results(self, contents: list[bytes]) -> list[str]:
        """Write objects durably and return their names.

        Raises:
            OSError: they cannot be written; then none of them is left.
        """
        names: list[str] = []
        try:
            for content in contents:
                names.append(f"{uuid.uuid4().hex}.dcm")
                with open(self.results / names[-1], "wb", opener=_private) as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            sync(self.results)
        except BaseException:
            self.remove([self.results / name for name in names])
            raise
        return names

    def replace_text(self, file: Path, text: str) -> None:
        """Replace a file of text at once, for readers that may read at any moment."""
        part = file.with_suffix(".part")
        part.write_text(text, "utf-8")
        os.replace(part, file)

    def sweep(self, images: Collection[str], results: Collection[str]) -> int:
        """Remove files that the database does not name, and files that were being received; return their number."""
        kept = {self.images: set(images), self.results: set(results), self.incoming: set()}
        found = [file for folder, names in kept.items() for file in folder.iterdir() if file.name not in names]
        self.remove(found)
        return len(found)

    def remove(self, files: Collection[Path]) -> None:
        """Remove files, of which some may be gone."""
        for file in files:
            with suppress(FileNotFoundError):
                file.unlink()

    def free_mb(self) -> float:
        """Return the free space of the disk in MiB."""
        return shutil.disk_usage(self.top).free / 2**20


def sync(path: Path) -> None:
    """Write what the system holds of a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
