"""Parity report: deviation of each engine from float64 in each of its precisions, and which of them may be used.

The criteria are those of the golden values. In reduced precision (tf32, f16, bf16), maps must correlate with float64 by
at least 0.99 and have a relative error of at most 0.15; other outputs must have a relative error of at most 0.02.
Engines that were not available at the time of export are not in the report; they are checked when they are opened.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from radlens.engines.base import PRECISIONS, Options, engine_class, names
from radlens.engines.golden import Deviation, Golden
from radlens.engines.graph_file import GraphFile
from radlens.engines.opening import is_there
from radlens.errors import BundleError, MissingDependency

__all__ = ["ENGINES", "Measurement", "disallowed", "measure", "stored"]

ENGINES = "engines"
"""Key of the measurements in the parity report of a bundle."""


@dataclass(frozen=True)
class Measurement:
    """Comparison of an engine in one precision with the golden values of a graph.

    Attributes:
        engine: name of the engine.
        precision: arithmetic precision.
        deviations: deviations by output; empty if the engine cannot run the graph.
        reason: reason why the engine must not be used; None if it may be used.
    """

    engine: str
    precision: str
    deviations: Mapping[str, Deviation]
    reason: str | None

    @property
    def form(self) -> str:
        """Engine and precision, such as ``openvino f32``."""
        return f"{self.engine} {self.precision}"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON values of the measurement for the parity report of a bundle."""
        return asdict(self)

    @property
    def error(self) -> float:
        """Largest relative error of an output; infinite if the engine cannot run the graph."""
        return max((deviation.error for deviation in self.deviations.values()), default=float("inf"))


def measure(path: Path, precisions: Sequence[str] = PRECISIONS) -> list[Measurement]:
    """Compare every available engine, in each precision, with the golden values beside a graph.

    Args:
        path: path of the graph.
        precisions: precisions to compare.

    Raises:
        BundleError: the file does not hold a graph, or its golden values are missing or damaged.
    """
    graph, golden = GraphFile.load(path), Golden.load(path)
    if golden is None:
        raise BundleError(f"{path.name} must have golden values beside it, got none")
    return list(_measured(graph, golden, precisions))


def stored(parity: Mapping[str, Any], graph: str) -> list[Measurement]:
    """Return the measurements of a graph in the parity report of a bundle; empty if there is no report."""
    return [
        Measurement(
            entry["engine"],
            entry["precision"],
            {name: Deviation(**deviation) for name, deviation in entry["deviations"].items()},
            entry["reason"],
        )
        for entry in parity.get(ENGINES, {}).get(graph, [])
    ]


def disallowed(parity: Mapping[str, Any], graph: str, engine: str, precision: str) -> str | None:
    """Return why the parity report of a bundle excludes an engine in reduced precision; None if it does not."""
    if precision in ("f64", "f32"):
        return None
    found = (each.reason for each in stored(parity, graph) if (each.engine, each.precision) == (engine, precision))
    return next((f"precision {precision}: {reason}" for reason in found if reason), None)


def _measured(graph: GraphFile, golden: Golden, precisions: Sequence[str]) -> Iterator[Measurement]:
    for name in names():
        kind = engine_class(name)
        if not is_there(name) or not kind.opens(graph):
            continue
        for precision in precisions:
            if precision not in kind.precisions:
                continue
            try:
                engine = kind(graph, precision, Options())
                deviations = golden.deviations(engine)
                reason = golden.objection(precision, deviations)
            except MissingDependency:
                # The processor does not support this precision.
                continue
            except BundleError as error:
                deviations, reason = {}, str(error)
            yield Measurement(name, precision, deviations, reason)
