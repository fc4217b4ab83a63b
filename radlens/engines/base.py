"""What an engine is: named arrays in, named arrays out, whatever runtime computes them; and the registry of engines."""

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
"""Kinds of arithmetic, the most exact first. No engine offers all of them."""

DEFAULT_BATCH_SIZE = 8
"""Samples computed together where nothing was measured: what fits the caches of a CPU best."""


class Engine(Protocol):
    """Computes a graph; for one thread at a time, since buffers are used again.

    Attributes:
        name: of the engine, as provenance states it.
        precision: of its arithmetic, one of :data:`PRECISIONS`.
    """

    name: str
    precision: str

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute all outputs by name from all inputs by name; any batch size."""


class BatchEngine(Engine, Protocol):
    """An engine that computes large batches in parts.

    Attributes:
        batch_size: samples computed together; may be changed between runs.
    """

    batch_size: int


@dataclass(frozen=True)
class Refusal:
    """An engine that does not compute a graph.

    Attributes:
        engine: its name.
        graph: name of the file.
        reason: what was expected and what came.
    """

    engine: str
    graph: str
    reason: str


@dataclass(frozen=True)
class Options:
    """How a graph is opened.

    Attributes:
        batch_size: samples computed together, at least 1; larger batches are computed in parts.
        n_threads: threads of a CPU engine; None for as many as torch uses.
        cache: folder where an engine may keep what it compiled; None to keep nothing.
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
        """Threads of a CPU engine."""
        return self.n_threads or torch.get_num_threads()


class GraphEngine(ABC):
    """An engine that opens ONNX files; checks inputs and computes large batches in parts.

    Attributes:
        precisions: that it offers.
        overhead: its memory for a sample over what :func:`radlens.engines.footprint` counts; measured, rounded up.
        keeps_compiled: whether compiling takes so long that the result is kept unless told otherwise.
        gradients_only: whether it opens gradient graphs alone.
        batch_size: samples computed together; may be changed between runs.

    Args:
        graph: what to compute.
        precision: one that the engine offers.
        options: how.

    Raises:
        InvalidParameter: the engine does not offer the precision.
        MissingDependency: its runtime is not installed, or the machine lacks what it runs on.
        BundleError: its runtime cannot run the graph.
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
        """Return if the engine can run on this machine.

        Raises:
            MissingDependency: a package or a device is missing; the message names it.
        """

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the versions of the packages whose code computes, by name."""
        return {}

    @classmethod
    def opens(cls, graph: GraphFile) -> bool:
        """Return whether the engine is meant for ``graph``: most take any."""
        return True

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute a graph.

        Args:
            inputs: arrays by the names, shapes and dtypes of the graph's inputs; any batch size.

        Returns:
            Arrays by the names of the graph's outputs.

        Raises:
            InvalidInput: the inputs are not those of the graph.
        """
        length = self.graph.check(inputs, wider=self.precision == "f64")
        step = length if self.graph.batch is None else self.batch_size
        outputs: dict[str, np.ndarray] = {}
        for start in range(0, length, step):
            part = {spec.name: self._part(spec.shape, inputs[spec.name], start, step) for spec in self.graph.inputs}
            for name, value in self.compute(part).items():
                if step >= length:
                    outputs[name] = value.copy()
                    continue
                whole = outputs.setdefault(name, np.empty((length, *value.shape[1:]), value.dtype))
                whole[start : start + step] = value
        return outputs

    @abstractmethod
    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute one part; what is returned need only live until the next call."""

    def _part(self, shape: tuple[int | str, ...], value: np.ndarray, start: int, step: int) -> np.ndarray:
        if self.graph.batch is None or shape[:1] != (self.graph.batch,):
            return np.ascontiguousarray(value)
        return np.ascontiguousarray(value[start : start + step])


_ENGINES: dict[str, type[GraphEngine]] = {}

Kind = TypeVar("Kind", bound=type[GraphEngine])


def register(name: str) -> Callable[[Kind], Kind]:
    """Return a class decorator that makes an engine known under ``name``.

    Raises:
        InvalidParameter: the name is taken.
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
        InvalidParameter: there is none.
    """
    if name not in _ENGINES:
        raise InvalidParameter(f"engine must be one of auto, {', '.join(names())}, got {name!r}")
    return _ENGINES[name]


def offered(precision: str) -> tuple[str, ...]:
    """Return the names of the engines that offer ``precision``.

    Raises:
        InvalidParameter: none does.
    """
    known = tuple(p for p in PRECISIONS if any(p in engine.precisions for engine in _ENGINES.values()))
    if precision not in known:
        raise InvalidParameter(f"precision must be one of {', '.join(known)}, got {precision!r}")
    return tuple(name for name in names() if precision in _ENGINES[name].precisions)
