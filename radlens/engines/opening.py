"""Open a graph with an engine that reproduces its golden values."""

import logging
from pathlib import Path

from radlens.engines.base import DEFAULT_BATCH_SIZE, Engine, Options, engine_class, offered
from radlens.engines.golden import Golden
from radlens.engines.graph_file import GraphFile
from radlens.errors import BundleError, InvalidParameter, MissingDependency, RadlensError

__all__ = ["open"]

log = logging.getLogger(__name__)


def open(
    path: Path | str,
    engine: str = "auto",
    precision: str = "f32",
    *,
    batch_size: int | None = None,
    n_threads: int | None = None,
    cache: Path | None = None,
) -> Engine:
    """Open an ONNX file.

    If ``<stem>.golden.npz`` lies beside the file, the engine must reproduce the golden values in it, see
    :mod:`radlens.engines.golden`.

    Args:
        path: of the file.
        engine: a name in :func:`radlens.engines.names`, or ``"auto"`` for one that is there and passes.
        precision: of the arithmetic, one that the engine offers.
        batch_size: samples computed together.
        n_threads: threads of a CPU engine; None for as many as torch uses.
        cache: folder where engines may keep what they compiled; None to keep nothing.

    Returns:
        What computes the graph.

    Raises:
        InvalidParameter: no such engine or precision.
        MissingDependency: the runtime of the engine is not installed, or the machine lacks what it runs on.
        BundleError: the file holds no graph, or the engine cannot run it or does not reproduce the golden values.
    """
    graph = GraphFile.load(path)
    options = Options(batch_size or DEFAULT_BATCH_SIZE, n_threads, cache)
    candidates = offered(precision)
    if engine != "auto":
        return _checked(engine, graph, precision, options)
    for name in candidates:
        try:
            return _checked(name, graph, precision, options)
        except MissingDependency as error:
            log.debug("engine %s is not there: %s", name, error)
        except RadlensError as error:
            log.warning("engine %s is refused: %s", name, error)
    raise BundleError(f"an engine must compute {graph.path.name} in {precision}, got none that does")


def _checked(name: str, graph: GraphFile, precision: str, options: Options) -> Engine:
    kind = engine_class(name)
    if not kind.opens(graph):
        raise InvalidParameter(f"engine {name} must be given a graph that it is made for, got {graph.path.name}")
    opened = kind(graph, precision, options)
    golden = Golden.load(graph.path)
    if golden is not None:
        golden.check(opened)
    return opened
