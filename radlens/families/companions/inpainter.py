"""The inpainter as companion of a classifier: Major et al. 2020."""

from pathlib import Path

from radlens.datasets.model_input import ModelInput
from radlens.families.companions import Companion, require_input
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
    require_input("inpainter", bundle.manifest.input, model_input)
    manifest = bundle.manifest
    origin = {"name": manifest.name, "version": manifest.version, "bundle_hash": bundle.bundle_hash}
    return Companion(bundle.network(), origin)
