"""``radlens node``: images from modalities and a PACS to a radlens server, and its results back."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli import node_demo
from radlens.cli.console import err, examples, note, out, table
from radlens.errors import ServerError

if TYPE_CHECKING:
    from radlens.node import Queue

__all__ = ["app"]

app = typer.Typer(
    name="node",
    help="A DICOM node: images from modalities and a PACS to a radlens server, and its results back.",
    epilog=examples(
        "radlens node check node.yaml",
        "radlens node run node.yaml",
        "radlens node status",
        "radlens node queue --dead",
        "radlens node resend 17",
    ),
    no_args_is_help=True,
)

DEFAULT = Path("node.yaml")

FileArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG", envvar="RADLENS_NODE_CONFIG", help="Settings of the node, in YAML.")
]
FileOption = Annotated[
    Path,
    typer.Option(
        "--config", "-c", metavar="CONFIG", envvar="RADLENS_NODE_CONFIG", help="Settings of the node, in YAML."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
IdArgument = Annotated[int, typer.Argument(metavar="ID", help="Number of the task, as `queue` lists it.")]


@app.command()
def run(config: FileArgument = DEFAULT) -> None:
    """Run a node until SIGTERM or Ctrl-C."""
    from radlens.node import Node, read_settings

    os.umask(0o077)
    _log()
    node, ended = Node(read_settings(config)), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        node.start()
        settings = node.settings
        if settings.address is not None:
            note(f"{settings.ae_title} listens on {settings.address} port {node.port}")
        for source in settings.sources:
            note(f"searches {source.web.url} every {source.every_s:g} s")
        ended.wait()
        note("stopping")
    finally:
        node.stop()


@app.command()
def check(
    config: FileArgument = DEFAULT,
    connect: Annotated[bool, typer.Option(help="Also ask the server and all destinations and sources.")] = True,
) -> None:
    """Check the settings, and whether the server and all destinations and sources answer."""
    from radlens.node import read_settings
    from radlens.node.checking import checked

    settings = read_settings(config)
    rows = [
        (rule.name, rule.model, rule.kind, ", ".join(rule.objects), ", ".join(rule.destinations))
        for rule in settings.rules
    ]
    table(["rule", "model", "kind", "objects", "to"], rows)
    failed = 0
    for name, error in checked(settings) if connect else ():
        failed += error is not None
        out.print(f"{name}: {error or 'answers'}", markup=False, soft_wrap=True)
    if failed:
        raise ServerError(f"every other side must answer, got {failed} that do not")


@app.command()
def status(config: FileOption = DEFAULT, as_json: JsonOption = False) -> None:
    """Show whether the node runs, what it has counted, and what rests after failures."""
    from radlens.node import is_running
    from radlens.node.overview import summary

    with _queue(config) as queue:
        state = {"running": is_running(queue.folder.top), **summary(queue)}
    if as_json:
        typer.echo(json.dumps(state, indent=2))
        return
    out.print(f"{'running' if state['running'] else 'not running'}; {state['images']} images are kept, ", end="")
    out.print(f"the oldest task has waited {_duration(state['oldest_s'])}; {state['disk_free_mb']} MiB are free")
    table(["tasks", "number"], [(name, str(n)) for name, n in state["tasks"].items()])
    table(["counted", "number"], [(name, str(n)) for name, n in state["counts"].items()])
    for each in state["lanes"]:
        since, rests = _duration(each["failing_s"]), _duration(each["rests_s"])
        text = (
            f"{each['name']}: has failed for {since}, {each['failures']} times, tried again in {rests}: {each['error']}"
        )
        err.print(text, style="yellow", markup=False, soft_wrap=True)


@app.command("queue")
def list_tasks(
    config: FileOption = DEFAULT,
    dead: Annotated[bool, typer.Option("--dead", help="Only dead letters.")] = False,
    most: Annotated[int, typer.Option("--most", min=1, help="Largest number of tasks to list.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List what waits, is being sent, or has become a dead letter."""
    from radlens.node.overview import listed

    with _queue(config) as queue:
        found = listed(queue, ("dead",) if dead else ("waiting", "sending", "dead"), most)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    rows = [_row(each) for each in found]
    table(["id", "state", "rule", "sender", "age", "next try", "attempts", "objects", "error"], rows)


@app.command()
def resend(task: IdArgument, config: FileOption = DEFAULT) -> None:
    """Try a dead letter, or a task that waits, again at once."""
    with _queue(config) as queue:
        queue.resend(task)
    note(f"task {task} is tried again")


@app.command()
def drop(task: IdArgument, config: FileOption = DEFAULT) -> None:
    """Give up a task and delete its files; what has arrived stays where it is."""
    with _queue(config) as queue:
        queue.drop(task)
    note(f"task {task} is dropped")


app.command("demo")(node_demo.command)


@contextmanager
def _queue(config: Path) -> Iterator[Queue]:
    from radlens.node import Folder, Queue, read_settings

    queue = Queue(Folder(read_settings(config).folder), create=False)
    try:
        yield queue
    finally:
        queue.close()


def _row(task: dict[str, Any]) -> tuple[str, ...]:
    following = "" if task["state"] == "dead" else _duration(task["next_s"])
    numbers = (_duration(task["age_s"]), following, str(task["attempts"]), str(task["objects"]))
    return (str(task["id"]), task["state"], task["rule"], task["sender"], *numbers, task["error"] or "")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _log() -> None:
    """Log on stderr what the node says; other libraries, their warnings, and tracebacks might quote header values."""
    warnings.simplefilter("ignore")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("radlens.node")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    threading.excepthook = lambda failed: logger.error(
        "thread %s ended: %s", failed.thread.name if failed.thread else "unknown", failed.exc_type.__name__
    )
