"""Intermediate results of a study, one file for each, from which an interrupted study resumes.

Requirements:

- A result is found by its key, the inputs of its computation. Another key is another file; nothing is overwritten.
- Files are written atomically, whenever the process ends.
- Each result stores its computing time, so that the times of a study add up over interruptions.
"""

import hashlib
import io
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Key", "Store", "digest"]

Key = Mapping[str, Any]
"""JSON values that identify a result."""

Arrays = dict[str, np.ndarray]


def digest(key: Any) -> str:
    """Return a digest of JSON values, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Store:
    """Results in a folder, by stage and key.

    Args:
        folder: folder of the results, created with the first one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seconds: dict[str, dict[Path, float]] = defaultdict(dict)

    @property
    def seconds(self) -> dict[str, float]:
        """Computing time of the results used so far, by stage, earlier runs included."""
        return {stage: sum(pieces.values()) for stage, pieces in self._seconds.items()}

    def has(self, stage: str, key: Key) -> bool:
        """Return whether a result is stored."""
        return self._file(stage, key).exists()

    def keep(self, stage: str, key: Key, arrays: Mapping[str, np.ndarray], seconds: float) -> None:
        """Store arrays by name; the name ``seconds`` is reserved."""
        stream = io.BytesIO()
        np.savez_compressed(stream, allow_pickle=False, **arrays, seconds=np.float64(seconds))
        file = self._file(stage, key)
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_suffix(f".{os.getpid()}.part")
        beside.write_bytes(stream.getvalue())
        beside.replace(file)

    def load(self, stage: str, key: Key) -> Arrays:
        """Return the arrays of a stored result."""
        file = self._file(stage, key)
        with np.load(file) as stored:
            found = {name: stored[name] for name in stored.files}
        self._seconds[stage][file] = float(found.pop("seconds"))
        return found

    def arrays(self, stage: str, key: Key, compute: Callable[[], Mapping[str, np.ndarray]]) -> Arrays:
        """Return the arrays of a result, computed now if it is not stored."""
        if not self.has(stage, key):
            begin = time.monotonic()
            found = compute()
            self.keep(stage, key, found, time.monotonic() - begin)
        return self.load(stage, key)

    def _file(self, stage: str, key: Key) -> Path:
        return self.folder / stage / f"{digest(key)}.npz"
