"""``radlens serve``: start, inspect and stop a TorchServe on this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli.console import err, examples, note, out, warn
from radlens.cli.models import print_versions, trust_of
from radlens.cli.options import (
    DEFAULT_CONFIG,
    DEFAULT_STORE,
    DEFAULT_WORKDIR,
    ConfigOption,
    MemoryOption,
    StoreOption,
    WorkdirOption,
    limited,
)
from radlens.errors import InvalidParameter, ServerError

if TYPE_CHECKING:
    from radlens.server import Server, State
    from radlens.versions.state import Versions

__all__ = ["EPILOG", "command", "make_server", "restore"]

EPILOG = examples(
    "radlens serve",
    "radlens serve --model cdmam=cdmam-2.0.mar",
    "radlens serve --status",
    "radlens serve --stop",
)


def command(
    config: ConfigOption = DEFAULT_CONFIG,
    store: StoreOption = DEFAULT_STORE,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ARCHIVE",
            help="Archive of the store to start with, in place of what is registered; repeatable. By default what is "
            "registered, and at the first start the latest version of each model.",
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
            server, versions = make_server(config, store, _given(model), workdir)
            _start(server, versions, config, workdir, foreground)


def make_server(config: Path, store: Path, given: Mapping[str, str], workdir: Path) -> tuple[Server, Versions]:
    """Return a server that is not started, and what is to be registered on it for `restore`.

    Its log settings are those of ``log4j2.xml`` in the folder of ``config``.

    Args:
        config: File ``config.properties``.
        store: Model store.
        given: Archives of the store by model, which replace what is registered; empty for what is registered, or at the
            first start for the latest version of each model.
        workdir: Working directory of the server.

    Raises:
        ServerError: The configuration is missing, or the store holds no archive or a damaged one.
        BundleError: An archive is damaged or was changed, or its signature is wrong or missing.
    """
    from radlens.server import Server, State
    from radlens.versions import worker
    from radlens.versions.deployment import Deployment
    from radlens.versions.state import Versions
    from radlens.versions.stored import newest_archives

    if (running := State.load(workdir)) is not None:
        raise ServerError(
            f"no server must run in this working directory, got process {running.java.number}; stop it first"
        )
    if not given and not Versions.load(workdir).models:
        given = newest_archives(store)
    if not config.is_file():
        raise ServerError(f"a server needs its configuration, and {config} is missing")
    deployment = Deployment(workdir, trust_of(config))
    with err.status("checking archives"):
        versions, remarks = deployment.plan({name: store / archive for name, archive in given.items()} or None)
    for remark in [*remarks, *_unregistered(store, versions)]:
        note(remark)
    log_config = config.with_name("log4j2.xml")
    defaults = {name: served.versions[served.default].archive for name, served in versions.models.items()}
    log = log_config if log_config.is_file() else None
    # Checked at each start of a worker, also after a crash.
    checking = [sys.executable, "-I", worker.__file__, sys.executable, str(deployment.archives.folder.resolve())]
    return Server(config, deployment.archives.folder, defaults, workdir, log_config=log, worker=checking), versions


def restore(workdir: Path, config: Path, versions: Versions) -> None:
    """Keep what a server that has started has registered, and load the versions beside the defaults."""
    from radlens.versions.deployment import Deployment

    deployment = Deployment(workdir, trust_of(config))
    deployment.keep(versions)
    with err.status("loading further versions"):
        warn(deployment.restore())


def _unregistered(store: Path, versions: Versions) -> list[str]:
    """Return remarks on archives of the store that are not what is registered."""
    from radlens.versions.signing import digest
    from radlens.versions.stored import archives, damaged, order

    remarks = [f"{store / name} cannot be read; it is not served" for name in damaged(store)]
    for found in archives(store):
        served = versions.models.get(found.name)
        if served is None:
            remarks.append(f"{found.name} {found.version} is in {store} and not registered")
        elif found.version in served.versions:
            if digest(store / found.archive) != served.versions[found.version].sha256:
                remarks.append(
                    f"{store / found.archive} is not the registered {found.name} {found.version}, which is served: "
                    f"give it a version of its own, or start with --model {found.name}={found.archive}"
                )
        elif order(found.version) > order(served.default):
            remarks.append(
                f"{found.name} {found.version} is in {store} and not registered: "
                f"radlens models register {found.archive}"
            )
    return remarks


def _given(given: list[str] | None) -> dict[str, str]:
    pairs = [text.partition("=") for text in given or ()]
    if wrong := [name + sign + archive for name, sign, archive in pairs if not (name and archive)]:
        raise InvalidParameter(f"--model must be NAME=ARCHIVE, got {wrong[0]!r}")
    return {name: archive for name, _, archive in pairs}


def _start(server: Server, versions: Versions, config: Path, workdir: Path, foreground: bool) -> None:
    with ExitStack() as stack:
        with err.status("starting TorchServe"):
            stack.enter_context(server)
        restore(workdir, config, versions)
        _audit(workdir, "start", models={name: served.default for name, served in versions.models.items()})
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

    if stop(workdir):
        _audit(workdir, "stop")
        note("stopped")
    else:
        note("no server was running")


def _audit(workdir: Path, event: str, **record: Any) -> None:
    from radlens.audit import AUDIT_FILE, AuditLog, operator

    AuditLog(workdir / AUDIT_FILE).append({"event": event, "outcome": "done", "who": operator(), **record})


def _print_status(workdir: Path) -> None:
    _print_running(_running(workdir))
    print_versions(workdir)


def _running(workdir: Path) -> State:
    from radlens.server import State

    state = State.load(workdir)
    if state is None:
        raise ServerError("no server runs here")
    return state


def _print_running(state: State) -> None:
    out.print(f"predictions and explanations: {state.url}")
    if state.keys().inference:
        note(f"keys: {state.workdir}/key_file.json (read by the commands of radlens), logs: {state.workdir}/logs")
