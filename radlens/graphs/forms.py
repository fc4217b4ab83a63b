"""Models of users - torch modules, TorchScript files, ONNX files - as modules that can be compiled.

An ONNX file becomes a module of torch operations, one for each of its nodes, which is compared with ONNX Runtime on the
file (:mod:`radlens.graphs.onnx_file`). TorchScript is converted to a graph by
torch's converter. Both are then compiled and differentiated like other modules.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._export.converter import TS2EPConverter

from radlens.errors import BundleError, InvalidInput, UnsupportedOperation
from radlens.graphs.onnx_file import OnnxFile
from radlens.graphs.onnx_module import OnnxModule
from radlens.graphs.tracing import quiet

__all__ = ["FORMS", "as_module", "form_of", "read_onnx", "scripted"]

FORMS = ("eager", "torchscript", "onnx")
"""Forms of a model."""

_AGREEMENT = 1e-4
"""Relative and absolute tolerance for outputs that differ only by rounding."""

_SUFFIXES = {".onnx": "onnx", ".pt": "torchscript", ".pth": "torchscript", ".ts": "torchscript"}

Source = nn.Module | str | os.PathLike[str]


def form_of(source: Source) -> str:
    """Return the form of a model, one of :data:`FORMS`.

    Raises:
        InvalidInput: the source is not a module or a path, or the suffix of the file is unknown.
    """
    if isinstance(source, torch.jit.ScriptModule):
        return "torchscript"
    if isinstance(source, nn.Module):
        return "eager"
    if not isinstance(source, str | os.PathLike):
        raise InvalidInput(f"a model must be a torch module or a file, got {type(source).__name__}")
    suffix = Path(source).suffix.lower()
    if suffix not in _SUFFIXES:
        raise InvalidInput(f"a model file must end in {', '.join(_SUFFIXES)}, got {suffix or 'no suffix'}")
    return _SUFFIXES[suffix]


def as_module(source: Source, images: Tensor) -> nn.Module:
    """Return a model as a module in evaluation mode that can be compiled.

    Args:
        source: module, which is returned itself, or path of a TorchScript or ONNX file.
        images: example images ``(b, c, h, w)`` float32, at least 2.

    Raises:
        InvalidInput: the source is not a module or a path, the suffix is unknown, or an ONNX file does not map a batch
            of such images to one output.
        BundleError: the file is missing or has another format; an ONNX file has an unsupported operation, or ONNX
            Runtime computes something else from it than the module.
        UnsupportedOperation: a TorchScript file cannot be converted to a graph.
    """
    form = form_of(source)
    if form == "eager":
        assert isinstance(source, nn.Module), "only modules are eager"
        return source.eval()
    if form == "onnx":
        return OnnxModule(read_onnx(source, images), images)
    return _unscripted(scripted(source), images)


def scripted(source: Any) -> nn.Module:
    """Return a TorchScript module, or read one from its file, in evaluation mode."""
    return source.eval() if isinstance(source, torch.jit.ScriptModule) else _scripted(_existing(source))


def read_onnx(source: Any, images: Tensor) -> OnnxFile:
    """Read an ONNX file; arguments and errors are those of :func:`as_module`."""
    return OnnxFile.read(_existing(source), images.numpy())


def _existing(source: Any) -> Path:
    path = Path(source)
    if not path.is_file():
        raise BundleError(f"the model file must exist, got {path.name}, which is missing")
    return path


def _scripted(path: Path) -> nn.Module:
    try:
        module: nn.Module = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        raise BundleError(f"{path.name} must be a TorchScript file, got one that cannot be read") from error
    return module.eval()


def _unscripted(script: nn.Module, images: Tensor) -> nn.Module:
    """Convert TorchScript to a graph, and check that the graph computes the same outputs."""
    kept: list[Any] = []

    class Converter(TS2EPConverter):
        """Stops before the graph is traced again, which would fix the batch size."""

        def retrace_as_exported_program(self, gm: torch.fx.GraphModule, name_to_constant: dict[str, Any]) -> Any:
            kept.append(gm)
            raise _Converted

    with torch.no_grad(), quiet():
        try:
            Converter(script, (images,), {}).convert()  # type: ignore[arg-type]  # what jit.load returns is one
        except _Converted:
            pass
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UnsupportedOperation(f"TorchScript must be convertible to a graph, got {reason}") from error
        module: torch.fx.GraphModule = kept[0].eval()
        # Branches and loops hold graphs of their own.
        if any(isinstance(part, torch.fx.GraphModule) for part in module.children()):
            raise UnsupportedOperation(
                "TorchScript must compute the same operations for all data, got a choice of paths"
            )
        if not torch.allclose(module(images), script(images), rtol=_AGREEMENT, atol=_AGREEMENT):
            raise UnsupportedOperation("TorchScript must be convertible to a graph, got one with other outputs")
    return module


class _Converted(Exception):
    """Signals that the converter has produced the graph."""
