"""Options that several commands share, and the choice between a server and a bundle on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radlens.cli.console import note
from radlens.errors import InvalidParameter, ServerError

if TYPE_CHECKING:
    from radlens.cli.local import Spread
    from radlens.client import Client
    from radlens.explainers import Checkpoint
    from radlens.server import State

__all__ = [
    "DEFAULT_CONFIG",
    "DEFAULT_STORE",
    "DEFAULT_WORKDIR",
    "BundleOption",
    "CompanionOption",
    "ConfigOption",
    "DicomOption",
    "ImageArgument",
    "LocalOption",
    "MemoryOption",
    "ModelOption",
    "ServerOption",
    "StoreOption",
    "TokenOption",
    "VersionOption",
    "WorkdirOption",
    "companion_folders",
    "connected",
    "limited",
    "require",
    "workdir",
]

DEFAULT_CONFIG = Path("config.properties")
DEFAULT_STORE = Path("model_store")
DEFAULT_WORKDIR = Path(".run")
_WORKDIR_VARIABLE = "RADLENS_WORKDIR"
_SOURCE = "Where answers come from"

DicomOption = Annotated[
    Path | None,
    typer.Option(
        "--dicom",
        metavar="DIR",
        file_okay=False,
        help="Folder for the answer as DICOM: capture, report, and map, segmentation and marks if it has a map.",
    ),
]

ImageArgument = Annotated[
    Path,
    typer.Argument(metavar="IMAGE", exists=True, dir_okay=False, help="DICOM, PNG, TIFF or .npy image."),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="RADLENS_SERVER",
        rich_help_panel=_SOURCE,
        help="URL of the server, such as http://127.0.0.1:8080; by default the server that `radlens serve` started "
        "here.",
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(envvar="RADLENS_TOKEN", rich_help_panel=_SOURCE, help="Bearer token of --server, if it needs one."),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory that a process may take for a graph, such as 2G; by default 0.4 of the free memory.",
        show_envvar=False,
    ),
]
CompanionOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KIND=DIR",
        help="Network that methods need beside the model, such as inpainter=model_store/bundles/"
        "mammogram-inpainter-1.0 for counterfactual, or generators=RUN, proposer=RUN of radlens companion; repeatable.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_SOURCE,
        help="Name of the model; may be left out if the server has one model. With --local the newest bundle.",
    ),
]
VersionOption = Annotated[
    str | None,
    typer.Option(
        "--model-version", rich_help_panel=_SOURCE, help="Version of the model; by default the server's default."
    ),
]
LocalOption = Annotated[
    bool,
    typer.Option(
        "--local", rich_help_panel=_SOURCE, help="Compute on this machine, without a server, with the newest bundle."
    ),
]
BundleOption = Annotated[
    Path | None,
    typer.Option(exists=True, rich_help_panel=_SOURCE, help="Bundle or archive to compute with, without a server."),
]
ConfigOption = Annotated[Path, typer.Option("--config", metavar="FILE", help="Configuration of the server.")]
StoreOption = Annotated[Path, typer.Option(metavar="DIR", help="Model store, the folder of archives and bundles.")]
WorkdirOption = Annotated[
    Path,
    typer.Option(metavar="DIR", envvar=_WORKDIR_VARIABLE, help="Folder of the server's state, keys, logs and sockets."),
]


def require(name: str, value: str, options: Sequence[str]) -> None:
    """Check that ``value`` is one of ``options``.

    Raises:
        InvalidParameter: It is not.
    """
    if value not in options:
        raise InvalidParameter(f"{name} must be one of {', '.join(options)}, got {value!r}")


def workdir() -> Path:
    """Return the working directory of the server that commands talk to."""
    return Path(os.environ.get(_WORKDIR_VARIABLE, DEFAULT_WORKDIR))


@contextmanager
def limited(memory: str | None) -> Iterator[None]:
    """Limit the memory of graphs in this process and in processes that it starts inside the block.

    Raises:
        InvalidParameter: ``memory`` is not a size.
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
    """Yield a client of a server or of this process, and name on stderr what answers it.

    Args:
        server: URL of the server; None for the server that runs in `workdir`.
        token: token of ``server``; None for the stored key of the server in `workdir`.
        model: name of the model; None for the only model of the server.
        local: whether to compute in this process.
        bundle: bundle or archive to compute with in this process.
        checkpoint: checkpoint to save and continue an explanation in this process.
        spread: function that opens workers for an explanation in this process.

    Raises:
        InvalidParameter: Both a server and a bundle are given; the server has several models and none is named; or
            workers are given for a model that is not explained with samples.
        ServerError: No server runs in `workdir`, and neither a server nor a bundle is given.
        BundleError: There is no bundle, or it is damaged.
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
        return Client.of_server(workdir(), model=model or _only_model(state))
    if server is None:
        raise ServerError("no server runs here: start one with `radlens serve`, name one with --server, or use --local")
    # Asked when it is needed: what a checkpoint holds needs no server.
    return Client(server, model=model or partial(_only_model_at, server), token=token)


def _only_model(state: State) -> str:
    """Return the only model of a server on this machine.

    Raises:
        InvalidParameter: It has several; the message names them.
    """
    from radlens.versions.state import Versions

    # What was registered after the start is in the file alone, and models of other programs are in the state alone.
    names = sorted({*Versions.load(state.workdir).models} | {*state.models})
    if len(names) != 1:
        raise InvalidParameter(f"--model must name one of {', '.join(names) or 'no models'}, got none")
    return names[0]


def _only_model_at(url: str) -> str:
    """Return the only model of a server elsewhere, which names its models at ``/health/ready``.

    Raises:
        InvalidParameter: It has several, or does not name them.
        ServerError: It cannot be reached.
    """
    import httpx

    from radlens.client import reaching

    with reaching(url):
        answer = httpx.get(f"{url.rstrip('/')}/health/ready", timeout=30)
    try:
        names = sorted({str(each["model"]) for each in answer.json()["models"]})
    except (ValueError, KeyError, TypeError):
        raise InvalidParameter(f"--model must name a model of {url}, which does not say what it has") from None
    if len(names) != 1:
        raise InvalidParameter(f"--model must name one of {', '.join(names) or 'no models'}, got none")
    return names[0]


def companion_folders(given: Sequence[str] | None) -> dict[str, Path]:
    """Return the folders of companions by kind, from options of the form ``KIND=BUNDLE``.

    Raises:
        InvalidParameter: An option has another form, names no folder, or repeats a kind.
    """
    found: dict[str, Path] = {}
    for text in given or ():
        kind, _, folder = text.partition("=")
        if not (kind and folder and Path(folder).is_dir()):
            raise InvalidParameter(f"--companion must be KIND=BUNDLE with the folder of a bundle, got {text!r}")
        if kind in found:
            raise InvalidParameter(f"--companion must name each kind once, got {kind} twice")
        found[kind] = Path(folder)
    return found
