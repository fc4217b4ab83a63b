"""The service of a bundle, whatever kind of model it holds."""

from typing import Any

from radlens.bundles import Bundle, ClassifierBundle
from radlens.errors import InvalidInput
from radlens.families.cdmam.service import Service
from radlens.service.classifier import ClassifierService

__all__ = ["open_service"]


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
