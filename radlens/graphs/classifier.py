"""The graphs that explanations of a classifier are made of, each an ordinary forward graph that every engine can run.

The score is the weighted sum of the logits, with weights as an input: a one-hot row is the logit of a class, -1 the
negative class of a network with one output. The last feature maps are the ones that class activation maps weight
(Zhou et al. 2016; Selvaraju et al. 2017); their gradient goes back through what follows them only.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from radlens.errors import InvalidInput, InvalidParameter, UnsupportedOperation
from radlens.graphs.compiled import CompiledGraph
from radlens.graphs.deep_lift import append_deep_lift
from radlens.graphs.differentiate import append_gradient, depends_on, needed_for
from radlens.graphs.gradient import GUIDED, KNOWN, check_custom_functions, complete, prepare, results
from radlens.graphs.rules import RULES
from radlens.graphs.tracing import evaluating_copy, own_constants, trace_whole

__all__ = ["GRAPHS", "ClassifierGraphs", "Signature", "classifier_graphs", "last_feature_maps"]


class Signature(NamedTuple):
    """Names of what a graph takes and gives, in order.

    Attributes:
        inputs: ``images (b, c, h, w)``, ``baselines (b, c, h, w)``, ``weights (b, n_outputs)``.
        outputs: ``output (b, n_outputs)`` logits, ``features (b, k, h', w')``, ``gradient`` and ``attribution`` in the
            shape of what they belong to.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


GRAPHS: Mapping[str, Signature] = MappingProxyType(
    {
        "prediction": Signature(("images",), ("output",)),
        "gradient": Signature(("images", "weights"), ("output", "gradient")),
        "guided": Signature(("images", "weights"), ("output", "gradient")),
        "features": Signature(("images", "weights"), ("output", "features", "gradient")),
        "deep_lift": Signature(("images", "baselines", "weights"), ("output", "attribution")),
    }
)
"""The graphs of a classifier by name."""


def classifier_graphs(
    module: nn.Module,
    example_images: Tensor,
    *,
    n_outputs: int,
    layer: str | None = None,
    as_captum: bool = True,
) -> "ClassifierGraphs":
    """Make the graphs of a classifier; each is compiled when it is first asked for.

    Args:
        module: maps images ``(b, c, h, w)`` to logits ``(b, n_outputs)``; compiled as it is in evaluation mode, with
            the weights it has when the first graph is compiled, and left untouched.
        example_images: float32 or float64; shape and type matter, and where the module has autograd functions of its
            own, values.
        n_outputs: logits of an image; with 1 the two classes are the signs.
        layer: qualified path of the layer whose output are the feature maps, such as ``layer4``; None for the last
            ``(b, k, h, w)`` of more than one pixel that everything passes on its way to the score.
        as_captum: compute DeepLIFT as Captum does, not as the paper: see :mod:`radlens.graphs.deep_lift`.

    Raises:
        InvalidInput: the images, the output of the module or of the layer have other shapes.
        InvalidParameter: unknown layer, or one that is not used exactly once.
    """
    if example_images.ndim != 4 or not len(example_images) or not example_images.is_floating_point():
        got = f"{example_images.dtype} of {tuple(example_images.shape)}"
        raise InvalidInput(f"example_images must be floating point of shape (b, c, h, w), got {got}")
    # Of a single sample a squeeze would take the batch along.
    images = torch.cat([example_images] * 2) if len(example_images) == 1 else example_images
    weighted = _Weighted(evaluating_copy(module), layer)
    weights = torch.linspace(1, 2, n_outputs, dtype=images.dtype, device=images.device).expand(len(images), -1)
    _check_shapes(weighted, images, n_outputs)
    return ClassifierGraphs(weighted, images.detach(), weights, as_captum)


