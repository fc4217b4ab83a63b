"""The archives that are registered: copies of the server's own, checked before anything reads them.

TorchServe reads no byte that was not checked, a change of the model store reaches nothing that runs, and a rollback
finds what it goes back to. Beside each archive lie its signature, if it has one, and the digest of its contents for the
workers.
"""

import re
import shutil
from collections.abc import Collection
from pathlib import Path
from uuid import uuid4

from radlens import durable
from radlens.errors import BundleError, InvalidParameter
from radlens.versions.signing import Trust, digest, signature_file
from radlens.versions.state import Registered
from radlens.versions.stored import Inspection, Stored, inspect
from radlens.versions.worker import SUFFIX, contents, contents_of_zip

__all__ = ["RegisteredArchives"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
"""Names and versions that fit into URLs and names of files."""


class RegisteredArchives:
    """A folder of registered archives, which the server's account alone can read and write.

    Args:
        folder: The folder; created when it is needed.
        trust: Which archives are accepted.
    """

    def __init__(self, folder: Path, trust: Trust) -> None:
        self.folder, self._trust = folder, trust

    def admit(self, path: Path, *, name: str | None = None) -> tuple[Inspection, Registered, str]:
        """Copy an archive to the folder, and check the copy: its signature and all its hashes.

        Args:
            path: File or directory of the archive.
            name: Name that its model must have; None for any.

        Returns:
            What the copy holds, what is to be kept of it, and a sentence on its signature.

        Raises:
            BundleError: The archive is missing or damaged, or its signature is wrong or missing.
            InvalidParameter: Its model has another name, or one that does not fit into a URL.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        scratch = self.folder / f".{uuid4().hex}"
        scratch.mkdir()
        try:
            copy = _copied(path, scratch)
            signer, sentence = self._trust.check(copy)
            found = inspect(copy)
            stored = found.stored
            if not (_NAME.fullmatch(stored.name) and _NAME.fullmatch(stored.version)):
                raise InvalidParameter(f"name and version must fit into a URL, got {stored.name!a} {stored.version!a}")
            if name is not None and name != stored.name:
                raise InvalidParameter(f"{path.name} must be an archive of {name}, got one of {stored.name}")
            registered = Registered(_placed(copy, stored), digest(copy), signer)
            self._place(copy, registered)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return found, registered, sentence

    def check(self, name: str, version: str, registered: Registered) -> str:
        """Check an archive against what was registered; return a sentence on its signature.

        Raises:
            BundleError: The archive is missing, damaged or changed, or its signature is wrong or missing.
        """
        path = self.folder / registered.archive
        if not path.exists():
            raise BundleError(f"the archive of {name} {version} must be in {self.folder}, got no {registered.archive}")
        if (found := _own_digest(path)) != registered.sha256:
            raise BundleError(
                f"the archive of {name} {version} was changed after it was registered: its SHA-256 is {found[:12]}..., "
                f"registered was {registered.sha256[:12]}..."
            )
        return self._trust.check(path)[1]

    def remove(self, registered: Registered) -> None:
        """Remove an archive with what lies beside it."""
        path = self.folder / registered.archive
        for each in (path, signature_file(path), _contents_file(path)):
            _remove(each)

    def keep_only(self, named: Collection[str]) -> None:
        """Remove all archives that are not named."""
        for path in self.folder.iterdir():
            if path.name.removesuffix(".sig").removesuffix(SUFFIX) not in named:
                _remove(path)

    def _place(self, copy: Path, registered: Registered) -> None:
        target = self.folder / registered.archive
        if not (target.exists() and _own_digest(target) == registered.sha256):
            _remove(target)
            copy.rename(target)
        _remove(signature_file(target))
        if signature_file(copy).exists():
            signature_file(copy).rename(signature_file(target))
        unpacked = contents(target) if target.is_dir() else contents_of_zip(target)
        durable.replace(_contents_file(target), f"{unpacked}\n".encode())


def _copied(path: Path, folder: Path) -> Path:
    """Return the copy of an archive in ``folder``, with its signature beside it."""
    if not path.exists():
        raise BundleError(f"archive must be in the model store, got no file {path.name}")
    copy = folder / path.name
    if path.is_dir():
        shutil.copytree(path, copy, symlinks=True)
    else:
        shutil.copyfile(path, copy)
    if signature_file(path).exists():
        shutil.copyfile(signature_file(path), signature_file(copy))
    return copy


def _placed(copy: Path, stored: Stored) -> str:
    # With the digest in its name, an archive never takes the place of another that is registered.
    return f"{stored.name}-{stored.version}-{digest(copy)[:16]}" + (".mar" if copy.is_file() else "")


def _own_digest(path: Path) -> str:
    """Return the digest of a registered archive, after what workers compiled in a folder is removed."""
    for compiled in path.rglob("__pycache__"):
        shutil.rmtree(compiled)
    return digest(path)


def _contents_file(archive: Path) -> Path:
    return archive.with_name(archive.name + SUFFIX)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
