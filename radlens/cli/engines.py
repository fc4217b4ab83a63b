"""``radlens engines``: what can compute on this machine, and how fast each is with a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radlens.cli.console import err, examples, note, table

if TYPE_CHECKING:
    from radlens.engines import BundleEngine

__all__ = ["EPILOG", "command"]

EPILOG = examples("radlens engines", "radlens engines model_store/bundles/cdmam-1.0 --memory-limit 2G")


def command(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", exists=True, help="Bundle or archive to measure with.")
    ] = None,
    precision: Annotated[str, typer.Option(help="f32, or less where the parity report allows it.")] = "f32",
    memory_limit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory that a graph may take, such as 2G; by default 0.4 of what is free."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure anew, whatever was measured before.")] = False,
) -> None:
    """List the engines of this machine; with a bundle, measure how fast each computes it.

    The measurement takes seconds and is kept in the cache folder (RADLENS_CACHE, by default ~/.cache/radlens), where
    a server finds it. An engine that does not reproduce the golden values of the bundle is refused.
    """
    if bundle is None:
        _print_engines()
        return
    from radlens.cli.local import open_bundle_at
    from radlens.engines import open_bundle
    from radlens.engines.memory import parse_memory

    limit = None if memory_limit is None else parse_memory(memory_limit)
    with err.status("measuring") as status, open_bundle_at(bundle) as opened:
        _print_calibration(
            open_bundle(
                opened,
                precision=precision,
                memory_limit=limit,
                again=again,
                on_progress=lambda name, size: status.update(f"measuring {name} with batches of {size}"),
            )
        )


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


def _print_calibration(engine: BundleEngine) -> None:
    from radlens.engines.memory import format_memory

    for graph, calibration in engine.calibrations.items():
        rows = [
            (t.engine, str(t.batch_size), f"{t.ms:.1f}", "" if t.peak is None else format_memory(t.peak))
            for t in sorted(calibration.timings, key=lambda timing: timing.ms)
        ]
        table(["engine", "batch", "ms a sample", "memory (estimate)"], rows, title=graph)
    for refusal in engine.refused:
        note(f"{refusal.engine} is refused for {refusal.graph}: {refusal.reason}")
    stated = engine.stated()
    note(
        f"{stated['engine']} explains in batches of {stated['batch_size']}, {stated['prediction_engine']} predicts, "
        f"in {stated['precision']}"
    )
