"""A compiled graph, which can be called on tensors and exported to ONNX, without autograd."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.onnx import OnnxExporterError

from radlens.engines.golden import Golden
from radlens.errors import InvalidInput, UnsupportedOperation
from radlens.graphs.precision import EXACT_TYPES, in_type
from radlens.graphs.tracing import dynamic_batch, quiet, stand_in
from radlens.graphs.turned_kernels import store_kernels_once

__all__ = ["CompiledGraph"]

OPSET = 20
"""ONNX operator set of the graphs."""

_N_GOLDEN = 2
"""Number of samples of golden values."""

EMBEDDED_LIMIT = 1_500_000_000
"""Largest size in bytes of weights stored in the ONNX file itself, since a protobuf is limited to 2 GiB."""


class CompiledGraph(nn.Module):
    """A graph with the names of its inputs and outputs.

    Args:
        graph_module: graph that maps the inputs to a tuple of tensors.
        examples: tensors with the shapes and types of the inputs, batch first.
        input_names: names of the inputs in ONNX.
        output_names: names of the outputs in ONNX.
    """

    def __init__(
        self,
        graph_module: fx.GraphModule,
        examples: Sequence[Tensor],
        input_names: Sequence[str],
        output_names: Sequence[str],
    ) -> None:
        super().__init__()
        self.graph_module = graph_module
        # Tensors on "meta" have shape and type, but no memory. Whole numbers may be indices: golden values need some.
        self.examples = tuple(x.detach().to("meta") if x.is_floating_point() else x.detach() for x in examples)
        self.input_names, self.output_names = list(input_names), list(output_names)
        self.eval()

    def forward(self, *inputs: Tensor) -> tuple[Any, ...]:
        """Compute the outputs, in the order of ``output_names``, for inputs of any batch size.

        Raises:
            InvalidInput: number, shape or type of the inputs differ from the examples.
        """
        _check_like(inputs, self.examples)
        with torch.no_grad():
            return tuple(self.graph_module(*inputs))

    def named(self, input_names: Sequence[str], output_names: Sequence[str]) -> "CompiledGraph":
        """Return the same graph with other names of its inputs and outputs in ONNX, in their order."""
        return CompiledGraph(self.graph_module, self.examples, input_names, output_names)

    def in_type(self, dtype: torch.dtype) -> "CompiledGraph":
        """Return the same graph in float32 or float64."""
        if all(x.dtype == dtype for x in self.examples if x.is_floating_point()):
            return self
        examples = [x.to(dtype) if x.dtype in EXACT_TYPES else x for x in self.examples]
        return CompiledGraph(in_type(self.graph_module, dtype), examples, self.input_names, self.output_names)

    def golden(self) -> Golden:
        """Compute golden values for random inputs: outputs of the graph in float64, and the errors of float32.

        Raises:
            InvalidInput: the outputs are not finite for inputs from the normal distribution, nor for those of 0 to 1.
        """
        generator = np.random.default_rng(0)
        draws: tuple[Callable[..., np.ndarray], ...] = (generator.standard_normal, generator.random)
        for draw in draws:
            inputs = {name: _drawn(x, draw) for name, x in zip(self.input_names, self.examples, strict=True)}
            golden = Golden.measure(self._computed, inputs, self.output_names)
            if all(np.isfinite(value).all() for value in golden.outputs.values()):
                return golden
        raise InvalidInput("outputs must be finite for random inputs, which golden values need, got NaN or infinity")

    def _computed(self, dtype: torch.dtype, inputs: Mapping[str, Tensor]) -> Sequence[Tensor]:
        return list(_leaves(self.in_type(dtype)(*(inputs[name] for name in self.input_names))))

    def to_onnx(self, path: str | os.PathLike[str], golden: Golden | None = None) -> None:
        """Write the graph as ONNX, opset 20, with a dynamic batch, and golden values beside it.

        Kernels that are used forward and backward are stored once. Weights of more than 1.5 GB are stored in the
        external file ``<path>.data``.

        Args:
            path: path of the file.
            golden: golden values; those of :meth:`golden` by default. Engines must reproduce them when they open the
                file.

        Raises:
            InvalidInput: there are no golden values, because the graph is not finite for random inputs.
            UnsupportedOperation: torch cannot write an operation of the graph as ONNX.
        """
        golden = golden or self.golden()
        size = sum(buffer.numel() * buffer.element_size() for buffer in self.graph_module.buffers())
        with torch.no_grad(), quiet():
            program = self._program()
            assert program is not None, "the exporter returns a program if it is not given a path"
            store_kernels_once(program.model)
            program.save(path, external_data=size > EMBEDDED_LIMIT)
        golden.save(Path(path))

    def _program(self) -> Any:
        try:
            return torch.onnx.export(
                self.graph_module,
                tuple(stand_in(x, self._device()) for x in self.examples),
                input_names=self.input_names,
                output_names=self.output_names,
                dynamic_shapes=dynamic_batch(self.examples),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except OnnxExporterError as error:
            # The innermost cause names the operation.
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = " ".join(str(cause).split())[:200]
            raise UnsupportedOperation(f"the graph must have operations that ONNX has: {reason}") from error

    def _device(self) -> torch.device:
        return next((buffer.device for buffer in self.graph_module.buffers()), torch.device("cpu"))


def _leaves(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors of nested tuples: a module may return some, and a file names each."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        else:
            yield from _leaves(value)


def _drawn(example: Tensor, draw: Callable[..., np.ndarray]) -> np.ndarray:
    """Return two rows of random numbers in the type of an example; of whole numbers, the first rows of the example."""
    if not example.is_floating_point():
        return np.resize(example.cpu().numpy(), (_N_GOLDEN, *example.shape[1:]))
    return draw((_N_GOLDEN, *example.shape[1:])).astype(str(example.dtype).removeprefix("torch."))


def _check_like(inputs: Sequence[Tensor], examples: Sequence[Tensor]) -> None:
    if len(inputs) != len(examples):
        raise InvalidInput(f"the graph must have {len(examples)} inputs, got {len(inputs)}")
    for k, (x, example) in enumerate(zip(inputs, examples, strict=True)):
        if x.shape[1:] != example.shape[1:] or x.dtype != example.dtype:
            expected = str(("b", *example.shape[1:])).replace("'", "")
            raise InvalidInput(
                f"input {k} must be {example.dtype} of shape {expected}, got {x.dtype} of {tuple(x.shape)}"
            )
