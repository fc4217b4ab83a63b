"""TensorRT on an NVIDIA GPU, through its own API: parse, build with an optimisation profile, cache and run.

The module is ``tensorrt`` on servers and ``tensorrt_rtx`` on workstations; both have the same interface. ``tensorrt``
needs a GPU to build an engine, ``tensorrt_rtx`` does not. Tests cover building with ``tensorrt_rtx``, and running with
a test double only, because they have no GPU: this code has never run on one.
"""

import hashlib
import importlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from radlens.engines.base import GraphEngine, Options, register
from radlens.engines.graph_file import GraphFile, TensorSpec
from radlens.errors import BundleError, InvalidParameter, MissingDependency

__all__ = ["MODULES", "TensorRtEngine", "build"]

MODULES = ("tensorrt", "tensorrt_rtx")
"""Names of the module; the first one that is installed is used."""

PROFILE = (1, 32, 128)
"""Smallest, optimal and largest batch size of the optimisation profile."""

_TORCH_DTYPES = {"float32": torch.float32, "int64": torch.int64, "int32": torch.int32, "bool": torch.bool}


def build(
    path: Path | str, precision: str = "f32", *, profile: tuple[int, int, int] = PROFILE, cache: Path | None = None
) -> bytes:
    """Build a TensorRT engine from an ONNX file.

    Args:
        path: path of the graph.
        precision: ``"f32"``, or ``"tf32"`` for products with 10 bits of mantissa.
        profile: smallest, optimal and largest batch size.
        cache: cache folder; an engine of the same graph, GPU, versions, precision and profile is read from it. None to
            disable caching.

    Returns:
        The serialised engine.

    Raises:
        InvalidParameter: another precision, or batch sizes that do not increase.
        MissingDependency: neither module is installed.
        BundleError: the graph cannot be parsed or built; the message names the node that TensorRT does not support.
    """
    if precision not in TensorRtEngine.precisions:
        allowed = ", ".join(TensorRtEngine.precisions)
        raise InvalidParameter(f"precision of engine tensorrt must be one of {allowed}, got {precision!r}")
    if not 1 <= profile[0] <= profile[1] <= profile[2]:
        raise InvalidParameter(f"profile must be three batches from small to large, got {profile}")
    graph, trt = GraphFile.load(path), _module()
    kept = None if cache is None else cache / "tensorrt" / f"{_key(graph, trt, precision, profile)}.engine"
    if kept is not None and kept.is_file():
        return kept.read_bytes()
    plan = _built(graph, trt, precision, profile)
    if kept is not None:
        _store(kept, plan)
    return plan


