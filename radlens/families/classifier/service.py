"""The service of classifiers.

All rows of a batch - predictions, methods, targets - are computed together: what they ask of the network shares its
calls. What a row gets equals what it gets alone, to within the rounding of float32 sums whose order depends on the
batch (about 1e-5 of the largest value of a map).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

import torch

from radlens.engines.base import Refusal
from radlens.families.classifier.answers import ClassContext, response
from radlens.families.classifier.computing import Computer
from radlens.families.classifier.manifest import TRACED, ClassifierBundle
from radlens.families.classifier.model import EnsembleClassifier, GraphClassifier, TracedEngine
from radlens.families.classifier.rows import ClassifierRow, open_row
from radlens.service.batching import BatchService, Work
from radlens.service.domain import Assessment
from radlens.service.messages import Request
from radlens.service.provenance import provenance

__all__ = ["ClassifierService", "open_model"]


@dataclass(frozen=True)
class ServingEngine:
    """What metrics say of the engine that serves.

    Attributes:
        name: of the engine.
        precision: of its arithmetic.
        refused: engines that do not serve a graph that was opened so far.
    """

    name: str
    precision: str
    refused: tuple[Refusal, ...]


class ClassifierService(BatchService):
    """Answer requests with one classifier.

    Args:
        bundle: the model.
        engine: what computes its graphs, see :func:`radlens.engines.open`.
        precision: precision of the arithmetic.
        memory_limit: most bytes that an engine may take; None for the default.
        now: the clock of the provenance.

    Attributes:
        model: what computes the bundle.
        engine: the engine of the predictions, for metrics.

    Raises:
        BundleError: no engine computes the predictions rightly.
    """

    def __init__(
        self,
        bundle: ClassifierBundle,
        *,
        engine: str = "auto",
        precision: str = "f32",
        memory_limit: int | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bundle, self._now = bundle, now
        self.model = open_model(bundle, engine, precision, memory_limit=memory_limit)
        name = self.model.members[0].engines["prediction"]
        self.engine = ServingEngine(name, precision, self._refused())
        self._computer = Computer(self.model)

    def _open(self, request: Request) -> ClassifierRow:
        return open_row(request, self._bundle.manifest)

    def _work(self, rows: Sequence[ClassifierRow]) -> Iterator[Work]:
        if rows:
            yield self._computer.compute, response, list(rows)

    def _context(self, row: ClassifierRow) -> ClassContext:
        manifest = self._bundle.manifest
        stated = {"model": manifest.name, "version": manifest.version, "bundle_hash": self._bundle.bundle_hash}
        return ClassContext(
            provenance(stated | self.stated(), row.image, row.settings, row.request.request_id, self._now()),
            _cautions(row),
            manifest,
            _assessment(row),
        )

    def stated(self) -> dict[str, Any]:
        """Return what provenance says of the engines, as JSON values."""
        engines = self.model.members[0].engines
        return {
            "engine": engines["prediction"],
            "precision": self.engine.precision,
            "engines": engines,
            "refused_engines": [vars(refusal) for refusal in self._refused()],
        }

    def _refused(self) -> tuple[Refusal, ...]:
        return tuple(refusal for member in self.model.members for refusal in member.refused)


def open_model(
    bundle: ClassifierBundle, engine: str = "auto", precision: str = "f32", *, memory_limit: int | None = None
) -> EnsembleClassifier:
    """Return what computes a bundle; its prediction graphs are opened at once, the others when they are needed.

    A graph that is damaged, or that no engine computes rightly, is left to the traced module where there is one.

    Args:
        bundle: the model.
        engine: name of an engine, or ``"auto"`` for the fastest of each graph.
        precision: precision of the arithmetic.
        memory_limit: most bytes that an engine may take; None for the default.

    Raises:
        BundleError: no engine computes the predictions rightly.
        InvalidParameter: unknown engine or precision.
        MissingDependency: the engine is not installed.
    """
    manifest = bundle.manifest
    # The traced module computes in float32.
    is_traced = engine in ("auto", TracedEngine.name) and precision == "f32" and TRACED in manifest.files

    @cache
    def traced() -> torch.jit.ScriptModule:
        return torch.jit.load(bundle.traced, map_location="cpu").eval()

    def of_member(number: int) -> TracedEngine:
        return TracedEngine(traced(), number)

    members: list[GraphClassifier] = []
    for number in range(manifest.n_members):
        member = GraphClassifier(
            bundle.graphs(number),
            manifest.n_outputs,
            manifest.input.image_shape,
            engine=engine,
            precision=precision,
            memory_limit=memory_limit,
            twin=members[0] if members else None,
            damaged=bundle.damaged_graphs(number),
            traced=partial(of_member, number) if is_traced else None,
        )
        member.engine("prediction")
        members.append(member)
    return EnsembleClassifier(members)


def _cautions(row: ClassifierRow) -> list[str]:
    found = []
    if not row.prepared.has_frame:
        found.append("no breast was found in the image; all of it was used")
    return [*found, *_assessment(row).reasons]


def _assessment(row: ClassifierRow) -> Assessment:
    """Say whether there is anything in the image that a class could be told from.

    The training record of a classifier holds no limits yet, so that this is the one image which is refused for sure.
    """
    reasons = () if row.prepared.pixels.any() else ("all pixels have one value; there is nothing to see",)
    return Assessment(not reasons, reasons)
