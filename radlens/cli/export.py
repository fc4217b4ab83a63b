"""``radlens export``: a training run as a bundle and as an archive."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from radlens.cli.console import Stage, examples, note, stages, table
from radlens.cli.options import DEFAULT_STORE, StoreOption
from radlens.errors import InvalidParameter

__all__ = ["EPILOG", "command", "export_run"]

EPILOG = examples(
    "radlens export runs/demo",
    "radlens export runs/standard --version 2.0",
    "radlens export runs/paper --version 3.0 --form directory",
)


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", exists=True, file_okay=False, help="Folder of a finished training run.")
    ],
    version: Annotated[str, typer.Option(help="Of the model, such as 2.0.")] = "1.0",
    name: Annotated[str, typer.Option(help="Of the model, as it stands in URLs.")] = "cdmam",
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[
        str, typer.Option(help="zip: one .mar file; directory: TorchServe's form for models too large for zip.")
    ] = "zip",
) -> None:
    """Export a training run: traced module, ONNX graphs, bundle, and the archive that TorchServe loads.

    Every form of the model is compared with the network of the paper in double precision.
    """
    with stages() as report:
        parity, archived = export_run(run, store, name=name, version=version, form=form, report=report)
    _print_parity(parity)
    note(f"archive {archived}, bundle {_bundle_folder(store, name, version)}; next: radlens serve")


def export_run(
    run: Path, store: Path, *, name: str, version: str, form: str, report: Stage
) -> tuple[dict[str, Any], Path]:
    """Write bundle and archive of a run to a model store; return the parity report and the archive.

    Raises:
        TrainingError: there is no finished run.
        InvalidParameter: unknown form, or a name or version that cannot be part of a URL.
        BundleError: a form of the model computes something else.
    """
    _require_word("--name", name)
    _require_word("--version", version)
    from radlens.archives import archive
    from radlens.graphs import export_bundle
    from radlens.training import load_run

    trained = load_run(run)
    bundle = export_bundle(
        trained,
        _bundle_folder(store, name, version),
        name=name,
        version=version,
        on_progress=lambda stage, done, total: report("exporting", done, total),
    )
    return dict(bundle.manifest.parity), archive(bundle, store, form=form)


def _require_word(name: str, value: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise InvalidParameter(f"{name} must be letters, digits, '.', '_' or '-', got {value!r}")


def _bundle_folder(store: Path, name: str, version: str) -> Path:
    return store / "bundles" / f"{name}-{version}"


def _print_parity(parity: dict[str, Any]) -> None:
    quantities = ("prediction", "gradient")
    forms = dict.fromkeys(form for quantity in quantities for form in parity[quantity])
    rows = [
        (form, *(f"{parity[quantity][form]:.1e}" if form in parity[quantity] else "" for quantity in quantities))
        for form in forms
    ]
    table(["form", *quantities], rows, title="Relative difference from the paper's network in float64")
