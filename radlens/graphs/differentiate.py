"""Reverse-mode differentiation of a graph: its gradient appended as ordinary operations."""

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from radlens.errors import InvalidInput, UnsupportedOperation
from radlens.graphs.recording import Recorder, Value, is_static, sizes
from radlens.graphs.rules.registry import Rule
from radlens.graphs.tracing import layer_of

__all__ = ["append_gradient", "backward", "depends_on", "name_of", "needed_for", "pass_on", "positional", "summed_to"]

aten = torch.ops.aten

Rules = Mapping[torch._ops.OpOverload, Rule | None]


def append_gradient(module: fx.GraphModule, score: fx.Node, wrt: fx.Node, rules: Rules) -> fx.Node:
    """Append d ``score`` / d ``wrt`` to the graph of ``module``, before its output.

    Args:
        module: graph whose nodes have fake tensors in ``meta["val"]``.
        score: node with one number per sample, ``(b,)``.
        wrt: node of an input or of any other value, batch first.
        rules: rules of differentiation.

    Returns:
        The node of the gradient, with the shape of ``wrt``.

    Raises:
        InvalidInput: the score does not depend on ``wrt``.
        UnsupportedOperation: an operation between ``wrt`` and the score has no rule.
    """
    active = depends_on(module.graph, wrt, rules) & needed_for(score)
    if score not in active:
        raise InvalidInput("the score must depend on the input that it is differentiated by, got one that does not")
    recorder = Recorder(module)
    with recorder.before(module.graph.output_node(), score):
        gradient: fx.Node = backward(recorder, score, wrt, active, rules).node
    return gradient


def backward(recorder: Recorder, score: fx.Node, wrt: fx.Node, active: set[fx.Node], rules: Rules) -> Any:
    """Record the backward pass from ``score`` to ``wrt`` through the ``active`` nodes, and return its last value."""
    gradients: dict[fx.Node, Any] = {score: aten.ones_like.default(recorder.proxy(score))}
    for node in reversed(list(recorder.graph.nodes)):
        if node in active and node is not wrt and node in gradients:
            recorder.origin = node
            pass_on(recorder, node, gradients, active, rules)
    return gradients[wrt]


def depends_on(graph: fx.Graph, source: fx.Node, rules: Rules) -> set[fx.Node]:
    """Return the nodes that depend differentiably on ``source``."""
    reached = {source}
    for node in graph.nodes:
        if node.op != "call_function" or not reached.intersection(node.all_input_nodes):
            continue
        blocked = node.target in rules and rules[node.target] is None
        if not blocked and _is_real(node.meta.get("val")):
            reached.add(node)
    return reached


def _is_real(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_is_real(part) for part in value)
    return isinstance(value, Tensor) and value.dtype.is_floating_point


def needed_for(score: fx.Node) -> set[fx.Node]:
    """Return the nodes from which ``score`` is computed, including ``score``."""
    needed, waiting = set(), [score]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting.extend(node.all_input_nodes)
    return needed


def pass_on(
    recorder: Recorder, node: fx.Node, gradients: dict[fx.Node, Any], active: set[fx.Node], rules: Rules
) -> None:
    """Propagate the gradient of ``node`` to the gradients of its arguments.

    Raises:
        UnsupportedOperation: the operation has no rule for an argument that is active.
    """
    gradient = gradients.pop(node)
    if node.target is operator.getitem:
        source, index = node.args
        # The gradients of several results are collected until their operation is reached.
        assert isinstance(source, fx.Node), "getitem takes one result of an operation"
        parts = gradients.setdefault(source, [None] * len(source.meta["val"]))
        parts[index] = gradient if parts[index] is None else parts[index] + gradient
        return
    target: Any = node.target
    rule = rules[target]
    assert rule is not None, "operations without a derivative are not active"
    arguments = positional(node)
    try:
        results = rule(gradient, recorder.proxy(node), *recorder.wrap(arguments))
    except UnsupportedOperation as error:
        raise UnsupportedOperation(f"{error}: {name_of(node)} (layer {layer_of(node)})") from error
    given: dict[fx.Node, Any] = {}
    for argument, result in zip(arguments, results, strict=False):
        pairs = zip(argument, result, strict=True) if isinstance(result, list) else [(argument, result)]
        for target, value in pairs:
            if isinstance(target, fx.Node) and target in active and value is not None:
                value = summed_to(value, recorder.proxy(target))
                given[target] = given[target] + value if target in given else value
    missed = [target for target in node.all_input_nodes if target in active and target not in given]
    if missed:
        raise UnsupportedOperation(
            f"{name_of(node)} has no gradient rule for an argument that depends on the input, such as a weight "
            f"(layer {layer_of(node)})"
        )
    for target, value in given.items():
        gradients[target] = gradients[target] + value if target in gradients else value


def name_of(node: fx.Node) -> str:
    """Return the name of an operation as in SUPPORTED, such as ``aten.relu``."""
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target.overloadpacket)
    return getattr(node.target, "__name__", str(node.target))


def positional(node: fx.Node) -> list[Any]:
    """Return the arguments of ``node`` in the order of its schema, with defaults before the last argument given."""
    assert isinstance(node.target, torch._ops.OpOverload), "only operations of torch have a schema"
    values, last = list(node.args), len(node.args)
    for position, argument in enumerate(node.target._schema.arguments):
        if position >= len(node.args):
            values.append(node.kwargs.get(argument.name, argument.default_value))
            if argument.name in node.kwargs:
                last = position + 1
    return values[:last]


def summed_to(gradient: Any, x: Value) -> Any:
    """Undo broadcasting: sum ``gradient`` over the axes along which ``x`` was broadcast."""
    extra = gradient.ndim - x.ndim
    if extra > 0:
        gradient = gradient.sum(list(range(extra)))
    wide = [
        k
        for k, (size, own) in enumerate(zip(gradient.shape, x.shape, strict=True))
        if is_static(own) and own == 1 and not (is_static(size) and size == 1)
    ]
    if wide:
        gradient = gradient.sum(wide, keepdim=True)
    # A rule may return a gradient that is smaller than x, such as that of a sum.
    if [is_static(s) and s for s in gradient.shape] != [is_static(s) and s for s in x.shape]:
        gradient = gradient.expand(sizes(x))
    return gradient
