"""Checkpoints of sampling runs, so that an interrupted run continues where it stopped."""

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
"""Number of characters of a value that a message repeats."""


@dataclass(frozen=True)
class Checkpoint:
    """A file to which a run is saved while it computes, and from which it is continued.

    Only a run of the same identity can continue a saved run, with at least as many samples. The file stays when the
    run is finished, so that the run can be extended to more samples or a higher reliability; delete it otherwise.

    Args:
        path: the file, ``.npz``. A new state is written to a file beside it, which then replaces it, so the checkpoint
            is complete at any time.
        run: properties that the maps depend on besides image and samples, such as explainer, model and engine, by name.
        every_s: seconds between two saves, at least 0. Samples after the last save are lost if the process dies.

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
        """Return the saved arrays; None if the file does not exist.

        Raises:
            InvalidInput: The file is not a checkpoint, or belongs to another run; the message names the differences.
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
        """Replace the saved arrays by ``arrays``.

        Raises:
            InvalidInput: The file cannot be written.
        """
        beside = self.path.with_name(f"{self.path.name}.part")
        try:
            with beside.open("wb") as file:
                contents: dict[str, Any] = {_IDENTITY: np.array(json.dumps(self._named(identity))), **arrays}
                np.savez(file, **contents)
                file.flush()
                # Without it a power failure could leave the new name with the contents still unwritten.
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