@register("tensorrt")
class TensorRtEngine(GraphEngine):
    """Runs a graph with TensorRT; built engines are cached, and buffers on the GPU are reused."""

    precisions = ("f32", "tf32")
    keeps_compiled = True

    def __init__(self, graph: GraphFile, precision: str, options: Options) -> None:
        super().__init__(graph, precision, options)
        trt = _module()
        plan = build(graph.path, precision, cache=options.cache)
        engine = trt.Runtime(_logger(trt)).deserialize_cuda_engine(plan)
        if engine is None:
            raise BundleError(f"{graph.path.name} must be built for this GPU and version of {trt.__name__}")
        self._engine, self._context = engine, engine.create_execution_context()
        self._buffers: dict[str, torch.Tensor] = {}

    @classmethod
    def require(cls) -> None:
        """Check that TensorRT is installed and torch finds a GPU."""
        _module()
        if not torch.cuda.is_available():
            raise MissingDependency(
                "engine tensorrt needs an NVIDIA GPU and torch with CUDA, got none; building does not"
            )

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the version of TensorRT."""
        trt = _module()
        return {trt.__name__: trt.__version__}

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        """Compute the graph, as :meth:`GraphEngine.run`."""
        # The engine is not valid for batches above the profile.
        self.batch_size = min(self.batch_size, PROFILE[2])
        return super().run(inputs)

    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute one part of a batch."""
        stream = _stream()
        for spec in self.graph.inputs:
            value = torch.from_numpy(inputs[spec.name])
            buffer = self._buffer(spec, tuple(value.shape))
            buffer.copy_(value)
            self._context.set_input_shape(spec.name, tuple(value.shape))
            self._context.set_tensor_address(spec.name, buffer.data_ptr())
        outputs = {}
        for spec in self.graph.outputs:
            outputs[spec.name] = self._buffer(spec, tuple(self._context.get_tensor_shape(spec.name)))
            self._context.set_tensor_address(spec.name, outputs[spec.name].data_ptr())
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise BundleError(f"{self.graph.path.name} must run on this GPU, got a failure of TensorRT")
        stream.synchronize()
        return {name: value.cpu().numpy() for name, value in outputs.items()}

    def _buffer(self, spec: TensorSpec, shape: tuple[int, ...]) -> torch.Tensor:
        """Return a buffer on the GPU; it grows to the largest batch and is reused."""
        size = int(np.prod(shape))
        known = self._buffers.get(spec.name)
        if known is None or known.numel() < size:
            known = torch.empty(size, dtype=_TORCH_DTYPES[str(spec.dtype)], device=_device())
            self._buffers[spec.name] = known
        return known[:size].view(shape)


def _module() -> ModuleType:
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingDependency(
        "engine tensorrt needs the package tensorrt or tensorrt-rtx-cu13: pip install 'radlens[gpu]' or 'radlens[rtx]'"
    )


# Functions, so that tests can replace them on machines without a GPU.
def _device() -> str:
    return "cuda"


def _stream() -> Any:
    return torch.cuda.current_stream()


def _logger(trt: ModuleType) -> Any:
    # The parser's errors are part of the exception and are not logged as well.
    return trt.Logger(trt.Logger.INTERNAL_ERROR)


def _built(graph: GraphFile, trt: ModuleType, precision: str, profile: tuple[int, int, int]) -> bytes:
    logger = _logger(trt)
    # Strongly typed: the precision is that of the graph, and TensorRT does not lower it.
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph.path)):
        raise BundleError(
            f"{graph.path.name} must be a graph that TensorRT supports, got {'; '.join(_parser_errors(parser))}"
        )
    config = builder.create_builder_config()
    # TF32 is on by default.
    if precision == "f32":
        config.clear_flag(trt.BuilderFlag.TF32)
    config.add_optimization_profile(_profile(graph, builder, profile))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BundleError(f"{graph.path.name} must be a graph that TensorRT can build, got a failure of its builder")
    return bytes(plan)


def _profile(graph: GraphFile, builder: Any, profile: tuple[int, int, int]) -> Any:
    """Return the optimisation profile; only the batch may be dynamic."""
    made = builder.create_optimization_profile()
    for spec in graph.inputs:
        others = [size for size in spec.shape if isinstance(size, str) and size != graph.batch]
        if others:
            raise BundleError(f"only the batch of {spec} may be dynamic with engine tensorrt, got {', '.join(others)}")
        if graph.batch in spec.shape:
            made.set_shape(spec.name, *[[n if size == graph.batch else size for size in spec.shape] for n in profile])
    return made


def _parser_errors(parser: Any) -> Iterator[str]:
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        yield f"{error.node_operator() or 'graph'} in {error.node_name()!r}: {error.desc()}"


def _key(graph: GraphFile, trt: ModuleType, precision: str, profile: tuple[int, int, int]) -> str:
    """Return a hash of everything that a built engine depends on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    parts = [graph.sha256, device, trt.__name__, trt.__version__, torch.version.cuda, precision, profile]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _store(file: Path, plan: bytes) -> None:
    """Write a built engine atomically, so that other processes do not read an incomplete file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
        part.write(plan)
    Path(part.name).replace(file)
