"""``radlens audit``: read the audit log of a server, and check that nobody changed it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from radlens.cli.console import examples, fail, note, out, warn
from radlens.cli.options import DEFAULT_WORKDIR, WorkdirOption
from radlens.errors import RadlensError, ServerError, exit_code

__all__ = ["app"]

app = typer.Typer(
    name="audit",
    help="Read the audit log of a server, and check that nobody changed it.",
    epilog=examples(
        "radlens audit show --last 20",
        "radlens audit verify",
        "radlens audit verify audit-2026-10.jsonl .run/audit.jsonl",
        "radlens audit forward --to tls://logs.example.org:6514 --ca hospital-ca.pem --follow",
        "radlens audit show --json | jq 'select(.event == \"predict\") | .model'",
    ),
    no_args_is_help=True,
)

_FOLLOW_S = 1.0
"""Seconds between two looks at a log that is followed."""

_RETRY_S = 10.0
"""Seconds after which a server that could not be reached is tried again."""

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


@app.command()
def forward(
    to: Annotated[str, typer.Option(metavar="URL", help="Syslog server: udp://, tcp:// or tls://HOST:PORT.")],
    file: FileArgument = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates that sign the server's; by default the system's.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate and key of this client, where one is asked for.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new records until Ctrl-C.")] = False,
    workdir: WorkdirOption = DEFAULT_WORKDIR,
) -> None:
    """Send records as DICOM audit messages (PS3.15 A.5) to a syslog server, each once.

    Which records were sent is kept beside the log, so that none is left out while the server cannot be reached.
    """
    from radlens.audit import AUDIT_FILE
    from radlens.dicom_audit import Syslog
    from radlens.dicom_audit import forward as forwarded

    path = file or workdir / AUDIT_FILE
    while True:
        try:
            with Syslog(to, ca=ca, certificate=certificate) as syslog:
                note(f"sent {forwarded(path, syslog)} records to {to}")
                while follow:
                    time.sleep(_FOLLOW_S)
                    forwarded(path, syslog)
            return
        except ServerError as error:
            if not follow:
                raise
            warn([f"{error}; trying again in {_RETRY_S:g} s"])
            time.sleep(_RETRY_S)
