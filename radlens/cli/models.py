"""``radlens models``: the versions of models on the server of this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli.console import err, examples, fail, note, table, warn
from radlens.cli.options import DEFAULT_CONFIG, DEFAULT_STORE, DEFAULT_WORKDIR, ConfigOption, StoreOption, WorkdirOption
from radlens.errors import BundleError, RadlensError, exit_code

if TYPE_CHECKING:
    from radlens.versions.deployment import Change, Deployment
    from radlens.versions.signing import Trust

__all__ = ["app", "print_versions", "trust_of"]

app = typer.Typer(
    name="models",
    help="List, register, compare, promote, roll back and retire versions of models on the server of this machine.",
    epilog=examples(
        "radlens models list",
        "radlens models register cdmam-2.0.mar",
        "radlens models promote 2.0 --samples samples/",
        "radlens models rollback",
        "radlens models retire 1.0 --model ultrasound-resnet",
        "radlens models verify",
    ),
    no_args_is_help=True,
)

NameOption = Annotated[
    str | None, typer.Option("--model", help="Name of the model; may be left out if the server has one model.")
]
ArchiveArgument = Annotated[str, typer.Argument(metavar="ARCHIVE", help="File or directory of the model store.")]


@app.command("list")
def list_versions(workdir: WorkdirOption = DEFAULT_WORKDIR) -> None:
    """List every version of every model, of a running server or as it would start."""
    print_versions(workdir)


@app.command()
def register(
    archive: ArchiveArgument,
    store: StoreOption = DEFAULT_STORE,
    workdir: WorkdirOption = DEFAULT_WORKDIR,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Check an archive and load it beside the default version, which stays the same.

    Signature and all hashes are checked before the server reads the archive. If its workers do not start, nothing is
    left of it.
    """
    with err.status("checking and loading"):
        model, version, signature = _deployment(workdir, config).register(_in_store(store, archive))
    note(signature)
    note(f"{model} {version} answers at /predictions/{model}/{version}")
    if not _is_default(workdir, model, version):
        note(f"next: radlens models promote {version} --model {model}")


@app.command()
def promote(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Registered version, such as 2.0.")],
    model: NameOption = None,
    samples: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Images to compare both versions on; by default samples/MODEL of --workdir."),
    ] = None,
    shadow: Annotated[bool, typer.Option("--shadow/--no-shadow", help="Whether to compare the versions.")] = True,
    maps: Annotated[bool, typer.Option("--maps/--no-maps", help="Whether to compare explanations as well.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare, and leave the default as it is.")] = False,
    workdir: WorkdirOption = DEFAULT_WORKDIR,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Make a version the default, which answers requests without a version; the old one stays for a rollback.

    The archive is checked, the workers are warmed, and both versions answer the samples; the report is printed and
    kept. A version that fails where the old one answers is refused. Then the default changes at once, and the command
    waits until the old version has answered its requests.
    """
    with err.status("comparing"):
        change = _deployment(workdir, config).promote(
            model, version, samples=samples, compare=shadow, maps=maps, dry_run=dry_run, on_report=_print_report
        )
    if change.report is not None:
        note(f"wrote {change.report}")
    if dry_run:
        note(f"{change.model} {change.before} is still the default")
        return
    _print_change(change)
    note(f"back: radlens models rollback --model {change.model}")


@app.command()
def rollback(
    model: NameOption = None, workdir: WorkdirOption = DEFAULT_WORKDIR, config: ConfigOption = DEFAULT_CONFIG
) -> None:
    """Make the default before the present one the default again; also after a restart."""
    with err.status("rolling back"):
        change = _deployment(workdir, config).rollback(model)
    _print_change(change)


@app.command()
def retire(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Version, such as 1.0; not the default.")],
    model: NameOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    workdir: WorkdirOption = DEFAULT_WORKDIR,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Remove a version that is not the default, after its waiting requests are answered.

    The archive in the model store stays.
    """
    from radlens.versions.state import Versions

    deployment = _deployment(workdir, config)
    kept = Versions.load(workdir)
    name = deployment.retirable(kept, model, version)
    lost = " (a rollback cannot reach it any more)" if version in kept.models[name].previous else ""
    question = f"remove {name} {version}{lost}? {name} {kept.models[name].default} stays the default"
    if not yes:
        typer.confirm(question, abort=True, err=True)
    with err.status("waiting for its requests"):
        deployment.retire(name, version)
    note(f"{name} {version} is removed; {name} {kept.models[name].default} is the default")


