"""Export of the graphs of a classifier, each with golden values from torch in float64."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from radlens.engines.golden import Golden, jittered, relative_error
from radlens.engines.onnxruntime import cpu_session
from radlens.engines.torch import golden_values
from radlens.errors import BundleError, InvalidInput, UnsupportedOperation
from radlens.graphs import ClassifierGraphs, asks, classifier_graphs
from radlens.graphs.compiled import EMBEDDED_LIMIT
from radlens.graphs.onnx_file import OnnxFile
from radlens.graphs.writing import N_EXAMPLES, GraphWriter

__all__ = ["ExportReport", "export_black_box", "export_classifier"]

_FLOAT32_ERROR = 1e-5
"""Least error of float32 that is assumed where there is no reference in float64."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ExportReport:
    """Outcome of the export of a classifier's graphs.

    Attributes:
        graphs: names of the written graphs.
        missing: reason why a graph could not be written, by name.
        errors: relative error of each compiled graph in float32 against float64, the largest of its outputs, by name.
        is_black_box: whether the prediction is a file that radlens did not compile.
    """

    graphs: tuple[str, ...]
    missing: Mapping[str, str]
    errors: Mapping[str, float]
    is_black_box: bool = False


def export_classifier(
    source: nn.Module | ClassifierGraphs,
    folder: Path,
    prefix: str,
    examples: Tensor,
    n_outputs: int,
    *,
    names: Sequence[str] | None = None,
    on_progress: Progress | None = None,
) -> ExportReport:
    """Write ``<prefix>.<name>.onnx`` and ``<prefix>.<name>.golden.npz`` for every graph that can be compiled.

    The golden values of prediction and gradient come from the module with autograd in float64, those of other graphs
    from the same graphs in float64.

    Args:
        source: module in float32, or its graphs from :func:`radlens.graphs.classifier_graphs`.
        folder: folder of the files.
        prefix: prefix of the file names, such as ``member-0``.
        examples: two preprocessed images ``(2, c, h, w)``, float32.
        n_outputs: number of logits of an image.
        names: names of the graphs; None for every graph.
        on_progress: callback ``on_progress(name, done, total)`` before each graph and at the end.

    Raises:
        InvalidInput: The examples are not two float32 images, or the network fails on them.
        InvalidParameter: A name is unknown.
        BundleError: The outputs of a compiled graph differ from those of the module.
    """
    if examples.dtype != torch.float32 or examples.ndim != 4 or len(examples) != N_EXAMPLES:
        got = f"{examples.dtype} of {tuple(examples.shape)}"
        raise InvalidInput(f"examples must be torch.float32 of shape ({N_EXAMPLES}, c, h, w), got {got}")
    report = on_progress or (lambda stage, done, total: None)
    graphs = (
        source if isinstance(source, ClassifierGraphs) else classifier_graphs(source, examples, n_outputs=n_outputs)
    )
    names = asks.answerable(graphs.companions) if names is None else tuple(names)
    for name in names:
        asks.spec(name)
    writer = GraphWriter(graphs, examples)
    missing: dict[str, str] = {}
    errors: dict[str, float] = {}
    for done, name in enumerate(names):
        report(name, done, len(names))
        try:
            errors[name] = writer.write(name, folder / f"{prefix}.{name}.onnx")
        except UnsupportedOperation as error:
            missing[name] = str(error)
    report("done", len(names), len(names))
    return ExportReport(tuple(errors), missing, errors)


def export_black_box(file: OnnxFile, folder: Path, prefix: str, examples: Tensor, reason: str) -> ExportReport:
    """Write the graph of an ONNX file that has no gradient as ``<prefix>.prediction.onnx``, with its golden values.

    They come from torch in float64 where it computes what ONNX Runtime does, otherwise from ONNX Runtime.

    Args:
        file: The file.
        folder: Folder of the files.
        prefix: Prefix of the file names, such as ``member-0``.
        examples: Two preprocessed images ``(2, c, h, w)``, float32.
        reason: Reason why there is no gradient.
    """
    path, inputs = folder / f"{prefix}.{asks.PREDICTION}.onnx", {"images": examples.numpy()}
    onnx.save(
        file.model, path, save_as_external_data=file.model.ByteSize() > EMBEDDED_LIMIT, location=f"{path.name}.data"
    )
    expected = file.run(inputs["images"])
    golden = _of_torch(path, inputs, expected, file.tolerance) or _of_onnxruntime(path, inputs)
    golden.save(path)
    missing = {name: reason for name in asks.answerable({}) if name != asks.PREDICTION}
    (values,) = golden.outputs.values()
    error = relative_error(expected, values)
    return ExportReport((asks.PREDICTION,), missing, {asks.PREDICTION: error}, is_black_box=True)


def _of_torch(path: Path, inputs: Mapping[str, np.ndarray], expected: np.ndarray, tolerance: float) -> Golden | None:
    try:
        golden = golden_values(path, inputs)
    except BundleError:
        return None
    (values,) = golden.outputs.values()
    return golden if values.shape == expected.shape and relative_error(expected, values) <= tolerance else None


def _of_onnxruntime(path: Path, inputs: Mapping[str, np.ndarray]) -> Golden:
    plain, optimised = cpu_session(path, optimise=False), cpu_session(path)

    def run(session: Any, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {spec.name: value for spec, value in zip(session.get_outputs(), session.run(None, given), strict=True)}

    golden = Golden.compare(inputs, run(plain, inputs), run(optimised, inputs), run(plain, jittered(inputs)))
    # The reference is float32 itself.
    errors = {name: max(error, _FLOAT32_ERROR) for name, error in golden.float32_errors.items()}
    return replace(golden, float32_errors=errors)
