"""``radlens export``: bundle and archive of a training run."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli.console import Stage, examples, note, show, stages
from radlens.cli.options import DEFAULT_STORE, CompanionOption, StoreOption, companion_folders
from radlens.errors import InvalidParameter

if TYPE_CHECKING:
    from radlens.bundles import StoredBundle

__all__ = [
    "EPILOG",
    "bundle_folder",
    "command",
    "export_run",
    "finish",
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
    version: Annotated[str, typer.Option(help="Version of the model, such as 2.0.")] = "1.0",
    name: Annotated[
        str | None, typer.Option(help="Name of the model in URLs; by default the name of the recipe.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    companion: CompanionOption = None,
    form: Annotated[
        str, typer.Option(help="zip: one .mar file; directory: TorchServe's form for models too large for zip.")
    ] = "zip",
) -> None:
    """Export a training run to graphs, a bundle, and an archive that TorchServe loads.

    The command compares every form of the model with the network of the paper in double precision.
    """
    from radlens.families import run_family

    if name is not None:
        require_word("--name", name)
    require_word("--version", version)
    name = name or run_family(run).name_of(run)
    with stages() as report:
        beside = companion_folders(companion)
        bundle, archived = export_run(
            run, store, name=name, version=version, form=form, companions=beside, report=report
        )
    finish(bundle, archived)


def export_run(
    run: Path,
    store: Path,
    *,
    name: str,
    version: str,
    form: str,
    report: Stage,
    companions: Mapping[str, Path] | None = None,
) -> tuple[StoredBundle[Any], Path]:
    """Write bundle and archive of a run to a model store, and return both.

    Raises:
        TrainingError: The folder does not hold a finished run.
        InvalidParameter: The form is unknown, name or version cannot be part of a URL, or the model takes no
            companions.
        BundleError: A form of the model computes other values than the network.
    """
    require_word("--name", name)
    require_word("--version", version)
    from radlens.archives import archive
    from radlens.families import load, run_family

    folder, family = bundle_folder(store, name, version), run_family(run)
    if companions and not family.takes_companions:
        raise InvalidParameter(f"--companion must not be given for models of task {family.task}")
    given = {"companions": companions} if companions else {}
    with replaced(folder) as made:
        family.export(run, made, name=name, version=version, report=report, **given)
    bundle = load(folder)
    return bundle, archive(bundle, store, form=form)


def finish(bundle: StoredBundle[Any], archived: Path) -> None:
    """Print the measurements of an export, and the next command."""
    from radlens.families import family_of

    show(family_of(bundle.manifest.task).bundle_tables(bundle))
    note(f"archive {archived}, bundle {bundle.path}; next: radlens serve")


def require_word(name: str, value: str) -> None:
    """Check that a name or version can be part of a URL.

    Raises:
        InvalidParameter: It has other characters than letters, digits, '.', '_' and '-', or is too long.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise InvalidParameter(f"{name} must be letters, digits, '.', '_' or '-', got {value!r}")


def bundle_folder(store: Path, name: str, version: str) -> Path:
    """Return the folder of a model's bundle in a model store."""
    return store / "bundles" / f"{name}-{version}"


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yield the path of a new folder, which replaces ``folder`` if the block raises no error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "made"
        yield made
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
