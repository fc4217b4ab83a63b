"""Streams of JSON lines with the steps and the result of a method that works in steps.

The rows of a batch are computed together when the first of their streams is read; the lines of the others wait. The
lines are:

- ``{"event": "progress", "done", "total", "elapsed_s", "remaining_s", "numbers"}``, with the method's numbers, such as
  the terms of a loss;
- ``{"event": "partial", "done", "total", "map"}``, the map so far, reduced to at most 500 pixels, at longer intervals;
- at the end ``{"event": "result", "complete": true, ...}`` with the fields of the plain JSON answer, or
  ``{"event": "error", "complete": false, "code", "type", "message", "request_id"}``.
"""

import json
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import numpy as np

from radlens.explainers.work import Step
from radlens.families.classifier.answers import ClassContext, explanation_document
from radlens.families.classifier.computing import ClassExplanation, ClassPrediction
from radlens.families.classifier.rows import ClassifierRow
from radlens.figures import display_map
from radlens.service.failures import failure
from radlens.service.messages import Emit
from radlens.waiting import while_waited_for
from radlens.wire import array_to_json

__all__ = ["Streams"]

PROGRESS_S = 0.5
"""Smallest number of seconds between two lines of progress."""

PARTIAL_S = 3.0
"""Smallest number of seconds between two partial maps."""

_SIDE = 500

Compute = Callable[[Sequence[ClassifierRow], Callable[[int, Step], None]], list[ClassPrediction | ClassExplanation]]


class Streams:
    """The streams of the rows of a batch.

    Args:
        rows: Rows that are computed together.
        compute: Computes rows; told of steps by ``on_step(row number, step)``.
        context: Returns what an answer contains besides its result.
    """

    def __init__(
        self, rows: Sequence[ClassifierRow], compute: Compute, context: Callable[[ClassifierRow], ClassContext]
    ) -> None:
        self._rows, self._compute, self._context = list(rows), compute, context
        self._last: dict[int, bytes] = {}

    def stream(self, number: int, emit: Emit) -> None:
        """Pass the lines of a row to ``emit``; errors become the last line, except those of ``emit``."""
        if not self._last:
            report = _Reporter(self._rows[number], number, emit, stops=len(self._rows) == 1)
            self._run(report)
            if report.broken is not None:
                raise report.broken
        emit(self._last[number])

    def _run(self, report: "_Reporter") -> None:
        try:
            # The stream of one row computes all of them: its own client may leave while others wait.
            with while_waited_for(lambda: any(row.request.is_waited_for() for row in self._rows)):
                results = self._compute(self._rows, report)
        except Exception as error:
            if error is report.broken:
                return
            if len(self._rows) == 1:
                self._last[0] = self._error(0, error)
                return
            # One row failed and took the others with it: compute rows one by one.
            for number, row in enumerate(self._rows):
                alone = Streams([row], self._compute, self._context)
                # Nobody reads the other rows yet.
                alone._run(_Reporter(row, 0, report.emit if number == report.number else _nowhere, stops=False))
                self._last[number] = alone._last[0]
            return
        for number, result in enumerate(results):
            self._last[number] = self._result(number, result)

    def _result(self, number: int, result: ClassPrediction | ClassExplanation) -> bytes:
        row = self._rows[number]
        try:
            return _line("result", complete=True, **explanation_document(row, result, self._context(row)))
        except Exception as error:
            return self._error(number, error)

    def _error(self, number: int, error: Exception) -> bytes:
        # The status 200 is already sent, so the error has to travel in the stream.
        return _line("error", complete=False, **failure(error, self._rows[number].request.request_id)._asdict())


def _nowhere(_: bytes) -> None:
    """Drop a line: the reader of this row has not come yet."""


class _Reporter:
    """Emits the lines of one row while all rows are computed.

    Args:
        row: The row.
        number: Its number.
        emit: Receives lines.
        stops: Whether an error of ``emit`` ends the computation, because no other row needs it.

    Attributes:
        broken: Error of ``emit``: its reader is gone, and no further line is passed to it.
    """

    def __init__(self, row: ClassifierRow, number: int, emit: Emit, *, stops: bool) -> None:
        self._row, self.number, self.emit, self._stops = row, number, emit, stops
        self.broken: Exception | None = None
        self._started = monotonic()
        self._said = self._drawn = -float("inf")

    def __call__(self, number: int, step: Step) -> None:
        if number != self.number or self.broken is not None:
            return
        try:
            self._tell(step)
        except Exception as error:
            self.broken = error
            if self._stops:
                raise

    def _tell(self, step: Step) -> None:
        now = monotonic()
        elapsed = now - self._started
        if now - self._said >= PROGRESS_S or step.done == step.total:
            self._said = now
            remaining = elapsed * (step.total - step.done) / step.done if step.done else None
            self.emit(
                _line(
                    "progress",
                    done=step.done,
                    total=step.total,
                    elapsed_s=round(elapsed, 3),
                    remaining_s=None if remaining is None else round(remaining, 3),
                    numbers=dict(step.numbers),
                )
            )
        if step.done and now - self._drawn >= PARTIAL_S:
            self._drawn = now
            values = self._row.prepared.on_image(step.map().numpy())
            drawn = display_map(values, max_side=_SIDE).astype(np.float32)
            self.emit(_line("partial", done=step.done, total=step.total, map=array_to_json(drawn)))


def _line(event: str, **fields: Any) -> bytes:
    return json.dumps({"event": event, **fields}).encode() + b"\n"
