"""ONNX files of a classifier's graphs, each with golden values from torch in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from radlens.engines.golden import MAP_SIZE, Golden, limit, relative_error
from radlens.errors import BundleError
from radlens.graphs import asks
from radlens.graphs.asks import LOGITS

if TYPE_CHECKING:
    from radlens.graphs.classifier import ClassifierGraphs
    from radlens.graphs.compiled import CompiledGraph

__all__ = ["N_EXAMPLES", "GraphWriter", "golden_weights"]

N_EXAMPLES = 2
"""Number of images whose outputs are stored with each graph."""

_ATTEMPTS = 4
"""Sets of images that a graph may be measured with before it is refused."""

_FLOAT64_ERROR = 1e-9
"""Largest relative error of a graph in float64: float64 has 16 digits, of which the sums of a network keep more than
half."""

_PERTURBED = 0.01
"""Noise of further sets, as a share of the standard deviation of the images."""


class GraphWriter:
    """Writes graphs with golden values.

    The golden values of graphs whose question says ``golden="eager"`` come from the network itself under autograd, so
    that they check the compiler as well; those of others come from the graph.

    Args:
        graphs: graphs of the classifier.
        images: two images of its type, ``(2, c, h, w)``.
    """

    def __init__(self, graphs: ClassifierGraphs, images: Tensor) -> None:
        self._graphs, self._exact = graphs, {images.dtype: graphs}
        self._inputs = {"images": images, "weights": golden_weights(graphs.n_outputs).to(images.dtype)}

    def write(self, name: str, path: Path) -> float:
        """Write a graph and its golden values, and return the largest relative error of its outputs in float32.

        Raises:
            UnsupportedOperation: The graph cannot be compiled.
            BundleError: The outputs of the compiled graph differ from those of the module.
        """
        graph = self._graphs.build(name)
        for attempt in range(_ATTEMPTS):
            golden, errors = self._measured(name, graph, attempt)
            objection = _objection(name, errors, golden) if asks.spec(name).golden == "eager" else None
            if objection is None:
                graph.to_onnx(path, golden)
                return max(errors.values())
            if not self._is_right(name, golden):
                break
        raise BundleError(objection)

    def _is_right(self, name: str, golden: Golden) -> bool:
        """Return whether the network compiled in float64 computes what it does, so that an error is one of rounding."""
        # Not the same graph in float64: batch normalisation was folded into its weights in float32.
        graph = self._in_type(torch.float64).build(name)
        inputs = [torch.from_numpy(golden.inputs[each]).double() for each in graph.input_names]
        found = zip(graph.output_names, one_by_one(graph, inputs), strict=True)
        return all(relative_error(value, golden.outputs[output]) <= _FLOAT64_ERROR for output, value in found)

    def _measured(self, name: str, graph: CompiledGraph, attempt: int) -> tuple[Golden, dict[str, float]]:
        """Return golden values, and the errors of the graph in float32 against them, by output.

        A rectifier whose input is 0 to rounding is on in one computation and off in another, and both are right. So
        where float64 shows that a graph is right and float32 does not, further attempts use images that differ a
        little.
        """
        asked, images = asks.spec(name), self._inputs["images"]
        if attempt:
            noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(attempt), dtype=images.dtype)
            images = images + _PERTURBED * images.std() * noise
        given = {**self._inputs, "images": images, **{each: make(images) for each, make in asked.examples.items()}}
        inputs = {each: given[each].numpy() for each in graph.input_names}
        golden = Golden.measure(
            lambda dtype, arrays: self._reference(name, graph, dtype, arrays), inputs, graph.output_names
        )
        if asked.golden != "eager":
            return golden, dict(golden.float32_errors)
        found = zip(graph.output_names, one_by_one(graph, [given[n] for n in graph.input_names]), strict=True)
        return golden, {output: relative_error(value, golden.outputs[output]) for output, value in found}

    def _reference(
        self, name: str, graph: CompiledGraph, dtype: torch.dtype, inputs: Mapping[str, Tensor]
    ) -> Sequence[Tensor]:
        asked = asks.spec(name)
        arrays = [inputs[each] for each in asked.inputs]
        if asked.golden == "compiled":
            return one_by_one(graph.in_type(dtype), arrays)
        graphs = self._in_type(dtype)

        def compute(*parts: Tensor) -> Sequence[Tensor]:
            found = dict(zip(asked.answers, asked.eager(graphs, *parts), strict=True))
            if LOGITS not in found and LOGITS in asked.outputs:
                (found[LOGITS],) = asks.spec(asks.PREDICTION).eager(graphs, parts[asked.inputs.index("images")])
            return [found[each] for each in asked.outputs]

        return one_by_one(compute, arrays)

    def _in_type(self, dtype: torch.dtype) -> ClassifierGraphs:
        if dtype not in self._exact:
            graphs = self._graphs
            self._exact[dtype] = type(graphs).of(
                deepcopy(graphs.module).to(dtype),
                self._inputs["images"].to(dtype),
                graphs.n_outputs,
                layer=graphs.layer,
                as_captum=graphs.as_captum,
                companions={name: deepcopy(each).to(dtype) for name, each in graphs.companions.items()},
            )
        return self._exact[dtype]


def _objection(name: str, errors: Mapping[str, float], golden: Golden) -> str | None:
    """Return which output is too far from float64; None if all are near enough."""
    for output, error in errors.items():
        allowed = limit("f32", golden.float32_errors[output], is_map=golden.outputs[output][0].size >= MAP_SIZE)
        if not error <= allowed:
            return f"{output} of graph {name} must be within {allowed:.1e} of float64, got {error:.1e}"
    return None


def one_by_one(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Compute outputs image by image, because batches of large images in float64 take gigabytes."""
    parts = [function(*(value[k : k + 1] for value in inputs)) for k in range(len(inputs[0]))]
    return [torch.cat(output) for output in zip(*parts, strict=True)]


def golden_weights(n_outputs: int) -> Tensor:
    """Return the class weights of two scores: of two random classes, or of both signs of a single logit."""
    if n_outputs == 1:
        return torch.tensor([[1.0], [-1.0]])
    classes = np.random.default_rng(0).permutation(n_outputs)[:N_EXAMPLES]
    return torch.nn.functional.one_hot(torch.from_numpy(classes), n_outputs).float()
