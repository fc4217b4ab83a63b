"""DeepLIFT with the rescale rule as an ordinary forward graph: Shrikumar et al. 2017, ICML, section 3.5.1.

The network is computed for the image and for its baseline. Back through the copy of the image, a non-linear operation
passes the gradient times ``delta_out / delta_in``, the slope of the chord between the two (eq. (10) of the paper);
everything else passes its own gradient. The multipliers times ``image - baseline`` add up to the difference of the
scores (summation to delta, eq. (1)) where all that is not linear is rescaled.

What is rescaled, and how, is by default what ``captum.attr.DeepLift`` 0.9.0 does, so that both give the same maps:

- Layers of ``torch.nn``: ReLU, ELU, LeakyReLU, Tanh, Softplus, Sigmoid, Softmax, MaxPool1d to 3d. All others (ReLU6,
  SiLU, Hardswish, GELU, ...) pass their gradient at the image.
- Max pooling: what the image gains over the baseline goes to the pixel that is largest in the image, what it loses to
  the one that is largest in the baseline, each divided by ``delta_in``. Where windows overlap and share a pixel, the
  last of them counts (``max_unpool`` on the CPU), and the sum is not complete.
- Softmax: the mean of the multipliers of both copies is subtracted.
- A layer that feeds nothing but another of these layers, such as ReLU before max pooling, is given the gradient of that
  layer, not its multiplier: Captum reads the gradient before it puts the multiplier in its place. Here, too, the sum is
  not complete.

Where it differs from Captum:

- The same operations called as functions, and those of TorchScript and ONNX files, are treated as if they were layers;
  Captum cannot see them. Only one whose result is multiplied by something else that depends on the image, as in squeeze
  and excitation or ``x * sigmoid(x)``, is a gate and passes its gradient, which is what Captum makes of it.
- Layers may be used more than once, and what enters a layer may be used elsewhere: Captum refuses the first and loses
  the gradient of the second.
- Samples are independent. In Captum, where the inputs of a max pooling are equal, the gradient of the first sample
  stands for all, and Softmax takes its mean over the batch; for a batch of one image both are the same.

With ``as_captum=False`` the last three of the first list are as in the paper: all windows count, no mean is subtracted,
and multipliers follow the chain rule, so that the sum is complete for networks of layers that are rescaled or linear.
"""

import operator
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from radlens.errors import InvalidInput
from radlens.graphs.differentiate import Rules, depends_on, needed_for, pass_on, positional
from radlens.graphs.recording import Recorder, sizes
from radlens.graphs.rules.pooling import windows_of

__all__ = ["append_deep_lift"]

aten = torch.ops.aten

EPSILON = 1e-10
"""Change of an input up to which the gradient takes the place of the slope: that of Captum."""

LAYERS = ("ReLU", "ELU", "LeakyReLU", "Tanh", "Softplus", "Sigmoid", "Softmax", "MaxPool1d", "MaxPool2d", "MaxPool3d")
"""Layers of ``torch.nn`` that are rescaled."""

Pair = tuple[Any, Any]
"""Of the image and of its baseline."""


def append_deep_lift(
    module: fx.GraphModule, score: fx.Node, images: fx.Node, rules: Rules, *, as_captum: bool = True
) -> fx.Node:
    """Append the attribution of ``score`` to the images, and an input ``baselines`` behind them.

    Args:
        module: every node has a fake tensor in ``meta["val"]``.
        score: one number per sample, ``(b,)``.
        images: the input, batch first.
        rules: how operations are differentiated.
        as_captum: reproduce Captum where it is not complete.

    Returns:
        The node of the attribution, of the shape of the images.

    Raises:
        InvalidInput: the score does not depend on the images.
        UnsupportedOperation: an operation between the two has no rule.
    """
    active = depends_on(module.graph, images, rules) & needed_for(score)
    if score not in active:
        raise InvalidInput("the score must depend on the images, it does not")
    twins = _with_twins(module.graph, score, images)
    recorder = Recorder(module)
    with recorder.before(module.graph.output_node(), score):
        multiplier = _Backward(recorder, rules, active, twins, as_captum).run(score, images)
        attribution = multiplier * (recorder.wrap(images) - recorder.wrap(twins[images]))
    node: fx.Node = attribution.node
    return node


def _with_twins(graph: fx.Graph, score: fx.Node, images: fx.Node) -> dict[fx.Node, fx.Node]:
    """Compute everything up to the score for baselines too, and return what belongs to what."""
    with graph.inserting_after(images):
        baselines = graph.placeholder("baselines")
    baselines.meta = {**images.meta, "input": "baselines"}
    twins, needed = {images: baselines}, needed_for(score)
    for node in list(graph.nodes):
        # Sizes are those of the images.
        if node in needed and any(n in twins for n in node.all_input_nodes) and _is_tensors(node.meta["val"]):
            with graph.inserting_after(node):
                twins[node] = graph.node_copy(node, lambda n: twins.get(n, n))
    return twins


