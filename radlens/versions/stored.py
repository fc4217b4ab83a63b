"""The archives of a model store: names and versions from their manifests, and whether they are whole."""

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from radlens.errors import BundleError, ServerError

__all__ = ["Inspection", "Stored", "archives", "damaged", "inspect", "n_workers", "newest_archives", "size"]

_MANIFEST = "MAR-INF/MANIFEST.json"
_BUNDLE = "bundle.json"

_UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, EOFError, NotImplementedError)
"""Exceptions of zipfile, zlib and json for damaged archives; zipfile raises `NotImplementedError` for a compression or
an encryption that it does not know."""


class Stored(NamedTuple):
    """An archive of a model store.

    Attributes:
        name: Name of the model.
        version: Version of the model.
        archive: Name of the file or directory in the store.
    """

    name: str
    version: str
    archive: str


class Inspection(NamedTuple):
    """An archive that was read in full.

    Attributes:
        stored: Name, version and file.
        bundle: Contents of ``bundle.json``; None if the archive does not hold a bundle.
        bundle_hash: SHA-256 of ``bundle.json``; None as well.
    """

    stored: Stored
    bundle: dict[str, Any] | None
    bundle_hash: str | None


def archives(store: Path) -> Iterator[Stored]:
    """Yield the archives in ``store`` with a readable manifest; other files are skipped."""
    for path in sorted(store.iterdir() if store.is_dir() else ()):
        if (found := _stored(path)) is not None:
            yield found


def damaged(store: Path) -> list[str]:
    """Return the names of files in ``store`` that should be archives and have no readable manifest."""
    paths = sorted(store.iterdir() if store.is_dir() else ())
    meant = [path for path in paths if path.suffix == ".mar" or (path / _MANIFEST).parent.is_dir()]
    return [path.name for path in meant if _stored(path) is None]


def newest_archives(store: Path) -> dict[str, str]:
    """Return the archive with the highest version of each model in ``store``, by name of the model.

    Raises:
        ServerError: The store does not hold an archive, or one is damaged: it might be the newest.
    """
    if broken := damaged(store):
        raise ServerError(
            f"archives in {store} must be whole, got {', '.join(broken)}, which cannot be read: export it again, move "
            "it away, or name what to serve with --model"
        )
    found = sorted(archives(store), key=lambda stored: order(stored.version))
    if not found:
        raise ServerError(f"{store} must hold an archive, got none: make one with `radlens export`")
    return {stored.name: stored.archive for stored in found}


def inspect(path: Path) -> Inspection:
    """Read an archive in full and compare every file of its bundle with its hash.

    Raises:
        BundleError: The archive is missing or damaged; the message says where.
    """
    if not path.exists():
        raise BundleError(f"archive must exist, got no file {path.name}")
    stored = _stored(path)
    if stored is None:
        raise BundleError(f"{path.name} must be an archive, got a file that cannot be read or has no manifest")
    try:
        if path.is_file():
            with zipfile.ZipFile(path) as archive:
                wrong = archive.testzip()
            if wrong is not None:
                raise BundleError(f"{path.name} is damaged: the checksum of {wrong} differs")
        text = _read(path, _BUNDLE)
    except (FileNotFoundError, KeyError):
        return Inspection(stored, None, None)
    except _UNREADABLE as error:
        raise BundleError(f"{path.name} is damaged: {type(error).__name__}") from error
    try:
        bundle = json.loads(text)
        files = dict(bundle["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path.name} is damaged: {_BUNDLE} cannot be read") from error
    for name, expected in files.items():
        try:
            found = hashlib.sha256(_read(path, name)).hexdigest()
        except _UNREADABLE as error:
            raise BundleError(f"{path.name} is damaged: {name} is missing or cannot be read") from error
        if found != expected:
            raise BundleError(f"{path.name} is damaged: the SHA-256 of {name} differs from the bundle's")
    return Inspection(stored, bundle, hashlib.sha256(text).hexdigest())


def n_workers(path: Path) -> int:
    """Return the number of workers that TorchServe starts for an archive; 1 if its configuration does not state it."""
    try:
        config = json.loads(_read(path, _MANIFEST))["model"]["configFile"]
        stated = re.search(rb"^minWorkers:\s*(\d+)", _read(path, config), re.MULTILINE)
    except _UNREADABLE:
        return 1
    return 1 if stated is None else int(stated[1])


def size(path: Path) -> int:
    """Return the size of an archive in bytes."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())


def order(version: str) -> tuple[tuple[int, str], ...]:
    """Return a sort key that puts 10.0 after 9.1."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in version.split("."))


def _stored(path: Path) -> Stored | None:
    try:
        model = json.loads(_read(path, _MANIFEST))["model"]
        return Stored(model["modelName"], model["modelVersion"], path.name)
    except _UNREADABLE:
        return None


def _read(path: Path, name: str) -> bytes:
    if path.is_dir():
        return (path / name).read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)
