"""Bundles and their services, whatever kind of model they hold."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radlens.bundles import read_manifest
from radlens.errors import BundleError, InvalidInput, TrainingError
from radlens.families.cdmam.manifest import Bundle
from radlens.families.cdmam.service import Service
from radlens.families.cdmam.training import RECORD
from radlens.families.classifier import ClassifierService
from radlens.families.classifier.manifest import ClassifierBundle
from radlens.wire import CDC, CLASSIFICATION

__all__ = ["load", "open_service", "task_of"]

_BUNDLES: Mapping[str, type[Bundle] | type[ClassifierBundle]] = {CDC: Bundle, CLASSIFICATION: ClassifierBundle}
"""What reads a bundle, by the task that it states."""


def load(path: Path | str) -> Bundle | ClassifierBundle:
    """Read and verify a bundle of any kind.

    Raises:
        BundleError: an unknown task; see :meth:`Bundle.load` and :meth:`ClassifierBundle.load`.
    """
    document, _ = read_manifest(Path(path))
    task = str(document.get("task"))
    if task not in _BUNDLES:
        raise BundleError(f"task must be one of {', '.join(_BUNDLES)}, got {task!r}")
    return _BUNDLES[task].load(path)


def task_of(run: Path) -> str:
    """Return the task of a training run.

    Raises:
        TrainingError: there is no record of a run, or it states no known task.
    """
    file = run / RECORD
    if not file.is_file():
        raise TrainingError(f"a training run must hold {RECORD}, which is missing")
    try:
        task = json.loads(file.read_text(encoding="utf-8"))["task"]
    except (ValueError, TypeError, KeyError):
        task = None
    if task not in _BUNDLES:
        raise TrainingError(f"{RECORD} must state a task, one of {', '.join(_BUNDLES)}, got {task!r}")
    return str(task)


def open_service(bundle: Bundle | ClassifierBundle, **options: Any) -> Service | ClassifierService:
    """Return what answers requests with a bundle.

    Args:
        bundle: the model.
        options: see :class:`Service` and :class:`ClassifierService`; those that are None are left out.

    Raises:
        InvalidInput: an option that this kind of model does not have.
        BundleError: no engine can run the bundle.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(bundle, Bundle):
        return Service(bundle, **given)
    unknown = sorted(set(given) - {"engine", "now"})
    if unknown:
        raise InvalidInput(f"{', '.join(unknown)} must not be given for a classifier")
    return ClassifierService(bundle, **given)