class ClassifierGraphs:
    """The graphs of a classifier by name; made by :func:`classifier_graphs`.

    Args:
        weighted: the network and its score.
        images: examples, at least 2.
        weights: examples.
        as_captum: compute DeepLIFT as Captum does.
    """

    def __init__(self, weighted: "_Weighted", images: Tensor, weights: Tensor, as_captum: bool) -> None:
        self._weighted, self.as_captum = weighted, as_captum
        self._examples = {"images": images, "baselines": torch.zeros_like(images), "weights": weights}
        self._compiled: dict[str, CompiledGraph] = {}
        self._checked = False

    @property
    def module(self) -> nn.Module:
        """The network that is compiled, in evaluation mode."""
        return self._weighted.module

    @property
    def layer(self) -> str | None:
        """The layer that gives the feature maps; None for the last of them."""
        return self._weighted.layer

    def __getitem__(self, name: str) -> CompiledGraph:
        """Return a graph, which is compiled the first time and kept.

        Raises:
            InvalidParameter: there is no graph of that name.
            UnsupportedOperation: the network cannot be compiled; the message names the operation and the layer.
        """
        if name not in self._compiled:
            self._compiled[name] = self.build(name)
        return self._compiled[name]

    def build(self, name: str) -> CompiledGraph:
        """Compile a graph without keeping it; else as ``graphs[name]``."""
        if name not in GRAPHS:
            raise InvalidParameter(f"graph must be one of {', '.join(GRAPHS)}, got {name!r}")
        graph = self._built(name)
        if name != "prediction" and not self._checked:
            inputs = (self._examples["images"][:1], self._examples["weights"][:1])
            check_custom_functions(
                lambda *given: (graph if name == "gradient" else self._built("gradient"))(*given)[1],
                lambda *given: self._weighted(*given)[1],
                inputs,
                0,
            )
            self._checked = True
        return graph

    def to_onnx(self, name: str, path: str | os.PathLike[str]) -> None:
        """Write a graph as ONNX with a dynamic batch and the names of :data:`GRAPHS`; raises what ``[name]`` does."""
        self[name].to_onnx(path)

    def _built(self, name: str) -> CompiledGraph:
        module = _copied(self._traced)
        # The rule of DeepLIFT for a max pooling is not that of two one after the other.
        prepare(module, split_pools=name != "deep_lift")
        complete(module, self._values(name, module))
        signature = GRAPHS[name]
        for node in module.graph.find_nodes(op="placeholder"):
            if node.meta["input"] not in signature.inputs:
                module.graph.erase_node(node)
        module.recompile()
        examples = [self._examples[each] for each in signature.inputs]
        return CompiledGraph(module, examples, signature.inputs, signature.outputs)

    def _values(self, name: str, module: fx.GraphModule) -> tuple[fx.Node, ...]:
        """Append to logits, score and feature maps what a graph gives out, and return it."""
        output, score, *maps = results(module)
        images, _ = module.graph.find_nodes(op="placeholder")
        if name == "gradient":
            return output, append_gradient(module, score, images, RULES)
        if name == "guided":
            return output, append_gradient(module, score, images, GUIDED)
        if name == "deep_lift":
            return output, append_deep_lift(module, score, images, RULES, as_captum=self.as_captum)
        if name == "features":
            if not maps:
                raise UnsupportedOperation(
                    "the network must have maps (b, k, h, w) that everything passes on its way to the score, "
                    "it has none; a layer can be named"
                )
            return output, maps[0], append_gradient(module, score, maps[0], RULES)
        return (output,)

    @cached_property
    def _traced(self) -> fx.GraphModule:
        """The network as a graph that gives out logits, score and, if there are any, feature maps."""
        inputs = (self._examples["images"], self._examples["weights"])
        module = trace_whole(self._weighted, inputs, KNOWN)
        own_constants(module, self.module)
        images, weights = module.graph.find_nodes(op="placeholder")
        images.meta["input"], weights.meta["input"] = "images", "weights"
        output, score, *maps = results(module)
        found = maps[0] if maps else last_feature_maps(module.graph, images, score)
        module.graph.output_node().args = ((output, score) if found is None else (output, score, found),)
        return module


class _Weighted(nn.Module):
    """A classifier, its score, and the output of a layer if one is named.

    Args:
        module: in evaluation mode.
        layer: qualified path, or None.
    """

    def __init__(self, module: nn.Module, layer: str | None) -> None:
        super().__init__()
        self.layer = layer
        self.module: nn.Module = module
        if layer is not None and layer not in dict(module.named_modules()):
            raise InvalidParameter(f"layer must be the path of a layer of the network, got {layer!r}")

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Map images ``(b, c, h, w)`` and weights ``(b, n)`` to logits ``(b, n)``, score ``(b,)`` and feature maps."""
        images, weights = inputs
        with _outputs_of(self.module, self.layer) as maps:
            output = self.module(images)
        return [output, (output * weights).sum(1), *maps]


@contextmanager
def _outputs_of(module: nn.Module, layer: str | None) -> Iterator[list[Any]]:
    """Yield a list that gets what a layer of ``module`` returns, each time it is called."""
    maps: list[Any] = []
    if layer is None:
        yield maps
        return

    def keep(_: nn.Module, __: Any, output: Any) -> Any:
        maps.append(output)
        # What follows may change its input in place.
        return output.clone() if isinstance(output, Tensor) else output

    handle = module.get_submodule(layer).register_forward_hook(keep)
    try:
        yield maps
    finally:
        handle.remove()


def _check_shapes(weighted: _Weighted, images: Tensor, n_outputs: int) -> None:
    with torch.no_grad(), _outputs_of(weighted.module, weighted.layer) as maps:
        output = weighted.module(images.clone())
    if not (isinstance(output, Tensor) and output.shape == (len(images), n_outputs)):
        raise InvalidInput(
            f"the network must map images of shape {tuple(images.shape)} to ({len(images)}, {n_outputs}), "
            f"got {_shape(output)}"
        )
    if weighted.layer is None:
        return
    if len(maps) != 1:
        raise InvalidParameter(f"layer must be one that is used once, got {weighted.layer!r}, used {len(maps)} times")
    if not (isinstance(maps[0], Tensor) and maps[0].ndim == 4):
        raise InvalidInput(f"layer {weighted.layer!r} must give maps of shape (b, k, h, w), got {_shape(maps[0])}")


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def last_feature_maps(graph: fx.Graph, images: fx.Node, score: fx.Node) -> fx.Node | None:
    """Return the last maps ``(b, k, h, w)`` of more than one pixel that all ways from images to score pass, or None.

    They are what is pooled, behind its activation; maps beside which another way leads do not count.
    """
    active = depends_on(graph, images, RULES) & needed_for(score)
    order = {node: place for place, node in enumerate(graph.nodes)}
    found, furthest = None, order[images]
    for node in graph.nodes:
        if node not in active or node is score:
            continue
        if furthest <= order[node] and node is not images and _is_maps(node.meta["val"]):
            found = node
        furthest = max([furthest, *(order[user] for user in node.users if user in active)])
    return found


def _is_maps(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.shape[2] * value.shape[3] > 1


def _copied(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy whose graph can be changed; the constants are shared."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    copy = fx.GraphModule(module, graph)
    copy.meta.update(module.meta)
    return copy
