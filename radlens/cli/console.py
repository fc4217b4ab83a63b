"""What every command prints with: results on stdout, everything else on stderr."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

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

__all__ = ["Stage", "err", "examples", "fail", "note", "out", "stages", "table", "warn"]

out, err = Console(highlight=False), Console(stderr=True, highlight=False)

Stage = Callable[[str, float, float], None]
"""Called as ``on_progress(stage, done, total)``."""


def examples(*lines: str) -> str:
    """Return the epilog of a command: example lines under a heading."""
    return "\n".join(["[bold]Examples[/bold]", *(f"[dim]$[/dim] {escape(line)}" for line in lines)])


def fail(message: str) -> None:
    """Print an error."""
    err.print(f"[bold red]error:[/bold red] {escape(message)}", soft_wrap=True)


def note(message: str) -> None:
    """Print what a user may want to know and a program does not."""
    err.print(escape(message), style="dim", soft_wrap=True)


def warn(warnings: Iterable[str]) -> None:
    """Print what comes with a result and may spoil it."""
    for warning in warnings:
        err.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None, console: Console = out
) -> None:
    """Print a table; the first column is text, all others are numbers."""
    drawn = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        drawn.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)


@contextmanager
def stages(waiting: str | None = None) -> Iterator[Stage]:
    """Show progress as one bar for each stage.

    Args:
        waiting: shown until the first stage reports.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
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
