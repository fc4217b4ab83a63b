"""Ensemble fusion: members of one architecture as one module that computes all of them at once.

Every member is traced and simplified on its own; the graphs must be equal but for their constants. Activations of all
members are kept side by side, in the form that the next layer wants:

- *joined*, ``(b, m * c, ...)``: convolutions become grouped ones, pooling and activations work on all channels;
- *split*, ``(b, m, c, ...)``: what is not done per channel takes members as more samples, ``(b * m, c, ...)``;
- *stacked*, ``(m, b, ...)``: dense layers become one batched product.

What does not depend on the member, such as the input, is computed once.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from radlens.errors import InvalidInput, UnsupportedOperation
from radlens.graphs import passes
from radlens.graphs.differentiate import name_of, positional
from radlens.graphs.passes.constants import constant_of
from radlens.graphs.recording import Recorder, Value, is_static, sizes
from radlens.graphs.rules import RULES
from radlens.graphs.tracing import Traced, evaluating_copy, layer_of, own_constants, trace

__all__ = ["FusedMembers", "fuse_members"]

aten = torch.ops.aten


class FusedMembers(nn.Module):
    """Maps inputs to what all members return, stacked: ``(m, b, ...)`` where a member returns ``(b, ...)``.

    Made by :func:`fuse_members`.
    """

    def __init__(self, graph_module: fx.GraphModule, n_members: int, out_spec: pytree.TreeSpec) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.n_members = n_members
        self.out_spec = out_spec
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        """Compute all members for the same inputs."""
        return pytree.tree_unflatten(list(self.graph_module(*inputs)), self.out_spec)


def fuse_members(members: Sequence[nn.Module], example_inputs: tuple[Tensor, ...]) -> FusedMembers:
    """Join members of one architecture into one module with stacked outputs.

    The members stay untouched; their weights are copied, in evaluation mode.

    Args:
        members: at least one; they may differ in weights only.
        example_inputs: one tensor for each input of a member, batch first; only shapes and types matter.

    Raises:
        InvalidInput: there are no members, or two differ in more than weights; the message names the first difference.
        UnsupportedOperation: an operation cannot be compiled or fused; the message names it and the layer.
    """
    if not members:
        raise InvalidInput("an ensemble needs at least 1 member, got 0")
    traced = [_prepared(member, example_inputs) for member in members]
    graphs = [t.graph_module for t in traced]
    for number, graph_module in enumerate(graphs[1:], start=1):
        _check_same(graphs[0], graph_module, number)
    fused = _Fusion(graphs).run()
    passes.clean(fused)
    passes.fold_constants(fused)
    return FusedMembers(fused, len(members), traced[0].out_spec)


def _prepared(member: nn.Module, inputs: tuple[Tensor, ...]) -> Traced:
    member = evaluating_copy(member)
    traced = trace(member, inputs, None, RULES.keys() | passes.LOWERINGS.keys())
    passes.simplify(traced.graph_module)
    own_constants(traced.graph_module, member)
    return traced


def _check_same(first: fx.GraphModule, other: fx.GraphModule, number: int) -> None:
    """Refuse a member whose graph is not the first one's with other constants."""
    nodes, others = list(first.graph.nodes), list(other.graph.nodes)
    position = {node: k for graph in (nodes, others) for k, node in enumerate(graph)}
    for a, b in zip(nodes, others, strict=False):
        if _described(a, position) != _described(b, position):
            raise InvalidInput(
                f"members must have one architecture: where member 0 has {_named(a)}, member {number} has {_named(b)}"
            )


def _described(node: fx.Node, position: dict[fx.Node, int]) -> Any:
    """Return what must be equal: operation, arguments, shape and type."""
    value = node.meta.get("val")
    shape = (sizes(value), value.dtype) if isinstance(value, Tensor) else None
    target = None if node.op in ("get_attr", "placeholder", "output") else node.target
    arguments = pytree.tree_map(
        lambda a: ("node", position[a]) if isinstance(a, fx.Node) else a, (node.args, node.kwargs)
    )
    return node.op, target, str(arguments), str(shape)


