"""Files that take seconds to make, shared by all processes of a test run and by later runs.

They lie in ``build/tests/``. Their names end in a hash of the code that makes them, so a changed library makes them
anew. ``pytest --fresh`` removes them first.
"""

import hashlib
import inspect
import os
import platform
import shutil
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

from filelock import FileLock

import radlens

LIBRARY = Path(radlens.__file__).parent
STORE = Path(__file__).parents[1] / "build" / "tests"

UNUSED_S = 7 * 24 * 3600.0
"""Seconds after which unused files are removed."""


def made(name: str, make: Callable[[Path], object], *, store: Path | None = None) -> Path:
    """Return the folder that ``make`` filled, in this process or an earlier one; nothing in it may be changed.

    Args:
        name: what is made, with all its parameters.
        make: fills an empty folder; its source file is part of the hash.
        store: folder of all that is made, `STORE` by default.
    """
    store = store or STORE
    store.mkdir(parents=True, exist_ok=True)
    folder = store / f"{name}-{_hash(inspect.getsourcefile(make) or '')}"
    # One process makes it, the others wait here.
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            aside = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            make(aside)
            aside.rename(folder)
        os.utime(folder)
    return folder


def copied(name: str, make: Callable[[Path], object], to: Path) -> Path:
    """Return ``to``, a new folder with a copy of what `made` returns, which tests may change."""
    return Path(shutil.copytree(made(name, make), to))


def tidy(*, fresh: bool, store: Path | None = None) -> None:
    """Remove what nobody used for `UNUSED_S`, or everything if ``fresh``; call it before any process uses the store."""
    store = store or STORE
    for path in store.iterdir() if store.exists() else ():
        if fresh or time.time() - path.stat().st_mtime > UNUSED_S:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@cache
def _hash(maker: str) -> str:
    """Return 16 digits that change with the library, the maker's file and the installed packages."""
    packages = sorted((each.name, each.version) for each in distributions())
    digest = hashlib.sha256(f"{platform.python_version()} {packages}".encode())
    library = (file for file in LIBRARY.rglob("*") if file.is_file() and file.suffix != ".pyc")
    for file in (*sorted(library), Path(maker)):
        digest.update(f"{file.name} {file.stat().st_size} ".encode() + file.read_bytes())
    return digest.hexdigest()[:16]
