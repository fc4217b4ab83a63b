"""DeepLIFT as ``captum.attr.DeepLift`` 0.9.0 computes it, as a graph.

- Rescaled layers of ``torch.nn`` are ReLU, ELU, LeakyReLU, Tanh, Softplus, Sigmoid, Softmax, and MaxPool1d to 3d. Other
  layers (ReLU6, SiLU, Hardswish, GELU, ...) pass their gradient at the image.
- Max pooling: the gain of the image over the baseline goes to the largest pixel of the image, the loss to the largest
  pixel of the baseline, each divided by ``delta_in``. Where overlapping windows share such a pixel, only the last
  window counts (``max_unpool`` on the CPU), so that summation to delta does not hold.
- Softmax: the mean of the multipliers of both copies is subtracted.
- A layer whose output is used by another rescaled layer only, such as ReLU before max pooling, gets the gradient of
  that layer instead of its multiplier, because Captum reads the gradient before it replaces it. Again, summation to
  delta does not hold (https://github.com/meta-pytorch/captum/issues/1104).

Differences from Captum:

- Operations called as functions, and those of TorchScript and ONNX files, are treated as layers; Captum ignores them.
  The exception is a gate, whose result is multiplied by another factor that depends on the image, as in squeeze and
  excitation or ``x * sigmoid(x)``: it passes its gradient, as in Captum.
- A layer may be used more than once, and its input may be used elsewhere. Captum raises an error in the first case and
  loses the gradient of the other use in the second.
- Samples are independent. In Captum, where the inputs of a max pooling are equal, all samples get the gradient of the
  first one, and the mean of Softmax is taken over the batch; for a single image there is no difference.
"""

import operator
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import fx

from radlens.graphs.chords import EPSILON
from radlens.graphs.differentiate import Rules, pass_on, positional
from radlens.graphs.recording import Recorder, sizes
from radlens.graphs.rules.pooling import windows_of

__all__ = ["CaptumBackward"]

aten = torch.ops.aten

LAYERS = ("ReLU", "ELU", "LeakyReLU", "Tanh", "Softplus", "Sigmoid", "Softmax", "MaxPool1d", "MaxPool2d", "MaxPool3d")
"""Layers of ``torch.nn`` that are rescaled."""

Pair = tuple[Any, Any]
"""Values of the image and of its baseline."""


class CaptumBackward:
    """The backward pass from the score through both copies of a network.

    Multipliers of the baseline's copy are computed only where an operation below needs them, and only where they can
    differ from those of the image.

    Args:
        recorder: recorder of the graph.
        rules: rules of differentiation.
        active: nodes of the image's copy that a gradient can reach.
        twins: node of the baseline's copy for each node of the image's copy.
    """

    def __init__(self, recorder: Recorder, rules: Rules, active: set[fx.Node], twins: dict[fx.Node, fx.Node]) -> None:
        self.recorder, self.rules, self.active, self.twins = recorder, rules, active, twins
        known = {node for node in active if node.target in _RULES}
        self.rescaled = {node for node in known if _is_rescaled(node, active)}
        self.both = _after({node for node in self.rescaled if node.target in _OF_BOTH}, active)
        self.reached = active | {twins[node] for node in self.both}
        self.gradients: dict[fx.Node, Any] = {}
        self.read_early: dict[fx.Node, Pair] = {}

    def run(self, score: fx.Node, images: fx.Node) -> Any:
        """Return the multipliers of the images."""
        ones = aten.ones_like.default(self.recorder.proxy(score))
        self.gradients = {score: ones, self.twins[score]: ones}
        for node in reversed(list(self.recorder.graph.nodes)):
            if node in self.active and node is not images and node in self.gradients:
                self.recorder.origin = node
                if node in self.rescaled:
                    self._rescale(node)
                else:
                    self._pass_on(node)
        return self.gradients[images]

    def _pass_on(self, node: fx.Node) -> None:
        """Pass the gradients of both copies through an operation, in one computation where both are equal."""
        alike = node.target is not operator.getitem and all(map(self._is_shared, (node, *node.all_input_nodes)))
        known = set(self.recorder.graph.nodes) if node in self.both else set()
        pass_on(self.recorder, node, self.gradients, self.reached, self.rules)
        if node not in self.both:
            return
        twin = self.twins[node]
        sources = [source for source in node.all_input_nodes if source in self.gradients]
        if not alike or any(self._reads_images(self.gradients[source].node, known) for source in sources):
            pass_on(self.recorder, twin, self.gradients, self.reached, self.rules)
            return
        del self.gradients[twin]
        for source in sources:
            if source in self.both:
                self.gradients[self.twins[source]] = self.gradients[source]

    def _is_shared(self, node: fx.Node) -> bool:
        """Return whether both copies of a node have had the same gradients so far."""
        return node not in self.both or self.gradients.get(node) is self.gradients.get(self.twins[node])

    def _reads_images(self, value: fx.Node, known: set[fx.Node]) -> bool:
        """Return whether nodes other than the ``known`` ones compute ``value`` from the image's copy."""
        sources = value.all_input_nodes if value not in known else []
        return any(source in self.twins or self._reads_images(source, known) for source in sources)

    def _rescale(self, node: fx.Node) -> None:
        """Pass the multipliers of both copies through a rescaled operation."""
        nodes = (node, self.twins[node])
        source, *rest = positional(node)
        sources = (source, self.twins[source])
        one = self.gradients.pop(node)
        given = (one, self.gradients.pop(nodes[1], one))
        y, x = self.recorder.wrap(nodes), self.recorder.wrap(sources)
        rule: Any = self.rules[node.target]  # type: ignore[index]
        # Cached, because each call would append the same operations to the graph again.
        plain = cache(lambda k: rule(given[k], y[k], x[k], *rest)[0])
        step = _Step(self.read_early.pop(node, given), y, x, plain)
        for each, value in zip(sources, _RULES[node.target](step, *rest), strict=True):
            if each in self.reached:
                self.gradients[each] = self.gradients[each] + value if each in self.gradients else value
        if source in self.rescaled and len(self.active & set(source.users)) == 1:
            self.read_early[source] = (plain(0), plain(1) if source in self.both else plain(0))


