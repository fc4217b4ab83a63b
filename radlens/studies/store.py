"""What a study has computed so far: one file for each piece of work, so that it goes on where it was stopped.

Requirements:

- A piece is found again by what it was computed from, its key. Another key is another file; nothing is overwritten.
- A file appears at once or not at all, whenever the process ends.
- Each piece keeps the seconds that it took, so that the times of a study add up over interruptions.
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
"""JSON values that tell a piece from others."""

Arrays = dict[str, np.ndarray]


def digest(key: Any) -> str:
    """Return 16 hexadecimal digits that stand for JSON values."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Store:
    """Pieces of work in a folder, by stage and key.

    Args:
        folder: made when the first piece is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seconds: dict[str, dict[Path, float]] = defaultdict(dict)

    @property
    def seconds(self) -> dict[str, float]:
        """Time that the pieces used so far took to compute, by stage, whenever that was."""
        return {stage: sum(pieces.values()) for stage, pieces in self._seconds.items()}

    def has(self, stage: str, key: Key) -> bool:
        """Return whether a piece was kept."""
        return self._file(stage, key).exists()

    def keep(self, stage: str, key: Key, arrays: Mapping[str, np.ndarray], seconds: float) -> None:
        """Keep arrays by name; none may be called ``seconds``."""
        stream = io.BytesIO()
        np.savez_compressed(stream, allow_pickle=False, **arrays, seconds=np.float64(seconds))
        file = self._file(stage, key)
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_suffix(f".{os.getpid()}.part")
        beside.write_bytes(stream.getvalue())
        beside.replace(file)

    def load(self, stage: str, key: Key) -> Arrays:
        """Return the arrays of a piece that was kept."""
        file = self._file(stage, key)
        with np.load(file) as stored:
            found = {name: stored[name] for name in stored.files}
        self._seconds[stage][file] = float(found.pop("seconds"))
        return found

    def arrays(self, stage: str, key: Key, compute: Callable[[], Mapping[str, np.ndarray]]) -> Arrays:
        """Return the arrays of a piece, computed now if it was not kept."""
        if not self.has(stage, key):
            begin = time.monotonic()
            found = compute()
            self.keep(stage, key, found, time.monotonic() - begin)
        return self.load(stage, key)

    def values(self, stage: str, key: Key, compute: Callable[[], Any]) -> Any:
        """Return the JSON values of a piece, computed now if it was not kept."""
        return json.loads(str(self.arrays(stage, key, lambda: {"values": np.array(json.dumps(compute()))})["values"]))

    def _file(self, stage: str, key: Key) -> Path:
        return self.folder / stage / f"{digest(key)}.npz"
