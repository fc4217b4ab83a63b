"""The service of classifiers.

The rows of a batch, with any mixture of predictions, methods and targets, share calls of the network. The answer to a
row equals the answer to the row alone, to within the rounding of float32 sums whose order depends on the batch (about
1e-5 of the largest value of a map).
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
from radlens.families.classifier.streaming import Streams
from radlens.service.batching import BatchService, Work
from radlens.service.messages import Emit, Request, Response
from radlens.service.provenance import header_value, provenance
from radlens.wire import PROVENANCE

__all__ = ["ClassifierService", "open_model"]


@dataclass(frozen=True)
class ServingEngine:
    """Engine of the predictions, for metrics.

    Attributes:
        name: name of the engine.
        precision: arithmetic precision.
        refused: engines that were refused for a graph that is open.
    """

    name: str
    precision: str
    refused: tuple[Refusal, ...]


class ClassifierService(BatchService):
    """Answers requests with one classifier.

    Args:
        bundle: the model.
        engine: name of the engine, or ``"auto"`` for the fastest of each graph.
        precision: precision of the arithmetic.
        memory_limit: most bytes that each of its graphs may take; None for the default.
        now: clock of the provenance.

    Attributes:
        model: the opened model.
        engine: engine of the predictions, for metrics.

    Raises:
        BundleError: No engine computes the predictions correctly.
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
        self._domain = bundle.domain()

    def _open(self, request: Request) -> ClassifierRow:
        return open_row(request, self._bundle.manifest, self._domain)

    def _work(self, rows: Sequence[ClassifierRow]) -> Iterator[Work]:
        plain = [row for row in rows if not row.is_streamed]
        if plain:
            yield self._computer.compute, response, plain
        streamed = [row for row in rows if row.is_streamed]
        if streamed:
            streams = Streams(streamed, self._computer.compute, self._context)
            yield lambda rows: [partial(streams.stream, streamed.index(row)) for row in rows], _streamed, streamed

    def _context(self, row: ClassifierRow) -> ClassContext:
        manifest = self._bundle.manifest
        stated = {"model": manifest.name, "version": manifest.version, "bundle_hash": self._bundle.bundle_hash}
        return ClassContext(
            provenance(stated | self.stated(), row.image, row.settings, row.request.request_id, self._now()),
            _cautions(row),
            manifest,
            row.assessment,
        )

    def stated(self) -> dict[str, Any]:
        """Return the provenance of the engines as JSON values."""
        engines = self.model.members[0].engines
        return {
            "engine": engines["prediction"],
            "precision": self.engine.precision,
            "engines": engines,
            "refused_engines": [vars(refusal) for refusal in self._refused()],
        }

    def _refused(self) -> tuple[Refusal, ...]:
        return tuple(refusal for member in self.model.members for refusal in member.refused)


def _streamed(row: ClassifierRow, stream: Callable[[Emit], None], context: ClassContext) -> Response:
    return Response(200, row.media_type, headers={PROVENANCE: header_value(context.provenance)}, stream=stream)


def open_model(
    bundle: ClassifierBundle, engine: str = "auto", precision: str = "f32", *, memory_limit: int | None = None
) -> EnsembleClassifier:
    """Open a bundle: its prediction graphs at once, other graphs when they are needed.

    The traced module, if there is one, computes graphs that are damaged or that no engine computes correctly.

    Args:
        bundle: the model.
        engine: name of an engine, or ``"auto"`` for the fastest of each graph.
        precision: precision of the arithmetic.
        memory_limit: most bytes that an engine may take; None for the default.

    Raises:
        BundleError: No engine computes the predictions correctly.
        InvalidParameter: The engine or the precision is unknown.
        MissingDependency: The engine is not installed.
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
        found.append("no breast was found in the image; the whole image was used")
    return [*found, *row.image.notes, *row.assessment.reasons]
