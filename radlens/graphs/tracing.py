"""Tracing of a torch module with ``torch.export``: a graph of functional operations, with constants as buffers.

The batch size stays symbolic. ``aten.detach`` nodes mark the values that autograd does not differentiate
(``torch.no_grad``, ``detach``).
"""

import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, default_decompositions
from torch.export.graph_signature import InputKind, OutputKind
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from radlens.errors import InvalidInput, UnsupportedOperation
from radlens.graphs.precision import copied

__all__ = [
    "Traced",
    "dynamic_batch",
    "evaluating_copy",
    "layer_of",
    "own_constants",
    "quiet",
    "stand_in",
    "trace",
    "trace_whole",
    "with_weights",
]

aten = torch.ops.aten

_BATCH = 1009
"""Batch size while tracing: a prime that does not occur as another size, since ``torch.export`` merges equal sizes."""

Score = Callable[[Any], Tensor]


@dataclass
class Traced:
    """A traced module. The outputs of the graph are the leaves of the module's output, followed by the score if given.

    Attributes:
        graph_module: graph with the module's inputs; its nodes have fake tensors in ``meta["val"]``.
        out_spec: structure of the module's output.
    """

    graph_module: fx.GraphModule
    out_spec: pytree.TreeSpec


class _Scored(nn.Module):
    """A module with the score as an additional output."""

    def __init__(self, module: nn.Module, score: Score | None) -> None:
        super().__init__()
        self.module = module
        self.score = score

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        output = self.module(*inputs)
        leaves = pytree.tree_leaves(output)
        return leaves if self.score is None else [*leaves, self.score(output)]


def evaluating_copy(module: nn.Module) -> nn.Module:
    """Copy ``module`` in evaluation mode.

    The copy shares the tensors of ``module``, unless some of them are float16, bfloat16 or shorter: then all are copied
    and converted to float32.
    """
    if any(_is_short(tensor) for tensor in (*module.parameters(), *module.buffers())):
        with quiet():
            return deepcopy(module).float().eval()
    # deepcopy takes objects in memo for copied already.
    memo: dict[int, Any] = {}
    for part in module.modules():
        for values in (part._parameters, part._buffers, part.__dict__):
            memo.update({id(value): value for value in values.values() if isinstance(value, Tensor)})
    with quiet():
        return deepcopy(module, memo).eval()


