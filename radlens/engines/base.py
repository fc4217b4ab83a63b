"""Base class and registry of engines: an engine maps named arrays to named arrays with some runtime."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

import numpy as np
import torch

from radlens.engines.graph_file import GraphFile
from radlens.errors import InvalidParameter

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "PRECISIONS",
    "BatchEngine",
    "Engine",
    "GraphEngine",
    "Options",
    "Refusal",
    "engine_class",
    "names",
    "offered",
    "register",
]

PRECISIONS = ("f64", "f32", "tf32", "f16", "bf16")
"""Arithmetic precisions, the most exact first. An engine offers some of them."""

DEFAULT_BATCH_SIZE = 8
"""Number of samples computed together without a calibration; it suits the caches of a CPU."""


class Engine(Protocol):
    """An opened graph that can be computed. Engines reuse buffers, so only one thread may call an engine at a time.

    Attributes:
        name: name of the engine, as in the provenance.
        precision: arithmetic precision, one of :data:`PRECISIONS`.
    """

    name: str
    precision: str

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute all outputs by name from all inputs by name, for any batch size."""


class BatchEngine(Engine, Protocol):
    """An engine that splits large batches.

    Attributes:
        batch_size: number of samples computed together; may be changed between runs.
    """

    batch_size: int


@dataclass(frozen=True)
class Refusal:
    """Reason why an engine is not used for a graph.

    Attributes:
        engine: name of the engine.
        graph: file name of the graph.
        reason: message with the expected and the actual value.
    """

    engine: str
    graph: str
    reason: str


@dataclass(frozen=True)
class Options:
    """Options of opening a graph.

    Attributes:
        batch_size: number of samples computed together, at least 1; larger batches are split.
        n_threads: number of threads of a CPU engine; None for torch's number of threads.
        cache: folder for compiled graphs; None to disable caching.
    """

    batch_size: int = DEFAULT_BATCH_SIZE
    n_threads: int | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InvalidParameter(f"batch_size must be at least 1, got {self.batch_size}")
        if self.n_threads is not None and self.n_threads < 1:
            raise InvalidParameter(f"n_threads must be at least 1, got {self.n_threads}")

    @property
    def threads(self) -> int:
        """Number of threads of a CPU engine."""
        return self.n_threads or torch.get_num_threads()


class GraphEngine(ABC):
    """An engine that opens ONNX files. The base class checks inputs and splits large batches.

    Attributes:
        precisions: precisions that the engine offers.
        overhead: ratio of the engine's memory per sample to the estimate of
            :func:`radlens.engines.memory.footprint`; measured, rounded up.
        keeps_compiled: whether compiled graphs are cached by default, because compilation is slow.
        gradients_only: whether the engine opens only gradient graphs.
        batch_size: number of samples computed together; may be changed between runs.

    Args:
        graph: graph to compute.
        precision: one of ``precisions``.
        options: batch size, threads and cache.

    Raises:
        InvalidParameter: the engine does not offer the precision.
        MissingDependency: the runtime is not installed, or the machine lacks the hardware that it needs.
        BundleError: the runtime cannot run the graph.
    """

    name: str = ""
    precisions: ClassVar[tuple[str, ...]] = ("f32",)
    overhead: ClassVar[float] = 3.0
    keeps_compiled: ClassVar[bool] = False
    gradients_only: ClassVar[bool] = False

    def __init__(self, graph: GraphFile, precision: str, options: Options) -> None:
        if precision not in self.precisions:
            raise InvalidParameter(
                f"precision of engine {self.name} must be one of {', '.join(self.precisions)}, got {precision!r}"
            )
        self.require()
        self.graph, self.precision, self.options = graph, precision, options
        self.batch_size = options.batch_size

    @classmethod
    @abstractmethod
    def require(cls) -> None:
        """Check that the engine can run on this machine.

        Raises:
            MissingDependency: a package or a device is missing; the message names it.
        """

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the versions of the engine's packages, by package name."""
        return {}

    @classmethod
    def opens(cls, graph: GraphFile) -> bool:
        """Return whether the engine supports ``graph``; most engines support any graph."""
        return True

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the graph.

        Args:
            inputs: arrays with the names, shapes and dtypes of the graph's inputs, and any batch size.

        Returns:
            Output arrays by name.

        Raises:
            InvalidInput: names, shapes or dtypes do not match the graph's inputs.
        """
        length = self.graph.check(inputs, wider=self.precision == "f64")
        step = length if self.graph.batch is None else self.batch_size
        outputs: dict[str, np.ndarray] = {}
        for start in range(0, length, step):
            part = {spec.name: self._part(spec.shape, inputs[spec.name], start, step) for spec in self.graph.inputs}
            for name, value in self.compute(part).items():
                if step >= length:
                    # A copy, since an engine may return a buffer that its next call overwrites.
                    outputs[name] = value.copy()
                    continue
                whole = outputs.setdefault(name, np.empty((length, *value.shape[1:]), value.dtype))
                whole[start : start + step] = value
        return outputs

    @abstractmethod
    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute one part of a batch; the returned arrays need to be valid only until the next call."""

    def _part(self, shape: tuple[int | str, ...], value: np.ndarray, start: int, step: int) -> np.ndarray:
        # Contiguous, because runtimes read the memory of the array without regard to strides.
        if self.graph.batch is None or shape[:1] != (self.graph.batch,):
            return np.ascontiguousarray(value)
        return np.ascontiguousarray(value[start : start + step])


_ENGINES: dict[str, type[GraphEngine]] = {}

Kind = TypeVar("Kind", bound=type[GraphEngine])


def register(name: str) -> Callable[[Kind], Kind]:
    """Return a class decorator that registers an engine under ``name``.

    Raises:
        InvalidParameter: the name is already registered.
    """

    def add(engine: Kind) -> Kind:
        if name in _ENGINES:
            raise InvalidParameter(f"engine {name} must be registered once, got a second one")
        engine.name = name
        _ENGINES[name] = engine
        return engine

    return add


def names() -> tuple[str, ...]:
    """Return the names of all engines, sorted."""
    return tuple(sorted(_ENGINES))


def engine_class(name: str) -> type[GraphEngine]:
    """Return the engine that is registered under ``name``.

    Raises:
        InvalidParameter: the name is not registered.
    """
    if name not in _ENGINES:
        raise InvalidParameter(f"engine must be one of auto, {', '.join(names())}, got {name!r}")
    return _ENGINES[name]


def offered(precision: str) -> tuple[str, ...]:
    """Return the names of the engines that offer ``precision``.

    Raises:
        InvalidParameter: no engine offers it.
    """
    known = tuple(p for p in PRECISIONS if any(p in engine.precisions for engine in _ENGINES.values()))
    if precision not in known:
        raise InvalidParameter(f"precision must be one of {', '.join(known)}, got {precision!r}")
    return tuple(name for name in names() if precision in _ENGINES[name].precisions)
