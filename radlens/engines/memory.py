"""Available memory and estimated memory of a graph, which limit the batch size.

The estimate visits the nodes of a graph in order. A tensor is live from the node that computes it to the last node that
reads it; the peak is the largest total size of live tensors. Runtimes need additional workspace and buffers: each
engine states a measured factor, :attr:`radlens.engines.GraphEngine.overhead`.
"""

import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import psutil
from onnx import ModelProto, NodeProto, TensorProto, helper

from radlens.engines.graph_file import GraphFile
from radlens.errors import InvalidParameter

__all__ = [
    "FRACTION",
    "MEMORY_LIMIT_VARIABLE",
    "Footprint",
    "available_memory",
    "footprint",
    "format_memory",
    "memory_limit",
    "parse_memory",
]

MEMORY_LIMIT_VARIABLE = "RADLENS_MEMORY_LIMIT"
"""Environment variable with the memory limit of one process, such as ``2G``."""

FRACTION = 0.4
"""Fraction of the free memory that one process may use if no limit is given; two workers then leave a fifth."""

WEIGHT_COPIES = 3
"""Number of copies of the weights that an engine may hold: as read, folded, and repacked for its kernels."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

_SMALL = 1024
"""Largest number of elements of a constant that shape inference gets, as it may be a shape."""

CGROUP = Path("/sys/fs/cgroup")
"""Folder in which Linux reports the memory limits of a container."""


@dataclass(frozen=True)
class Footprint:
    """Estimated memory of a graph.

    Attributes:
        fixed: bytes independent of the batch size: weights, their copies, and tensors without a batch dimension.
        per_sample: bytes for each sample of a batch.
    """

    fixed: int
    per_sample: int

    def peak(self, batch_size: int) -> int:
        """Return the estimated peak with ``batch_size`` samples computed together."""
        return self.fixed + batch_size * self.per_sample

    def largest_batch(self, limit: int) -> int:
        """Return the number of samples that fit into ``limit`` bytes, at least 1."""
        return max(1, (limit - self.fixed) // max(self.per_sample, 1))


def parse_memory(text: str) -> int:
    """Parse a size in bytes: a number with K, M, G or T (powers of 1024), with or without B or iB.

    Raises:
        InvalidParameter: the text has another form, or the size is less than one byte.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, flags=re.IGNORECASE)
    n_bytes = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if n_bytes < 1:
        raise InvalidParameter(f"memory must be a size such as 512M or 2G, got {text!r}")
    return n_bytes


def format_memory(n_bytes: int) -> str:
    """Return a size in bytes as readable text, such as ``1.5G``."""
    unit = next(u for u in ("T", "G", "M", "K", "") if n_bytes >= _UNITS[u] or not u)
    return f"{n_bytes / _UNITS[unit]:.3g}{unit or 'B'}"


def available_memory() -> int:
    """Return the available memory in bytes, of the machine or of the container, whichever is less."""
    free = [psutil.virtual_memory().available, *_container_memory()]
    return max(min(free), 1)


def memory_limit(given: int | None = None) -> int:
    """Return the memory limit of an engine in bytes: ``given``, ``RADLENS_MEMORY_LIMIT``, or 0.4 of the free memory.

    Raises:
        InvalidParameter: ``given`` is less than 1, or ``RADLENS_MEMORY_LIMIT`` is not a size.
    """
    if given is not None:
        if given < 1:
            raise InvalidParameter(f"memory_limit must be at least 1 byte, got {given}")
        return given
    stated = os.environ.get(MEMORY_LIMIT_VARIABLE)
    return parse_memory(stated) if stated else int(FRACTION * available_memory())


def footprint(graph: GraphFile, overhead: float = 1.0) -> Footprint | None:
    """Estimate the memory of a graph; return None if dimensions other than the batch are dynamic.

    Args:
        graph: graph with or without a batch dimension.
        overhead: factor of the engine.
    """
    # The estimate is linear in the batch size, so two points determine it.
    one, two = (_peak(graph, batch_size) for batch_size in (1, 2))
    if one is None or two is None:
        return None
    per_sample = max(two - one, 0)
    fixed = WEIGHT_COPIES * graph.weight_bytes + int(overhead * max(one - per_sample, 0))
    return Footprint(fixed, int(overhead * per_sample))


def _container_memory() -> Iterator[int]:
    """Yield the bytes that the limits of control groups, version 2 and 1, leave; inactive file cache counts as free."""
    for folder, limit, used in (
        (CGROUP, "memory.max", "memory.current"),
        (CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            cached = int(statistics.get("total_inactive_file", statistics.get("inactive_file", 0)))
            yield int((folder / limit).read_text()) - int((folder / used).read_text()) + cached
        except (OSError, ValueError):
            # The file does not exist, or holds "max": there is no limit.
            continue


def _peak(graph: GraphFile, batch_size: int) -> int | None:
    """Return the largest total size of live tensors without weights; None if a size is unknown."""
    sizes = _tensor_sizes(_with_batch(graph, batch_size))
    nodes = list(graph.model.graph.node)
    made = [name for node in nodes for name in node.output if name]
    if any(name not in sizes for name in made) or any(spec.name not in sizes for spec in graph.inputs):
        return None
    last = {name: index for index, node in enumerate(nodes) for name in _read(node)}
    last |= {spec.name: len(nodes) for spec in graph.outputs}
    living = {spec.name: sizes[spec.name] for spec in graph.inputs}
    peak = sum(living.values())
    for index, node in enumerate(nodes):
        living |= {name: sizes[name] for name in node.output if name}
        peak = max(peak, sum(living.values()))
        living = {name: size for name, size in living.items() if last.get(name, index) > index}
    return peak


def _read(node: NodeProto) -> Iterator[str]:
    """Yield the tensors that a node reads, including those read in its branches and loops."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _read(inner)


def _with_batch(graph: GraphFile, batch_size: int) -> ModelProto:
    """Return the graph with a fixed batch size, and with large weights as inputs, so that they are not copied."""
    stripped = ModelProto()
    stripped.ir_version = graph.model.ir_version
    stripped.opset_import.extend(graph.model.opset_import)
    stripped.functions.extend(graph.model.functions)
    source, target = graph.model.graph, stripped.graph
    target.name = source.name
    target.node.extend(source.node)
    for value in source.input:
        target.input.add().CopyFrom(value)
    for value in target.input:
        for dimension in value.type.tensor_type.shape.dim:
            if graph.batch is not None and dimension.dim_param == graph.batch:
                dimension.dim_value = batch_size
    target.output.extend(onnx.ValueInfoProto(name=value.name, type=_open(value)) for value in source.output)
    for tensor in source.initializer:
        if _elements(tensor.dims) <= _SMALL and tensor.data_location != TensorProto.EXTERNAL:
            target.initializer.add().CopyFrom(tensor)
        else:
            target.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return stripped


def _open(value: onnx.ValueInfoProto) -> onnx.TypeProto:
    """Return the type of an output without its shape, which would contradict the fixed batch size."""
    return helper.make_tensor_type_proto(value.type.tensor_type.elem_type, None)


def _tensor_sizes(model: ModelProto) -> dict[str, int]:
    """Return the size in bytes of every tensor whose shape can be inferred; shapes and indices count as 0."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    sizes = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        lengths = [d.dim_value for d in kind.shape.dim]
        if kind.elem_type == TensorProto.INT64:
            # Shapes and indices: small, and their length may depend on data.
            sizes[value.name] = 0
        elif kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            sizes[value.name] = _elements(lengths) * helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
    return sizes


def _elements(lengths: Iterable[int]) -> int:
    return math.prod(lengths)
