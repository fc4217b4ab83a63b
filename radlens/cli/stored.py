"""The archives of a model store, with the names and versions of their manifests."""

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from radlens.errors import ServerError

__all__ = ["Stored", "archives", "n_workers", "newest_archives", "size"]

_MANIFEST = "MAR-INF/MANIFEST.json"


class Stored(NamedTuple):
    """An archive of a model store.

    Attributes:
        name: name of the model.
        version: version of the model.
        archive: name of the file or directory in the store.
    """

    name: str
    version: str
    archive: str


def archives(store: Path) -> Iterator[Stored]:
    """Yield the archives in ``store``; other files are skipped."""
    for path in sorted(store.iterdir() if store.is_dir() else ()):
        try:
            model = json.loads(_read(path, _MANIFEST))["model"]
            yield Stored(model["modelName"], model["modelVersion"], path.name)
        except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError):
            continue


def newest_archives(store: Path) -> dict[str, str]:
    """Return the archive with the highest version of each model in ``store``, by name of the model.

    Raises:
        ServerError: The store does not hold an archive.
    """
    found = sorted(archives(store), key=lambda stored: _order(stored.version))
    if not found:
        raise ServerError(f"{store} must hold an archive, got none: make one with `radlens export`")
    return {stored.name: stored.archive for stored in found}


def n_workers(path: Path) -> int:
    """Return the number of workers that TorchServe starts for an archive; 1 if its configuration does not state it."""
    try:
        config = json.loads(_read(path, _MANIFEST))["model"]["configFile"]
        stated = re.search(rb"^minWorkers:\s*(\d+)", _read(path, config), re.MULTILINE)
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError):
        return 1
    return 1 if stated is None else int(stated[1])


def size(path: Path) -> int:
    """Return the size of an archive in bytes."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())


def _read(path: Path, name: str) -> bytes:
    if path.is_dir():
        return (path / name).read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def _order(version: str) -> tuple[tuple[int, str], ...]:
    """Return a sort key that puts 10.0 after 9.1."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in version.split("."))
