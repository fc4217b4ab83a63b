"""Open a graph with the engine that is asked for, or with the fastest that reproduces its golden values."""

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
"""Error that float32 is taken to have where only random inputs tell: ReLUs that switch were seen to make 2.5e-3."""

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

    If ``<stem>.golden.npz`` lies beside the file, the engine must reproduce the golden values in it, see
    :mod:`radlens.engines.golden`. ``"auto"`` goes on to the next engine where one does not, and logs why. Without such
    a file ``"auto"`` holds each engine that it measures against torch in float64 computing the same file, to 1 %; an
    engine that is asked for by name is then not checked at all.

    Args:
        path: of the file.
        engine: a name in :func:`radlens.engines.names`, or ``"auto"`` for the fastest, see
            :mod:`radlens.engines.calibration`.
        precision: of the arithmetic, one that the engine offers.
        batch_size: samples computed together; None for the fastest batch with ``"auto"``, else 8, in either case as
            many as memory allows.
        memory_limit: bytes that the engine may take; None for :func:`radlens.engines.memory.memory_limit`.
        n_threads: threads of a CPU engine; None for as many as torch uses.
        cache: folder where engines may keep what they compiled; None for none, with TensorRT for the cache folder.

    Returns:
        What computes the graph.

    Raises:
        InvalidParameter: no such engine or precision, or the engine is made for other graphs.
        MissingDependency: the runtime of the engine is not installed, or the machine lacks what it runs on.
        BundleError: the file holds no graph, or no engine, or not the one that is asked for, can run it and reproduces
            the golden values.
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
    if batch_size is not None:
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
    """Return the engine that :func:`open` takes with ``"auto"``, and how fast each engine was.

    Args:
        path: of an ONNX file.
        precision: see :func:`open`.
        memory_limit: bytes that the engine may take; None for the default.
        again: measure even if there is a stored result.
        on_progress: called as ``on_progress(engine, batch_size)`` before each measurement.

    Raises:
        InvalidParameter: no engine offers the precision.
        BundleError: the file holds no graph, or no engine computes it rightly.
    """
    graph, known = GraphFile.load(path), offered(precision)
    limit = memory.memory_limit(memory_limit)
    return _fastest(graph, known, precision, Options(), limit, again=again, on_progress=on_progress)


def candidates(graph: GraphFile, known: Sequence[str], precision: str, options: Options) -> list[Candidate]:
    """Return those of some engines that are there and made for ``graph``."""
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
    """Return the fastest of some engines that reproduces the golden values beside a graph, see :func:`choose`.

    Args:
        path: of the graph.
        found: engines to choose from.
        samples: makes inputs of a given batch size, from golden values where there are any.
        limit: bytes that the engine may take.
        key: what else the result depends on.
        n_threads: of a CPU engine.
        stand_in: makes golden values for the measurement where there are none beside the graph.
        refused: engines that were refused before, by name.
        again: measure even if there is a stored result.
        on_progress: called as ``on_progress(engine, batch_size)`` before each measurement.

    Raises:
        BundleError: none does.
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
        log.debug("engine %s is not there: %s", name, error)
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
        raise InvalidParameter(f"engine {name} must be given a graph that it is made for, got {graph.path.name}")
    opened = _open(kind, graph, precision, options)
    needed = memory.footprint(graph, kind.overhead)
    if needed is not None:
        opened.batch_size = min(opened.batch_size, needed.largest_batch(limit))
    golden = Golden.load(graph.path)
    if golden is not None:
        golden.check(opened)
    return opened


def _open(kind: type[GraphEngine], graph: GraphFile, precision: str, options: Options) -> GraphEngine:
    keeps = kind.keeps_compiled and options.cache is None
    return kind(graph, precision, replace(options, cache=cache_folder() / "compiled") if keeps else options)


def _stand_in(graph: GraphFile, limit: int) -> Golden | None:
    """Compute golden values of one random sample; None where torch cannot, or memory does not allow it."""
    samples, needed = _samples(graph), memory.footprint(graph, TorchEngine.overhead)
    if samples is None or (needed is not None and 2 * needed.peak(1) > limit):
        return None
    try:
        golden = golden_values(graph.path, samples(None, 1))
    except RadlensError as error:
        log.info("%s is opened unchecked: %s", graph.path.name, error)
        return None
    if not all(np.isfinite(value).all() for value in golden.outputs.values()):
        return None
    # Random inputs and an engine that sums in another order may meet a ReLU that torch's float32 did not.
    return replace(golden, float32_errors={name: max(e, STAND_IN_ERROR) for name, e in golden.float32_errors.items()})


def _samples(graph: GraphFile) -> Callable[[Golden | None, int], dict[str, np.ndarray]] | None:
    """Return what makes inputs of a given batch size; None if other dimensions are open and nobody knows them."""
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
