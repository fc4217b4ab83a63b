"""``radlens models``: the versions of models on a running server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radlens.cli.console import err, examples, note, table
from radlens.cli.options import DEFAULT_WORKDIR, WorkdirOption

if TYPE_CHECKING:
    from radlens.client import Client

__all__ = ["app", "print_versions"]

app = typer.Typer(
    name="models",
    help="List, register and remove versions of models on a running server.",
    epilog=examples(
        "radlens models list",
        "radlens models register cdmam-2.0.mar",
        "radlens models set-default 2.0",
        "radlens models remove 1.0",
        "radlens models set-default 2.0 --model ultrasound-resnet",
    ),
    no_args_is_help=True,
)

ManagementOption = Annotated[
    str | None,
    typer.Option(
        "--management",
        metavar="URL",
        envvar="RADLENS_MANAGEMENT",
        help="Management address, such as http://127.0.0.1:8081; by default that of the server in --workdir.",
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option("--management-token", envvar="RADLENS_MANAGEMENT_TOKEN", help="Bearer token of --management."),
]
NameOption = Annotated[str, typer.Option("--model", help="Name of the model.")]


@app.command("list")
def list_versions(
    management: ManagementOption = None, management_token: KeyOption = None, workdir: WorkdirOption = DEFAULT_WORKDIR
) -> None:
    """List every version of every model."""
    with _managed(management, management_token, "cdmam", workdir) as client:
        print_versions(client)


@app.command()
def register(
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="File or directory of the server's model store.")],
    management: ManagementOption = None,
    management_token: KeyOption = None,
    workdir: WorkdirOption = DEFAULT_WORKDIR,
) -> None:
    """Load another model, or another version of a running model; the default version stays the same."""
    with _managed(management, management_token, "cdmam", workdir) as client, err.status("loading"):
        model, version = client.register_archive(archive)
    named = "" if model == "cdmam" else f" --model {model}"
    note(f"{model} {version} answers at /predictions/{model}/{version}")
    note(f"next: radlens models set-default {version}{named}")


@app.command("set-default")
def set_default(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Version, such as 2.0.")],
    model: NameOption = "cdmam",
    management: ManagementOption = None,
    management_token: KeyOption = None,
    workdir: WorkdirOption = DEFAULT_WORKDIR,
) -> None:
    """Make a version the default, which answers requests without a version."""
    with _managed(management, management_token, model, workdir) as client:
        client.set_default(version)
    note(f"{model} {version} is the default")


@app.command()
def remove(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Version, such as 1.0; not the default.")],
    model: NameOption = "cdmam",
    management: ManagementOption = None,
    management_token: KeyOption = None,
    workdir: WorkdirOption = DEFAULT_WORKDIR,
) -> None:
    """Remove a version after its waiting requests are answered."""
    with _managed(management, management_token, model, workdir) as client, err.status("waiting for its requests"):
        client.unregister(version)
    note(f"{model} {version} is removed")


def print_versions(client: Client) -> None:
    """Print every version of every model on the server of ``client``."""
    rows = [
        (v.model, v.version, "yes" if v.is_default else "", str(v.n_ready), str(v.n_waiting)) for v in client.models()
    ]
    table(["model", "version", "default", "workers ready", "requests waiting"], rows)


@contextmanager
def _managed(management: str | None, token: str | None, model: str, workdir: Path) -> Iterator[Client]:
    from radlens.client import Client

    client = (
        Client.of_server(workdir, model=model)
        if management is None
        else Client(management, management_url=management, model=model, management_token=token)
    )
    with client:
        yield client
