"""``radlens parity``: the errors of each engine against float64 with a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli.console import examples, note, show, table

if TYPE_CHECKING:
    from radlens.engines.parity import Measurement

__all__ = ["EPILOG", "command", "print_parity"]

EPILOG = examples("radlens parity model_store/bundles/cdmam-1.0", "radlens parity model_store/cdmam-1.0.mar --here")


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", exists=True, help="Bundle or archive.")],
    here: Annotated[
        bool, typer.Option("--here", help="Measure on this machine instead of printing the export's measurements.")
    ] = False,
) -> None:
    """Print the errors of every engine against float64, in every precision that it offers.

    The reference is the network in float64. A precision below float32 is allowed if the maps have a correlation of 0.99
    with the reference and errors within 15 %, and the curves have errors within 2 %. The export of a classifier
    measures torch in float32 alone.
    """
    from radlens.engines.parity import measure, stored
    from radlens.families import family_of
    from radlens.local import open_bundle_at

    with open_bundle_at(bundle) as opened:
        family, parity = family_of(opened.manifest.task), opened.manifest.parity
        graphs = family.graphs(opened).values()
        found = {path.name: measure(path) if here else stored(parity, path.name) for path in graphs}
        if any(found.values()):
            print_parity(parity, found)
        else:
            show(family.bundle_tables(opened))
            note("radlens parity --here measures every engine")


def print_parity(parity: Mapping[str, Any], measured: Mapping[str, Sequence[Measurement]]) -> None:
    """Print a parity report.

    Args:
        parity: parity report of a bundle, whose float32 forms without an engine come first.
        measured: measurements of the engines by name of the graph.
    """
    for graph, measurements in measured.items():
        quantity = graph.removesuffix(".onnx")
        rows = [(form, f"{error:.1e}", "", "yes") for form, error in parity.get(quantity, {}).items()]
        rows += [_row(each) for each in measurements]
        table(["form", "relative error", "correlation", "allowed"], rows, title=graph)
        for each in measurements:
            if each.reason:
                note(f"{each.form} is refused: {each.reason}")


def _row(measurement: Measurement) -> tuple[str, str, str, str]:
    known = [d.correlation for d in measurement.deviations.values() if d.correlation is not None]
    agreement = f"{min(known):.5f}" if known else ""
    return measurement.form, f"{measurement.error:.1e}", agreement, "no" if measurement.reason else "yes"