def _after(sources: set[fx.Node], active: set[fx.Node]) -> set[fx.Node]:
    """Return ``sources`` and the active nodes that depend on them."""
    found, waiting = set(sources), list(sources)
    while waiting:
        users = (active & set(waiting.pop().users)) - found
        found |= users
        waiting.extend(users)
    return found


def _is_rescaled(node: fx.Node, active: set[fx.Node]) -> bool:
    """Return whether an operation is rescaled: it is a layer that Captum rescales, or a function that is not a gate."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    kind = str(stack[-1][1]) if stack else ""
    if kind.startswith("torch.nn.modules."):
        return kind.rsplit(".", 1)[1] in LAYERS
    return not _is_gate(node, active)


_SAME_VALUES = (aten.reshape.default, aten.view.default, aten.unsqueeze.default, aten.squeeze.dim, aten.expand.default)
"""Operations that may be between a gate and its product."""

_PRODUCTS = (aten.mul.Tensor, aten.matmul.default, aten.bmm.default)


def _is_gate(node: fx.Node, active: set[fx.Node]) -> bool:
    """Return whether the result is multiplied by another factor that depends on the image."""
    for user in node.users:
        if user.target in _PRODUCTS and all(factor in active for factor in user.args):
            return True
        if user.target in _SAME_VALUES and _is_gate(user, active):
            return True
    return False


class _Step(NamedTuple):
    """Arguments of a rule: gradients, outputs and inputs of both copies.

    Attributes:
        g: gradients of the outputs.
        y: outputs.
        x: inputs.
        plain: function that returns the gradient of one input: 0 for the image's, 1 for the baseline's.
    """

    g: Pair
    y: Pair
    x: Pair
    plain: Callable[[int], Any]

    def divided(self, product: Any, copy: int) -> Any:
        """Return ``product`` divided by the change of the input, or the gradient of the copy where nothing changes."""
        change = self.x[0] - self.x[1]
        same = change.abs() <= EPSILON
        # The inner where keeps nan out of the branch that is not chosen.
        return torch.where(same, self.plain(copy), product / torch.where(same, 1.0, change))


def rescale(step: _Step, *_: Any) -> Pair:
    """Elementwise functions: the slope of the chord."""
    change = step.y[0] - step.y[1]
    one = step.divided(step.g[0] * change, 0)
    # Equal gradients of both copies give equal multipliers.
    return one, one if step.g[0] is step.g[1] else step.divided(step.g[1] * change, 1)


def rescale_softmax(step: _Step, *_: Any) -> Pair:
    """Softmax: the slopes of the chords minus the mean of both copies."""
    one, other = rescale(step)
    axes = list(range(1, one.ndim))
    mean = (one.mean(axes, keepdim=True) + other.mean(axes, keepdim=True)) * 0.5
    return one - mean, other - mean


def rescale_max_pool(step: _Step, kernel: Any, *geometry: Any) -> Pair:
    """Max pooling: the gain of the image goes to its largest pixels, the loss to those of the baseline."""
    g, y, x = step.g, step.y, step.x
    windows = windows_of(sizes(x[0])[2:], sizes(y[0])[2:], kernel, *geometry)
    above = torch.maximum(*y)
    gain = windows.placed_back(g[0] * (above - y[1]), windows.winner(x[0]))
    loss = windows.placed_back(g[1] * (y[0] - above), windows.winner(x[1]))
    multiplier = step.divided(gain + loss, 0)
    return multiplier, multiplier


_ELEMENTWISE = (
    aten.relu.default,
    aten.elu.default,
    aten.leaky_relu.default,
    aten.tanh.default,
    aten.softplus.default,
    aten.sigmoid.default,
)

_RULES: dict[Any, Callable[..., Pair]] = {
    **dict.fromkeys(_ELEMENTWISE, rescale),
    aten.softmax.int: rescale_softmax,
    aten.max_pool2d.default: rescale_max_pool,
    aten.max_pool3d.default: rescale_max_pool,
}
"""Rules of multipliers, called with the step and the arguments of the operation after its input."""

_OF_BOTH = (aten.softmax.int, aten.max_pool2d.default, aten.max_pool3d.default)
"""Operations whose rule needs the multipliers of both copies."""
