"""A bundle of any model: a manifest, the files that it lists, and which of them may not be used."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from radlens.bundles.files import MANIFEST, problems, read_manifest
from radlens.errors import BundleError

__all__ = ["StoredBundle"]

M = TypeVar("M")


@dataclass(frozen=True)
class StoredBundle(Generic[M]):
    """A bundle that was loaded and, unless told otherwise, verified.

    Attributes:
        path: its directory.
        manifest: what ``bundle.json`` says.
        bundle_hash: SHA-256 of ``bundle.json``, 64 hexadecimal digits.
        damaged: why a graph is not to be used, by the name of its file; the model can be served without.
    """

    path: Path
    manifest: M
    bundle_hash: str
    damaged: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        path: Path | str,
        parse: Callable[[dict[str, Any]], M],
        may_miss: Callable[[M, str], bool],
        *,
        verify: bool = True,
    ) -> Self:
        """Read a bundle.

        Args:
            path: directory with ``bundle.json``.
            parse: makes the manifest of the document; raises ``KeyError``, ``TypeError`` or ``ValueError``.
            may_miss: whether the model can be served without a file, given its manifest.
            verify: compare every file with its hash. One that may be missed and is missing or altered is noted in
                ``damaged``.

        Raises:
            BundleError: no bundle there, another format version, an unreadable manifest, any other file missing or
                altered.
        """
        path = Path(path)
        document, bundle_hash = read_manifest(path)
        try:
            manifest = parse(document)
            files = dict(document["files"])
        except (ValueError, TypeError, KeyError) as error:
            raise BundleError(f"bundle must hold a readable {MANIFEST}, got {type(error).__name__}: {error}") from error
        return cls(path, manifest, bundle_hash, problems(path, files, partial(may_miss, manifest)) if verify else {})
