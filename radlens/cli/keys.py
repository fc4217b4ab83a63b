"""``radlens keys``: named keys of a server's clients."""

from pathlib import Path
from typing import Annotated

import typer

from radlens.cli.console import examples, note, table
from radlens.cli.options import DEFAULT_WORKDIR, WorkdirOption

__all__ = ["app"]

app = typer.Typer(
    name="keys",
    help="Name, add and revoke the keys of a server's clients.",
    epilog=examples(
        "radlens keys add viewer --roles predict,explain",
        "radlens keys add prometheus --roles metrics",
        "radlens keys list",
        "radlens keys revoke viewer",
    ),
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the key, which the audit log states.")]


@app.command("list")
def list_keys(workdir: WorkdirOption = DEFAULT_WORKDIR) -> None:
    """List names and roles; tokens are not stored."""
    from radlens.keys import KeyRing

    named = KeyRing.of(workdir).keys()
    rows = [(key.name, ", ".join(sorted(key.roles)), key.created) for key in named]
    table(["key", "roles", "created"], rows)


@app.command()
def add(
    name: NameArgument,
    roles: Annotated[
        str,
        typer.Option(metavar="ROLES", help="What the key is for: predict, explain, manage, metrics; comma-separated."),
    ],
    workdir: WorkdirOption = DEFAULT_WORKDIR,
) -> None:
    """Add a key and print its token, once; a running server accepts it at once."""
    from radlens.keys import KeyRing

    token = KeyRing.of(workdir).add(name, [role.strip() for role in roles.split(",") if role.strip()])
    _audit(workdir, "key added", name, roles=roles)
    note(f"{name} may {roles}; this token is not stored and cannot be shown again:")
    typer.echo(token)


@app.command()
def revoke(name: NameArgument, workdir: WorkdirOption = DEFAULT_WORKDIR) -> None:
    """Remove a key; a running server refuses it from the next request on."""
    from radlens.keys import KeyRing

    KeyRing.of(workdir).revoke(name)
    _audit(workdir, "key revoked", name)
    note(f"{name} is revoked")


def _audit(workdir: Path, event: str, name: str, **more: str) -> None:
    from radlens.audit import AUDIT_FILE, AuditLog, operator

    record = {"event": event, "outcome": "done", "who": operator(), "of": name, **more}
    AuditLog(workdir / AUDIT_FILE).append(record)
