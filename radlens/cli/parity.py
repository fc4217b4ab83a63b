"""``radlens parity``: how far each engine is from float64 with a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli.console import examples, note, table

if TYPE_CHECKING:
    from radlens.engines.parity import Measurement
    from radlens.families.classifier.manifest import ClassifierBundle

__all__ = ["EPILOG", "command", "print_parity"]

EPILOG = examples("radlens parity model_store/bundles/cdmam-1.0", "radlens parity model_store/cdmam-1.0.mar --here")


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", exists=True, help="Bundle or archive.")],
    here: Annotated[
        bool, typer.Option("--here", help="Measure on this machine instead of reading what the export measured.")
    ] = False,
) -> None:
    """Print how far every engine is from float64, in every precision that it offers.

    The reference is the network in float64. Less than float32 may be used where maps correlate with it by 0.99 and
    are within 15 %, and curves are within 2 %. What the export of a classifier measures is torch in float32 alone.
    """
    from radlens.engines.parity import measure, stored
    from radlens.families.cdmam.manifest import GRADIENT_ONNX, PREDICTION_ONNX
    from radlens.families.classifier.manifest import ClassifierBundle
    from radlens.local import open_bundle_at

    with open_bundle_at(bundle) as opened:
        parity = opened.manifest.parity
        if isinstance(opened, ClassifierBundle):
            _print_of_classifier(opened, here=here)
            return
        graphs = (PREDICTION_ONNX, GRADIENT_ONNX)
        print_parity(parity, {name: measure(opened.path / name) if here else stored(parity, name) for name in graphs})


def _print_of_classifier(bundle: ClassifierBundle, *, here: bool) -> None:
    from radlens.engines.parity import measure

    manifest = bundle.manifest
    if here:
        members = [bundle.graphs(member).values() for member in range(manifest.n_members)]
        print_parity({}, {path.name: measure(path) for paths in members for path in paths})
        return
    rows = [
        (member, graph, f"{error:.1e}") for member, errors in manifest.parity.items() for graph, error in errors.items()
    ]
    table(["member", "graph", "relative error"], rows, title="Graphs in float32 against float64")
    note("--here measures every engine")


def print_parity(parity: Mapping[str, Any], measured: Mapping[str, Sequence[Measurement]]) -> None:
    """Print a parity report.

    Args:
        parity: of a bundle; its float32 forms without an engine come first.
        measured: engines by name of the graph.
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
