"""The graphs of a classifier, each an ordinary forward graph that every engine can run.

The score is the weighted sum of the logits, with weights as an input: a one-hot row is the logit of a class, -1 the
negative class of a network with one output. The last feature maps are the ones that class activation maps weight
(Zhou et al. 2016; Selvaraju et al. 2017); their gradient goes back through what follows them only.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, fx, nn

from radlens.errors import InvalidInput, InvalidParameter, UnsupportedOperation
from radlens.graphs import asks
from radlens.graphs.captum_layers import captum_sees_all
from radlens.graphs.compiled import CompiledGraph
from radlens.graphs.differentiate import depends_on, needed_for
from radlens.graphs.gradient import KNOWN, check_custom_functions, complete, prepare, results
from radlens.graphs.precision import EXACT_TYPES, copied
from radlens.graphs.rules import RULES
from radlens.graphs.tracing import evaluating_copy, own_constants, trace_whole, with_weights
from radlens.graphs.writing import N_EXAMPLES, GraphWriter

__all__ = ["ClassifierGraphs", "classifier_graphs", "last_feature_maps", "outputs_of"]


def classifier_graphs(
    module: nn.Module,
    example_images: Tensor,
    *,
    n_outputs: int,
    layer: str | None = None,
    as_captum: bool = False,
    companions: Mapping[str, nn.Module] | None = None,
) -> "ClassifierGraphs":
    """Make the graphs of a classifier; each is compiled when it is first asked for.

    Args:
        module: maps images ``(b, c, h, w)`` to logits ``(b, n_outputs)``; compiled as it is in evaluation mode, with
            the weights it has when the first graph is compiled, and left untouched. Weights in float16 or bfloat16 are
            converted to float32.
        example_images: float32 or float64; shape and type matter, and where the module has autograd functions of its
            own, values.
        n_outputs: logits of an image; with 1 the two classes are the signs.
        layer: qualified path of the layer whose output are the feature maps, such as ``layer4``; None for the last
            ``(b, k, h, w)`` of more than one pixel that everything passes on its way to the score.
        as_captum: compute DeepLIFT as Captum does, whose maps do not add up to the change of the score; see
            :mod:`radlens.graphs.captum_deep_lift`.
        companions: other networks that questions need, by name; see :class:`radlens.graphs.asks.AskSpec`.

    Raises:
        InvalidInput: the images, the output of the module or of the layer have other shapes.
        InvalidParameter: unknown layer, or one that is not used exactly once.
    """
    if example_images.ndim != 4 or not len(example_images) or example_images.dtype not in EXACT_TYPES:
        got = f"{example_images.dtype} of {tuple(example_images.shape)}"
        raise InvalidInput(f"example_images must be float32 or float64 of shape (b, c, h, w), got {got}")
    graphs = ClassifierGraphs.of(
        module, example_images, n_outputs, layer=layer, as_captum=as_captum, companions=companions
    )
    graphs.check_shapes()
    return graphs


class ClassifierGraphs:
    """The graphs of a classifier by name, and what they are made of; made by :func:`classifier_graphs`.

    Args:
        weighted: Network and its score.
        images: Examples ``(b, c, h, w)``.
        n_outputs: Logits of an image.
        as_captum: Compute DeepLIFT as Captum does.
        companions: Other networks by name, in evaluation mode.
    """

    def __init__(
        self,
        weighted: "_Weighted",
        images: Tensor,
        n_outputs: int,
        as_captum: bool,
        companions: Mapping[str, nn.Module],
    ) -> None:
        self._weighted, self.as_captum = weighted, as_captum
        self.n_outputs, self.companions = n_outputs, companions
        # A batch of one would lose its first axis where a network squeezes.
        self._images = torch.cat([images] * 2) if len(images) == 1 else images
        self._compiled: dict[str, CompiledGraph] = {}
        self._checked = False

    @classmethod
    def of(
        cls,
        module: nn.Module,
        images: Tensor,
        n_outputs: int,
        *,
        layer: str | None = None,
        as_captum: bool = False,
        companions: Mapping[str, nn.Module] | None = None,
    ) -> Self:
        """Make the graphs of copies of ``module`` and its companions in evaluation mode, without a look at shapes."""
        copies = {name: evaluating_copy(companion) for name, companion in (companions or {}).items()}
        return cls(_Weighted(evaluating_copy(module), layer), images.detach(), n_outputs, as_captum, copies)

    def with_weights(self, module: nn.Module) -> Self:
        """Return the graphs of a network of the same structure with other weights, which is not traced again."""
        found = type(self)(
            _Weighted(evaluating_copy(module), self.layer),
            self._images,
            self.n_outputs,
            self.as_captum,
            self.companions,
        )
        # Overrides the cached property.
        found.__dict__["_traced"] = with_weights(self._traced, found._weighted)
        return found

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
        """Compile a graph without keeping it, else as ``graphs[name]``; the network is traced only once for all."""
        asked = asks.spec(name)
        self.require_companions(asked)
        return asked.compile(self)

    def require_companions(self, asked: asks.AskSpec) -> None:
        """Raise UnsupportedOperation unless all companions of a question are there."""
        if lacking := sorted(set(asked.companions) - set(self.companions)):
            raise UnsupportedOperation(f"{asked.name} needs a companion network, {', '.join(lacking)}")

    def check_shapes(self) -> None:
        """Raise InvalidInput or InvalidParameter unless the network and its layer give what graphs are made of."""
        _check_shapes(self._weighted, self._images, self.n_outputs)

    def to_onnx(self, name: str, path: str | os.PathLike[str]) -> None:
        """Write a graph as ONNX with a dynamic batch and the names of its `AskSpec`, with golden values beside it.

        Raises:
            InvalidParameter: there is no graph of that name.
            UnsupportedOperation: the network cannot be compiled; the message names the operation and the layer.
            BundleError: the compiled graph computes something else than the network.
        """
        images = torch.randn(N_EXAMPLES, *self._images.shape[1:], generator=torch.Generator().manual_seed(0))
        GraphWriter(self, images.to(self._images.dtype)).write(name, Path(path))

    def examples(self, name: str) -> list[Tensor]:
        """Return an example of each input of a graph, in order, at least 2 rows each."""
        images = self._images
        row = torch.linspace(1, 2, self.n_outputs, dtype=images.dtype, device=images.device)
        asked = asks.spec(name)
        known = {"images": images, "weights": row.expand(len(images), -1)}
        return [known[each] if each in known else asked.examples[each](images) for each in asked.inputs]

    def extended(
        self, name: str, append: Callable[[fx.GraphModule, "Nodes"], Sequence[fx.Node]], *, split_pools: bool = True
    ) -> CompiledGraph:
        """Compile a graph that is the network itself and what is appended to it.

        Args:
            name: Name of the graph.
            append: Appends to the traced network and returns the nodes of the outputs, in order.
            split_pools: See :func:`radlens.graphs.passes.split_large_pools`.

        Raises:
            UnsupportedOperation: The network cannot be compiled.
        """
        module = copied(self._traced)
        prepare(module, split_pools=split_pools)
        output, score, *maps = results(module)
        images = module.graph.find_nodes(op="placeholder")[0]
        complete(module, append(module, Nodes(images, output, score, maps[0] if maps else None)))
        asked = asks.spec(name)
        for node in module.graph.find_nodes(op="placeholder"):
            if node.meta["input"] not in asked.inputs:
                module.graph.erase_node(node)
        module.recompile()
        return CompiledGraph(module, self.examples(name), asked.inputs, asked.outputs)

    def check_backward(self, gradient: Callable[..., Sequence[Tensor]]) -> None:
        """Check, the first time, that autograd functions of the network go back by the gradient of what they compute.

        Args:
            gradient: Maps images and weights to logits and the compiled gradient.

        Raises:
            UnsupportedOperation: One does not.
        """
        if self._checked:
            return
        inputs = tuple(each[:1] for each in self.examples("gradient"))
        check_custom_functions(lambda *given: gradient(*given)[1], lambda *given: self._weighted(*given)[1], inputs, 0)
        self._checked = True

    @cached_property
    def captum_sees_all(self) -> bool:
        """Whether Captum's rules for layers reach every rectifier and pooling of the network."""
        return captum_sees_all(self.module, self._images[:1])

    @cached_property
    def _traced(self) -> fx.GraphModule:
        """The network as a graph that gives out logits, score and, if there are any, feature maps."""
        module = trace_whole(self._weighted, tuple(self.examples("gradient")), KNOWN)
        own_constants(module, self.module)
        images, weights = module.graph.find_nodes(op="placeholder")
        images.meta["input"], weights.meta["input"] = "images", "weights"
        output, score, *maps = results(module)
        found = maps[0] if maps else last_feature_maps(module.graph, images, score)
        module.graph.output_node().args = ((output, score) if found is None else (output, score, found),)
        return module


class Nodes(NamedTuple):
    """Nodes of a traced classifier.

    Attributes:
        images: Its input.
        output: Logits ``(b, n_outputs)``.
        score: Score ``(b,)``.
        maps: Last feature maps ``(b, k, h', w')``; None where the network has none.
    """

    images: fx.Node
    output: fx.Node
    score: fx.Node
    maps: fx.Node | None


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
        with outputs_of(self.module, self.layer) as maps:
            output = self.module(images)
        return [output, (output * weights).sum(1), *maps]


@contextmanager
def outputs_of(module: nn.Module, layer: str | None) -> Iterator[list[Any]]:
    """Yield a list that gets what a layer of ``module`` returns, each time it is called, as it was returned."""
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
    with torch.no_grad(), outputs_of(weighted.module, weighted.layer) as maps:
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
