"""Recording of tensor code into a torch.fx graph, with known shapes of all values.

Rules and lowerings are ordinary functions of tensors. Called with :class:`Value` objects, they append their operations
to a graph; called with tensors, they compute. The same function can thus extend a graph and be called by a test.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._dispatch.python import enable_python_dispatcher

from radlens.errors import UnsupportedOperation

__all__ = ["Recorder", "Value", "is_static", "sizes"]


class Value(fx.Proxy):
    """A node of a graph that behaves like its tensor; the batch size in its shape is symbolic."""

    @property
    def shape(self) -> torch.Size:
        """Shape, with a symbol for the batch size."""
        return self.node.meta["val"].shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Element type."""
        return self.node.meta["val"].dtype

    def constant(self) -> Tensor:
        """Return the tensor of a constant value.

        Raises:
            UnsupportedOperation: the value depends on the input.
        """
        if self.node.op != "get_attr":
            raise UnsupportedOperation("an index must be constant")
        tensor: Tensor = getattr(self.node.graph.owning_module, str(self.node.target))
        return tensor


class Recorder(fx.Tracer):
    """Appends operations to the graph of ``module``; tensors become its buffers.

    Args:
        module: module whose graph is extended; its nodes have fake tensors in ``meta["val"]``.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__()
        self.module = module
        self.root = module
        self.graph = module.graph
        self.origin: fx.Node | None = None
        self._fake_mode = next(
            mode for node in self.graph.nodes if (mode := getattr(node.meta.get("val"), "fake_mode", None)) is not None
        )

    def proxy(self, node: fx.Node) -> Value:
        """Wrap a node."""
        return Value(node, self)

    @contextmanager
    def before(self, node: fx.Node, origin: fx.Node | None = None) -> Iterator[None]:
        """Insert operations before ``node``; errors name the layer of ``origin`` (default: ``node``)."""
        self.origin = origin or node
        with self.graph.inserting_before(node):
            yield

    def create_proxy(self, kind: str, target: Any, args: tuple, kwargs: dict, *rest: Any, **options: Any) -> Any:
        """Record one operation and the fake value of its result."""
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **options)
        node = proxy.node
        if self.origin is not None:
            node.meta.update({k: v for k, v in self.origin.meta.items() if k == "nn_module_stack"})
        node.meta["val"] = self._evaluate(node)
        return proxy

    def create_arg(self, a: Any) -> Any:
        """Store tensors as buffers of the module."""
        if isinstance(a, Tensor):
            return self.constant(a).node
        return super().create_arg(a)

    def constant(self, tensor: Tensor) -> Value:
        """Return ``tensor`` as a value of the graph."""
        name = free_name(self.module, "constant")
        self.module.register_buffer(name, tensor.detach().contiguous())
        node = self.graph.create_node("get_attr", name)
        node.meta["val"] = self._fake_mode.from_tensor(tensor.detach().contiguous(), static_shapes=True)
        return self.proxy(node)

    def wrap(self, argument: Any) -> Any:
        """Replace every node in an argument, also inside lists, by its value."""
        if isinstance(argument, list | tuple):
            return [self.wrap(part) for part in argument]
        return self.proxy(argument) if isinstance(argument, fx.Node) else argument

    def _evaluate(self, node: fx.Node) -> Any:
        args = fx.node.map_arg(node.args, _fake)
        kwargs = fx.node.map_arg(node.kwargs, _fake)
        # Without the Python dispatcher, some operations read sizes as numbers, which would fix the batch size.
        with self._fake_mode, enable_python_dispatcher(), torch.no_grad():
            if node.op == "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
            assert callable(node.target), "only functions and methods are recorded"
            return node.target(*args, **kwargs)


def _fake(node: fx.Node) -> Any:
    return node.meta["val"]


def free_name(module: fx.GraphModule, stem: str) -> str:
    """Return the first name of ``stem_0``, ``stem_1``, ... that is not used in ``module``."""
    start = module.meta.get(stem, 0)
    module.meta[stem] = start + 1
    return f"{stem}_{start}"


def is_static(size: Any) -> bool:
    """Return whether a size is a number, and not the symbolic batch size."""
    return isinstance(size, int)


def sizes(x: Any) -> list[int]:
    """Return the shape of ``x`` for ``reshape`` and ``expand``, with -1 for the batch size."""
    return [size if is_static(size) else -1 for size in x.shape]
