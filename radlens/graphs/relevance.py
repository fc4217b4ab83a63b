"""What the rules of layer-wise relevance propagation share: the ways that relevance takes, and gates.

A gate is a logistic function, such as that of squeeze and excitation, whose values are factors of a product. The
product is treated as linear in its other factor, which gets all relevance, as the signal does in Arras et al. 2017
("Explaining Recurrent Neural Network Predictions in Sentiment Analysis"). Any other use of a logistic
function is refused, since it is not zero at zero: relevance could not be divided among its inputs.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import fx

from radlens.errors import InvalidInput, UnsupportedOperation
from radlens.graphs.differentiate import Rules, depends_on, name_of
from radlens.graphs.tracing import layer_of

__all__ = ["FACTORS", "FUNCTIONS_OF_ZERO", "carriers", "is_swish", "only_factor", "refuse", "with_gates"]

aten = torch.ops.aten

_GATES = (aten.sigmoid.default, aten.hardsigmoid.default)

_KEEP_GATES = (
    aten.view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.expand.default,
    aten.permute.default,
    aten.transpose.int,
    aten.clone.default,
)
"""Operations that may be between a gate and its product."""

FACTORS: Mapping[Any, tuple[int, ...]] = {
    aten.mul.Tensor: (0, 1),
    aten.mul.Scalar: (0, 1),
    aten.div.Tensor: (0, 1),
    aten.div.Scalar: (0, 1),
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.matmul.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.linear.default: (0, 1),
    aten.convolution.default: (0, 1),
}
"""Products by operation, with the positions of both factors; relevance needs one that does not depend on the image."""


def _limits_hold_zero(low: float | None = None, high: float | None = None) -> bool:
    return (low is None or low <= 0) and (high is None or high >= 0)


FUNCTIONS_OF_ZERO: Mapping[Any, Callable[..., bool]] = {
    **dict.fromkeys(
        (
            aten.relu.default,
            aten.leaky_relu.default,
            aten._prelu_kernel.default,
            aten.elu.default,
            aten.tanh.default,
            aten.silu.default,
            aten.mish.default,
            aten.gelu.default,
            aten.hardswish.default,
            aten.softshrink.default,
            aten.hardshrink.default,
        ),
        lambda *_: True,
    ),
    aten.hardtanh.default: lambda low=-1.0, high=1.0: _limits_hold_zero(low, high),
    aten.clamp.default: _limits_hold_zero,
    aten.clamp_min.default: lambda low: _limits_hold_zero(low),
    aten.clamp_max.default: lambda high: _limits_hold_zero(None, high),
    aten.threshold.default: lambda limit, value: limit >= 0 and value == 0,
}
"""Functions of one number, with a test of the arguments behind it that says whether they are zero at zero."""


def with_gates(rules: Rules) -> Rules:
    """Return rules in which a logistic function passes nothing on."""
    return {**rules, **dict.fromkeys(_GATES)}


def carriers(graph: fx.Graph, images: fx.Node, score: fx.Node, rules: Rules, method: str) -> set[fx.Node]:
    """Return the nodes that carry relevance from the score to the images.

    Args:
        graph: Graph of the network and its score.
        images: Its input.
        score: One number per sample, ``(b,)``.
        rules: Rules of differentiation.
        method: Name of the rule, for messages.

    Raises:
        InvalidInput: The score does not depend on the images.
        UnsupportedOperation: A logistic function is not a gate.
    """
    if score not in depends_on(graph, images, rules):
        raise InvalidInput("the score must depend on the images, got one that does not")
    reached = depends_on(graph, images, with_gates(rules))
    found = {score}
    for node in reversed(list(graph.nodes)):
        if node in found:
            found.update(reached.intersection(node.all_input_nodes))
    for node in graph.nodes:
        if node.target in _GATES and reached.intersection(node.all_input_nodes):
            _check_gate(node, node, found, reached, method)
    return found


def _check_gate(gate: fx.Node, node: fx.Node, found: set[fx.Node], reached: set[fx.Node], method: str) -> None:
    for user in node.users:
        if user in found and user in reached:
            if user.target is not aten.mul.Tensor:
                _refuse_gate(gate, method)
        elif user.target in _KEEP_GATES:
            _check_gate(gate, user, found, reached, method)
        elif any(each in found for each in _influenced(user)):
            _refuse_gate(gate, method)


def _refuse_gate(gate: fx.Node, method: str) -> NoReturn:
    raise UnsupportedOperation(
        f"{method} has no rule for {name_of(gate)} unless its result is a factor of a product: layer {layer_of(gate)}"
    )


def _influenced(node: fx.Node) -> Iterator[fx.Node]:
    """Yield a node and all nodes that depend on it other than through a gate."""
    seen, waiting = set(), [node]
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        yield each
        if each.target not in _GATES:
            waiting.extend(each.users)


def is_swish(node: fx.Node, factor: fx.Node) -> bool:
    """Return whether a product is a number times its own logistic function, which can be negative."""
    gate: Any = next((each for each in node.args if each is not factor), None)
    while isinstance(gate, fx.Node) and gate.target in _KEEP_GATES:
        gate = gate.args[0]
    return isinstance(gate, fx.Node) and gate.target in _GATES and gate.args[0] is factor


def only_factor(node: fx.Node, found: set[fx.Node], method: str) -> int:
    """Return the position of the factor of a product that carries relevance.

    Raises:
        UnsupportedOperation: Both factors depend on the image, or the image is a divisor.
    """
    places = [place for place in FACTORS[node.target] if place < len(node.args) and node.args[place] in found]
    if node.target in (aten.div.Tensor, aten.div.Scalar) and 1 in places:
        refuse(node, method, "a divisor that depends on the image")
    if len(places) != 1 or (node.target is aten.addmm.default and node.args[0] in found):
        refuse(node, method, "factors that depend on the image")
    return places[0]


def refuse(node: fx.Node, method: str, what: str = "") -> NoReturn:
    """Raise UnsupportedOperation that names an operation and its layer."""
    raise UnsupportedOperation(
        f"{method} has no rule for {name_of(node)}{what and ' of ' + what} (layer {layer_of(node)})"
    )
