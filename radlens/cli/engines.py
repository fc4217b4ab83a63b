"""``radlens engines``: the engines of this machine, and their speed with a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radlens.cli.console import err, examples, note, table

if TYPE_CHECKING:
    from radlens.engines.calibration import Calibration, Timing

__all__ = ["EPILOG", "command"]

EPILOG = examples("radlens engines", "radlens engines model_store/bundles/cdmam-1.0 --memory-limit 2G")


_COLUMNS = ("engine", "batch", "ms per sample", "memory (estimate)")


def command(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", exists=True, help="Bundle or archive to measure with.")
    ] = None,
    precision: Annotated[str, typer.Option(help="f32, or a lower precision that the parity report allows.")] = "f32",
    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Memory that a graph may take, such as 2G; by default 0.4 of the free memory."
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Ignore stored measurements and measure again.")] = False,
) -> None:
    """List the engines of this machine; with a bundle, measure how fast each engine computes it.

    A measurement takes seconds and is stored in the cache folder (RADLENS_CACHE, by default ~/.cache/radlens), where
    servers find it. An engine that does not reproduce the golden values of the bundle is refused.
    """
    if bundle is None:
        _print_engines()
        return
    from radlens.engines.memory import parse_memory
    from radlens.families import family_of
    from radlens.local import open_bundle_at

    limit = None if memory_limit is None else parse_memory(memory_limit)
    with err.status("measuring") as status, open_bundle_at(bundle) as opened:
        calibrations = family_of(opened.manifest.task).calibrations(
            opened,
            precision=precision,
            memory_limit=limit,
            again=again,
            on_progress=lambda name, size: status.update(f"measuring {name} with batches of {size}"),
        )
    _print_calibrations(calibrations, precision)


def _print_calibrations(calibrations: Mapping[str, Calibration], precision: str) -> None:
    """Print the timings of each graph, the fastest first."""
    rows = [
        (graph, *_described(timing))
        for graph, calibration in calibrations.items()
        for timing in sorted(calibration.timings, key=lambda timing: timing.ms)
    ]
    table(["graph", *_COLUMNS], rows)
    for graph, calibration in calibrations.items():
        for engine, reason in calibration.refused.items():
            note(f"{engine} is refused for {graph}: {reason}")
    note(f"the first engine of each graph computes it, in {precision}")


def _described(timing: Timing) -> tuple[str, ...]:
    from radlens.engines.memory import format_memory

    peak = "" if timing.peak is None else format_memory(timing.peak)
    return timing.engine, str(timing.batch_size), f"{timing.ms:.1f}", peak


def _print_engines() -> None:
    from radlens.engines import engine_class, names
    from radlens.errors import MissingDependency

    rows, missing = [], []
    for name in names():
        kind = engine_class(name)
        try:
            kind.require()
            state = ", ".join(f"{package} {version}" for package, version in kind.versions().items())
        except MissingDependency as error:
            state = "no"
            missing.append(str(error))
        rows.append((name, ", ".join(kind.precisions), state))
    table(["engine", "precisions", "on this machine"], rows)
    for reason in missing:
        note(reason)
