"""TensorRT on an NVIDIA GPU, natively: parse, build with a profile for the batch, keep the built engine, run.

The module is ``tensorrt`` on servers and ``tensorrt_rtx`` on workstations, with one interface. Building needs a GPU
with the first and none with the second. What this file says to the builder is tested with ``tensorrt_rtx``; what it
says to the runtime only against a stand-in, because the tests have no GPU: it was never run on one.
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
"""The first that is installed is used."""

PROFILE = (1, 32, 128)
"""Smallest batch, the one the engine is tuned for, and the largest."""

_TORCH_DTYPES = {"float32": torch.float32, "int64": torch.int64, "int32": torch.int32, "bool": torch.bool}


def build(
    path: Path | str, precision: str = "f32", *, profile: tuple[int, int, int] = PROFILE, cache: Path | None = None
) -> bytes:
    """Build a TensorRT engine from an ONNX file.

    Args:
        path: of the file.
        precision: ``"f32"``, or ``"tf32"`` to let float32 products have 10 bits.
        profile: smallest batch, the one to tune for, and the largest.
        cache: folder of built engines; one of the same graph, GPU, versions, precision and profile is taken from there.

    Returns:
        The serialised engine.

    Raises:
        InvalidParameter: another precision, or batches out of order.
        MissingDependency: neither module is installed.
        BundleError: the graph cannot be parsed, with the node that is to blame, or cannot be built.
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
        _keep(kept, plan)
    return plan


@register("tensorrt")
class TensorRtEngine(GraphEngine):
    """Runs a graph with TensorRT; built engines are kept, buffers on the GPU are reused."""

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
        """Return if TensorRT is installed and torch sees a GPU."""
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
        """Compute a graph; see :meth:`GraphEngine.run`."""
        # The engine is built for batches up to this one.
        self.batch_size = min(self.batch_size, PROFILE[2])
        return super().run(inputs)

    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute one part."""
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
            raise BundleError(f"{self.graph.path.name} must run on this GPU, TensorRT refuses")
        stream.synchronize()
        return {name: value.cpu().numpy() for name, value in outputs.items()}

    def _buffer(self, spec: TensorSpec, shape: tuple[int, ...]) -> torch.Tensor:
        """Return memory on the GPU; it grows to the largest batch and is used again."""
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


def _device() -> str:
    return "cuda"


def _stream() -> Any:
    return torch.cuda.current_stream()


def _logger(trt: ModuleType) -> Any:
    # What the parser finds is said once, in the error.
    return trt.Logger(trt.Logger.INTERNAL_ERROR)


def _built(graph: GraphFile, trt: ModuleType, precision: str, profile: tuple[int, int, int]) -> bytes:
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph.path)):
        raise BundleError(
            f"{graph.path.name} must be a graph that TensorRT knows, got {'; '.join(_complaints(parser))}"
        )
    config = builder.create_builder_config()
    # TF32 is on unless it is taken away.
    if precision == "f32":
        config.clear_flag(trt.BuilderFlag.TF32)
    config.add_optimization_profile(_profile(graph, builder, profile))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BundleError(f"{graph.path.name} must be a graph that TensorRT can build, its builder refuses")
    return bytes(plan)


def _profile(graph: GraphFile, builder: Any, profile: tuple[int, int, int]) -> Any:
    """Return the shapes that the engine is built for; only the batch may be open."""
    made = builder.create_optimization_profile()
    for spec in graph.inputs:
        others = [size for size in spec.shape if isinstance(size, str) and size != graph.batch]
        if others:
            raise BundleError(f"engine tensorrt must know all but the batch of {spec}, got open {', '.join(others)}")
        if graph.batch in spec.shape:
            made.set_shape(spec.name, *[[n if size == graph.batch else size for size in spec.shape] for n in profile])
    return made


def _complaints(parser: Any) -> Iterator[str]:
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        yield f"{error.node_operator() or 'graph'} in {error.node_name()!r}: {error.desc()}"


def _key(graph: GraphFile, trt: ModuleType, precision: str, profile: tuple[int, int, int]) -> str:
    """Return a name for everything that a built engine depends on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    parts = [graph.sha256, device, trt.__name__, trt.__version__, torch.version.cuda, precision, profile]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _keep(file: Path, plan: bytes) -> None:
    """Write a built engine in one step, so that nobody reads half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
        part.write(plan)
    Path(part.name).replace(file)
