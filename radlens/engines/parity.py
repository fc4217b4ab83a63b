"""Parity: how far each engine is from float64, in each precision that it offers, and which of them may be used.

The rule for less than float32 (tf32, f16, bf16) is that of the golden check: maps correlate with float64 by at least
0.99 and have a relative error of at most 0.15, other outputs one of at most 0.02. An engine that the machine of the
export did not have is not in the report; it is held to the same rule when it is opened.
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
    """An engine in one precision, held against the golden values of a graph.

    Attributes:
        engine: its name.
        precision: of its arithmetic.
        deviations: by output; empty if it cannot run the graph.
        reason: why it may not be used; None if it may.
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
        """Return it as JSON values, as the parity report of a bundle holds it."""
        return asdict(self)

    @property
    def error(self) -> float:
        """Relative error of the worst output."""
        return max((deviation.error for deviation in self.deviations.values()), default=float("inf"))


def measure(path: Path, precisions: Sequence[str] = PRECISIONS) -> list[Measurement]:
    """Hold every engine of this machine, in each precision, against the golden values beside a graph.

    Args:
        path: of the graph.
        precisions: to try.

    Raises:
        BundleError: there is no graph, or it has no golden values.
    """
    graph, golden = GraphFile.load(path), Golden.load(path)
    if golden is None:
        raise BundleError(f"{path.name} must have golden values beside it, got none")
    return list(_measured(graph, golden, precisions))


def stored(parity: Mapping[str, Any], graph: str) -> list[Measurement]:
    """Return the measurements of a graph in the parity report of a bundle; none if there is no report."""
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
    """Return why the parity report of a bundle refuses an engine in less than float32; None if it does not."""
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
                # The processor does not compute in this precision.
                continue
            except BundleError as error:
                deviations, reason = {}, str(error)
            yield Measurement(name, precision, deviations, reason)
