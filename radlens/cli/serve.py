"""``radlens serve``: start, inspect and stop a TorchServe on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radlens.cli.console import err, examples, note, out
from radlens.cli.models import print_versions
from radlens.cli.options import (
    DEFAULT_STORE,
    DEFAULT_WORKDIR,
    MemoryOption,
    StoreOption,
    WorkdirOption,
    limited,
)
from radlens.cli.stored import newest_archives
from radlens.errors import InvalidParameter, ServerError

if TYPE_CHECKING:
    from radlens.server import Server, State

__all__ = ["EPILOG", "command", "make_server"]

EPILOG = examples(
    "radlens serve",
    "radlens serve --model cdmam=cdmam-2.0.mar",
    "radlens serve --status",
    "radlens serve --stop",
)


def command(
    config: Annotated[Path, typer.Option(metavar="FILE", help="TorchServe's configuration.")] = Path(
        "config.properties"
    ),
    store: StoreOption = DEFAULT_STORE,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ARCHIVE",
            help="Archive of the store to start with; repeatable. By default the latest version of each model.",
        ),
    ] = None,
    workdir: WorkdirOption = DEFAULT_WORKDIR,
    foreground: Annotated[
        bool, typer.Option("--foreground/--detach", help="Stay until Ctrl-C, or return as soon as the models answer.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Print the running models, and exit.")] = False,
    key: Annotated[
        bool, typer.Option("--key", help="Print the key for predictions and explanations, and exit.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the server and all its processes, and exit.")] = False,
    memory_limit: MemoryOption = None,
) -> None:
    """Start a server with the models of a model store, print its status, or stop it.

    The server listens on the loopback interface alone and requires the keys in its working directory.
    """
    if status + key + stop > 1:
        raise InvalidParameter("--status, --key and --stop exclude each other, got several")
    if stop:
        _stop(workdir)
    elif key:
        typer.echo(_running(workdir).keys().inference or "")
    elif status:
        _print_status(workdir)
    else:
        with limited(memory_limit):
            _start(make_server(config, store, _models(model, store), workdir), foreground)


def make_server(config: Path, store: Path, models: Mapping[str, str], workdir: Path) -> Server:
    """Return a server that is not started, with the log settings of ``log4j2.xml`` in the folder of ``config``.

    Raises:
        ServerError: The configuration is missing.
    """
    from radlens.server import Server

    if not config.is_file():
        raise ServerError(f"a server needs its configuration, and {config} is missing")
    log_config = config.with_name("log4j2.xml")
    return Server(config, store, models, workdir, log_config=log_config if log_config.is_file() else None)


def _models(given: list[str] | None, store: Path) -> dict[str, str]:
    if not given:
        return newest_archives(store)
    pairs = [text.partition("=") for text in given]
    if wrong := [name + sign + archive for name, sign, archive in pairs if not (name and archive)]:
        raise InvalidParameter(f"--model must be NAME=ARCHIVE, got {wrong[0]!r}")
    return {name: archive for name, _, archive in pairs}


def _start(server: Server, foreground: bool) -> None:
    with ExitStack() as stack:
        with err.status("starting TorchServe"):
            stack.enter_context(server)
        _print_running(server.state)
        if foreground:
            _stay(server)
        else:
            # Drops the exit of the context, which would stop the server.
            stack.pop_all()


def _stay(server: Server) -> None:
    """Wait for Ctrl-C; a server that ends by itself is an error."""
    note("Ctrl-C stops it")
    while server.state:
        time.sleep(1.0)


def _stop(workdir: Path) -> None:
    from radlens.server import stop

    note("stopped" if stop(workdir) else "no server was running")


def _print_status(workdir: Path) -> None:
    from radlens.client import Client

    _print_running(_running(workdir))
    with Client.of_server(workdir) as client:
        print_versions(client)


def _running(workdir: Path) -> State:
    from radlens.server import State

    state = State.load(workdir)
    if state is None:
        raise ServerError("no server runs here")
    return state


def _print_running(state: State) -> None:
    out.print(f"predictions and explanations: {state.url}, versions: {state.management_url}")
    if state.keys().inference:
        note(f"keys: {state.workdir}/key_file.json (read by the commands of radlens), logs: {state.workdir}/logs")
