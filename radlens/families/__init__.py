"""Families of models, one folder each.

A family is registered by one line in `FOLDERS`. It is imported when it is first used, so that an archive needs only its
own family, and a client needs no torch.
"""

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radlens.bundles import StoredBundle, read_manifest
from radlens.errors import BundleError, InvalidInput, InvalidParameter, TrainingError
from radlens.extras import named
from radlens.families.base import RECORD, Family, Table, Worker
from radlens.wire import CDC, CLASSIFICATION, INPAINTING

if TYPE_CHECKING:
    from radlens.service.batching import BatchService

__all__ = [
    "FOLDERS",
    "Family",
    "Table",
    "Worker",
    "described",
    "families",
    "family_of",
    "family_of_model",
    "load",
    "models",
    "open_service",
    "run_family",
]

FOLDERS: dict[str, str] = {
    CDC: "radlens.families.cdmam",
    CLASSIFICATION: "radlens.families.classifier",
    INPAINTING: "radlens.families.inpainter",
}
"""Package of each family by its task; the package has a module ``family`` with the instance ``FAMILY``."""


def family_of(task: object) -> Family[Any]:
    """Return the family of a task.

    Raises:
        InvalidInput: Unknown task.
    """
    if task not in FOLDERS:
        raise InvalidInput(f"task must be one of {', '.join(FOLDERS)}, got {task!r}")
    with named():
        found: Family[Any] = import_module(f"{FOLDERS[str(task)]}.family").FAMILY
    return found


def families() -> Iterator[Family[Any]]:
    """Yield all families in the order of their registration."""
    return map(family_of, FOLDERS)


def load(path: Path | str) -> StoredBundle[Any]:
    """Read and verify a bundle of any family.

    Raises:
        BundleError: Unknown task; no bundle, or a damaged one.
    """
    document, _ = read_manifest(Path(path))
    try:
        family = family_of(document.get("task"))
    except InvalidInput as error:
        raise BundleError(str(error)) from error
    with named():
        return family.load(Path(path))


def described(bundle: StoredBundle[Any]) -> dict[str, Any]:
    """Return what clients may ask of a model, as JSON values.

    Returns:
        ``{"model", "version", "task", "predict", "explain", "default_method"}``: JSON schemas of parameters by name,
        for explanations by name of the method; ``default_method`` is None for a model without explanations.
    """
    from radlens.service.description import parameter_schemas

    manifest, family = bundle.manifest, family_of(bundle.manifest.task)
    with named():
        methods = family.methods(manifest)
        default = family.parameters(manifest, "explain").get("method")
        return {
            "model": manifest.name,
            "version": manifest.version,
            "task": family.task,
            "predict": parameter_schemas(family.parameters(manifest, "predict")),
            "explain": {each: parameter_schemas(family.parameters(manifest, "explain", each)) for each in methods},
            "default_method": None if default is None else default.default,
        }


def open_service(bundle: StoredBundle[Any], **options: Any) -> "BatchService":
    """Return the service of a bundle.

    Args:
        bundle: The model.
        options: Options of its family; those that are None are left out.

    Raises:
        InvalidInput: An option that the family does not have.
        BundleError: No engine can run the bundle.
    """
    family = family_of(bundle.manifest.task)
    given = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(set(given) - {"engine", "precision", "memory_limit", "now", *family.serve_options})
    if unknown:
        raise InvalidInput(f"{', '.join(unknown)} must not be given for models of task {family.task}")
    with named():
        return family.open_service(bundle, **given)


def run_family(run: Path) -> Family[Any]:
    """Return the family of a training run.

    Raises:
        TrainingError: The folder holds no record of a run, or the record states no known task.
    """
    file = run / RECORD
    if not file.is_file():
        raise TrainingError(f"a training run must hold {RECORD}, which is missing")
    try:
        task = json.loads(file.read_text(encoding="utf-8"))["task"]
    except (ValueError, TypeError, KeyError):
        task = None
    try:
        return family_of(task)
    except InvalidInput as error:
        raise TrainingError(f"{RECORD} must state a task, one of {', '.join(FOLDERS)}, got {task!r}") from error


def models() -> Mapping[str, Family[Any]]:
    """Return the family of each model that can be trained, by the name of the model."""
    return {model: family for family in families() for model in family.recipes()}


def family_of_model(model: str) -> Family[Any]:
    """Return the family of a model that can be trained.

    Raises:
        InvalidParameter: Unknown model.
    """
    known = models()
    if model not in known:
        raise InvalidParameter(f"model must be one of {', '.join(known)}, got {model!r}")
    return known[model]
