"""Results of a long measurement in a file, so that an interrupted one goes on."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

__all__ = ["Kept"]

Task = TypeVar("Task")
Result = TypeVar("Result")


class Kept(Generic[Task, Result]):
    """Results in a JSON Lines file, one line per task.

    Args:
        folder: Folder of the file; None keeps nothing.
        name: Beginning of the name of the file.
        identity: Identity of what is measured; each has a file of its own.
        write: Makes a JSON value of a task and its result.
        read: Makes a task and its result of such a value.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        identity: str,
        write: Callable[[Task, Result], Any],
        read: Callable[[Any], tuple[Task, Result]],
    ) -> None:
        digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
        self._file = None if folder is None else folder / f"{name}-{digest}.jsonl"
        self._write, self._read = write, read

    def load(self) -> dict[Task, Result]:
        """Return the results in the file; an incomplete last line, left by an interruption, is removed."""
        if self._file is None or not self._file.exists():
            return {}
        text = self._file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self._file.write_text(whole, encoding="utf-8")
        return dict(self._read(json.loads(line)) for line in whole.splitlines())

    def add(self, task: Task, result: Result) -> None:
        """Append a line."""
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(self._write(task, result)) + "\n")
