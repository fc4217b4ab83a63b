"""Deduplication of the kernels that an ONNX graph uses forward and backward.

The backward pass of a convolution of stride 1 is a convolution with turned kernels: flipped, and with inputs and
outputs exchanged. The graph computes the turned kernels from the stored ones. Engines fold constants when they open a
graph, so this does not cost time, and the file of a convolutional network is nearly halved.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

__all__ = ["store_kernels_once"]

LARGE = 4096
"""Smallest number of elements of kernels that are deduplicated; smaller ones are not worth two nodes."""


def store_kernels_once(model: ir.Model) -> None:
    """Replace kernels that are turned copies of others by ``Slice`` and ``Transpose`` of those."""
    known: dict[tuple, list[ir.Value]] = {}
    for node, kernels in _kernels(model.graph):
        alike = known.setdefault(_fingerprint(kernels), [])
        source = next((other for other in alike if np.array_equal(_turned(_array(other)), _array(kernels))), None)
        if source is None:
            if kernels not in alike:
                alike.append(kernels)
            continue
        node.replace_input_with(1, _nodes_for(model.graph, node, source, kernels))
        if not kernels.uses():
            model.graph.initializers.pop(kernels.name or "")


def _kernels(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Yield the convolutions that have large constant kernels, in the order of the graph."""
    for node in list(graph):
        kernels = node.inputs[1] if node.op_type == "Conv" else None
        if kernels is not None and kernels.is_initializer() and _array(kernels).size >= LARGE:
            yield node, kernels


def _array(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None, "an initialiser has a value"
    return value.const_value.numpy()


def _fingerprint(value: ir.Value) -> tuple:
    """Return a key that is the same for kernels and for their turned copy."""
    array = _array(value)
    return (*sorted(array.shape[:2]), *array.shape[2:], array.min(), array.max())


def _turned(kernels: np.ndarray) -> np.ndarray:
    """Return the turned kernels ``(i, o, k, ...)`` of ``(o, i, k, ...)``."""
    return np.flip(kernels.swapaxes(0, 1), tuple(range(2, kernels.ndim)))


def _nodes_for(graph: ir.Graph, node: ir.Node, source: ir.Value, kernels: ir.Value) -> ir.Value:
    """Insert, before ``node``, the nodes that compute ``kernels`` from ``source``."""
    shape, name = _array(kernels).shape, kernels.name
    axes = [axis for axis, size in enumerate(shape) if axis > 1 and size > 1]
    value = source
    if axes:
        # A slice with step -1 includes index 0 only if its end lies below every valid negative index.
        ends = np.iinfo(np.int64).min + 1
        sides = {"starts": [-1] * len(axes), "ends": [ends] * len(axes), "axes": axes, "steps": [-1] * len(axes)}
        indices = [_indices(graph, f"{name}_{side}", values) for side, values in sides.items()]
        value = _inserted(graph, node, "Slice", [value, *indices], f"{name}_flipped", _array(source).shape)
    permutation = [1, 0, *range(2, len(shape))]
    return _inserted(graph, node, "Transpose", [value], f"{name}_turned", shape, perm=permutation)


def _indices(graph: ir.Graph, name: str, values: list[int]) -> ir.Value:
    tensor = ir.tensor(np.array(values, np.int64), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape([len(values)]), const_value=tensor)
    graph.register_initializer(value)
    return value


def _inserted(
    graph: ir.Graph,
    before: ir.Node,
    operation: str,
    inputs: list[ir.Value],
    name: str,
    shape: tuple[int, ...],
    **attributes: list[int],
) -> ir.Value:
    output = ir.Value(name=name, type=inputs[0].type, shape=ir.Shape(shape))
    given = [ir.AttrInt64s(key, values) for key, values in attributes.items()]
    graph.insert_before(before, ir.Node("", operation, inputs, given, outputs=[output], name=f"node_{name}"))
    return output