def _is_tensors(value: Any) -> bool:
    return isinstance(value, Tensor | tuple | list)


class _Backward:
    """The way back from the score through both copies of a network.

    Multipliers of the baseline's copy are followed only where something below needs them, and only where they can
    differ from those of the image.

    Args:
        recorder: appends to the graph.
        rules: how operations are differentiated.
        active: nodes of the image's copy that a gradient can reach.
        twins: the nodes of the baseline's copy.
        as_captum: reproduce Captum where it is not complete.
    """

    def __init__(
        self, recorder: Recorder, rules: Rules, active: set[fx.Node], twins: dict[fx.Node, fx.Node], as_captum: bool
    ) -> None:
        self.recorder, self.rules, self.active, self.twins, self.as_captum = recorder, rules, active, twins, as_captum
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
        """Pass the gradients of both copies through an operation, once where it does the same to both."""
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
        """Tell whether both copies of a node have had the same gradients so far."""
        return node not in self.both or self.gradients.get(node) is self.gradients.get(self.twins[node])

    def _reads_images(self, value: fx.Node, known: set[fx.Node]) -> bool:
        """Tell whether a value is computed from the image's copy by others than the ``known`` nodes."""
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
        plain = cache(lambda k: rule(given[k], y[k], x[k], *rest)[0])
        step = _Step(self.read_early.pop(node, given), y, x, plain, self.as_captum)
        for each, value in zip(sources, _RULES[node.target](step, *rest), strict=True):
            if each in self.reached:
                self.gradients[each] = self.gradients[each] + value if each in self.gradients else value
        if self.as_captum and source in self.rescaled and len(self.active & set(source.users)) == 1:
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
    """Tell whether an operation that can be rescaled is: a layer that Captum knows, or a function that is no gate."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    kind = str(stack[-1][1]) if stack else ""
    if kind.startswith("torch.nn.modules."):
        return kind.rsplit(".", 1)[1] in LAYERS
    return not _is_gate(node, active)


_SAME_VALUES = (aten.reshape.default, aten.view.default, aten.unsqueeze.default, aten.squeeze.dim, aten.expand.default)
"""Operations behind which a gate is still the gate."""

_PRODUCTS = (aten.mul.Tensor, aten.matmul.default, aten.bmm.default)


def _is_gate(node: fx.Node, active: set[fx.Node]) -> bool:
    """Tell whether the result is multiplied by something else that depends on the image."""
    for user in node.users:
        if user.target in _PRODUCTS and all(factor in active for factor in user.args):
            return True
        if user.target in _SAME_VALUES and _is_gate(user, active):
            return True
    return False


class _Step(NamedTuple):
    """What a rule sees: pairs of gradients, outputs and inputs, and what gives the gradient of either input."""

    g: Pair
    y: Pair
    x: Pair
    plain: Callable[[int], Any]
    as_captum: bool

    def divided(self, product: Any, copy: int) -> Any:
        """Return ``product`` over the change of the input; where there is none, the gradient of that copy."""
        change = self.x[0] - self.x[1]
        same = change.abs() <= EPSILON
        return torch.where(same, self.plain(copy), product / torch.where(same, 1.0, change))


def rescale(step: _Step, *_: Any) -> Pair:
    """Functions of one element: the slope of the chord."""
    change = step.y[0] - step.y[1]
    one = step.divided(step.g[0] * change, 0)
    # Where inputs are the same, so are the gradients of both copies.
    return one, one if step.g[0] is step.g[1] else step.divided(step.g[1] * change, 1)


def rescale_softmax(step: _Step, *_: Any) -> Pair:
    """Softmax: the slopes of the chords; in Captum less the mean of both copies."""
    one, other = rescale(step)
    if not step.as_captum:
        return one, other
    axes = list(range(1, one.ndim))
    mean = (one.mean(axes, keepdim=True) + other.mean(axes, keepdim=True)) * 0.5
    return one - mean, other - mean


def rescale_max_pool(step: _Step, kernel: Any, *geometry: Any) -> Pair:
    """Max pooling: what the image gains goes to its own largest pixels, what it loses to those of the baseline."""
    g, y, x = step.g, step.y, step.x
    windows = windows_of(sizes(x[0])[2:], sizes(y[0])[2:], kernel, *geometry)
    back = windows.placed_back if step.as_captum else windows.carried_back
    above = torch.maximum(*y)
    gain = back(g[0] * (above - y[1]), windows.winner(x[0]))
    loss = back(g[1] * (y[0] - above), windows.winner(x[1]))
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
"""How multipliers go back, called with the step and the arguments of the operation behind its input."""

_OF_BOTH = (aten.softmax.int, aten.max_pool2d.default, aten.max_pool3d.default)
"""Operations whose rule needs the multipliers of both copies."""
