"""Where radlens keeps what can be computed again."""

import os
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "cache_folder"]

CACHE_VARIABLE = "RADLENS_CACHE"
"""Environment variable with the folder for what can be computed again."""


def cache_folder() -> Path:
    """Return ``RADLENS_CACHE``, or the folder ``radlens`` where the desktop keeps caches (XDG base directories)."""
    stated = os.environ.get(CACHE_VARIABLE)
    if stated:
        return Path(stated)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "radlens"