@app.command()
def scale(
    workers: Annotated[int, typer.Argument(metavar="N", min=1, help="Number of workers.")],
    version: Annotated[str | None, typer.Option("--version", help="Version; by default the default.")] = None,
    model: NameOption = None,
    workdir: WorkdirOption = DEFAULT_WORKDIR,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Set the number of workers of a version, also for later starts."""
    with err.status("scaling"):
        name, found = _deployment(workdir, config).scale(model, version, workers)
    note(f"{name} {found} has {workers} workers")


@app.command()
def verify(
    archives: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARCHIVE...", help="Archives of the model store; by default what is registered."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    workdir: WorkdirOption = DEFAULT_WORKDIR,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Check hashes and signatures of archives; the exit code is 3 if one is wrong."""
    from radlens.versions.state import Versions
    from radlens.versions.stored import inspect

    trust, deployment, wrong = trust_of(config), _deployment(workdir, config), 0
    names = archives or []
    registered = [
        (name, version) for name, served in Versions.load(workdir).models.items() for version in served.versions
    ]
    for label, check in (
        *((each, lambda each=each: _checked(trust, inspect, _in_store(store, each))) for each in names),
        *((" ".join(each), lambda each=each: deployment.check(*each)) for each in (registered if not names else ())),
    ):
        try:
            note(f"{label}: whole; {check()}")
        except RadlensError as error:
            wrong += 1
            fail(f"{label}: {error}")
    if not (names or registered):
        note("nothing is registered")
    if wrong:
        raise typer.Exit(exit_code(BundleError()))


@app.command()
def card(
    archive: ArchiveArgument,
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Print what an archive says of its model, as Markdown: task, training, parity, hashes, signature."""
    from radlens.versions.card import card as card_of
    from radlens.versions.signing import digest
    from radlens.versions.stored import inspect

    path = _in_store(store, archive)
    found = inspect(path)
    typer.echo(card_of(found, digest(path), trust_of(config).check(path)[1]), nl=False)


def print_versions(workdir: Path) -> None:
    """Print every version of every model of the server in ``workdir``, and where server and file differ."""
    from radlens.server import State
    from radlens.versions.state import Versions

    kept = Versions.load(workdir)
    rows = {
        (name, version): [
            name,
            version,
            "yes" if version == served.default else "",
            "",
            "",
            registered.signer or "",
            registered.sha256[:12],
        ]
        for name, served in kept.models.items()
        for version, registered in served.versions.items()
    }
    remarks = []
    if State.load(workdir) is None:
        note("no server runs here; this is what it would start with")
    else:
        from radlens.versions.management import Management

        with Management.of_server(workdir) as management:
            live = management.versions()
        for each in live:
            row = rows.setdefault((each.model, each.version), [each.model, each.version, "", "", "", "", ""])
            row[2:5] = "yes" if each.is_default else "", str(each.n_ready), str(each.n_waiting)
            served = kept.models.get(each.model)
            if served is not None and each.is_default and served.default != each.version:
                remarks.append(
                    f"{each.model} {each.version} is the default now, and {served.default} would be after a restart: "
                    "promote one of them"
                )
        remarks += [
            f"{' '.join(key)} is registered and not loaded"
            for key in rows.keys() - {(each.model, each.version) for each in live}
        ]
    columns = ["model", "version", "default", "workers ready", "requests waiting", "signed by", "SHA-256"]
    table(columns, [rows[key] for key in sorted(rows)])
    warn(remarks)


def trust_of(config: Path) -> Trust:
    """Return which archives are accepted, from a ``config.properties``; without the file, unsigned ones are."""
    from radlens.server import properties_of
    from radlens.versions.signing import Trust

    return Trust.configured(properties_of(config.read_text()) if config.is_file() else {}, config.parent)


def _deployment(workdir: Path, config: Path) -> Deployment:
    from radlens.versions.deployment import Deployment

    return Deployment(workdir, trust_of(config))


def _in_store(store: Path, archive: str) -> Path:
    """Return the path of an archive that is named by itself, or by a path into the store."""
    path = Path(archive)
    if path.parent not in (Path(), store):
        raise BundleError(f"archive must be in the model store {store}, got {archive}; copy it there first")
    return store / path.name


def _is_default(workdir: Path, model: str, version: str) -> bool:
    from radlens.versions.state import Versions

    return Versions.load(workdir).models[model].default == version


def _checked(trust: Trust, inspect: Any, path: Path) -> str:
    inspect(path)
    return trust.check(path)[1]


def _print_change(change: Change) -> None:
    left = "has no requests left" if change.is_drained else "still answers requests that have begun"
    note(f"{change.model} {change.now} is the default, in place of {change.before}, which {left} and stays registered")


def _print_report(report: Mapping[str, Any]) -> None:
    old, new = report["old"], report["new"]
    rows: list[Sequence[str]] = []
    for row in report["samples"]:
        largest, compared = row.get("largest_difference"), row.get("map", {})
        correlation = compared.get("correlation")
        rows.append(
            (
                row["sha256"][:12],
                "-" if largest is None else f"{largest['field']}: {largest['old']:.4g} -> {largest['new']:.4g}",
                ", ".join(row["differs"]) or "nothing",
                "-" if correlation is None else f"{correlation:.4f}",
                f"{row['time_s'][old]:.2f} -> {row['time_s'][new]:.2f}",
            )
        )
    columns = ["sample", "largest difference", "judged differently", "correlation of maps", "seconds"]
    table(columns, rows, title=f"{report['model']}: {old} -> {new}")
    warn(json.dumps(row["error"]) for row in report["samples"] if row["error"])
