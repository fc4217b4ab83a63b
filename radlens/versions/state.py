"""What is registered on a server, kept in ``versions.json`` of its working directory for the next start."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from radlens import durable
from radlens.errors import InvalidParameter, ServerError

__all__ = ["ARCHIVES", "Registered", "Served", "Versions"]

ARCHIVES = "archives"
"""Folder of the working directory with the archives that are registered."""

_FILE = "versions.json"

_FORMAT = 1

_HISTORY = 1000
"""Number of kept entries of the history; the audit log has them all."""


@dataclass(frozen=True)
class Registered:
    """A registered version.

    Attributes:
        archive: Name of the archive in the server's own folder of archives.
        sha256: Digest of the archive, see `radlens.versions.signing.digest`.
        signer: Name of the trusted key that signed it; None if it is not signed.
        workers: Number of workers; None for the number in the archive.
    """

    archive: str
    sha256: str
    signer: str | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Served:
    """A model with its registered versions.

    Attributes:
        default: Version that answers requests without a version.
        versions: Registered versions.
        previous: Earlier defaults that are still registered, oldest first; a rollback goes to the last.
    """

    default: str
    versions: Mapping[str, Registered]
    previous: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the default and its predecessors are registered."""
        for version in (self.default, *self.previous):
            if version not in self.versions:
                raise ValueError(f"version {version} must be registered")


@dataclass(frozen=True)
class Versions:
    """All models of a server.

    Attributes:
        models: Models by name.
        history: What was done, oldest first.
    """

    models: Mapping[str, Served] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def load(cls, workdir: Path) -> Self:
        """Return what is registered on the server in ``workdir``; empty if nothing ever was.

        Raises:
            ServerError: The file is damaged.
        """
        try:
            text = (workdir / _FILE).read_bytes()
        except FileNotFoundError:
            return cls()
        try:
            document = json.loads(text)
            if document["format"] != _FORMAT:
                raise ValueError(document["format"])
            models = {
                name: Served(
                    each["default"],
                    {version: Registered(**fields) for version, fields in each["versions"].items()},
                    tuple(each["previous"]),
                )
                for name, each in document["models"].items()
            }
            return cls(models, tuple(document["history"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ServerError(
                f"{_FILE} must hold versions in format {_FORMAT}, got a damaged file ({type(error).__name__}); restore "
                "it from a backup, or remove it and name what to serve with radlens serve --model"
            ) from error

    def save(self, workdir: Path) -> None:
        """Write the file; a crash leaves the old one or the new one."""
        document = {
            "format": _FORMAT,
            "models": {name: asdict(each) for name, each in self.models.items()},
            "history": self.history[-_HISTORY:],
        }
        durable.replace(workdir / _FILE, json.dumps(document, indent=1).encode() + b"\n")

    @staticmethod
    @contextmanager
    def locked(workdir: Path) -> Iterator[None]:
        """Hold off other commands that change the versions of the server in ``workdir``."""
        workdir.mkdir(parents=True, exist_ok=True)
        with durable.locked(workdir / _FILE):
            yield

    def model(self, name: str | None) -> str:
        """Return ``name``, or the name of the only model.

        Raises:
            InvalidParameter: The model is unknown, or there are several and none is named.
        """
        names = sorted(self.models)
        if name is None and len(names) == 1:
            return names[0]
        if name is None:
            raise InvalidParameter(f"--model must name one of {', '.join(names) or 'no models'}, got none")
        if name not in self.models:
            raise InvalidParameter(f"--model must name one of {', '.join(names) or 'no models'}, got {name!r}")
        return name

    def archives(self) -> set[str]:
        """Return the names of all registered archives."""
        return {each.archive for served in self.models.values() for each in served.versions.values()}

    def registered(self, name: str, version: str) -> Registered:
        """Return a registered version.

        Raises:
            InvalidParameter: It is not registered; the message names those that are.
        """
        known = self.models[name].versions if name in self.models else {}
        if version not in known:
            raise InvalidParameter(f"version of {name} must be one of {', '.join(known) or 'none'}, got {version!r}")
        return known[version]

    def noted(self, action: str, model: str, version: str, **more: Any) -> Self:
        """Return this with an entry in the history."""
        time = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        entry = {"time": time, "action": action, "model": model, "version": version, **more}
        return replace(self, history=(*self.history, entry))

    def with_model(self, name: str, served: Served) -> Self:
        """Return this with a model added or replaced."""
        return replace(self, models={**self.models, name: served})

    def with_version(self, name: str, version: str, registered: Registered) -> Self:
        """Return this with a version added or replaced; the first version of a model is its default."""
        served = self.models.get(name)
        if served is None:
            return self.with_model(name, Served(version, {version: registered}))
        return self.with_model(name, replace(served, versions={**served.versions, version: registered}))

    def without(self, name: str, version: str) -> Self:
        """Return this without a version, which must not be the default."""
        served = self.models[name]
        kept = {each: registered for each, registered in served.versions.items() if each != version}
        previous = tuple(each for each in served.previous if each != version)
        return self.with_model(name, replace(served, versions=kept, previous=previous))
