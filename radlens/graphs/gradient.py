"""The gradient of any supported module as an ordinary forward graph, which every engine can run.

A module and a score become one graph ``inputs -> (output, d score / d input)`` in small passes: trace
(:mod:`radlens.graphs.tracing`), fold and lower (:mod:`radlens.graphs.passes`), differentiate
(:mod:`radlens.graphs.differentiate` with :mod:`radlens.graphs.rules`), and write transposed convolutions, pooling and
dense layers in forms that all engines compute correctly.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from radlens.errors import InvalidInput, UnsupportedOperation
from radlens.graphs import passes
from radlens.graphs.compiled import CompiledGraph
from radlens.graphs.differentiate import append_gradient, name_of
from radlens.graphs.precision import EXACT_TYPES
from radlens.graphs.rules import RULES
from radlens.graphs.rules.activations import guided_relu
from radlens.graphs.tracing import evaluating_copy, layer_of, own_constants, trace

__all__ = ["GradientGraph", "forward_graph", "gradient_graph"]

aten = torch.ops.aten


class GradientGraph(CompiledGraph):
    """A module's output and the gradient of its score, without autograd.

    Created by :func:`gradient_graph`. Later changes of the module's weights do not affect the graph. In ONNX the inputs
    are ``input_0``, ``input_1``, ..., the outputs ``output`` (or ``output_0``, ...) and ``gradient``.
    """

    def __init__(self, graph_module: fx.GraphModule, examples: tuple[Tensor, ...], out_spec: pytree.TreeSpec) -> None:
        n = out_spec.num_leaves
        single = n == 1 and out_spec.is_leaf()
        outputs = ["output"] if single else [f"output_{k}" for k in range(n)]
        inputs = [f"input_{k}" for k in range(len(examples))]
        super().__init__(graph_module, examples, inputs, [*outputs, "gradient"])
        self.out_spec = out_spec

    def forward(self, *inputs: Tensor) -> tuple[Any, Tensor]:
        """Compute output and gradient.

        Args:
            inputs: tensors with the shapes and types of the examples, and any batch size.

        Returns:
            The output of the module, and the gradient in the shape of the input that the score is differentiated by.

        Raises:
            InvalidInput: number, shape or type of the inputs differ from the examples.
        """
        *leaves, gradient = super().forward(*inputs)
        return pytree.tree_unflatten(leaves, self.out_spec), gradient


def gradient_graph(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    score: Callable[[Any], Tensor],
    wrt: int = 0,
    *,
    relu_rule: Literal["gradient", "guided"] = "gradient",
) -> GradientGraph:
    """Compile ``module`` and the gradient of ``score`` into one forward graph with a dynamic batch.

    The module is compiled in evaluation mode and is not changed. Where a function is not differentiable, the gradient
    is autograd's: ReLU has the derivative zero at zero, and the first of equal maxima gets the gradient.

    Args:
        module: module of supported operations (``docs/graphs.md``), float32 or float64; one in float16 or bfloat16 is
            converted to float32.
        example_inputs: one tensor for each input, batch first; only shapes and types matter.
        score: function that maps the module's output to one number per sample, ``(b,)``.
        wrt: index of the input that the score is differentiated by.
        relu_rule: ``"guided"`` also blocks negative gradients at every ReLU (Springenberg et al. 2015).

    Raises:
        InvalidInput: the examples, ``wrt`` or the score are invalid, or the score does not depend on the input.
        UnsupportedOperation: the module cannot be compiled; the message names the operation and the layer.
    """
    _check_examples(example_inputs, wrt)
    if relu_rule not in ("gradient", "guided"):
        raise InvalidInput(f'relu_rule must be "gradient" or "guided", got {relu_rule!r}')
    # With a single sample, a squeeze would also remove the batch axis.
    example_inputs = tuple(torch.cat([x, x]) if len(x) == 1 else x for x in example_inputs)
    module = evaluating_copy(module)
    traced = trace(module, example_inputs, score, KNOWN)
    graph_module = traced.graph_module
    _check_score(graph_module)
    prepare(graph_module)
    *leaves, value = results(graph_module)
    image = graph_module.graph.find_nodes(op="placeholder")[wrt]
    gradient = append_gradient(graph_module, value, image, GUIDED if relu_rule == "guided" else RULES)
    complete(graph_module, (*leaves, gradient))
    own_constants(graph_module, module)
    graph = GradientGraph(graph_module, example_inputs, traced.out_spec)
    check_custom_functions(
        lambda *inputs: graph(*inputs)[-1], lambda *inputs: score(module(*inputs)), example_inputs, wrt
    )
    return graph


def forward_graph(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> CompiledGraph:
    """Compile what ``module`` computes into a graph with a dynamic batch.

    Args:
        module: As for :func:`gradient_graph`.
        example_inputs: One tensor for each input, batch first; only shapes and types matter.

    Returns:
        The graph; in ONNX its inputs are ``input_0``, ``input_1``, ..., its outputs ``output_0``, ``output_1``, ...

    Raises:
        InvalidInput: The examples do not fit.
        UnsupportedOperation: The module cannot be compiled; the message names the operation and the layer.
    """
    _check_examples(example_inputs, 0)
    example_inputs = tuple(torch.cat([x, x]) if len(x) == 1 else x for x in example_inputs)
    module = evaluating_copy(module)
    graph_module = trace(module, example_inputs, None, KNOWN).graph_module
    prepare(graph_module)
    outputs = results(graph_module)
    complete(graph_module, outputs)
    own_constants(graph_module, module)
    inputs = [f"input_{k}" for k in range(len(example_inputs))]
    return CompiledGraph(graph_module, example_inputs, inputs, [f"output_{k}" for k in range(len(outputs))])


KNOWN = RULES.keys() | passes.LOWERINGS.keys()
"""Operations that can be compiled; tracing does not decompose them."""

GUIDED = RULES | {aten.relu.default: guided_relu}
"""Rules of guided backpropagation."""


def prepare(graph_module: fx.GraphModule, *, split_pools: bool = True) -> None:
    """Fold and lower a traced graph before it is differentiated.

    Args:
        graph_module: graph that is changed in place.
        split_pools: whether to split large pooling windows, see :func:`radlens.graphs.passes.split_large_pools`.

    Raises:
        UnsupportedOperation: an operation cannot be compiled; the message names it and the layer.
    """
    passes.simplify(graph_module, split_pools=split_pools)
    _check_supported(graph_module)


def results(graph_module: fx.GraphModule) -> tuple[fx.Node, ...]:
    """Return the output nodes of a graph."""
    values: Any = graph_module.graph.output_node().args[0]
    return tuple(values)


def complete(graph_module: fx.GraphModule, values: Sequence[fx.Node]) -> None:
    """Make ``values`` the outputs of a differentiated graph, and rewrite it for all engines."""
    graph_module.graph.output_node().args = (tuple(values),)
    passes.drop_unused(graph_module)
    # detach only stops the gradient, which is part of the graph by now.
    for node in graph_module.graph.find_nodes(op="call_function", target=aten.detach.default):
        node.replace_all_uses_with(node.args[0])
    passes.drop_unused(graph_module)
    passes.finish(graph_module)
    batch = graph_module.graph.find_nodes(op="placeholder")[0].meta["val"].shape[0]
    assert not isinstance(batch, int), "no pass may fix the batch size"


def _check_supported(graph_module: fx.GraphModule) -> None:
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and node.target not in KNOWN and node.target not in _PYTHON:
            raise UnsupportedOperation(f"{name_of(node)} is not supported (layer {layer_of(node)})")


_PYTHON = (operator.getitem, operator.mul, operator.add, operator.sub, operator.floordiv)
"""Python operators that occur in graphs, on sizes and on the results of operations with several results."""


def _check_examples(examples: tuple[Tensor, ...], wrt: int) -> None:
    if not isinstance(examples, tuple) or not examples or not all(isinstance(x, Tensor) for x in examples):
        raise InvalidInput(f"example_inputs must be a tuple of tensors, got {type(examples).__name__}")
    if any(x.ndim == 0 for x in examples) or len({x.shape[0] for x in examples}) != 1 or not examples[0].shape[0]:
        shapes = [tuple(x.shape) for x in examples]
        raise InvalidInput(f"example_inputs must share a batch of at least 1 as first axis, got {shapes}")
    if not 0 <= wrt < len(examples):
        raise InvalidInput(f"wrt must be from 0 to {len(examples) - 1}, got {wrt}")
    if examples[wrt].dtype not in EXACT_TYPES:
        raise InvalidInput(f"input {wrt} must be float32 or float64, got {examples[wrt].dtype}")


def _check_score(graph_module: fx.GraphModule) -> None:
    value = graph_module.graph.output_node().args[0][-1].meta["val"]  # type: ignore[index, union-attr]
    if value.ndim != 1 or isinstance(value.shape[0], int):
        shape = tuple(size if isinstance(size, int) else "b" for size in value.shape)
        raise InvalidInput(f"the score must have shape (b,), got {shape}".replace("'", ""))


def check_custom_functions(
    gradient: Callable[..., Tensor], score: Callable[..., Tensor], inputs: tuple[Tensor, ...], wrt: int
) -> None:
    """Check that the backward of each custom autograd function is the gradient of its forward.

    Args:
        gradient: compiled gradient of ``score`` with respect to input ``wrt``.
        score: score computed by torch, one number per sample.
        inputs: inputs of both functions.
        wrt: index of the input that the score is differentiated by.

    Raises:
        UnsupportedOperation: the compiled gradient differs from autograd's.
    """
    inputs = tuple(x.detach().clone().requires_grad_(k == wrt) for k, x in enumerate(inputs))
    with torch.enable_grad():
        # Clones, because in-place layers must not change a leaf that requires a gradient.
        value = score(*(x.clone() for x in inputs))
        names = sorted(_custom_functions(value))
        if not names:
            return
        (expected,) = torch.autograd.grad(value.sum(), inputs[wrt])
    found = gradient(*(x.detach() for x in inputs))
    if not (found - expected).norm() <= _AGREEMENT * expected.norm():
        raise UnsupportedOperation(
            f"the backward of an autograd function must be the gradient of its forward; check {', '.join(names)}"
        )


_AGREEMENT = 0.02
"""Relative tolerance for gradients that differ only by rounding: 2.5e-3 was measured between float32 and float64."""


def _custom_functions(value: Tensor) -> set[str]:
    """Return the names of the Python autograd functions in the computation of ``value``."""
    names: set[str] = set()
    seen, waiting = set(), [value.grad_fn]
    while waiting:
        function = waiting.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        if isinstance(function, torch.autograd.function.BackwardCFunction):
            names.add(type(function).__name__.removesuffix("Backward"))
        waiting.extend(before for before, _ in function.next_functions)
    return names
