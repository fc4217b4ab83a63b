"""The files of a bundle and their hashes.

A bundle is a directory with ``bundle.json`` and the files that it lists with their SHA-256. The hash of the bundle is
the hash of ``bundle.json``, and thus covers every byte of the bundle.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from radlens.errors import BundleError

__all__ = ["FORMAT_VERSION", "MANIFEST", "problems", "read_manifest", "write_manifest"]

FORMAT_VERSION = 2
"""Version of the layout of ``bundle.json``; other versions are not read."""

MANIFEST = "bundle.json"


def read_manifest(path: Path) -> tuple[dict[str, Any], str]:
    """Return the contents of ``bundle.json`` in the directory ``path``, and its SHA-256.

    Raises:
        BundleError: the file is missing, is not a JSON object, or has another format version.
    """
    try:
        text = (path / MANIFEST).read_bytes()
        document = json.loads(text)
        version = document["format_version"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BundleError(f"bundle must hold a readable {MANIFEST}, got {type(error).__name__}") from error
    if version != FORMAT_VERSION:
        raise BundleError(f"bundle format must be {FORMAT_VERSION}, got {version}")
    # Of the bytes on disk: the same document can be written in several ways.
    return document, hashlib.sha256(text).hexdigest()


def write_manifest(path: Path, document: Mapping[str, Any]) -> None:
    """Write ``bundle.json`` for the files that are already in the directory ``path``."""
    files = {file.name: sha256(file) for file in sorted(path.iterdir()) if file.name != MANIFEST}
    complete = {**document, "files": files, "format_version": FORMAT_VERSION}
    (path / MANIFEST).write_text(json.dumps(complete, indent=2) + "\n", encoding="utf-8")


def problems(path: Path, files: Mapping[str, str], may_miss: Callable[[str], bool]) -> dict[str, str]:
    """Return the problems of optional files, by file name.

    Args:
        path: directory of the bundle.
        files: expected SHA-256 by file name.
        may_miss: predicate of a file name: whether the model can be served without the file.

    Raises:
        BundleError: a required file is missing or altered.
    """
    damaged = {}
    for name, expected in files.items():
        problem = _problem(path / name, expected)
        if problem and not may_miss(name):
            raise BundleError(problem)
        if problem:
            damaged[name] = problem
    return damaged


def _problem(file: Path, expected: str) -> str | None:
    if not file.is_file():
        return f"bundle must hold {file.name}, which is missing"
    if sha256(file) != expected:
        return f"{file.name} is not the file this bundle was made with: its SHA-256 differs"
    return None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
