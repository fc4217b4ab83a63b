"""The service of CDMAM models.

Rows that can share work are computed together. The answer to a row equals the answer to the row alone, to within the
rounding of float32 sums whose order depends on the batch (about 1e-5 of the largest value of a map), and an invalid row
does not affect the others.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from radlens import explainers
from radlens.errors import BundleError
from radlens.families.cdmam.ablation import Ablation
from radlens.families.cdmam.answers import (
    Context,
    ablation_response,
    explanation_response,
    prediction_response,
    unassessable_response,
)
from radlens.families.cdmam.calibration import Calibration
from radlens.families.cdmam.cautions import cautions
from radlens.families.cdmam.computing import Computer, Explanation, Workers
from radlens.families.cdmam.judging import Judged
from radlens.families.cdmam.manifest import Bundle
from radlens.families.cdmam.methods import ABLATION, AblationMethod, methods_of
from radlens.families.cdmam.model import open_bundle
from radlens.families.cdmam.opening import PhantomOpener, spacing_caution
from radlens.families.cdmam.reader import PhantomReader
from radlens.families.cdmam.rows import Row, Terms, open_row
from radlens.families.cdmam.streaming import Pace, stream_explanation
from radlens.phantoms.cdmam.domain import Limits
from radlens.service.batching import BatchService, Work
from radlens.service.messages import Request, Response
from radlens.service.provenance import header_value, input_stated, provenance
from radlens.wire import PROVENANCE

__all__ = ["Service"]


class Service(BatchService):
    """Answers requests with one CDMAM model.

    Args:
        bundle: the model.
        engine: name of the engine, or ``"auto"`` for the fastest.
        precision: precision of the arithmetic.
        memory_limit: most bytes that each of its graphs may take; None for the default.
        now: clock of the provenance.
        pace: pace of the lines of a stream.
        checkpoint: checkpoint to save and continue an explanation of many samples; only for a service that answers one
            such request.
        workers: processes that explain many samples in place of this one, and that the provenance names; only for a
            service that answers no other requests.

    Attributes:
        engine: the opened engines of the bundle, with the refused ones and the reasons.

    Raises:
        BundleError: No engine can compute the model, or the bundle allows no explainer of this version of radlens.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        engine: str = "auto",
        precision: str = "f32",
        memory_limit: int | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pace: Pace | None = None,
        checkpoint: explainers.Checkpoint | None = None,
        workers: Workers | None = None,
    ) -> None:
        manifest = bundle.manifest
        methods = methods_of(manifest)
        if not set(methods) - {ABLATION}:
            raise BundleError(f"bundle must allow one of {', '.join(explainers.names())}, got none of them")
        self._manifest = manifest
        self.engine = open_bundle(bundle, engine, precision, memory_limit=memory_limit)
        stated = (workers or self.engine).stated()
        self._stated = {
            "model": manifest.name,
            "version": manifest.version,
            "bundle_hash": bundle.bundle_hash,
            "training": {"recordings": manifest.training.get("recordings", "not stated")},
            **stated,
        }
        spec = manifest.input
        limits = Limits() if manifest.domain is None else Limits.from_json(manifest.domain)
        opener = PhantomOpener(limits)
        self._terms = Terms(spec.sampler, methods, manifest.n_members, opener, spec.registered)
        identity = {name: self._stated[name] for name in ("bundle_hash", "engine", "precision")}
        batch_size = max(Computer.batch_size, stated["batch_size"])
        reader = PhantomReader(self.engine, _calibration(bundle), spec.n_samples, spec.sampler)
        self._computer = Computer(
            self.engine,
            bundle.preprocess,
            batch_size,
            checkpoint,
            identity,
            workers,
            reader if spec.registered else None,
        )
        self._now, self._pace = now, pace or Pace()

    def _open(self, request: Request) -> Row:
        """Open a request; an explanation of a registered phantom starts with its prediction.

        The prediction decides whether the image can be judged, and only then a map is computed. Models of the paper's
        recipe see every image, so they always return a map, with the reasons why the image cannot be judged.
        """
        row = open_row(request, self._terms)
        if row.settings.explainer is None or not row.registered:
            return row
        return replace(row, judged=self._computer.predict([row])[0])

    def _work(self, rows: Sequence[Row]) -> Iterator[Work]:
        """Group rows that can be computed together.

        All predictions share a call of the model. Explanations of one sample with the same method and parameters share
        a call of the explainer, whatever their seeds and formats.
        """
        alike = defaultdict(list)
        for row in rows:
            if row.judged is not None and not row.judged.assessment.assessable:
                yield _what_was_judged, unassessable_response, [row]
            elif isinstance(row.settings.explainer, AblationMethod):
                yield self._ablate, ablation_response, [row]
            elif row.is_streamed:
                yield _nothing_yet, self._streamed, [row]
            elif row.settings.n_samples != 1:
                yield self._explain_many, explanation_response, [row]
            else:
                alike[row.settings.explainer, row.settings.members].append(row)
        for (explainer, _), group in alike.items():
            if explainer is None:
                yield self._computer.predict, prediction_response, group
            else:
                yield self._computer.explain_once, explanation_response, group

    def _ablate(self, rows: Sequence[Row]) -> list[Ablation]:
        return [self._computer.ablate(row) for row in rows]

    def _explain_many(self, rows: Sequence[Row]) -> list[Explanation]:
        return [self._computer.explain_many(row) for row in rows]

    def _streamed(self, row: Row, _: None, context: Context) -> Response:
        stream = partial(stream_explanation, row, context, self._computer, self._pace)
        return Response(200, row.media_type, headers={PROVENANCE: header_value(context.provenance)}, stream=stream)

    def _context(self, row: Row) -> Context:
        stated = provenance(self._stated, row.image, row.settings, row.request.request_id, self._now())
        if len(row.opened) > 1:
            stated["inputs"] = [input_stated(opened.image) for opened in row.opened]
        if row.settings.explainer is None and row.registered:
            stated["sampling"]["n_samples"] = self._manifest.input.n_samples
        found = [text for opened in row.opened if (text := spacing_caution(opened))]
        if not row.registered:
            found = cautions(row.image, self._manifest.input)
        found += [note for opened in row.opened for note in opened.image.notes]
        return Context(stated, list(dict.fromkeys(found)), self._manifest.diameters_mm)


def _calibration(bundle: Bundle) -> Calibration | None:
    found = bundle.manifest.training.get("calibration")
    try:
        return None if found is None else Calibration.from_json(found)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError("bundle must hold a readable calibration in its training record") from error


def _what_was_judged(rows: Sequence[Row]) -> list[Judged]:
    return [row.judged for row in rows if row.judged is not None]


def _nothing_yet(rows: Sequence[Row]) -> list[None]:
    return [None] * len(rows)
