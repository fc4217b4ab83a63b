"""Sums of samples on disk, so that an interrupted run goes on where it was."""

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from radlens.errors import InvalidInput, InvalidParameter

__all__ = ["Checkpoint"]

_FORMAT = "1"
_IDENTITY = "identity"
_MAX_SHOWN = 40
"""Characters of a value that a message repeats."""


@dataclass(frozen=True)
class Checkpoint:
    """A file that a run is saved to while it goes on, and continued from.

    A saved run is continued only by a run of the same identity, to any number of samples at least as large. The file
    stays when the run is finished: with more samples, or a higher reliability, the same run goes on from there. Whoever
    needs neither deletes it.

    Args:
        path: the file, ``.npz``. It is written beside its place and then moved there, so it is whole at any time.
        run: what the maps depend on beside image and samples, such as explainer, model and engine; text by name.
        every_s: seconds between two writings, at least 0. What came after the last one is lost with the process.

    Raises:
        InvalidParameter: ``every_s`` is negative.
    """

    path: Path
    run: Mapping[str, str] = field(default_factory=dict)
    every_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.every_s >= 0:
            raise InvalidParameter(f"every_s must be at least 0, got {self.every_s}")

    def load(self, identity: Mapping[str, str]) -> dict[str, np.ndarray] | None:
        """Return the arrays that were saved, None if there is no file.

        Raises:
            InvalidInput: a file that is no checkpoint, or that of another run; the message says in what they differ.
        """
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
                arrays = {name: saved[name] for name in saved.files}
            theirs = json.loads(str(arrays.pop(_IDENTITY)))
        except FileNotFoundError:
            return None
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise InvalidInput(f"checkpoint must be a file of saved samples, got {type(error).__name__}") from None
        _require_same(self._named(identity), theirs)
        return arrays

    def save(self, identity: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> None:
        """Put ``arrays`` in place of what was saved before.

        Raises:
            InvalidInput: the file cannot be written.
        """
        beside = self.path.with_name(f"{self.path.name}.part")
        try:
            with beside.open("wb") as file:
                contents: dict[str, Any] = {_IDENTITY: np.array(json.dumps(self._named(identity))), **arrays}
                np.savez(file, **contents)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        except OSError as error:
            raise InvalidInput(f"checkpoint must be a file that can be written, got {error.strerror}") from None

    def _named(self, identity: Mapping[str, str]) -> dict[str, str]:
        return {"format": _FORMAT, **self.run, **identity}


def _require_same(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    differs = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if differs:
        found = "; ".join(f"{name} {_shown(theirs, name)} instead of {_shown(ours, name)}" for name in differs)
        raise InvalidInput(f"checkpoint must be of the same run, got one of another: {found}")


def _shown(identity: Mapping[str, Any], name: str) -> str:
    text = str(identity.get(name, "none"))
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
