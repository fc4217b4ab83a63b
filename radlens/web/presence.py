"""A file for each forwarded request whose client waits; workers look for it between two steps."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

__all__ = ["Presence", "Presences"]


class Presence:
    """The file of one request.

    Args:
        file: Path of the file, which exists.

    Attributes:
        name: Name of the file, which is passed to the worker.
    """

    def __init__(self, file: Path) -> None:
        self._file, self.name = file, file.name

    def end(self) -> None:
        """Remove the file: the client has left, or has its answer."""
        self._file.unlink(missing_ok=True)


class Presences:
    """The files of all requests.

    Args:
        folder: Folder of the files. Files of an earlier front door are removed: their clients have lost their
            connections.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder

    @contextmanager
    def one(self) -> Iterator[Presence]:
        """Keep a file within the block."""
        # Not the identifier of the request: a client chooses that, and may use one twice.
        file = self._folder / uuid4().hex
        file.touch()
        presence = Presence(file)
        try:
            yield presence
        finally:
            presence.end()
