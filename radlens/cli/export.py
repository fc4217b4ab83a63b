"""``radlens export``: a training run as a bundle and as an archive."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from radlens.cli.console import Stage, examples, note, stages, table
from radlens.cli.options import DEFAULT_STORE, StoreOption
from radlens.errors import InvalidParameter

__all__ = [
    "EPILOG",
    "bundle_folder",
    "command",
    "export_classifier",
    "export_run",
    "finish_classifier",
    "replaced",
    "require_word",
]

EPILOG = examples(
    "radlens export runs/demo",
    "radlens export runs/ultrasound --name ultrasound-resnet",
    "radlens export runs/standard --version 2.0",
    "radlens export runs/paper --version 3.0 --form directory",
)


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", exists=True, file_okay=False, help="Folder of a finished training run.")
    ],
    version: Annotated[str, typer.Option(help="Of the model, such as 2.0.")] = "1.0",
    name: Annotated[
        str | None, typer.Option(help="Of the model, as it stands in URLs; by default that of the recipe.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[
        str, typer.Option(help="zip: one .mar file; directory: TorchServe's form for models too large for zip.")
    ] = "zip",
) -> None:
    """Export a training run: graphs, bundle, and the archive that TorchServe loads.

    Every form of the model is compared with the network of the paper in double precision.
    """
    from radlens.families import task_of
    from radlens.wire import CLASSIFICATION

    if name is not None:
        require_word("--name", name)
    require_word("--version", version)
    if task_of(run) == CLASSIFICATION:
        export_classifier(run, store, name=name, version=version, form=form)
        return
    name = name or "cdmam"
    with stages() as report:
        parity, archived = export_run(run, store, name=name, version=version, form=form, report=report)
    _print_parity(parity)
    note(f"archive {archived}, bundle {bundle_folder(store, name, version)}; next: radlens serve")


def export_run(
    run: Path, store: Path, *, name: str, version: str, form: str, report: Stage
) -> tuple[dict[str, Any], Path]:
    """Write bundle and archive of a run to a model store; return the parity report and the archive.

    Raises:
        TrainingError: there is no finished run.
        InvalidParameter: unknown form, or a name or version that cannot be part of a URL.
        BundleError: a form of the model computes something else.
    """
    require_word("--name", name)
    require_word("--version", version)
    from radlens.archives import archive
    from radlens.families.cdmam.export import export_bundle
    from radlens.families.cdmam.training import load_run

    trained = load_run(run)
    bundle = export_bundle(
        trained,
        bundle_folder(store, name, version),
        name=name,
        version=version,
        on_progress=lambda stage, done, total: report("exporting", done, total),
    )
    return dict(bundle.manifest.parity), archive(bundle, store, form=form)


def require_word(name: str, value: str) -> None:
    """Refuse a name or version that cannot be part of a URL.

    Raises:
        InvalidParameter: it holds other characters than letters, digits, '.', '_' and '-', or is too long.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise InvalidParameter(f"{name} must be letters, digits, '.', '_' or '-', got {value!r}")


def bundle_folder(store: Path, name: str, version: str) -> Path:
    """Return where the bundle of a model lies in a model store."""
    return store / "bundles" / f"{name}-{version}"


def export_classifier(run: Path, store: Path, *, name: str | None, version: str, form: str) -> None:
    """Write bundle and archive of a run of classifiers to a model store, and say what they hold.

    Raises:
        TrainingError: there is no finished run.
        InvalidParameter: unknown form, or a name or version that cannot be part of a URL.
        BundleError: a form of the model computes something else.
    """
    from radlens.families.classifier.making import bundle_run

    name = name or run.resolve().name
    require_word("--name", name)
    require_word("--version", version)
    with stages() as report, replaced(bundle_folder(store, name, version)) as folder:
        bundle = bundle_run(run, folder, name=name, version=version, on_progress=report)
    finish_classifier(bundle_folder(store, name, version), store, form, dict(bundle.manifest.parity))


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of ``folder`` once all went well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "made"
        yield made
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)


def finish_classifier(folder: Path, store: Path, form: str, parity: dict[str, dict[str, float]]) -> None:
    """Pack the bundle of a classifier, and say what it holds."""
    from radlens.archives import archive
    from radlens.families.classifier.manifest import ClassifierBundle

    bundle = ClassifierBundle.load(folder)
    archived = archive(bundle, store, form=form)
    rows = [(graph, *(f"{errors[graph]:.1e}" for errors in parity.values())) for graph in bundle.manifest.graphs]
    table(["graph", *parity], rows, title="Relative error in float32 against float64")
    note(f"methods: {', '.join(bundle.manifest.explainers)}")
    for method, reason in bundle.manifest.refused.items():
        note(f"not {method}: {reason}")
    note(f"archive {archived}, bundle {folder}; next: radlens serve")


def _print_parity(parity: dict[str, Any]) -> None:
    quantities = ("prediction", "gradient")
    forms = dict.fromkeys(form for quantity in quantities for form in parity[quantity])
    rows = [
        (form, *(f"{parity[quantity][form]:.1e}" if form in parity[quantity] else "" for quantity in quantities))
        for form in forms
    ]
    table(["form", *quantities], rows, title="Relative difference from the paper's network in float64")
