"""A compiled graph, which can be called on tensors and exported to ONNX, without autograd."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from radlens.errors import InvalidInput
from radlens.graphs.tracing import dynamic_batch, quiet, stand_in
from radlens.graphs.turned_kernels import store_kernels_once

__all__ = ["CompiledGraph"]

OPSET = 20
"""ONNX operator set of the graphs."""

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
        # Tensors on "meta" have shape and type, but no memory.
        self.examples = tuple(x.detach().to("meta") for x in examples)
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

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the graph as ONNX, opset 20, with a dynamic batch.

        Kernels that are used forward and backward are stored once. Weights of more than 1.5 GB are stored in the
        external file ``<path>.data``.
        """
        size = sum(buffer.numel() * buffer.element_size() for buffer in self.graph_module.buffers())
        with torch.no_grad(), quiet():
            program = torch.onnx.export(
                self.graph_module,
                tuple(stand_in(x, self._device()) for x in self.examples),
                input_names=self.input_names,
                output_names=self.output_names,
                dynamic_shapes=dynamic_batch(self.examples),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
            assert program is not None, "the exporter returns a program if it is not given a path"
            store_kernels_once(program.model)
            program.save(path, external_data=size > EMBEDDED_LIMIT)

    def _device(self) -> torch.device:
        return next((buffer.device for buffer in self.graph_module.buffers()), torch.device("cpu"))


def _check_like(inputs: Sequence[Tensor], examples: Sequence[Tensor]) -> None:
    if len(inputs) != len(examples):
        raise InvalidInput(f"the graph must have {len(examples)} inputs, got {len(inputs)}")
    for k, (x, example) in enumerate(zip(inputs, examples, strict=True)):
        if x.shape[1:] != example.shape[1:] or x.dtype != example.dtype:
            expected = str(("b", *example.shape[1:])).replace("'", "")
            raise InvalidInput(
                f"input {k} must be {example.dtype} of shape {expected}, got {x.dtype} of {tuple(x.shape)}"
            )
