"""Networks that end in a softmax or sigmoid: the logits before it are what radlens explains.

radlens computes probabilities from logits itself. A network that returns probabilities would always predict the
positive class, since all of them are above zero.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from onnx import GraphProto, ModelProto, NodeProto
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from radlens.engines.golden import relative_error
from radlens.engines.onnxruntime import cpu_session
from radlens.errors import InvalidInput
from radlens.graphs.onnx_file import IN_LOOP, INPUT, OUTPUT, OnnxFile, probes
from radlens.graphs.tracing import evaluating_copy

__all__ = ["logits_of_file", "logits_of_module"]

log = logging.getLogger(__name__)

aten = torch.ops.aten

_ENDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "Softmax": lambda x: x.softmax(1),
    "LogSoftmax": lambda x: x.log_softmax(1),
    "Sigmoid": torch.sigmoid,
}
"""What a network may end in, by the name in ONNX and in ``torch.nn``."""

_OF_ONNX = {
    **{name: name for name in _ENDINGS},
    **dict.fromkeys(("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Dropout"), "shape"),
    **dict.fromkeys(("ReduceMean", "GlobalAveragePool", "AveragePool"), "mean"),
    **dict.fromkeys(("Gemm", "MatMul", "Conv"), "product"),
    "Add": "sum",
}
"""Kinds of operations at the end of a network."""

_OF_TORCH = {
    **dict.fromkeys((aten._softmax, aten.softmax), "Softmax"),
    **dict.fromkeys((aten._log_softmax, aten.log_softmax), "LogSoftmax"),
    **dict.fromkeys((aten.sigmoid, aten.sigmoid_), "Sigmoid"),
    **dict.fromkeys((aten.view, aten._unsafe_view, aten.reshape, aten.flatten, aten.squeeze, aten.unsqueeze), "shape"),
    aten.unflatten: "shape",
    **dict.fromkeys((aten.detach, aten.alias, aten.clone, aten._to_copy, aten.contiguous, aten.dropout), "shape"),
    **dict.fromkeys((aten.mean, aten.avg_pool2d, aten.adaptive_avg_pool2d, aten._adaptive_avg_pool2d), "mean"),
    **dict.fromkeys(
        (aten.addmm, aten.mm, aten.bmm, aten.matmul, aten.linear, aten.convolution, aten.conv2d), "product"
    ),
    **dict.fromkeys((aten.add, aten.add_), "sum"),
}

_SMALL = 100_000
"""Largest number of values of a result that is kept while a network is run; an output has far fewer."""

_TOLERANCE = 1e-4
"""Largest relative error of probabilities that are computed from the logits."""

_LAYERS = (nn.Softmax, nn.LogSoftmax, nn.Sigmoid)


def logits_of_file(file: OnnxFile, images: np.ndarray) -> OnnxFile:
    """Return a file without the softmax or sigmoid at its end.

    Args:
        file: The file.
        images: Example images ``(b, c, h, w)`` float32, at least 2.

    Raises:
        InvalidInput: The network returns probabilities, and there are no logits of exclusive classes before them.
    """
    graph, result = _computing(file.model)
    nodes = {name: node for node in graph.node for name in node.output}
    end = _end(result, lambda name: _onnx_step(nodes, name))
    shape = file.run(images[:1]).shape
    if end.kind in _ENDINGS and len(shape) == 2:
        _require_classes(end.kind, shape[1])
        made = replace(file, model=_without(file.model, end.value), ending=end.kind)
        _check(made, file, images)
        _tell(end.kind)
        return made
    if not end.is_product:
        _require_wide(file.run(given) for given in probes(images))
    return file


def logits_of_module(module: nn.Module, images: Tensor) -> tuple[nn.Module, str | None]:
    """Return a module without the softmax or sigmoid at its end, and the kind of that end.

    Without such an end, the module itself and None are returned.

    Args:
        module: Maps images to ``(b, n)``; in evaluation mode.
        images: Example images ``(b, c, h, w)``.

    Raises:
        InvalidInput: The module returns probabilities, and there are no logits of exclusive classes before them.
    """
    recorder = _Recorder()
    with torch.no_grad(), _results_of_endings(module) as results, recorder:
        output = module(images[:2].clone())
    if not isinstance(output, Tensor) or output.ndim != 2:
        return module, None
    end = _end(output, recorder.step)
    if end.kind not in _ENDINGS:
        if not end.is_product:
            with torch.no_grad():
                given = (torch.from_numpy(each.copy()).to(images) for each in probes(images[[0, -1]].float().numpy()))
                _require_wide([module(each).numpy() for each in given])
        return module, None
    _require_classes(end.kind, output.shape[1])
    paths = [path for path, result in results if result is end.value]
    made = _without_layer(module, paths, [path for path, _ in results]) or _without_node(module)
    if made is None:
        raise InvalidInput(
            f"the network must return logits, got what {end.kind.lower()} returns, which its forward calls: let it "
            f"return the argument of that call"
        )
    with torch.no_grad():
        found = _ENDINGS[end.kind](made(images[:2].clone()))
    if not torch.allclose(found, output, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise InvalidInput(
            f"the network must return logits, got what {end.kind.lower()} returns, along another axis than that of the "
            f"classes: bundle the network without it"
        )
    _tell(end.kind)
    return made, end.kind


@dataclass(frozen=True)
class _End:
    """End of a network.

    Attributes:
        kind: One of `_ENDINGS`, or ``""``.
        value: Result of that operation.
        is_product: Whether only averages follow the last product with weights, as behind logits.
    """

    kind: str
    value: Any
    is_product: bool = False


Step = tuple[str, list[Any]]
"""Kind of the operation that computed a value, and its inputs."""


def _end(value: Any, step: Callable[[Any], Step]) -> _End:
    """Go back from the output of a network over what only changes its shape."""
    averaged = False
    while True:
        kind, inputs = step(value)
        if kind in _ENDINGS and not averaged:
            return _End(kind, value)
        if kind == "sum":
            # The bias of a product.
            kinds = [step(each)[0] for each in inputs]
            return _End("", value, "product" in kinds)
        # A view may be its own input.
        if kind not in ("shape", "mean") or not inputs or inputs[0] is value:
            return _End("", value, kind == "product")
        averaged |= kind == "mean"
        value = inputs[0]


def _onnx_step(nodes: dict[str, NodeProto], name: str) -> Step:
    node = nodes.get(name)
    return ("", []) if node is None else (_OF_ONNX.get(node.op_type, ""), list(node.input))


class _Recorder(TorchDispatchMode):
    """Keeps which operation computed each small result."""

    def __init__(self) -> None:
        super().__init__()
        # The results are kept too: an address is used again for another tensor.
        self._made: dict[int, tuple[Tensor, Step]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute an operation and keep its result."""
        result = func(*args, **(kwargs or {}))
        inputs = [each for each in pytree.tree_leaves(args) if isinstance(each, Tensor)]
        for each in pytree.tree_leaves(result):
            if isinstance(each, Tensor) and each.numel() <= _SMALL:
                self._made[id(each)] = (each, (_OF_TORCH.get(func.overloadpacket, ""), inputs))
        return result

    def step(self, value: Tensor) -> Step:
        """Return the operation that computed a value."""
        return self._made[id(value)][1] if id(value) in self._made else ("", [])


