"""Models of users - torch modules, TorchScript files, ONNX files - as modules that can be compiled.

An ONNX file becomes a module of torch operations, one for each of its nodes. TorchScript is converted to a graph by
torch's converter. Both are then compiled and differentiated like other modules.
"""

import os
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch._export.converter import TS2EPConverter

from radlens.engines.base import Options
from radlens.engines.graph_file import GraphFile
from radlens.engines.torch import TorchEngine
from radlens.engines.torch_operations import KNOWN_INTS
from radlens.errors import BundleError, InvalidInput, UnsupportedOperation
from radlens.graphs.tracing import quiet

__all__ = ["FORMS", "OnnxModule", "as_module", "form_of"]

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
        InvalidInput: the source is not a module or a path, the suffix is unknown, or an ONNX file has several inputs or
            outputs, or a fixed batch size.
        BundleError: the file is missing or has another format, or an ONNX file has an unsupported operation.
        UnsupportedOperation: a TorchScript file cannot be converted to a graph.
    """
    form = form_of(source)
    if form == "eager":
        assert isinstance(source, nn.Module), "only modules are eager"
        return source.eval()
    if isinstance(source, torch.jit.ScriptModule):
        return _unscripted(source.eval(), images)
    path = Path(source)  # type: ignore[arg-type]
    if not path.is_file():
        raise BundleError(f"the model file must exist, got {path.name}, which is missing")
    return OnnxModule(path) if form == "onnx" else _unscripted(_scripted(path), images)


def _scripted(path: Path) -> nn.Module:
    try:
        module: nn.Module = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        raise BundleError(f"{path.name} must be a TorchScript file, got one that cannot be read") from error
    return module.eval()


def _unscripted(scripted: nn.Module, images: Tensor) -> nn.Module:
    """Convert TorchScript to a graph, and check that the graph computes the same outputs."""
    kept: list[Any] = []

    class Converter(TS2EPConverter):
        """Stops before the graph is traced again, which would fix the batch size."""

        def retrace_as_exported_program(self, gm: torch.fx.GraphModule, name_to_constant: dict[str, Any]) -> Any:
            kept.append(gm)
            raise _Converted

    with torch.no_grad(), quiet():
        try:
            Converter(scripted, (images,), {}).convert()  # type: ignore[arg-type]  # what jit.load returns is one
        except _Converted:
            pass
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UnsupportedOperation(f"TorchScript must be convertible to a graph, got {reason}") from error
        module: nn.Module = kept[0].eval()
        if not torch.allclose(module(images), scripted(images), rtol=_AGREEMENT, atol=_AGREEMENT):
            raise UnsupportedOperation("TorchScript must be convertible to a graph, got one with other outputs")
    return module


class _Converted(Exception):
    """Signals that the converter has produced the graph."""


class OnnxModule(nn.Module):
    """An ONNX graph of one input and one output as a torch module, which can be differentiated and compiled.

    Args:
        path: path of the file.

    Raises:
        BundleError: the file does not hold a graph, or has an operation that the engine ``torch`` does not support.
        InvalidInput: the graph has several inputs or outputs, or a fixed batch size.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            graph = GraphFile.load(path)
            engine = TorchEngine(graph, "f32", Options())
        except onnx.checker.ValidationError as error:
            raise BundleError(f"{path.name} must be an ONNX file, got one that cannot be read") from error
        if len(graph.inputs) != 1 or len(graph.outputs) != 1:
            got = f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
            raise InvalidInput(f"an ONNX model must have one input and one output, got {got}")
        if graph.batch is None:
            raise InvalidInput(f"an ONNX model must take batches of any size, got input {graph.inputs[0].shape}")
        self.input_name, self.output_name = graph.inputs[0].name, graph.outputs[0].name
        self.steps, self._whole = engine.steps, {}
        self._names: dict[str, str] = {}
        for number, (name, value) in enumerate(engine.constants.items()):
            if value.is_floating_point():
                self._names[name] = f"constant_{number}"
                self.register_buffer(f"constant_{number}", value)
            else:
                # Shapes and indices must not become fake tensors while tracing, so their values are kept as a list.
                value.__dict__[KNOWN_INTS] = value.reshape(-1).tolist()
                self._whole[name] = value

    def forward(self, images: Tensor) -> Tensor:
        """Compute the output for images with the input shape of the graph."""
        values: dict[str, Any] = {name: getattr(self, buffer) for name, buffer in self._names.items()}
        values |= self._whole
        values[self.input_name] = images
        for step in self.steps:
            TorchEngine.take(step, values)
        output: Tensor = values[self.output_name]
        return output
