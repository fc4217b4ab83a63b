"""``radlens audit``: read the audit log of a server, and check that nobody changed it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from radlens.cli.console import examples, fail, note, out, warn
from radlens.cli.options import DEFAULT_WORKDIR, WorkdirOption
from radlens.errors import RadlensError, exit_code

__all__ = ["app"]

app = typer.Typer(
    name="audit",
    help="Read the audit log of a server, and check that nobody changed it.",
    epilog=examples(
        "radlens audit show --last 20",
        "radlens audit verify",
        "radlens audit verify audit-2026-10.jsonl .run/audit.jsonl",
        "radlens audit show --json | jq 'select(.event == \"predict\") | .model'",
    ),
    no_args_is_help=True,
)

FileArgument = Annotated[
    Path | None, typer.Argument(metavar="FILE", help="Audit log; by default audit.jsonl of the server in --workdir.")
]


@app.command()
def show(
    file: FileArgument = None,
    last: Annotated[int | None, typer.Option(metavar="N", min=1, help="Print the last N records alone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    workdir: WorkdirOption = DEFAULT_WORKDIR,
) -> None:
    """Print the records of an audit log, oldest first."""
    from radlens.audit import AUDIT_FILE, records

    found = list(records(file or workdir / AUDIT_FILE))
    for record in found[-last:] if last else found:
        if as_json:
            typer.echo(json.dumps(record))
            continue
        rest = {key: value for key, value in record.items() if key not in ("seq", "time", "previous")}
        fields = " ".join(
            f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in rest.items()
        )
        out.print(f"{record['seq']:>6} {record['time']} {fields}", markup=False, soft_wrap=True)


@app.command()
def verify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="Audit log, or rotated logs and then the log, oldest first."),
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="SEQ:SHA256", help="Last line of the file before, if that is not at hand.")
    ] = None,
    known: Annotated[
        str | None, typer.Option(metavar="SEQ:SHA256", help="Line that was written down elsewhere; it must be there.")
    ] = None,
    workdir: WorkdirOption = DEFAULT_WORKDIR,
) -> None:
    """Check that no line was changed, removed, inserted or moved, and that the end was not cut off.

    Prints number and hash of the last line. A log that was written anew together with its head file is found only with
    `--known`, so write that line down elsewhere from time to time. The exit code is 1 if something is wrong.
    """
    from radlens.audit import AUDIT_FILE, FIRST, Head
    from radlens.audit import verify as verified

    heads = {name: Head.parse(text) for name, text in (("after", after), ("known", known)) if text is not None}
    verdict = verified(files or [workdir / AUDIT_FILE], after=heads.get("after", FIRST), known=heads.get("known"))
    warn(verdict.torn)
    for fault in verdict.faults:
        fail(fault)
    typer.echo(str(verdict.head))
    note(f"{verdict.n_lines} lines, {len(verdict.faults)} faults")
    if verdict.faults:
        raise typer.Exit(exit_code(RadlensError()))
