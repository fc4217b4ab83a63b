"""Options that several commands share, and where answers come from: a server, or a bundle on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radlens.cli.console import note
from radlens.errors import InvalidParameter, ServerError

if TYPE_CHECKING:
    from radlens.cli.local import Spread
    from radlens.client import Client
    from radlens.explainers import Checkpoint

__all__ = [
    "DEFAULT_STORE",
    "BundleOption",
    "ImageArgument",
    "LocalOption",
    "MemoryOption",
    "ModelOption",
    "ServerOption",
    "StoreOption",
    "TokenOption",
    "VersionOption",
    "WorkdirOption",
    "connected",
    "limited",
    "require",
    "workdir",
]

DEFAULT_MODEL = "cdmam"
DEFAULT_STORE = Path("model_store")
DEFAULT_WORKDIR = Path(".run")
_WORKDIR_VARIABLE = "RADLENS_WORKDIR"
_SOURCE = "Where answers come from"

ImageArgument = Annotated[
    Path,
    typer.Argument(metavar="IMAGE", exists=True, dir_okay=False, help="A DICOM, PNG, TIFF or .npy image."),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="RADLENS_SERVER",
        rich_help_panel=_SOURCE,
        help="Server to ask, such as http://127.0.0.1:8080; by default the one `radlens serve` started here.",
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(envvar="RADLENS_TOKEN", rich_help_panel=_SOURCE, help="Bearer token of --server, if it wants one."),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory that a process may take for a graph, such as 2G; by default 0.4 of what is free.",
        show_envvar=False,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_SOURCE,
        help="Name of the model; by default the only one of the server, or cdmam; with --local the newest bundle's.",
    ),
]
VersionOption = Annotated[
    str | None,
    typer.Option("--model-version", rich_help_panel=_SOURCE, help="Version of the model; by default the server's."),
]
LocalOption = Annotated[
    bool,
    typer.Option("--local", rich_help_panel=_SOURCE, help="Compute here, without a server, with the newest bundle."),
]
BundleOption = Annotated[
    Path | None,
    typer.Option(exists=True, rich_help_panel=_SOURCE, help="Bundle or archive to compute with; implies --local."),
]
StoreOption = Annotated[Path, typer.Option(metavar="DIR", help="Model store: archives, and bundles beside them.")]
WorkdirOption = Annotated[
    Path,
    typer.Option(
        metavar="DIR", envvar=_WORKDIR_VARIABLE, help="Where the server keeps its state, keys, logs and sockets."
    ),
]


def require(name: str, value: str, options: Sequence[str]) -> None:
    """Check that ``value`` is one of ``options``.

    Raises:
        InvalidParameter: it is not.
    """
    if value not in options:
        raise InvalidParameter(f"{name} must be one of {', '.join(options)}, got {value!r}")


def workdir() -> Path:
    """Return the working directory of the server that commands talk to."""
    return Path(os.environ.get(_WORKDIR_VARIABLE, DEFAULT_WORKDIR))


@contextmanager
def limited(memory: str | None) -> Iterator[None]:
    """Bound the memory of graphs in this process, and in those that it starts meanwhile.

    Raises:
        InvalidParameter: ``memory`` is no size.
    """
    if memory is None:
        yield
        return
    from radlens.engines.memory import MEMORY_LIMIT_VARIABLE, parse_memory

    parse_memory(memory)
    before = os.environ.get(MEMORY_LIMIT_VARIABLE)
    os.environ[MEMORY_LIMIT_VARIABLE] = memory
    try:
        yield
    finally:
        if before is None:
            del os.environ[MEMORY_LIMIT_VARIABLE]
        else:
            os.environ[MEMORY_LIMIT_VARIABLE] = before


@contextmanager
def connected(
    server: str | None,
    token: str | None,
    model: str | None,
    local: bool,
    bundle: Path | None,
    checkpoint: Checkpoint | None = None,
    spread: Spread | None = None,
) -> Iterator[Client]:
    """Give what answers requests, and say on stderr which it is.

    Args:
        server: URL, or None for the server that runs in `workdir`.
        token: of ``server``; the key of the server in `workdir` if that is the one.
        model: name of the model; None for the only one that the server was started with, or cdmam.
        local: compute in this process.
        bundle: the bundle or archive to compute with.
        checkpoint: where an explanation that is computed in this process is saved and continued.
        spread: opens the workers that such an explanation is spread over.

    Raises:
        InvalidParameter: both a server and a bundle are asked for, or workers for a model that is
            not explained by samples.
        ServerError: neither is, and no server runs in `workdir`.
        BundleError: there is no bundle, or it is damaged.
    """
    if local or bundle is not None:
        if server is not None and os.environ.get("RADLENS_SERVER") != server:
            raise InvalidParameter("--server and --local exclude each other, got both")
        from radlens.cli.local import local_client

        with local_client(bundle, DEFAULT_STORE, checkpoint, spread, model=model) as client:
            yield client
        return
    with _remote(server, token, model) as client:
        note(f"asking {client.url}")
        yield client


def _remote(server: str | None, token: str | None, model: str | None) -> Client:
    from radlens.client import Client
    from radlens.server import State

    state = State.load(workdir())
    if state is not None and (server is None or server.rstrip("/") == state.url) and token is None:
        return Client.of_server(workdir(), model=model or _usual_model(state.models))
    if server is None:
        raise ServerError("no server runs here: start one with `radlens serve`, name one with --server, or use --local")
    return Client(server, model=model or DEFAULT_MODEL, token=token)


def _usual_model(models: Sequence[str]) -> str:
    return models[0] if len(models) == 1 else DEFAULT_MODEL
