"""ONNX files: inputs and outputs by name, hash and size of the weights."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from radlens.errors import BundleError, InvalidInput

__all__ = ["GraphFile", "TensorSpec", "file_sha256"]

Size = int | str
"""Length of a dimension: a number, or a name if the length is dynamic."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph.

    Attributes:
        name: name in the graph.
        dtype: element type.
        shape: lengths of the dimensions; a name where the length is dynamic.
    """

    name: str
    dtype: np.dtype
    shape: tuple[Size, ...]

    def __str__(self) -> str:
        """Return name, shape and dtype as in ``images (batch, 1, 250, 250) float32``."""
        return f"{self.name} ({', '.join(map(str, self.shape))}{',' * (len(self.shape) == 1)}) {self.dtype}"


@dataclass(frozen=True, eq=False)
class GraphFile:
    """An ONNX file.

    Attributes:
        path: path of the file.
        model: contents of the file, without weights in external files.
    """

    path: Path
    model: ModelProto

    @classmethod
    def load(cls, path: Path | str) -> "GraphFile":
        """Read an ONNX file.

        Raises:
            BundleError: the file is missing, or does not hold a graph with outputs.
        """
        path = Path(path)
        try:
            model = onnx.load(path, load_external_data=False)
        except (OSError, DecodeError, ValueError) as error:
            raise BundleError(f"{path.name} must be a graph in ONNX form, got {type(error).__name__}") from error
        if not model.graph.output or not model.opset_import:
            raise BundleError(f"{path.name} must be a graph in ONNX form, got one without outputs")
        return cls(path, model)

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the graph, without the weights."""
        # Older exporters list the weights among the inputs.
        weights = {tensor.name for tensor in self.model.graph.initializer}
        return tuple(_spec(value) for value in self.model.graph.input if value.name not in weights)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the graph."""
        return tuple(_spec(value) for value in self.model.graph.output)

    @cached_property
    def batch(self) -> str | None:
        """Name of the dynamic dimension along which a batch may be split; None if it must not be split.

        It is the first dimension of every output and of at least one input, and does not occur in another position.
        """
        first = {spec.shape[0] if spec.shape else 1 for spec in self.outputs}
        name = first.pop() if len(first) == 1 else None
        if not isinstance(name, str) or not any(spec.shape[:1] == (name,) for spec in self.inputs):
            return None
        return None if any(name in spec.shape[1:] for spec in self.inputs + self.outputs) else name

    @cached_property
    def sha256(self) -> str:
        """Hash of the file and of the files that hold its weights, 64 hexadecimal digits."""
        parts = [file_sha256(file) for file in (self.path, *self._external_files())]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    @cached_property
    def weight_bytes(self) -> int:
        """Size of all weights in bytes."""
        return sum(int(np.prod(t.dims)) * _itemsize(t.data_type) for t in self.model.graph.initializer)

    def check(self, inputs: Mapping[str, np.ndarray], *, wider: bool = False) -> int:
        """Check arrays against the inputs of the graph.

        Args:
            inputs: arrays by name.
            wider: whether to accept float64 in place of float32.

        Returns:
            The length of dimension :attr:`batch`, or 1 for a graph without it.

        Raises:
            InvalidInput: a name is missing or unknown, a shape or dtype does not match, dynamic dimensions of the same
                name have different lengths, or a dimension is empty.
        """
        names = [spec.name for spec in self.inputs]
        if set(inputs) != set(names):
            raise InvalidInput(f"inputs must be {', '.join(names)}, got {', '.join(sorted(inputs)) or 'none'}")
        sizes: dict[str, int] = {}
        for spec in self.inputs:
            _check(spec, inputs[spec.name], sizes, wider)
        return sizes.get(self.batch or "", 1)

    def _external_files(self) -> Iterator[Path]:
        tensors = (t for t in self.model.graph.initializer if uses_external_data(t))
        for location in dict.fromkeys(ExternalDataInfo(tensor).location for tensor in tensors):
            yield self.path.parent / location


def file_sha256(path: Path) -> str:
    """Return the hash of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(d.dim_param or d.dim_value for d in kind.shape.dim)
    # A dimension without length and name is dynamic; a unique name keeps it independent of others.
    named = tuple(size or f"{value.name}_{axis}" for axis, size in enumerate(shape))
    return TensorSpec(value.name, np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)), named)


def _itemsize(data_type: int) -> int:
    # Strings do not have a fixed size.
    return 0 if data_type == TensorProto.STRING else helper.tensor_dtype_to_np_dtype(data_type).itemsize


def _check(spec: TensorSpec, value: np.ndarray, sizes: dict[str, int], wider: bool) -> None:
    if not isinstance(value, np.ndarray):
        raise InvalidInput(f"input {spec} must be a NumPy array, got {type(value).__name__}")
    allowed = {spec.dtype} | ({np.dtype(np.float64)} if wider and spec.dtype == np.float32 else set())
    if value.dtype not in allowed or value.ndim != len(spec.shape):
        raise InvalidInput(f"input must be {spec}, got {value.shape} {value.dtype}")
    for size, expected in zip(value.shape, spec.shape, strict=True):
        wanted = sizes.setdefault(expected, size) if isinstance(expected, str) else expected
        if size != wanted or size == 0:
            known = f" with {expected} = {wanted}" if isinstance(expected, str) and size else ""
            raise InvalidInput(f"input must be {spec}{known}, no dimension empty, got {value.shape}")
