"""Torch as an engine: an interpreter of ONNX files that also computes in float64.

It is slow, but has no further dependencies, and its float64 results are the reference for the other engines. It
supports the operations in :data:`radlens.engines.torch_operations.OPERATIONS`.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import torch
from onnx import AttributeProto, ModelProto, TensorProto, helper, inliner, numpy_helper
from torch import Tensor

from radlens.engines.base import GraphEngine, Options, register
from radlens.engines.golden import Golden, jittered
from radlens.engines.graph_file import GraphFile
from radlens.engines.opsets import opset_of, up_to_date
from radlens.engines.torch_operations import OPERATIONS, Node, Operation, dtype_of
from radlens.errors import BundleError, MissingDependency

__all__ = ["Step", "TorchCudaEngine", "TorchEngine", "golden_values"]

log = logging.getLogger(__name__)

_DTYPES = {
    "f64": torch.float64,
    "f32": torch.float32,
    "tf32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
}


_GROUP_NORM = 21
"""First operator set in which ``GroupNormalization`` is torch's."""


@dataclass(frozen=True, eq=False)
class Step:
    """A node with its function and its inputs and outputs."""

    function: Operation
    node: Node
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    done: tuple[str, ...]
    """Tensors that can be freed after this node."""


@register("torch")
class TorchEngine(GraphEngine):
    """Computes a graph with torch on the CPU.

    Attributes:
        constants: weights and other constants, by name.
        steps: operations in the order of the graph.

    Raises:
        BundleError: an operation of the graph is not in ``OPERATIONS``, or its operator set is older than 13 and cannot
            be converted; the message names the operation and its node.
    """

    precisions: ClassVar[tuple[str, ...]] = ("f32", "f64", "bf16")
    device: ClassVar[str] = "cpu"

    def __init__(self, graph: GraphFile, precision: str, options: Options) -> None:
        super().__init__(graph, precision, options)
        self._dtype = _DTYPES[precision]
        model = inliner.inline_local_functions(graph.model) if graph.model.functions else graph.model
        model = _with_known_operations(up_to_date(model, graph.path.name))
        self.constants = {t.name: self._constant(t, graph.path.parent) for t in model.graph.initializer}
        self.steps = list(self._planned(model))

    @classmethod
    def require(cls) -> None:
        """Return without a check: torch is a dependency of radlens."""

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the version of torch."""
        return {"torch": torch.__version__}

    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute one part of a batch; float16 and bfloat16 results are returned as float32."""
        values = dict(self.constants)
        for name, value in inputs.items():
            # torch warns about arrays that are not writeable.
            tensor = torch.from_numpy(value if value.flags.writeable else value.copy())
            values[name] = tensor.to(self.device, self._dtype if tensor.is_floating_point() else tensor.dtype)
        with torch.inference_mode(), self._arithmetic():
            for step in self.steps:
                self.take(step, values)
        return {spec.name: _array(values[spec.name]) for spec in self.graph.outputs}

    @staticmethod
    def take(step: Step, values: dict[str, Tensor]) -> None:
        """Compute one operation from the tensors in ``values``, and add its results to them."""
        arguments = [values[name] if name else None for name in step.inputs]
        try:
            results = step.function(step.node, *arguments)
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            raise BundleError(
                f"{step.node.operation} in {step.node.name!r} must be computable, got {type(error).__name__}"
            ) from error
        # Not strict: a node may omit optional outputs at the end.
        values.update(zip(step.outputs, [results] if isinstance(results, Tensor) else results, strict=False))
        for name in step.done:
            del values[name]

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        yield

    def _constant(self, tensor: TensorProto, folder: Path) -> Tensor:
        try:
            array = numpy_helper.to_array(tensor, base_dir=str(folder))
        except (OSError, ValueError, TypeError, onnx.checker.ValidationError) as error:
            raise BundleError(f"weights of {tensor.name} must be readable, got {type(error).__name__}") from error
        dtype = dtype_of(tensor.data_type, self._dtype)
        # Through float32, because torch does not read NumPy's bfloat16.
        value = torch.from_numpy(np.array(array, dtype=np.float32 if dtype == torch.bfloat16 else None)).to(dtype)
        # Shapes and indices stay on the CPU, where Python reads them.
        return value.to(self.device) if value.is_floating_point() else value

    def _planned(self, model: onnx.ModelProto) -> Iterator[Step]:
        opset = opset_of(model)
        nodes = list(model.graph.node)
        keep = {spec.name for spec in self.graph.outputs}
        last = {name: index for index, node in enumerate(nodes) for name in (*node.input, *node.output)}
        for index, node in enumerate(nodes):
            parsed = Node(
                node.op_type,
                node.name or node.output[0],
                {attribute.name: self._attribute(attribute) for attribute in node.attribute},
                sum(bool(name) for name in node.output),
                opset,
                self._dtype,
            )
            if node.domain not in ("", "ai.onnx") or node.op_type not in (*OPERATIONS, "Constant"):
                raise BundleError(
                    f"engine torch must support every operation of {self.graph.path.name}, got {node.op_type} in "
                    f"{parsed.name!r}"
                )
            if node.op_type == "Constant":
                self.constants[node.output[0]] = self._value(parsed)
                continue
            done = {name for name in (*node.input, *node.output) if name and last[name] == index} - keep
            done -= set(self.constants)  # the next run needs them
            yield Step(OPERATIONS[node.op_type], parsed, tuple(node.input), tuple(node.output), tuple(done))

    def _attribute(self, attribute: AttributeProto) -> Any:
        value = helper.get_attribute_value(attribute)
        return self._constant(value, self.graph.path.parent) if isinstance(value, TensorProto) else value

    def _value(self, node: Node) -> Tensor:
        """Return the value of a node ``Constant``."""
        for name, dtype in (("value_float", self._dtype), ("value_floats", self._dtype)):
            if name in node.attributes:
                return torch.tensor(node.attributes[name], dtype=dtype, device=self.device)
        for name in ("value_int", "value_ints"):
            if name in node.attributes:
                return torch.tensor(node.attributes[name], dtype=torch.int64)
        if "value" not in node.attributes:
            raise node.unsupported("a value that is not a tensor")
        value: Tensor = node.attributes["value"]
        return value


