"""The forms in which users have models - a module, a TorchScript file, an ONNX file - as modules that can be compiled.

An ONNX file becomes a module of torch operations, one for each of its nodes. TorchScript tells its operations, which
torch's own converter lays out as a graph. Both are then compiled and differentiated like any module.
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
"""Relative and absolute difference of outputs that are the same but for rounding."""

_SUFFIXES = {".onnx": "onnx", ".pt": "torchscript", ".pth": "torchscript", ".ts": "torchscript"}

Source = nn.Module | str | os.PathLike[str]


def form_of(source: Source) -> str:
    """Return the form of a model, one of :data:`FORMS`.

    Raises:
        InvalidInput: a file of no known suffix, or something else.
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
        source: a module, which is returned as it is, or a TorchScript or ONNX file.
        images: ``(b, c, h, w)`` float32, at least 2, as the model takes them.

    Raises:
        InvalidInput: see `form_of`; or an ONNX file has more than one input or output, or a batch of fixed size.
        BundleError: the file is missing or holds something else, or an ONNX file has an operation that is not known.
        UnsupportedOperation: the operations of a TorchScript file cannot be laid out as a graph.
    """
    form = form_of(source)
    if form == "eager":
        assert isinstance(source, nn.Module), "only modules are eager"
        return source.eval()
    if isinstance(source, torch.jit.ScriptModule):
        return _unscripted(source.eval(), images)
    path = Path(source)  # type: ignore[arg-type]
    if not path.is_file():
        raise BundleError(f"a model file must be there, {path.name} is missing")
    return OnnxModule(path) if form == "onnx" else _unscripted(_scripted(path), images)


def _scripted(path: Path) -> nn.Module:
    try:
        module: nn.Module = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        raise BundleError(f"{path.name} must be a TorchScript file, got one that cannot be read") from error
    return module.eval()


def _unscripted(scripted: nn.Module, images: Tensor) -> nn.Module:
    """Return the graph that torch converts TorchScript to, once it is known to compute the same."""
    kept: list[Any] = []

    class Converter(TS2EPConverter):
        """Stops before the graph is traced again, which would fix the size of the batch."""

        def retrace_as_exported_program(self, gm: torch.fx.GraphModule, name_to_constant: dict[str, Any]) -> Any:
            kept.append(gm)
            raise _Laid

    with torch.no_grad(), quiet():
        try:
            Converter(scripted, (images,), {}).convert()  # type: ignore[arg-type]  # what jit.load returns is one
        except _Laid:
            pass
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UnsupportedOperation(f"TorchScript must be convertible to a graph, it is not: {reason}") from error
        module: nn.Module = kept[0].eval()
        if not torch.allclose(module(images), scripted(images), rtol=_AGREEMENT, atol=_AGREEMENT):
            raise UnsupportedOperation("TorchScript must be convertible to a graph, it then computes something else")
    return module


class _Laid(Exception):
    """The operations are laid out."""


class OnnxModule(nn.Module):
    """Computes an ONNX graph of one input and one output with torch, so that it can be differentiated and compiled.

    Args:
        path: of the file.

    Raises:
        BundleError: the file holds no graph, or an operation that the engine ``torch`` was not taught.
        InvalidInput: more than one input or output, or a batch of fixed size.
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
                value.__dict__[KNOWN_INTS] = value.reshape(-1).tolist()
                self._whole[name] = value

    def forward(self, images: Tensor) -> Tensor:
        """Compute the output for images of the shape that the graph takes."""
        values: dict[str, Any] = {name: getattr(self, buffer) for name, buffer in self._names.items()}
        values |= self._whole
        values[self.input_name] = images
        for step in self.steps:
            TorchEngine.take(step, values)
        output: Tensor = values[self.output_name]
        return output