def _is_short(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype.itemsize < torch.float32.itemsize


def own_constants(graph_module: fx.GraphModule, module: nn.Module) -> None:
    """Copy the buffers that ``graph_module`` shares with ``module``, so that further training does not change them."""
    shared = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    for name, buffer in list(graph_module.named_buffers()):
        if buffer.untyped_storage().data_ptr() in shared:
            setattr(graph_module, name, buffer.clone())


def trace(
    module: nn.Module, inputs: tuple[Tensor, ...], score: Score | None, kept: Collection[torch._ops.OpOverload]
) -> Traced:
    """Trace ``module`` into a graph of functional operations.

    Args:
        module: module in evaluation mode, see :func:`evaluating_copy`.
        inputs: example inputs, batch first.
        score: function that maps the module's output to one number per sample, or None.
        kept: operations that are not decomposed; others are decomposed where torch has a decomposition.

    Raises:
        UnsupportedOperation: the module cannot be traced for every batch size.
    """
    out_spec = pytree.tree_structure(_plain_run(module, inputs, score))
    return Traced(trace_whole(_Scored(module, score), inputs, kept), out_spec)


def trace_whole(
    whole: nn.Module, inputs: tuple[Tensor, ...], kept: Collection[torch._ops.OpOverload]
) -> fx.GraphModule:
    """Trace ``whole``, a module around the network ``whole.module``, into a graph of functional operations.

    Args:
        whole: module that maps ``*inputs`` to a list of tensors; its network is in evaluation mode.
        inputs: example inputs, batch first.
        kept: operations that are not decomposed; others are decomposed where torch has a decomposition.

    Raises:
        UnsupportedOperation: the module cannot be traced for every batch size.
    """
    program = _exported(whole, inputs)
    _mark_undifferentiated(program)
    table = {operation: rule for operation, rule in default_decompositions().items() if operation not in kept}
    with quiet(), torch.no_grad():
        program = program.run_decompositions(table)
    return _with_constants(program)


_TARGETS = "targets"
"""Key in the ``meta`` of a traced module: path of the parameter or buffer of the module behind each constant."""


def with_weights(graph_module: fx.GraphModule, whole: nn.Module) -> fx.GraphModule:
    """Return a graph of :func:`trace_whole` for a module of the same structure with other weights."""
    found = copied(graph_module)
    known = {
        **dict(whole.named_parameters(remove_duplicate=False)),
        **dict(whole.named_buffers(remove_duplicate=False)),
    }
    for name, target in graph_module.meta[_TARGETS].items():
        # Constants that the forward itself makes have no target in the module.
        if target in known:
            setattr(found, name, known[target].detach().clone())
    return found


def stand_in(x: Tensor, device: torch.device) -> Tensor:
    """Return an uninitialised tensor like ``x`` with the batch size for tracing; it is never read or written."""
    # The operating system does not back untouched pages with memory.
    return torch.empty((_BATCH, *x.shape[1:]), dtype=x.dtype, device=device)


def dynamic_batch(inputs: Sequence[Tensor]) -> tuple[dict[int, Dim], ...]:
    """Return the ``dynamic_shapes`` of ``torch.export``: the first axis of every input is the batch, of any size."""
    batch = Dim("batch", min=1)
    return tuple({0: batch} for _ in inputs)


def _plain_run(module: nn.Module, inputs: tuple[Tensor, ...], score: Score | None) -> Any:
    """Run module and score in eager mode, so that their own errors reach the caller unchanged."""
    with torch.no_grad():
        output = module(*(x.clone() for x in inputs))
        value = None if score is None else score(output)
    if score is not None and not (isinstance(value, Tensor) and value.shape == inputs[0].shape[:1]):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise InvalidInput(f"the score of {len(inputs[0])} samples must have shape ({len(inputs[0])},), got {got}")
    return output


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings and log entries about torch's internals during an export."""
    names = ("torch.onnx", "torch.fx.experimental.symbolic_shapes", "torch.export", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _without_fused_attention() -> Iterator[None]:
    """Disable torch's fused transformer layers, which would be a single opaque operation."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


class _DataAsDetach(TorchFunctionMode):
    """Reads ``x.data`` as ``x.detach()``: ``torch.export`` takes it for a constant, as in MONAI's ResNet shortcut A."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.data.__get__:  # type: ignore[attr-defined]
            return args[0].detach()
        return func(*args, **(kwargs or {}))


def _exported(whole: nn.Module, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    stand_ins = tuple(stand_in(x, x.device) for x in inputs)
    with ExitStack() as stack:
        path = stack.enter_context(_layer_path(whole.get_submodule("module")))
        stack.enter_context(quiet())
        stack.enter_context(_without_fused_attention())
        stack.enter_context(_DataAsDetach())
        # torch.no_grad blocks are recorded only where they change the mode.
        stack.enter_context(torch.enable_grad())
        try:
            return torch.export.export(whole.eval(), stand_ins, dynamic_shapes=(dynamic_batch(inputs),))
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise UnsupportedOperation(
                f"the network must compute the same operations for all data and batch sizes; "
                f"it cannot be traced{_at(path)}: {reason}"
            ) from error


@contextmanager
def _layer_path(module: nn.Module) -> Iterator[list[str]]:
    """Yield a list of the layers that are being computed, the innermost last; after an error it names its layer."""
    path: list[str] = []
    handles = []
    for name, part in module.named_modules():
        handles.append(part.register_forward_pre_hook(lambda _, __, name=name: path.append(name)))
        handles.append(part.register_forward_hook(lambda _, __, ___: _leave(path)))
    try:
        yield path
    finally:
        for handle in handles:
            handle.remove()


def _leave(path: list[str]) -> None:
    # A function without a result, because a forward hook's result replaces the output of the layer.
    path.pop()


def _at(path: Sequence[str]) -> str:
    return f" (layer {path[-1]})" if path and path[-1] else ""


def _mark_undifferentiated(program: ExportedProgram) -> None:
    """Pass the results of every ``torch.no_grad`` block through ``aten.detach``."""
    graph = program.graph_module.graph
    blocks = graph.find_nodes(op="call_function", target=torch.ops.higher_order.wrap_with_set_grad_enabled)
    for block in blocks:
        if block.args[0]:  # torch.enable_grad
            continue
        for result in list(block.users):
            with graph.inserting_after(result):
                stop = graph.call_function(aten.detach.default, (result,))
            stop.meta = dict(result.meta)
            result.replace_all_uses_with(stop, delete_user_cb=lambda user, stop=stop: user is not stop)
    program.graph_module.recompile()


_ASSERTIONS = (aten._assert_tensor_metadata.default, aten._assert_scalar.default, aten._assert_async.msg)
"""Run-time checks of types and sizes that ``torch.export`` inserts; they do not have results."""


def _with_constants(program: ExportedProgram) -> fx.GraphModule:
    """Return the program with parameters, buffers and constants as buffers, and without outputs for mutated buffers."""
    signature = program.graph_signature
    module = fx.GraphModule(nn.Module(), program.graph)
    graph = module.graph
    specs = {spec.arg.name: spec for spec in signature.input_specs if hasattr(spec.arg, "name")}
    targets: dict[str, str] = {}
    module.meta[_TARGETS] = targets
    for node in list(graph.nodes):
        if node.op != "placeholder" or specs[node.name].kind == InputKind.USER_INPUT:
            continue
        # Buffers that are not persistent are stored with the constants.
        tensor = program.state_dict.get(specs[node.name].target)
        tensor = program.constants[specs[node.name].target] if tensor is None else tensor
        name = f"constant_{node.name}"
        module.register_buffer(name, tensor.detach())
        targets[name] = str(specs[node.name].target)
        with graph.inserting_before(node):
            constant = graph.get_attr(name)
        constant.meta = dict(node.meta)
        node.replace_all_uses_with(constant)
        graph.erase_node(node)
    output = graph.output_node()
    kinds = [spec.kind for spec in signature.output_specs]
    values: Any = output.args[0]
    results = [value for value, kind in zip(values, kinds, strict=True) if kind == OutputKind.USER_OUTPUT]
    output.args = (tuple(results),)
    for node in [node for node in graph.nodes if node.target in _ASSERTIONS]:
        graph.erase_node(node)
    if not all(isinstance(value, fx.Node) and isinstance(value.meta["val"], Tensor) for value in results):
        raise InvalidInput("the output of the module must be a tensor or a tuple of tensors")
    graph.eliminate_dead_code()
    module.recompile()
    return module


def layer_of(node: fx.Node) -> str:
    """Return the qualified name of the layer of ``node``, such as ``layer3.0.conv2``."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    if path in ("", "_empty_nn_module_stack_from_metadata_hook"):
        return "score"
    inner = path.removeprefix("module").removeprefix(".")
    return inner or "the network itself"