def _named(node: fx.Node) -> str:
    value = node.meta.get("val")
    shape = f" {tuple(value.shape)[1 if node.op != 'get_attr' else 0 :]}" if isinstance(value, Tensor) else ""
    kind = "a constant" if node.op == "get_attr" else name_of(node) if node.op == "call_function" else f"its {node.op}"
    user = next(iter(node.users), node) if node.op == "get_attr" else node
    return f"{kind}{shape} (layer {layer_of(user)})"


class _Members:
    """One value of every member, in the forms it was asked for so far; ``rank`` is that of a member's value."""

    def __init__(self, n_members: int, rank: int, **form: Any) -> None:
        self.m, self.rank = n_members, rank
        self.forms = form

    @property
    def joined(self) -> Any:
        """``(b, m * c, ...)``."""
        if "joined" not in self.forms:
            split = self.split
            shape = sizes(split)
            self.forms["joined"] = aten.reshape.default(split, [-1, shape[1] * shape[2], *shape[3:]])
        return self.forms["joined"]

    @property
    def split(self) -> Any:
        """``(b, m, c, ...)``."""
        if "split" not in self.forms:
            if "stacked" in self.forms:
                self.forms["split"] = aten.transpose.int(self.forms["stacked"], 0, 1)
            else:
                shape = sizes(self.forms["joined"])
                self.forms["split"] = aten.reshape.default(
                    self.forms["joined"], [-1, self.m, shape[1] // self.m, *shape[2:]]
                )
        return self.forms["split"]

    @property
    def stacked(self) -> Any:
        """``(m, b, ...)``."""
        if "stacked" not in self.forms:
            self.forms["stacked"] = aten.transpose.int(self.split, 0, 1)
        return self.forms["stacked"]

    @property
    def as_samples(self) -> Any:
        """``(b * m, ...)``."""
        split = self.split
        return aten.reshape.default(split, [-1, *sizes(split)[2:]])


class _Constants:
    """A constant of every member."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)

    @property
    def rank(self) -> int:
        return self.tensors[0].ndim

    @property
    def shape(self) -> torch.Size:
        return self.tensors[0].shape


class _Fusion:
    """Writes the graph of all members, node by node."""

    def __init__(self, graphs: Sequence[fx.GraphModule]) -> None:
        self.graphs = graphs
        self.m = len(graphs)
        self.module = fx.GraphModule(nn.Module(), fx.Graph())
        self.values: dict[fx.Node, Any] = {}
        first = graphs[0].graph
        for node in first.find_nodes(op="placeholder"):
            placeholder = self.module.graph.placeholder(node.name)
            placeholder.meta = dict(node.meta)
            self.values[node] = placeholder
        self.recorder = Recorder(self.module)
        self.values = {node: self.recorder.proxy(value) for node, value in self.values.items()}

    def run(self) -> fx.GraphModule:
        """Return the graph; its outputs are stacked."""
        columns = zip(*(graph.graph.nodes for graph in self.graphs), strict=True)
        for nodes in columns:
            node = nodes[0]
            self.recorder.origin = node
            if node.op == "get_attr":
                self.values[node] = self._constants(nodes)
            elif node.op == "call_function":
                self.values[node] = self._computed(node)
            elif node.op == "output":
                results: Any = node.args[0]
                self.module.graph.output(tuple(self._stacked(self.values[r], r).node for r in results))
        self.module.graph.output_node().meta = {}
        self.module.recompile()
        return self.module

    def _constants(self, nodes: Sequence[fx.Node]) -> Any:
        tensors = [constant_of(graph, node) for graph, node in zip(self.graphs, nodes, strict=True)]
        found = [tensor for tensor in tensors if tensor is not None]
        if all(torch.equal(found[0], tensor) for tensor in found[1:]):
            return self.recorder.constant(found[0])
        return _Constants(found)

    def _computed(self, node: fx.Node) -> Any:
        arguments = [self._given(a) for a in (positional(node) if _is_operation(node) else node.args)]
        own = [a for a in pytree.tree_leaves(arguments) if isinstance(a, _Members | _Constants)]
        if not own:
            target: Any = node.target
            return _call(node, arguments) if _is_operation(node) else target(*arguments)
        for rule in (_convolution, _dense, _product, _expansion, _elementwise, _by_channel, _by_sample):
            result = rule(self, node, arguments)
            if result is not None:
                return result
        raise UnsupportedOperation(f"{name_of(node)} cannot be fused (layer {layer_of(node)})")

    def _given(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return self.values[argument]
        if isinstance(argument, list | tuple):
            return [self._given(part) for part in argument]
        return argument

    def constant(self, tensor: Tensor) -> Any:
        """Store a tensor."""
        return self.recorder.constant(tensor)

    def members(self, node: fx.Node, **form: Any) -> _Members:
        """Return the members' values of ``node``."""
        return _Members(self.m, node.meta["val"].ndim, **form)

    def _stacked(self, value: Any, node: fx.Node) -> Any:
        """Return an output in its final form ``(m, b, ...)``."""
        if isinstance(value, _Members):
            return value.stacked
        if isinstance(value, _Constants):
            return self.constant(torch.stack(value.tensors))
        return aten.expand.default(aten.unsqueeze.default(value, 0), [self.m, *[-1] * node.meta["val"].ndim])


def _is_operation(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload)


def _convolution(fusion: _Fusion, node: fx.Node, arguments: list[Any]) -> Any:
    """Grouped convolution; a plain one where all members see the same image."""
    if node.target is not aten.convolution.default:
        return None
    x, weight, bias, *geometry, groups = arguments
    transposed = geometry[3]
    weights = torch.cat(_each(weight, fusion))
    biases = None if bias is None else fusion.constant(torch.cat(_each(bias, fusion)))
    same_image = not isinstance(x, _Members)
    if same_image and (groups > 1 or transposed):
        x, same_image = _Members(fusion.m, node.meta["val"].ndim, joined=aten.cat.default([x] * fusion.m, 1)), False
    if not same_image:
        x, groups = x.joined, groups * fusion.m
    y = aten.convolution.default(x, fusion.constant(weights), biases, *geometry, groups)
    return fusion.members(node, joined=y)


def _each(value: Any, fusion: _Fusion) -> list[Tensor]:
    """Return one tensor for each member."""
    return value.tensors if isinstance(value, _Constants) else [value.constant()] * fusion.m


def _dense(fusion: _Fusion, node: fx.Node, arguments: list[Any]) -> Any:
    """One batched product; one wide layer where all members see the same features."""
    if node.target is not aten.linear.default:
        return None
    x, weight, bias = [*arguments, None][:3]
    if isinstance(weight, Value) and not isinstance(x, _Members) and bias is None:
        return None
    weights = _each(weight, fusion)
    rank = node.meta["val"].ndim
    if not isinstance(x, _Members):
        y = aten.linear.default(
            x,
            fusion.constant(torch.cat(weights)),
            None if bias is None else fusion.constant(torch.cat(_each(bias, fusion))),
        )
        shape = sizes(y)
        y = aten.reshape.default(y, [*shape[:-1], fusion.m, shape[-1] // fusion.m])
        order = [rank - 1, *range(rank - 1), rank]
        return fusion.members(node, stacked=aten.permute.default(y, order))
    wide = torch.stack([w.t() for w in weights])
    y = aten.matmul.default(x.stacked, fusion.constant(wide.view(fusion.m, *[1] * (rank - 2), *wide.shape[1:])))
    if bias is not None:
        biases = torch.stack(_each(bias, fusion))
        y = aten.add.Tensor(y, fusion.constant(biases.view(fusion.m, *[1] * (rank - 1), -1)))
    return fusion.members(node, stacked=y)


def _product(fusion: _Fusion, node: fx.Node, arguments: list[Any]) -> Any:
    """Matrix product with a constant of every member."""
    if node.target is not aten.matmul.default or not any(isinstance(a, _Constants) for a in arguments):
        return None
    rank = node.meta["val"].ndim
    factors = []
    for factor in arguments:
        if isinstance(factor, _Members):
            factors.append(factor.stacked)
        elif isinstance(factor, _Constants):
            together = torch.stack(factor.tensors)
            factors.append(fusion.constant(together.view(fusion.m, *[1] * (rank - factor.rank), *factor.shape)))
        else:
            factors.append(factor)
    return fusion.members(node, stacked=aten.matmul.default(*factors))


def _expansion(fusion: _Fusion, node: fx.Node, arguments: list[Any]) -> Any:
    """A constant of every member, repeated for the batch."""
    if node.target is not aten.expand.default or not isinstance(arguments[0], _Constants):
        return None
    constants, shape = arguments[:2]
    together = torch.stack(constants.tensors)
    together = together.view(fusion.m, *[1] * (len(shape) - constants.rank), *constants.shape)
    return fusion.members(node, stacked=aten.expand.default(fusion.constant(together), [fusion.m, *shape]))


_POINTWISE = (aten._prelu_kernel.default, aten.where.self, aten.detach.default)
"""Element by element, though torch does not say so."""


def _elementwise(fusion: _Fusion, node: fx.Node, arguments: list[Any]) -> Any:
    """The same on all channels; constants of every channel joined, everything else brought beside the members."""
    target: Any = node.target
    if not _is_operation(node) or not (torch.Tag.pointwise in target.tags or target in _POINTWISE):
        return None
    tensors = [a for a in pytree.tree_leaves(arguments) if isinstance(a, _Members | _Constants | Value)]
    rank = node.meta["val"].ndim
    if any(isinstance(a, _Members) and a.rank != rank for a in tensors):
        return None
    form = _common_form(tensors, node)
    call = {"joined": _as_joined, "stacked": _as_stacked, "split": _as_split}[form]
    values = pytree.tree_map(
        lambda a: call(fusion, a, rank) if isinstance(a, _Members | _Constants | Value) else a, arguments
    )
    return fusion.members(node, **{form: _call(node, values)})


def _common_form(tensors: list[Any], node: fx.Node) -> str:
    """Choose the form in which all operands can meet without being moved."""
    rank = node.meta["val"].ndim
    channels = node.meta["val"].shape[1] if rank > 1 else None
    members = [a for a in tensors if isinstance(a, _Members)]
    if not members:
        return "split"
    if any(isinstance(a, Value) and a.ndim > 0 for a in tensors):
        return "split"
    if all("stacked" in a.forms for a in members):
        return "stacked"
    if rank < 2 or not all(_channels(a, rank) == channels for a in tensors if not isinstance(a, Value)):
        return "split"
    return "joined" if any("joined" in a.forms for a in members) else "split"


def _channels(value: Any, rank: int) -> Any:
    """Return how many channels an operand has where ``rank`` axes are meant, None where it has no such axis."""
    if isinstance(value, _Members):
        form = value.forms.get("joined")
        if form is not None:
            return int(form.shape[1]) // value.m
        return int(value.split.shape[2])
    shape = [1] * (rank - value.rank) + list(value.shape)
    return shape[1] if shape[0] == 1 else None


def _as_joined(fusion: _Fusion, value: Any, rank: int) -> Any:
    if isinstance(value, _Members):
        return value.joined
    if isinstance(value, _Constants):
        whole = [t.view([1] * (rank - t.ndim) + list(t.shape)) for t in value.tensors]
        return fusion.constant(torch.cat(whole, 1))
    return value


def _as_split(fusion: _Fusion, value: Any, rank: int) -> Any:
    if isinstance(value, _Members):
        return value.split
    if isinstance(value, _Constants):
        whole = [t.view([1] * (rank - t.ndim) + list(t.shape)) for t in value.tensors]
        return fusion.constant(torch.stack(whole, 1))
    return aten.unsqueeze.default(value, 1) if value.ndim == rank and rank > 0 else value


def _as_stacked(fusion: _Fusion, value: Any, rank: int) -> Any:
    if isinstance(value, _Members):
        return value.stacked
    if isinstance(value, _Constants):
        whole = [t.view([1] * (rank - t.ndim) + list(t.shape)) for t in value.tensors]
        return fusion.constant(torch.stack(whole))
    return value


_BY_CHANNEL = (
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
    aten.upsample_nearest2d.default,
    aten.upsample_nearest3d.default,
)
"""Operations on the axes behind the channels."""


def _by_channel(fusion: _Fusion, node: fx.Node, arguments: list[Any]) -> Any:
    """Pooling, resampling, and reductions over the axes behind the channels."""
    x, *rest = arguments
    if not isinstance(x, _Members) or x.rank < 3 or any(isinstance(a, _Members | _Constants | Value) for a in rest):
        return None
    reductions = (aten.mean.dim, aten.sum.dim_IntList, aten.amax.default)
    behind = node.target in reductions and rest and all(axis % x.rank > 1 for axis in rest[0])
    if node.target in _BY_CHANNEL or behind:
        return fusion.members(node, joined=_call(node, [x.joined, *rest]))
    return None


def _call(node: fx.Node, arguments: list[Any]) -> Any:
    """Call the operation of ``node`` with positional arguments, those by keyword as such."""
    target: Any = node.target
    schema = target._schema.arguments
    n = sum(not argument.kwarg_only for argument in schema)
    named = {a.name: v for a, v in zip(schema[n:], arguments[n:], strict=False)}
    return target(*arguments[:n], **named)


_AXES = ("dim", "dims", "dim0", "dim1")


def _by_sample(fusion: _Fusion, node: fx.Node, arguments: list[Any]) -> Any:
    """Members as more samples, where an operation leaves the batch alone."""
    if not _is_operation(node) or not _keeps_batch(node):
        return None
    leaves = pytree.tree_leaves(arguments)
    if any(isinstance(a, _Constants) for a in leaves):
        return None

    def given(a: Any) -> Any:
        if isinstance(a, _Members):
            return a.as_samples
        if (
            isinstance(a, Value)
            and isinstance(a.node.meta["val"], Tensor)
            and not is_static(a.shape[0] if a.ndim else 1)
        ):
            wide = aten.expand.default(aten.unsqueeze.default(a, 1), [-1, fusion.m, *sizes(a)[1:]])
            return aten.reshape.default(wide, [-1, *sizes(a)[1:]])
        return a

    y = _call(node, pytree.tree_map(given, arguments))
    if isinstance(node.meta["val"], tuple | list):
        return [_unfolded(fusion, y[k], value.ndim) for k, value in enumerate(node.meta["val"])]
    return _unfolded(fusion, y, node.meta["val"].ndim)


def _unfolded(fusion: _Fusion, y: Any, rank: int) -> _Members:
    return _Members(fusion.m, rank, split=aten.reshape.default(y, [-1, fusion.m, *sizes(y)[1:]]))


def _keeps_batch(node: fx.Node) -> bool:
    """Tell whether the first axis of every operand and of the result is the batch, and no argument names it."""
    target: Any = node.target
    values = [node.meta["val"]] if isinstance(node.meta["val"], Tensor) else list(node.meta["val"])
    operands = [n.meta["val"] for n in node.all_input_nodes if isinstance(n.meta["val"], Tensor)]
    batched = [x for x in operands if any(not is_static(size) for size in x.shape)]
    if len(operands) < len(node.all_input_nodes) or not batched:
        return False
    batch = batched[0].shape[0]
    if is_static(batch) or any(v.ndim == 0 or v.shape[0] != batch for v in [*values, *batched]):
        return False
    if node.target is aten.permute.default:
        return bool(positional(node)[1][0] == 0)
    for argument, value in zip(target._schema.arguments, positional(node), strict=False):
        if argument.name in _AXES and value is not None:
            axes = [value] if isinstance(value, int) else value
            if not axes or any(axis % values[0].ndim == 0 for axis in axes):
                return False
    return True
