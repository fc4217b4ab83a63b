"""Open a graph with a given engine, or with the fastest engine that reproduces its golden values."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radlens.engines import memory
from radlens.engines.base import DEFAULT_BATCH_SIZE, BatchEngine, GraphEngine, Options, engine_class, names, offered
from radlens.engines.calibration import Candidate, Choice, Progress, cache_folder, choose
from radlens.engines.golden import Golden, golden_file
from radlens.engines.graph_file import GraphFile, file_sha256
from radlens.engines.torch import TorchEngine, golden_values
from radlens.errors import InvalidParameter, MissingDependency, RadlensError

__all__ = ["calibrated", "candidates", "engine_versions", "is_there", "measured", "open", "versions"]

STAND_IN_ERROR = 1e-3
"""Smallest float32 error assumed for random inputs: with them, errors of 2.5e-3 by switched ReLUs were seen."""

log = logging.getLogger(__name__)


def open(
    path: Path | str,
    engine: str = "auto",
    precision: str = "f32",
    *,
    batch_size: int | None = None,
    memory_limit: int | None = None,
    n_threads: int | None = None,
    cache: Path | None = None,
) -> BatchEngine:
    """Open an ONNX file.

    The engine must reproduce the golden values in the file ``<stem>.golden.npz`` beside the graph, see
    :mod:`radlens.engines.golden`; if an engine does not, ``"auto"`` logs the reason and continues with the next one.
    Without that file, the engine is compared with torch in float64 on a random input, to 1 %. Where torch does not know
    an operation or memory does not suffice, the graph is opened unchecked, and the log says so.

    Args:
        path: path of the graph.
        engine: a name of :func:`radlens.engines.names`, or ``"auto"`` for the fastest engine, see
            :mod:`radlens.engines.calibration`.
        precision: arithmetic precision that the engine offers.
        batch_size: number of samples computed together; None for the fastest batch size with ``"auto"`` and 8
            otherwise, both limited by memory.
        memory_limit: largest number of bytes that the engine may use; None for
            :func:`radlens.engines.memory.memory_limit`.
        n_threads: number of threads of a CPU engine; None for torch's.
        cache: folder for compiled graphs; None to disable caching, except for TensorRT, which then uses the cache
            folder.

    Returns:
        The engine with the opened graph.

    Raises:
        InvalidParameter: unknown engine or precision, or the engine does not support the graph.
        MissingDependency: the runtime of the engine is not installed, or the machine lacks the hardware that it needs.
        BundleError: the file does not hold a graph; or the given engine, or with ``"auto"`` every engine, fails to run
            it or to reproduce the golden values.
    """
    graph = GraphFile.load(path)
    known = offered(precision)
    limit = memory.memory_limit(memory_limit)
    options = Options(batch_size or DEFAULT_BATCH_SIZE, n_threads, cache)
    opened: BatchEngine = (
        _fastest(graph, known, precision, options, limit).engine
        if engine == "auto"
        else _named(graph, engine, precision, options, limit)
    )
    if batch_size is not None:  # overrides calibration and memory limit
        opened.batch_size = batch_size
    return opened


def measured(
    path: Path | str,
    precision: str = "f32",
    *,
    memory_limit: int | None = None,
    again: bool = False,
    on_progress: Progress | None = None,
) -> Choice:
    """Return the engine that :func:`open` chooses with ``"auto"``, and the timings of all engines.

    Args:
        path: path of the graph.
        precision: arithmetic precision.
        memory_limit: largest number of bytes that the engine may use; None for the default.
        again: whether to measure even if there is a cached result.
        on_progress: callback ``on_progress(engine, batch_size)`` before each measurement.

    Raises:
        InvalidParameter: no engine offers the precision.
        BundleError: the file does not hold a graph, or no engine reproduces its golden values.
    """
    graph, known = GraphFile.load(path), offered(precision)
    limit = memory.memory_limit(memory_limit)
    return _fastest(graph, known, precision, Options(), limit, again=again, on_progress=on_progress)


def candidates(graph: GraphFile, known: Sequence[str], precision: str, options: Options) -> list[Candidate]:
    """Return the engines among ``known`` that are available and support ``graph``."""
    kinds = [engine_class(name) for name in known if is_there(name)]
    return [
        Candidate(
            kind.name,
            precision,
            partial(_open, kind, graph, precision, options),
            memory.footprint(graph, kind.overhead),
        )
        for kind in kinds
        if kind.opens(graph)
    ]


def calibrated(
    path: Path,
    found: Sequence[Candidate],
    samples: Callable[[Golden | None, int], Mapping[str, np.ndarray]] | None,
    limit: int,
    key: Mapping[str, str],
    *,
    n_threads: int | None = None,
    stand_in: Callable[[], Golden | None] = lambda: None,
    refused: Mapping[str, str] | None = None,
    again: bool = False,
    on_progress: Progress | None = None,
) -> Choice:
    """Return the fastest engine that reproduces the golden values beside a graph, see :func:`choose`.

    Args:
        path: path of the graph.
        found: engines to choose from.
        samples: function that returns inputs of a given batch size, from the golden values if they exist; None to
            choose without a measurement.
        limit: largest number of bytes that the engine may use.
        key: everything that the result depends on besides golden values, threads, engines and the machine.
        n_threads: number of threads of a CPU engine; None for torch's.
        stand_in: function that computes golden values if no file beside the graph holds them.
        refused: reasons for engines that were refused before, by name.
        again: whether to measure even if there is a cached result.
        on_progress: callback ``on_progress(engine, batch_size)`` before each measurement.

    Raises:
        BundleError: no engine does.
    """
    golden, file = Golden.load(path), golden_file(path)
    everything = {
        **key,
        "golden": file_sha256(file) if golden is not None else None,
        "threads": n_threads or torch.get_num_threads(),
        "engines": {f"{each.name} {each.precision}": versions(each.name) for each in found},
    }
    inputs = None if samples is None else partial(samples, golden)
    return choose(
        found,
        golden,
        inputs,
        limit,
        everything,
        stand_in=stand_in,
        refused=refused,
        again=again,
        on_progress=on_progress,
    )


def versions(name: str) -> dict[str, str]:
    """Return the versions that the speed of an engine depends on."""
    return {"torch": torch.__version__, **engine_class(name).versions()}


@cache
def engine_versions() -> dict[str, str]:
    """Return the versions of all engines that can run on this machine, by package."""
    return {package: found for name in names() if is_there(name) for package, found in versions(name).items()}


def is_there(name: str) -> bool:
    """Return whether an engine can run on this machine."""
    try:
        engine_class(name).require()
    except MissingDependency as error:
        log.debug("engine %s is not available: %s", name, error)
        return False
    return True


def _fastest(
    graph: GraphFile, known: Sequence[str], precision: str, options: Options, limit: int, **how: Any
) -> Choice:
    return calibrated(
        graph.path,
        candidates(graph, known, precision, options),
        _samples(graph),
        limit,
        {"graph": graph.sha256},
        n_threads=options.n_threads,
        stand_in=partial(_stand_in, graph, limit),
        **how,
    )


def _named(graph: GraphFile, name: str, precision: str, options: Options, limit: int) -> GraphEngine:
    kind = engine_class(name)
    if not kind.opens(graph):
        raise InvalidParameter(f"engine {name} must be given a graph that it supports, got {graph.path.name}")
    opened = _open(kind, graph, precision, options)
    needed = memory.footprint(graph, kind.overhead)
    if needed is not None:
        opened.batch_size = min(opened.batch_size, needed.largest_batch(limit))
    golden = Golden.load(graph.path) or _stand_in(graph, limit)
    if golden is not None:
        golden.check(opened)
    return opened


def _open(kind: type[GraphEngine], graph: GraphFile, precision: str, options: Options) -> GraphEngine:
    keeps = kind.keeps_compiled and options.cache is None
    return kind(graph, precision, replace(options, cache=cache_folder() / "compiled") if keeps else options)


def _stand_in(graph: GraphFile, limit: int) -> Golden | None:
    """Return golden values of one random sample; None if torch cannot compute them, or memory does not suffice."""
    # Twice the estimate, because it is for float32.
    samples, needed = _samples(graph), memory.footprint(graph, TorchEngine.overhead)
    if samples is None or (needed is not None and 2 * needed.peak(1) > limit):
        reason = "its inputs have unknown sizes" if samples is None else "float64 needs more memory than the limit"
        log.info("%s is opened unchecked: %s", graph.path.name, reason)
        return None
    try:
        golden = golden_values(graph.path, samples(None, 1))
    except RadlensError as error:
        log.info("%s is opened unchecked: %s", graph.path.name, error)
        return None
    if not all(np.isfinite(value).all() for value in golden.outputs.values()):
        log.info("%s is opened unchecked: its outputs for a random input are not finite", graph.path.name)
        return None
    # An engine with another order of sums may switch a ReLU that torch's float32 did not switch.
    return replace(golden, float32_errors={name: max(e, STAND_IN_ERROR) for name, e in golden.float32_errors.items()})


def _samples(graph: GraphFile) -> Callable[[Golden | None, int], dict[str, np.ndarray]] | None:
    """Return a function that makes inputs of a given batch size; None if other dimensions are dynamic and unknown."""
    is_open = any(isinstance(size, str) and size != graph.batch for spec in graph.inputs for size in spec.shape)
    return None if is_open and not golden_file(graph.path).is_file() else partial(_inputs, graph)


def _inputs(graph: GraphFile, golden: Golden | None, batch_size: int) -> dict[str, np.ndarray]:
    if golden is not None:
        return _repeated(graph, golden.inputs, batch_size)
    generator = np.random.default_rng(0)
    shapes = {spec: [1 if isinstance(size, str) else size for size in spec.shape] for spec in graph.inputs}
    values = {spec.name: generator.normal(size=shape).astype(spec.dtype) for spec, shape in shapes.items()}
    return _repeated(graph, values, batch_size)


def _repeated(graph: GraphFile, inputs: Mapping[str, np.ndarray], batch_size: int) -> dict[str, np.ndarray]:
    batched = {spec.name for spec in graph.inputs if graph.batch is not None and spec.shape[:1] == (graph.batch,)}
    return {
        name: np.resize(value, (batch_size, *value.shape[1:])) if name in batched else value
        for name, value in inputs.items()
    }
