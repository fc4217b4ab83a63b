"""ONNX Runtime on the CPU, on an NVIDIA GPU through CUDA, and through its TensorRT provider."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from radlens.engines.base import GraphEngine, Options, register
from radlens.engines.graph_file import GraphFile
from radlens.errors import BundleError, MissingDependency

__all__ = ["OnnxRuntimeCudaEngine", "OnnxRuntimeEngine", "OnnxRuntimeTensorRtEngine", "cpu_session"]

_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
"""Distributions of the package ``onnxruntime``; only one of them may be installed."""

MAX_BATCH_SIZE = 4096
"""Largest batch of the TensorRT provider's optimisation profile."""


@register("onnxruntime")
class OnnxRuntimeEngine(GraphEngine):
    """Runs a graph with ONNX Runtime on the CPU.

    If a provider cannot start, ONNX Runtime logs a warning and falls back to the CPU; here this is an error.
    """

    # The arena allocator rounds up to powers of two: a ratio of 3.3 was measured.
    overhead = 3.5
    provider: ClassVar[str] = "CPUExecutionProvider"
    device: ClassVar[str] = "cpu"
    extra: ClassVar[str] = "cpu"

    def __init__(self, graph: GraphFile, precision: str, options: Options) -> None:
        super().__init__(graph, precision, options)
        runtime = _runtime()
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.log_severity_level = 4  # fatal: errors are raised as exceptions as well
        provider = (self.provider, self._provider_options())
        try:
            self._session = runtime.InferenceSession(str(graph.path), settings, providers=[provider])
        except Exception as error:  # the exceptions of ONNX Runtime have no common base class
            raise BundleError(
                f"{graph.path.name} must be a graph that ONNX Runtime can run, got {type(error).__name__}"
            ) from error
        found = self._session.get_providers()
        if found[:1] != [self.provider]:
            raise MissingDependency(f"{self.provider} must compute the graph, got {', '.join(found) or 'none'}")
        self._binding = self._session.io_binding()

    @classmethod
    def require(cls) -> None:
        """Check that ONNX Runtime is installed with the provider of this engine."""
        if cls.provider not in _runtime().get_available_providers():
            raise MissingDependency(f"engine {cls.name} needs {cls.provider}: pip install 'radlens[{cls.extra}]'")

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the version of ONNX Runtime."""
        return {name: found for name in _DISTRIBUTIONS if (found := _version(name))}

    def _provider_options(self) -> dict[str, str]:
        return {}

    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute one part of a batch; bound inputs and outputs are copied to and from a GPU only once."""
        # Bindings of the last call may belong to another batch size.
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        for name, value in inputs.items():
            self._binding.bind_cpu_input(name, value)
        names = [spec.name for spec in self.graph.outputs]
        for name in names:
            self._binding.bind_output(name, self.device)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # the exceptions of ONNX Runtime have no common base class
            raise BundleError(
                f"{self.graph.path.name} must be computable with ONNX Runtime, got {type(error).__name__}"
            ) from error
        return dict(zip(names, self._binding.copy_outputs_to_cpu(), strict=True))


@register("onnxruntime-cuda")
class OnnxRuntimeCudaEngine(OnnxRuntimeEngine):
    """Runs a graph with ONNX Runtime's CUDA provider."""

    precisions = ("f32", "tf32")
    provider = "CUDAExecutionProvider"
    device = "cuda"
    extra = "gpu"

    def _provider_options(self) -> dict[str, str]:
        # ONNX Runtime uses TF32 for float32 graphs by default.
        return {"use_tf32": "1" if self.precision == "tf32" else "0"}


@register("onnxruntime-tensorrt")
class OnnxRuntimeTensorRtEngine(OnnxRuntimeEngine):
    """Runs a graph with ONNX Runtime's TensorRT provider, which caches engines and timings in ``options.cache``.

    TensorRT uses TF32 for float32 graphs, and the provider has no option to disable it: precision f32 requires the
    environment variable ``NVIDIA_TF32_OVERRIDE=0``.
    """

    precisions = ("tf32", "f16", "bf16", "f32")
    keeps_compiled = True
    provider = "TensorrtExecutionProvider"
    device = "cuda"
    extra = "gpu"

    def _provider_options(self) -> dict[str, str]:
        if self.precision == "f32" and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0":
            raise MissingDependency(f"engine {self.name} needs NVIDIA_TF32_OVERRIDE=0 in the environment for f32")
        options = {
            "trt_fp16_enable": str(self.precision == "f16"),
            "trt_bf16_enable": str(self.precision == "bf16"),
            **self._profile(),
        }
        if self.options.cache is None:
            return options
        folder = str(self.options.cache / "onnxruntime-tensorrt")
        kept = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": folder}
        return options | kept | {"trt_timing_cache_enable": "True", "trt_timing_cache_path": folder}

    def _profile(self) -> dict[str, str]:
        """Return the optimisation profile: smallest, optimal and largest batch size."""
        if self.graph.batch is None:
            return {}
        sizes = {"min": 1, "opt": self.batch_size, "max": max(self.batch_size, MAX_BATCH_SIZE)}
        return {f"trt_profile_{kind}_shapes": self._shapes(size) for kind, size in sizes.items()}

    def _shapes(self, batch_size: int) -> str:
        shapes = {
            spec.name: "x".join(str(batch_size if size == self.graph.batch else size) for size in spec.shape)
            for spec in self.graph.inputs
        }
        return ",".join(f"{name}:{shape}" for name, shape in shapes.items())


def cpu_session(source: Path | bytes, *, optimise: bool = True) -> Any:
    """Return a session of ONNX Runtime on the CPU that computes a graph as it is, of any inputs.

    Args:
        source: Path or contents of an ONNX file.
        optimise: Whether ONNX Runtime may rewrite the graph.

    Raises:
        BundleError: ONNX Runtime does not open the graph.
        MissingDependency: ONNX Runtime is not installed.
    """
    runtime = _runtime()
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4  # fatal: errors are raised as exceptions as well
    if not optimise:
        settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    given = source if isinstance(source, bytes) else str(source)
    try:
        return runtime.InferenceSession(given, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # the exceptions of ONNX Runtime have no common base class
        name, reason = "the graph" if isinstance(source, bytes) else source.name, " ".join(str(error).split())[-200:]
        raise BundleError(f"{name} must be a graph that ONNX Runtime can run, got {reason}") from error


def _runtime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            "engine onnxruntime needs the package onnxruntime: pip install 'radlens[cpu]', or 'radlens[gpu]' with a GPU"
        ) from error
    return onnxruntime


def _version(distribution: str) -> Any:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
