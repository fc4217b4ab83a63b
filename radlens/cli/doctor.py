"""``radlens doctor``: whether this machine can serve, and remedies if it cannot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from radlens.cli.console import err, examples, out
from radlens.cli.options import DEFAULT_STORE, DEFAULT_WORKDIR, StoreOption, WorkdirOption
from radlens.errors import RadlensError, exit_code

if TYPE_CHECKING:
    from radlens.doctor import Finding, Stored

__all__ = ["EPILOG", "command"]

EPILOG = examples("radlens doctor", "radlens doctor --json | jq '.findings[] | select(.status != \"good\")'")

_COLOURS = {"good": "green", "missing": "yellow", "wrong": "red"}


def command(
    config: Annotated[Path, typer.Option(metavar="FILE", help="TorchServe's configuration.")] = Path(
        "config.properties"
    ),
    store: StoreOption = DEFAULT_STORE,
    workdir: WorkdirOption = DEFAULT_WORKDIR,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Check whether this machine can serve, and print what is missing or wrong with a remedy.

    The command checks versions, extras, engines, Java, ports, memory, disks, cache and GPU, and changes nothing. The
    exit code is 0 if this machine meets every need of a server, and 1 otherwise.
    """
    from radlens.doctor import examine, is_ready

    with err.status("checking"):
        findings = examine(config, store, workdir, *_stored(store, workdir))
    ready = is_ready(findings)
    if as_json:
        out.print_json(json.dumps({"ready": ready, "findings": [each.as_json() for each in findings]}))
    else:
        _print(findings, ready)
    if not ready:
        raise typer.Exit(exit_code(RadlensError()))


def _stored(store: Path, workdir: Path) -> tuple[list[Stored], list[str]]:
    """Return the archives that `radlens serve` would start, and damaged ones that keep it from starting."""
    from radlens.doctor import Stored
    from radlens.versions.state import ARCHIVES, Versions
    from radlens.versions.stored import archives, damaged, n_workers, newest_archives, size

    registered = [
        (f"{name} {version}", workdir / ARCHIVES / each.archive, each.workers)
        for name, served in Versions.load(workdir).models.items()
        for version, each in served.versions.items()
    ]
    if not registered:
        if broken := damaged(store):
            return [], broken
        newest = set(newest_archives(store).values()) if list(archives(store)) else set()
        registered = [
            (f"{each.name} {each.version}", store / each.archive, None)
            for each in archives(store)
            if each.archive in newest
        ]
    return [Stored(name, size(path), workers or n_workers(path)) for name, path, workers in registered], []


def _print(findings: Sequence[Finding], ready: bool) -> None:
    drawn = Table("check", "status")
    drawn.add_column("found", overflow="fold")
    for each in findings:
        status = "needed" if each.is_needed and each.status == "missing" else each.status
        colour = "red" if status == "needed" else _COLOURS[each.status]
        drawn.add_row(escape(each.check), f"[{colour}]{status}[/]", escape(each.found))
    out.print(drawn)
    open_ones = [each for each in findings if each.status != "good" and each.remedy]
    _print_remedies("Needed to serve:", [each for each in open_ones if each.is_needed])
    _print_remedies("Optional:", [each for each in open_ones if not each.is_needed])
    out.print("[green]This machine can serve.[/]" if ready else "[red]This machine cannot serve yet.[/]")


def _print_remedies(heading: str, findings: Sequence[Finding]) -> None:
    if findings:
        out.print(f"[bold]{heading}[/]")
        for each in findings:
            out.print(f"- {escape(each.check)}: {escape(each.remedy)}", soft_wrap=True)