@register("torch-cuda")
class TorchCudaEngine(TorchEngine):
    """Computes a graph with torch on an NVIDIA GPU."""

    precisions = ("f32", "tf32", "f64", "f16", "bf16")
    device = "cuda"

    @classmethod
    def require(cls) -> None:
        """Check that torch finds a GPU."""
        if not torch.cuda.is_available():
            raise MissingDependency(f"engine {cls.name} needs an NVIDIA GPU and torch with CUDA, got none")

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Enable TF32 only in precision tf32: torch enables it for convolutions by default."""
        allowed, before = self.precision == "tf32", torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = allowed
        try:
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=allowed):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before


def golden_values(path: Path, inputs: Mapping[str, np.ndarray]) -> Golden:
    """Compute golden values of a graph from the file itself: outputs in float64, and errors of float32.

    They verify that an engine computes the graph in the file, but not that the export wrote the right graph.

    Args:
        path: path of the graph.
        inputs: inputs of the graph, by name.

    Raises:
        BundleError: the engine ``torch`` does not support an operation of the graph.
    """
    graph = GraphFile.load(path)
    engines = {precision: TorchEngine(graph, precision, Options()) for precision in ("f64", "f32")}
    return Golden.compare(
        inputs, engines["f64"].run(inputs), *(engines["f32"].run(x) for x in (inputs, jittered(inputs)))
    )


def _with_known_operations(model: ModelProto) -> ModelProto:
    """Return a model in which unknown operations are written as others, where the ONNX standard says how."""
    other = _unknown(model)
    if not other:
        return model
    typed = ModelProto()
    typed.CopyFrom(model)
    # The inliner looks for the types of weights among those of values.
    typed.graph.value_info.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    try:
        made = inliner.inline_selected_functions(typed, [("", name) for name in other], inline_schema_functions=True)
    except RuntimeError as error:
        # An operation that needs types or sizes which the file does not state.
        log.info("unknown operations cannot be written as others: %s", error)
        return model
    # An error names the operation of the file, not a part of it.
    return model if _unknown(made) else made


def _unknown(model: ModelProto) -> set[str]:
    """Return the operations of the standard that a model has and this engine does not."""
    used = {node.op_type for node in model.graph.node if node.domain in ("", "ai.onnx")}
    # Before version 21 its scales are those of groups, which torch does not have.
    old = {"GroupNormalization"} if opset_of(model) < _GROUP_NORM else set()
    return used - ({*OPERATIONS, "Constant"} - old)


def _array(value: Tensor) -> np.ndarray:
    shortened = value.dtype in (torch.float16, torch.bfloat16)
    return (value.float() if shortened else value).cpu().numpy()
