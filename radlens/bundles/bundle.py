"""A bundle of any family: manifest, verified files, and files that must not be used."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from radlens.bundles.files import FORMAT_VERSION, MANIFEST, problems, read_manifest
from radlens.errors import BundleError

__all__ = ["BundleManifest", "StoredBundle"]


@dataclass(frozen=True, kw_only=True)
class BundleManifest:
    """Fields of ``bundle.json`` that every family has.

    Attributes:
        name: name of the model in URLs.
        version: version in the form of TorchServe, such as ``"1.0"``.
        task: task of the model; its family is registered under it.
        explainers: names of the methods that may explain the model.
        training: training record.
        parity: relative errors of the exported forms, as the family measures them.
        files: SHA-256 of every other file of the bundle, by name.
        format_version: version of this layout.
    """

    name: str
    version: str
    task: str
    explainers: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION


M = TypeVar("M", bound=BundleManifest)


@dataclass(frozen=True)
class StoredBundle(Generic[M]):
    """A bundle that was loaded and, by default, verified.

    Attributes:
        path: directory of the bundle.
        manifest: parsed contents of ``bundle.json``.
        bundle_hash: SHA-256 of ``bundle.json``, 64 hexadecimal digits.
        damaged: reasons why optional files, such as graphs, must not be used, by file name.
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
            parse: function that creates the manifest from the JSON document; raises ``KeyError``, ``TypeError`` or
                ``ValueError``.
            may_miss: predicate of manifest and file name: whether the model can be served without the file.
            verify: whether to compare every file with its hash. Optional files that are missing or altered are
                recorded in ``damaged``.

        Raises:
            BundleError: the bundle is missing, has another format version or an unreadable manifest, or a required file
                is missing or altered.
        """
        path = Path(path)
        document, bundle_hash = read_manifest(path)
        try:
            manifest = parse(document)
            files = dict(document["files"])
        except (ValueError, TypeError, KeyError) as error:
            # The text of a KeyError is the name of the field.
            got = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise BundleError(f"bundle must hold a readable {MANIFEST}: {got}") from error
        return cls(path, manifest, bundle_hash, problems(path, files, partial(may_miss, manifest)) if verify else {})
