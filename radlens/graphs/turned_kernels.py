"""Kernels that an ONNX graph needs forward and backward are stored once; the other form is computed from them.

Back through a convolution of stride 1 leads a convolution with the same kernels, turned round and with inputs and
outputs exchanged. Engines compute what depends on constants alone when they open a graph, so this costs them nothing,
and the file of a network of convolutions is nearly halved.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

__all__ = ["store_kernels_once"]

LARGE = 4096
"""Elements from which on kernels are worth two nodes."""


def store_kernels_once(model: ir.Model) -> None:
    """Replace kernels that are others turned round by ``Slice`` and ``Transpose`` of those."""
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
    """Yield the convolutions with large constant kernels, in order."""
    for node in list(graph):
        kernels = node.inputs[1] if node.op_type == "Conv" else None
        if kernels is not None and kernels.is_initializer() and _array(kernels).size >= LARGE:
            yield node, kernels


def _array(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None, "an initialiser has a value"
    return value.const_value.numpy()


def _fingerprint(value: ir.Value) -> tuple:
    """Return what kernels and the same kernels turned round have in common."""
    array = _array(value)
    return (*sorted(array.shape[:2]), *array.shape[2:], array.min(), array.max())


def _turned(kernels: np.ndarray) -> np.ndarray:
    """Turn ``(o, i, k, ...)`` round: ``(i, o, k, ...)``."""
    return np.flip(kernels.swapaxes(0, 1), tuple(range(2, kernels.ndim)))


def _nodes_for(graph: ir.Graph, node: ir.Node, source: ir.Value, kernels: ir.Value) -> ir.Value:
    """Insert before ``node`` what computes ``kernels`` from ``source``."""
    shape, name = _array(kernels).shape, kernels.name
    axes = [axis for axis, size in enumerate(shape) if axis > 1 and size > 1]
    value = source
    if axes:
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
