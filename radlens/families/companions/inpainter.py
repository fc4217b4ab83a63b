"""The inpainter as companion of a classifier: Major et al. 2020."""

from pathlib import Path

from radlens.datasets.model_input import ModelInput
from radlens.errors import InvalidParameter
from radlens.families.companions import Companion
from radlens.families.inpainter.manifest import InpainterBundle

__all__ = ["load"]


def load(path: Path, model_input: ModelInput) -> Companion:
    """Read the bundle of an inpainter for a classifier.

    Args:
        path: Folder of the bundle.
        model_input: Preprocessing of the classifier.

    Raises:
        InvalidParameter: The inpainter expects images that were preprocessed otherwise.
        BundleError: The bundle cannot be read.
    """
    bundle = InpainterBundle.load(path)
    expected, got = model_input.to_json(), bundle.manifest.input.to_json()
    if different := [name for name in expected if expected[name] != got[name]]:
        listed = "; ".join(f"{name} {expected[name]}, got {got[name]}" for name in different)
        raise InvalidParameter(f"the inpainter must take the images that the classifier takes: {listed}")
    manifest = bundle.manifest
    origin = {"name": manifest.name, "version": manifest.version, "bundle_hash": bundle.bundle_hash}
    return Companion(bundle.network(), origin)
