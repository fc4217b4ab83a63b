"""Bundles and their services, whatever kind of model they hold."""

from pathlib import Path
from typing import Any

from radlens.bundles import read_manifest
from radlens.errors import InvalidInput
from radlens.families.cdmam.manifest import Bundle
from radlens.families.cdmam.service import Service
from radlens.families.classifier import ClassifierService
from radlens.families.classifier.manifest import TASK, ClassifierBundle

__all__ = ["load", "open_service"]


def load(path: Path | str) -> Bundle | ClassifierBundle:
    """Read and verify a bundle of any kind.

    Raises:
        BundleError: see :meth:`Bundle.load` and :meth:`ClassifierBundle.load`.
    """
    document, _ = read_manifest(Path(path))
    return (ClassifierBundle if document.get("task") == TASK else Bundle).load(path)


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
