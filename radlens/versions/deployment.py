"""Registering, promoting, rolling back and retiring versions on the server of one working directory."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from radlens import durable
from radlens.audit import AUDIT_FILE, AuditLog, operator
from radlens.client import Client
from radlens.errors import InvalidParameter, RadlensError, ServerError
from radlens.versions.management import Management
from radlens.versions.registered import RegisteredArchives
from radlens.versions.shadow import shadow, stored_samples, warm
from radlens.versions.signing import Trust
from radlens.versions.state import ARCHIVES, Served, Versions
from radlens.versions.stored import Inspection, inspect

__all__ = ["Change", "Deployment"]


class Change(NamedTuple):
    """A change of the default version.

    Attributes:
        model: Name of the model.
        before: Version that was the default.
        now: Version that is the default now; the same after a dry run.
        is_drained: Whether the version before has no requests left; False if it still had some after ten minutes.
        report: File with the comparison of both; None if they were not compared.
    """

    model: str
    before: str
    now: str
    is_drained: bool = True
    report: Path | None = None


class Deployment:
    """The versions of the models of one server.

    Args:
        workdir: Working directory of the server.
        trust: Which archives it accepts.
    """

    def __init__(self, workdir: Path, trust: Trust = Trust()) -> None:  # noqa: B008 - frozen
        self.workdir, self.archives = workdir, RegisteredArchives(workdir / ARCHIVES, trust)

    def plan(self, given: Mapping[str, Path] | None = None) -> tuple[Versions, list[str]]:
        """Return what a server is to serve, and remarks, after every archive of it was checked; `keep` stores it.

        Args:
            given: Archive of each model, which replaces what is kept; None for what is kept.

        Raises:
            BundleError: An archive is missing, damaged or changed, or its signature is wrong or missing.
        """
        kept = Versions.load(self.workdir)
        if given is None:
            return kept, [
                self.archives.check(name, version, registered)
                for name, served in kept.models.items()
                for version, registered in served.versions.items()
            ]
        remarks, versions = [], Versions(history=kept.history)
        for name, path in given.items():
            found, registered, sentence = self.archives.admit(path, name=name)
            stored = found.stored
            versions = versions.with_version(name, stored.version, registered)
            before = kept.models[name].default if name in kept.models else None
            if before != stored.version:
                versions = versions.noted("serve", name, stored.version, before=before)
            remarks.append(sentence)
        for name, served in kept.models.items():
            left = set(served.versions) - set(versions.models[name].versions if name in versions.models else ())
            remarks += [f"{name} {version} is not registered any more" for version in sorted(left)]
        return versions, remarks

    def keep(self, versions: Versions) -> None:
        """Store what is registered, and remove archives that are not."""
        with Versions.locked(self.workdir):
            versions.save(self.workdir)
        self.archives.keep_only(versions.archives())

    def restore(self) -> list[str]:
        """Load the versions beside the defaults on a server that was started with the defaults, and scale workers.

        Returns:
            What could not be loaded, and why; it stays registered, and the defaults answer.
        """
        failed: list[str] = []
        with Versions.locked(self.workdir):
            waiting = [
                (name, version, registered, version == served.default)
                for name, served in Versions.load(self.workdir).models.items()
                for version, registered in served.versions.items()
                if version != served.default or registered.workers is not None
            ]
            if not waiting:
                return failed
            with Management.of_server(self.workdir) as management:
                for name, version, registered, is_default in waiting:
                    try:
                        if not is_default:
                            management.register(registered.archive)
                        if registered.workers is not None:
                            management.scale(name, version, registered.workers)
                    except RadlensError as error:
                        failed.append(f"{name} {version} is registered and could not be loaded: {error}")
        return failed

    def register(self, path: Path) -> tuple[str, str, str]:
        """Check an archive and load it beside the default version.

        Returns:
            Name and version of the model, and a sentence on its signature.

        Raises:
            BundleError: The archive is missing or damaged, or its signature is wrong or missing.
            InvalidParameter: The version is registered already.
            ServerError: Its workers do not start; then nothing is left of it.
        """
        with Versions.locked(self.workdir), self._audited("register", archive=path.name) as record:
            kept = Versions.load(self.workdir)
            with Management.of_server(self.workdir) as management:
                # What is registered is told from the copy: the file in the store may change meanwhile.
                found, registered, sentence = self.archives.admit(path)
                name, version = found.stored.name, found.stored.version
                record |= {"model": name, "version": version, "bundle_hash": found.bundle_hash}
                record["archive_sha256"] = registered.sha256
                try:
                    if name in kept.models and version in kept.models[name].versions:
                        raise InvalidParameter(
                            f"a version is registered once, got {name} {version} again; export another, or retire it"
                        )
                    if any((each.model, each.version) == (name, version) for each in management.versions()):
                        # Loaded by a command that was killed, or found a full disk, before it could keep the version.
                        management.unregister(name, version)
                    management.register(registered.archive)
                except BaseException:
                    if registered.archive not in kept.archives():
                        self.archives.remove(registered)
                    raise
            kept.with_version(name, version, registered).noted("register", name, version).save(self.workdir)
        return name, version, sentence

    def promote(
        self,
        model: str | None,
        version: str,
        *,
        samples: Path | None = None,
        compare: bool = True,
        maps: bool = True,
        dry_run: bool = False,
        on_report: Any = None,
    ) -> Change:
        """Make a registered version the default, after it was checked, warmed and compared with the present default.

        Args:
            model: Name of the model; None for the only one.
            version: Registered version.
            samples: Folder of images; None for ``samples/<model>`` of the working directory.
            compare: Whether to compare the versions on ``samples``.
            maps: Whether to compare maps too.
            dry_run: Compare alone.
            on_report: Callback with the report of the comparison before the default changes.

        Raises:
            InvalidParameter: The model or version is unknown or is the default, or there are no samples.
            BundleError: The archive was changed, or its signature is wrong or missing.
            ServerError: The new version has no workers, fails on a sample that the old one answers, or is not the
                bundle of its archive. The default stays the same.
        """
        with Versions.locked(self.workdir), self._audited("promote", version=version, dry_run=dry_run) as record:
            kept = Versions.load(self.workdir)
            name = kept.model(model)
            served, registered = kept.models[name], kept.registered(name, version)
            record |= {"model": name, "before": served.default, "archive_sha256": registered.sha256}
            if version == served.default:
                raise InvalidParameter(f"{name} {version} is the default already")
            self.archives.check(name, version, registered)
            report_file = None
            with Management.of_server(self.workdir) as management:
                n_ready = self._ready(management, name, version)
                if compare:
                    images = stored_samples(samples or self.workdir / "samples" / name)
                    with Client.of_server(self.workdir, model=name) as client:
                        with suppress(RadlensError):
                            # A sample that is refused warms as well; what the version makes of it stands in the report.
                            warm(client, version, images[0], n_ready)
                        report = shadow(client, served.default, version, images, maps=maps)
                    report_file = self._write_report(report)
                    record["report"] = report_file.name
                    if on_report is not None:
                        on_report(report)
                    _require_fit(report, inspect(self.archives.folder / registered.archive))
                if dry_run:
                    return Change(name, served.default, served.default, report=report_file)
                previous = (*served.previous, served.default)
                is_drained = record["drained"] = self._switch(management, kept, name, version, previous, "promote")
        return Change(name, served.default, version, is_drained, report_file)

    def rollback(self, model: str | None) -> Change:
        """Make the default before the present one the default again; load it if it is not loaded.

        Raises:
            InvalidParameter: The model is unknown, or never had another default that is still registered.
            BundleError: The archive was changed.
            ServerError: The version does not start; the default stays the same.
        """
        with Versions.locked(self.workdir), self._audited("rollback") as record:
            kept = Versions.load(self.workdir)
            name = kept.model(model)
            served = kept.models[name]
            if not served.previous:
                raise InvalidParameter(f"a rollback needs an earlier default of {name}, got none that is registered")
            version, registered = served.previous[-1], kept.registered(name, served.previous[-1])
            record |= {"model": name, "version": version, "before": served.default}
            self.archives.check(name, version, registered)
            with Management.of_server(self.workdir) as management:
                if version not in {each.version for each in management.versions() if each.model == name}:
                    management.register(registered.archive)
                self._ready(management, name, version)
                previous = served.previous[:-1]
                is_drained = record["drained"] = self._switch(management, kept, name, version, previous, "rollback")
        return Change(name, served.default, version, is_drained)

    def retire(self, model: str | None, version: str) -> str:
        """Remove a version that is not the default, after its requests are answered; return the name of the model.

        Raises:
            InvalidParameter: The version is the default or unknown.
            ServerError: Its requests are not answered in time; then it stays.
        """
        with Versions.locked(self.workdir), self._audited("retire", version=version) as record:
            kept = Versions.load(self.workdir)
            name = self.retirable(kept, model, version)
            record["model"] = name
            registered = kept.registered(name, version)
            with Management.of_server(self.workdir) as management:
                if version in {each.version for each in management.versions() if each.model == name}:
                    management.unregister(name, version)
            kept.without(name, version).noted("retire", name, version).save(self.workdir)
            self.archives.remove(registered)
        return name

    def retirable(self, kept: Versions, model: str | None, version: str) -> str:
        """Return the name of the model of a version that may be retired.

        Raises:
            InvalidParameter: The version is the default or unknown.
        """
        name = kept.model(model)
        kept.registered(name, version)
        if version == kept.models[name].default:
            raise InvalidParameter(
                f"a version that is retired must not be the default, got {name} {version}, which is; promote another "
                "one first, or roll back"
            )
        return name

    def scale(self, model: str | None, version: str | None, n_workers: int) -> tuple[str, str]:
        """Set the number of workers of a version, also for later starts; return model and version.

        Raises:
            InvalidParameter: The model or version is unknown, or ``n_workers`` is less than 1.
            ServerError: The workers do not start, or those to be ended do not get idle.
        """
        with Versions.locked(self.workdir), self._audited("scale", n_workers=n_workers) as record:
            kept = Versions.load(self.workdir)
            name = kept.model(model)
            version = version or kept.models[name].default
            registered = kept.registered(name, version)
            record |= {"model": name, "version": version}
            with Management.of_server(self.workdir) as management:
                management.scale(name, version, n_workers)
            changed = kept.with_version(name, version, replace(registered, workers=n_workers))
            changed.noted("scale", name, version, workers=n_workers).save(self.workdir)
        return name, version

    def check(self, name: str, version: str) -> str:
        """Check the archive of a registered version against what was registered; return a sentence on its signature.

        Raises:
            InvalidParameter: The version is not registered.
            BundleError: The archive is missing, damaged or changed, or its signature is wrong or missing.
        """
        return self.archives.check(name, version, Versions.load(self.workdir).registered(name, version))

    def _ready(self, management: Management, name: str, version: str) -> int:
        n_ready = {(each.model, each.version): each.n_ready for each in management.versions()}.get((name, version))
        if n_ready is None:
            raise ServerError(f"{name} {version} must be loaded, got a server without it; restart it")
        if n_ready == 0:
            raise ServerError(f"{name} {version} must have workers that are ready, got none; see its logs")
        return n_ready

    def _switch(
        self, management: Management, kept: Versions, name: str, version: str, previous: tuple[str, ...], action: str
    ) -> bool:
        """Change the default on the server and in the file, or in neither; return whether the old one is drained."""
        served = kept.models[name]
        management.set_default(name, version)
        changed = kept.with_model(name, Served(version, served.versions, previous))
        try:
            changed.noted(action, name, version, before=served.default).save(self.workdir)
        except BaseException:
            management.set_default(name, served.default)
            raise
        try:
            management.drain(name, served.default)
        except ServerError:
            # The change is made; long explanations go on.
            return False
        return True

    def _write_report(self, report: Mapping[str, Any]) -> Path:
        folder = self.workdir / "reports"
        folder.mkdir(exist_ok=True)
        time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        file = folder / f"{report['model']}-{report['old']}-to-{report['new']}-{time}.json"
        durable.replace(file, json.dumps(report, indent=1).encode() + b"\n")
        return file

    @contextmanager
    def _audited(self, event: str, **record: Any) -> Iterator[dict[str, Any]]:
        """Write a record of a command, with its outcome; the block adds to it."""
        outcome = "failed"
        try:
            yield record
            outcome = "done"
        except RadlensError as error:
            record["reason"] = str(error)
            raise
        finally:
            log = AuditLog(self.workdir / AUDIT_FILE)
            log.append({"event": event, "outcome": outcome, "who": operator(), **record})


def _require_fit(report: Mapping[str, Any], archive: Inspection) -> None:
    if report["failed"]:
        errors = [row["error"] for row in report["samples"] if row["failed"]]
        raise ServerError(
            f"{report['new']} must answer what {report['old']} answers, got {report['failed']} samples that it does "
            f"not, such as {errors[0]}"
        )
    if report["bundle_hash"] is not None and report["bundle_hash"] != archive.bundle_hash:
        raise ServerError(
            f"{report['new']} must answer with the bundle of its archive, {str(archive.bundle_hash)[:12]}..., "
            f"got {report['bundle_hash'][:12]}..."
        )
