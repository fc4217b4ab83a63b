"""Start of a worker: what TorchServe unpacked must be the contents of a registered archive.

TorchServe starts this in place of Python, in the folder to which it unpacked an archive, at the first start of a worker
and after each crash. It is run by itself (``python -I``), so it imports the standard library alone.
"""

import hashlib
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["SUFFIX", "contents", "contents_of_zip", "listing", "remove_compiled"]

SUFFIX = ".contents"
"""Suffix of the file beside a registered archive with the digest of its contents."""

_WORKER = "model_service_worker.py"
"""Script of TorchServe that is a worker; it starts others as well, which load no archive."""

_COMPILED = "__pycache__"
"""Folders that Python makes where a worker imports; everything else in the folder of a model is from the archive."""


def listing(files: Iterable[tuple[str, str]]) -> str:
    """Return the digest of files, given as name and SHA-256, in any order; 64 hexadecimal digits."""
    lines = [f"{sha256} {json.dumps(name)}\n" for name, sha256 in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def contents(folder: Path) -> str:
    """Return the digest of the files in a folder, those that Python compiled left out.

    Raises:
        ValueError: The folder holds something else than files and folders, such as a link.
    """
    files = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if _COMPILED in name.parts or (path.is_dir() and not path.is_symlink()):
            continue
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"an archive must hold files and folders, got {name}, which is neither")
        with path.open("rb") as file:
            files.append((name.as_posix(), hashlib.file_digest(file, "sha256").hexdigest()))
    return listing(files)


def contents_of_zip(path: Path) -> str:
    """Return the digest that the folder has to which a zip file is unpacked."""
    files = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                digest = hashlib.sha256()
                with archive.open(entry) as file:
                    while piece := file.read(1024 * 1024):
                        digest.update(piece)
                files[entry.filename] = digest.hexdigest()
    return listing(files.items())


def remove_compiled(folder: Path) -> None:
    """Remove what Python compiled in a folder: it is run in place of the files that are checked, and made anew."""
    for path in [*folder.rglob(_COMPILED)]:
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
        else:
            # Another worker may be compiling.
            shutil.rmtree(path, ignore_errors=True)


def main(arguments: list[str]) -> None:
    """Check the current folder, and become the worker.

    Args:
        arguments: Python, the folder of registered archives, and what TorchServe gives to Python.
    """
    python, archives, *rest = arguments
    if any(Path(each).name == _WORKER for each in rest):
        remove_compiled(Path.cwd())
        registered = {file.read_text().strip() for file in Path(archives).glob(f"*{SUFFIX}")}
        if contents(Path.cwd()) not in registered:
            # TorchServe logs it, and a start that fails shows it.
            print("RuntimeError: what TorchServe unpacked must be a registered archive, got other contents", flush=True)
            raise SystemExit(1)
    os.execv(python, [python, *rest])


if __name__ == "__main__":
    main(sys.argv[1:])
