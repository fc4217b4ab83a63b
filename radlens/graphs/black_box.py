"""A torch module that cannot be compiled, as an ONNX file that ONNX Runtime can run.

TorchScript keeps branches and loops whose path depends on the data. A trace holds the one path of its examples, so it
is used only where torch sees no such choice. Either file is compared with the module.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from radlens.errors import RadlensError, UnsupportedOperation
from radlens.graphs.onnx_file import BATCH, INPUT, OUTPUT, OnnxFile, probes
from radlens.graphs.tracing import quiet

__all__ = ["onnx_of_module"]

_OPSET = 17
"""Operator set of the file: the last one that torch's exporter for TorchScript writes completely."""

_NAMES: dict[str, Any] = {
    "input_names": [INPUT],
    "output_names": [OUTPUT],
    "dynamic_axes": {INPUT: {0: BATCH}, OUTPUT: {0: BATCH}},
}
"""Names in the file."""


def onnx_of_module(module: nn.Module, images: Tensor, path: Path) -> OnnxFile:
    """Write a module as ONNX by TorchScript, and read the file.

    Args:
        module: Maps images to ``(b, n)``; in evaluation mode.
        images: Example images ``(b, c, h, w)`` float32, at least 2.
        path: File to write; it must exist as long as the result is used.

    Raises:
        UnsupportedOperation: TorchScript cannot say what the module computes, ONNX cannot, or the file computes
            something else.
    """
    reasons = []
    for how, form in (("scripted", _scripted), ("traced", _traced)):
        try:
            return _written(form, module, images, path)
        except RadlensError as error:
            reasons.append(f"{how}, {error}")
    raise UnsupportedOperation("; ".join(reasons))


def _written(form: Callable[[nn.Module, Tensor], Any], module: nn.Module, images: Tensor, path: Path) -> OnnxFile:
    try:
        with quiet(), _silent(), torch.no_grad():
            torch.onnx.export(form(module, images), (images,), path, dynamo=False, opset_version=_OPSET, **_NAMES)
    except UnsupportedOperation:
        raise
    except Exception as error:  # TorchScript and its exporter have no common base class of errors
        raise UnsupportedOperation(f"it has no ONNX form: {_short(error)}") from error
    file, array = OnnxFile.read(path, images.numpy()), images.numpy()
    for given in (*probes(array), array[:1], np.concatenate([array[:2], array[:1]])):
        with torch.no_grad():
            file.require_agreement(module(torch.from_numpy(given.copy())).numpy(), given)
    return file


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the exporter from printing the graph in which it stumbled."""
    printed = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = printed


def _scripted(module: nn.Module, images: Tensor) -> Any:
    return module if isinstance(module, torch.jit.ScriptModule) else torch.jit.script(module)


def _traced(module: nn.Module, images: Tensor) -> Any:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        traced = torch.jit.trace(module, images, check_trace=False)
    choices = [each.message for each in seen if issubclass(each.category, torch.jit.TracerWarning)]
    if choices:
        raise UnsupportedOperation(f"its path may depend on the data: {_short(choices[0])}")
    return traced


def _short(message: object) -> str:
    return " ".join(str(message).split())[:200]