@contextmanager
def _results_of_endings(module: nn.Module) -> Iterator[list[tuple[str, Tensor]]]:
    """Yield a list that gets the path and the result of every softmax or sigmoid layer that is called."""
    found: list[tuple[str, Tensor]] = []
    layers = [(path, layer) for path, layer in module.named_modules() if path and isinstance(layer, _LAYERS)]
    handles = [
        layer.register_forward_hook(lambda _, __, result, path=path: found.append((path, result)))
        for path, layer in layers
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _without_layer(module: nn.Module, paths: Sequence[str], used: Sequence[str]) -> nn.Module | None:
    """Return a copy without a layer; None unless there is one that is used once."""
    if len(paths) != 1 or used.count(paths[0]) != 1:
        return None
    made = evaluating_copy(module)
    made.set_submodule(paths[0], nn.Identity())
    return made


def _without_node(module: nn.Module) -> nn.Module | None:
    """Return a copy of a graph, such as one of TorchScript, without the node at its end; None for other modules."""
    if not isinstance(module, fx.GraphModule):
        return None
    made: Any = evaluating_copy(module)
    result = pytree.tree_leaves(made.graph.output_node().args)[0]
    end = _end(result, _node_step)
    if end.kind not in _ENDINGS:
        return None
    end.value.replace_all_uses_with(end.value.args[0])
    made.graph.erase_node(end.value)
    made.recompile()
    return made  # type: ignore[no-any-return]


def _node_step(node: fx.Node) -> Step:
    packet = getattr(node.target, "overloadpacket", None)
    return _OF_TORCH.get(packet, "") if packet is not None else "", list(node.all_input_nodes)


def _computing(model: ModelProto) -> tuple[GraphProto, str]:
    """Return the graph that computes the output, which may be that of a loop over the images, and its name there."""
    loops = [node for node in model.graph.node if node.op_type == "Scan" and OUTPUT in node.output]
    bodies = [attribute.g for node in loops for attribute in node.attribute if attribute.name == "body"]
    return (bodies[0], IN_LOOP) if bodies else (model.graph, OUTPUT)


def _without(model: ModelProto, value: str) -> ModelProto:
    """Return a model in which the node that computes ``value`` passes its input on."""
    made = ModelProto()
    made.CopyFrom(model)
    (node,) = (node for node in _computing(made)[0].node if value in node.output)
    node.op_type, node.domain = "Identity", ""
    node.ClearField("attribute")
    return made


def _check(made: OnnxFile, file: OnnxFile, images: np.ndarray) -> None:
    """Check that the probabilities of a file follow from the logits that were found."""
    session = cpu_session(made.model.SerializeToString())
    tolerance = max(_TOLERANCE, file.tolerance)
    for given in probes(images):
        (logits,) = session.run([OUTPUT], {INPUT: given})
        found, expected = _ENDINGS[str(made.ending)](torch.from_numpy(logits)).numpy(), file.run(given)
        if np.isfinite(expected).all() and not relative_error(found, expected) <= tolerance:
            raise InvalidInput(
                f"the network must return logits, got what {made.ending} returns, along another axis than that of the "
                f"classes: export the network without it"
            )


def _require_classes(kind: str, n_outputs: int) -> None:
    if kind == "Sigmoid" and n_outputs > 1:
        raise InvalidInput(
            f"classes must exclude each other, got a sigmoid of {n_outputs} outputs, which are {n_outputs} findings "
            f"that may occur together: bundle the network once for each finding, with that output alone"
        )
    if kind != "Sigmoid" and n_outputs == 1:
        raise InvalidInput(f"the network must return logits, got a {kind.lower()} of one output, which is constant")


def _require_wide(outputs: Any) -> None:
    """Check that not all outputs are between 0 and 1.

    Raises:
        InvalidInput: They are.
    """
    values = np.concatenate([np.asarray(each).ravel() for each in outputs])
    values = values[np.isfinite(values)]
    if values.size and values.min() >= 0 and values.max() <= 1:
        raise InvalidInput(
            f"the network must return logits, got {values.size} values that are all from 0 to 1 "
            f"({values.min():.3g} to {values.max():.3g}) for images and noise of every size, as probabilities are: "
            f"export or return what its softmax or sigmoid is given"
        )


def _tell(kind: str) -> None:
    log.warning("the network ends in a %s, which is left out: radlens explains the logits before it", kind.lower())
