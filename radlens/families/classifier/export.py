"""Export of the graphs of a classifier, each with golden values from torch in float64."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from radlens.engines.golden import MAP_SIZE, Golden, jittered, limit, relative_error
from radlens.engines.onnxruntime import cpu_session
from radlens.engines.torch import golden_values
from radlens.errors import BundleError, InvalidInput, UnsupportedOperation
from radlens.graphs import ClassifierGraphs, asks, classifier_graphs
from radlens.graphs.asks import LOGITS
from radlens.graphs.compiled import EMBEDDED_LIMIT
from radlens.graphs.onnx_file import OnnxFile

__all__ = ["ExportReport", "export_black_box", "export_classifier", "golden_weights"]

_FLOAT32_ERROR = 1e-5
"""Least error of float32 that is assumed where there is no reference in float64."""

N_EXAMPLES = 2
"""Number of images whose outputs are stored with each graph."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ExportReport:
    """Outcome of the export of a classifier's graphs.

    Attributes:
        graphs: names of the written graphs.
        missing: reason why a graph could not be written, by name.
        errors: relative error of each compiled graph in float32 against float64, the largest of its outputs, by name.
    """

    graphs: tuple[str, ...]
    missing: Mapping[str, str]
    errors: Mapping[str, float]


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

    The golden values of prediction and gradient come from the module with autograd, those of other graphs from the same
    graphs compiled in float64.

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
    forms = _Forms(graphs, examples, n_outputs)
    missing: dict[str, str] = {}
    errors: dict[str, float] = {}
    for done, name in enumerate(names):
        report(name, done, len(names))
        try:
            errors[name] = forms.write(name, folder / f"{prefix}.{name}.onnx")
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
    return ExportReport((asks.PREDICTION,), missing, {asks.PREDICTION: relative_error(expected, values)})


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


class _Forms:
    """A classifier in float32 and float64, eager and compiled."""

    def __init__(self, graphs: ClassifierGraphs, examples: Tensor, n_outputs: int) -> None:
        exact = classifier_graphs(
            deepcopy(graphs.module).double(),
            examples.double(),
            n_outputs=n_outputs,
            layer=graphs.layer,
            as_captum=graphs.as_captum,
            companions={name: deepcopy(each).double() for name, each in graphs.companions.items()},
        )
        self._graphs = {torch.float32: graphs, torch.float64: exact}
        self._inputs = {"images": examples, "weights": golden_weights(n_outputs)}

    def write(self, name: str, path: Path) -> float:
        """Write a graph and its golden values, and return the error of the graph in float32.

        Raises:
            UnsupportedOperation: The graph cannot be compiled.
            BundleError: The outputs of the compiled graph differ from those of the module.
        """
        graph = self._graphs[torch.float32].build(name)
        given = self._inputs | {
            each: example(self._inputs["images"]) for each, example in asks.spec(name).examples.items()
        }
        inputs = {each: given[each].numpy() for each in graph.input_names}
        golden = Golden.measure(lambda dtype, arrays: self._reference(name, dtype, arrays), inputs, graph.output_names)
        values = zip(graph.output_names, _one_by_one(graph, [given[n] for n in graph.input_names]), strict=True)
        errors = {output: relative_error(value, golden.outputs[output]) for output, value in values}
        for output, error in errors.items():
            allowed = limit("f32", golden.float32_errors[output], is_map=golden.outputs[output][0].size >= MAP_SIZE)
            if not error <= allowed:
                raise BundleError(f"{output} of graph {name} must be within {allowed:.1e} of float64, got {error:.1e}")
        graph.to_onnx(path)
        golden.save(path)
        return max(errors.values())

    def _reference(self, name: str, dtype: torch.dtype, inputs: Mapping[str, Tensor]) -> Sequence[Tensor]:
        graphs, asked = self._graphs[dtype], asks.spec(name)
        arrays = [inputs[each] for each in asked.inputs]
        if asked.golden == "compiled":
            return _one_by_one(graphs.build(name), arrays)

        def compute(*parts: Tensor) -> Sequence[Tensor]:
            found = dict(zip(asked.answers, asked.eager(graphs, *parts), strict=True))
            if LOGITS not in found and LOGITS in asked.outputs:
                (found[LOGITS],) = asks.spec(asks.PREDICTION).eager(graphs, parts[asked.inputs.index("images")])
            return [found[each] for each in asked.outputs]

        return _one_by_one(compute, arrays)


def _one_by_one(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Compute outputs image by image, because batches of large images in float64 take gigabytes."""
    parts = [function(*(value[k : k + 1] for value in inputs)) for k in range(len(inputs[0]))]
    return [torch.cat(output) for output in zip(*parts, strict=True)]


def golden_weights(n_outputs: int) -> Tensor:
    """Return the class weights of two scores: of two random classes, or of both signs of a single logit."""
    if n_outputs == 1:
        return torch.tensor([[1.0], [-1.0]])
    classes = np.random.default_rng(0).permutation(n_outputs)[:N_EXAMPLES]
    return torch.nn.functional.one_hot(torch.from_numpy(classes), n_outputs).float()
