"""Output of the commands: results on stdout, everything else on stderr."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from radlens.families import Table as FamilyTable

__all__ = [
    "LOG_EVERY_S",
    "LoggedProgress",
    "Stage",
    "err",
    "examples",
    "fail",
    "flowing",
    "note",
    "out",
    "show",
    "stages",
    "table",
    "warn",
]

out, err = Console(highlight=False), Console(stderr=True, highlight=False)

LOG_EVERY_S = 30.0
"""Seconds between two lines of progress in a log."""

Stage = Callable[[str, float, float], None]
"""Callback ``on_progress(stage, done, total)``."""


def examples(*lines: str) -> str:
    """Return the epilog of a command: example lines under a heading."""
    return "\n".join(["[bold]Examples[/bold]", *(f"[dim]$[/dim] {escape(line)}" for line in lines)])


def flowing(docstring: str | None) -> str:
    """Return a docstring with each paragraph on one line, so that the terminal wraps it."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (docstring or "").split("\n\n"))


def fail(message: str) -> None:
    """Print an error."""
    err.print(f"[bold red]error:[/bold red] {escape(message)}", soft_wrap=True)


def note(message: str) -> None:
    """Print a remark for the user, dimmed, on stderr."""
    err.print(escape(message), style="dim", soft_wrap=True)


def warn(warnings: Iterable[str]) -> None:
    """Print the warnings of a result."""
    for warning in warnings:
        err.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None, console: Console = out
) -> None:
    """Print a table with text in the first column and numbers in the others."""
    drawn = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        drawn.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)


def show(tables: Iterable["FamilyTable | str"], *, console: Console = out) -> None:
    """Print tables, each with its text below, and lines of text."""
    for each in tables:
        if isinstance(each, str):
            console.print(each, soft_wrap=True)
            continue
        table(each.columns, each.rows, title=each.title, console=console)
        if each.below:
            console.print(each.below, soft_wrap=True)


class LoggedProgress:
    """Progress without a terminal, such as in a log: lines on stderr at intervals, and at the end.

    Args:
        every_s: seconds between two lines.
        clock: function that returns seconds since any origin.
    """

    def __init__(self, every_s: float = LOG_EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = every_s, clock
        self._told = clock()
        self._stage, self._begin, self._first = "", self._told, 0.0
        self._last: dict[str, str] = {}

    def __call__(self, stage: str, done: float, total: float | None, remark: str = "") -> None:
        """Print the progress of a stage if the last line is long enough ago.

        Args:
            stage: name of the stage.
            done: finished part of the stage.
            total: size of the stage; None if it is unknown.
            remark: text at the end of the line.
        """
        now = self._clock()
        if stage != self._stage:
            self._stage, self._begin, self._first = stage, now, done
        state = f"{stage}: {done:g} of {'?' if total is None else f'{total:g}'}"
        end = [remark] if remark else []
        self._last[stage] = ", ".join([state, *end])
        if now - self._told < self._every_s:
            return
        self._told = now
        parts = [state]
        if total and done > self._first:
            seconds = (now - self._begin) / (done - self._first) * (total - done)
            parts.append(f"{done / total:.0%}, about {_duration(seconds)} left")
        self._tell(", ".join([*parts, *end]))

    def close(self) -> None:
        """Print the last state of each stage."""
        for state in self._last.values():
            self._tell(state)

    def _tell(self, text: str) -> None:
        note(f"{datetime.now():%H:%M:%S} {text}")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def stages(waiting: str | None = None) -> Iterator[Stage]:
    """Show progress as one bar per stage, or without a terminal as lines at intervals.

    Args:
        waiting: text that is shown until the first stage reports.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    if not err.is_terminal:
        with closing(LoggedProgress()) as log:
            yield log
        return
    with Progress(*columns, console=err) as progress:
        tasks: dict[str, TaskID] = {}
        idle = None if waiting is None else progress.add_task(waiting, total=None)

        def report(stage: str, done: float, total: float) -> None:
            nonlocal idle
            if idle is not None:
                progress.remove_task(idle)
                idle = None
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage)
            progress.update(tasks[stage], completed=done, total=total)

        yield report
