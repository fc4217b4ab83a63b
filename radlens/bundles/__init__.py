"""One servable model on disk: save, load, verify."""

from pathlib import Path

from radlens.bundles.cdmam import (
    GRADIENT_ONNX,
    MEMBERS_ONNX,
    PREDICTION_ONNX,
    TRACED,
    WEIGHTS,
    Bundle,
    InputSpec,
    Manifest,
    save,
)
from radlens.bundles.classifier import TASK, ClassifierBundle, ClassifierManifest, graph_file, save_classifier
from radlens.bundles.files import FORMAT_VERSION, MANIFEST, read_manifest

__all__ = [
    "FORMAT_VERSION",
    "GRADIENT_ONNX",
    "MANIFEST",
    "MEMBERS_ONNX",
    "PREDICTION_ONNX",
    "TASK",
    "TRACED",
    "WEIGHTS",
    "Bundle",
    "ClassifierBundle",
    "ClassifierManifest",
    "InputSpec",
    "Manifest",
    "graph_file",
    "load",
    "save",
    "save_classifier",
]


def load(path: Path | str) -> Bundle | ClassifierBundle:
    """Read and verify a bundle of any kind.

    Raises:
        BundleError: see :meth:`Bundle.load` and :meth:`ClassifierBundle.load`.
    """
    document, _ = read_manifest(Path(path))
    return (ClassifierBundle if document.get("task") == TASK else Bundle).load(path)
