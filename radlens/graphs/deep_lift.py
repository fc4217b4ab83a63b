"""DeepLIFT as an ordinary forward graph: Shrikumar et al. 2017, ICML, section 3.5.

The graph computes the network for the image and for its baseline. The backward pass through the copy of the image
multiplies by the slope of the chord between the two instead of the gradient (:mod:`radlens.graphs.chords`). The
multipliers times ``image - baseline`` add up to the difference of the scores (summation to delta, eq. (1)) for every
network without operations that choose their inputs by the data other than maxima: not for ``topk``, ``sort``, medians,
and ``where`` with a condition that depends on the image, which pass the gradient at the image.

Captum's DeepLIFT has other multipliers, with which summation to delta fails; it is reproduced on request by
:mod:`radlens.graphs.captum_deep_lift`.
"""

from typing import Any

from torch import Tensor, fx

from radlens.errors import InvalidInput
from radlens.graphs.captum_deep_lift import CaptumBackward
from radlens.graphs.chords import chord_rules
from radlens.graphs.differentiate import Rules, backward, depends_on, needed_for
from radlens.graphs.recording import Recorder, Value

__all__ = ["append_deep_lift"]


def append_deep_lift(
    module: fx.GraphModule, score: fx.Node, images: fx.Node, rules: Rules, *, as_captum: bool = False
) -> fx.Node:
    """Append the attribution of ``score`` to the images, and insert an input ``baselines`` after ``images``.

    Args:
        module: graph whose nodes have fake tensors in ``meta["val"]``.
        score: node with one number per sample, ``(b,)``.
        images: input node, batch first.
        rules: rules of differentiation.
        as_captum: whether to compute Captum's multipliers, with which summation to delta does not hold.

    Returns:
        The node of the attribution, with the shape of the images.

    Raises:
        InvalidInput: the score does not depend on the images.
        UnsupportedOperation: an operation between images and score has no rule.
    """
    active = depends_on(module.graph, images, rules) & needed_for(score)
    if score not in active:
        raise InvalidInput("the score must depend on the images, got one that does not")
    twins = _with_twins(module.graph, score, images)
    recorder = Recorder(module)

    def other(value: Any) -> Any:
        if isinstance(value, list):
            return [other(part) for part in value]
        return recorder.proxy(twins[value.node]) if isinstance(value, Value) and value.node in twins else value

    with recorder.before(module.graph.output_node(), score):
        if as_captum:
            multiplier = CaptumBackward(recorder, rules, active, twins).run(score, images)
        else:
            multiplier = backward(recorder, score, images, active, chord_rules(rules, other))
        attribution = multiplier * (recorder.wrap(images) - recorder.wrap(twins[images]))
    node: fx.Node = attribution.node
    return node


def _with_twins(graph: fx.Graph, score: fx.Node, images: fx.Node) -> dict[fx.Node, fx.Node]:
    """Copy the nodes up to the score for the baselines, and return the copy of each node."""
    with graph.inserting_after(images):
        baselines = graph.placeholder("baselines")
    baselines.meta = {**images.meta, "input": "baselines"}
    twins, needed = {images: baselines}, needed_for(score)
    for node in list(graph.nodes):
        # Sizes are not copied: they are the same for images and baselines.
        is_tensors = isinstance(node.meta.get("val"), Tensor | tuple | list)
        if node in needed and any(n in twins for n in node.all_input_nodes) and is_tensors:
            with graph.inserting_after(node):
                twins[node] = graph.node_copy(node, lambda n: twins.get(n, n))
    return twins
