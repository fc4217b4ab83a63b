"""Streams of JSON lines with the progress and the result of an explanation of many samples.

TorchServe closes a finished stream and that of a dead worker in the same way, so the last line states whether the
stream is complete. The lines are:

- ``{"event": "progress", "done", "total", "total_is_estimated", "elapsed_s", "remaining_s", "reliability",
  "n_restored"}``, with null for unknown values;
- ``{"event": "partial", "done", "total", "map"}``, a map of the samples so far, at longer intervals;
- ``{"event": "member", "member", "map"}`` for each member if the request asks for them: together their maps may exceed
  the size limit of an answer;
- at the end ``{"event": "result", "complete": true, ...}`` with the fields of the plain JSON answer, or
  ``{"event": "error", "complete": false, "code", "type", "message", "request_id"}``.
"""

import json
import math
from dataclasses import dataclass
from time import monotonic
from typing import Any

from radlens.explainers import Partial
from radlens.families.cdmam.answers import Context, explanation_fields, preview
from radlens.families.cdmam.computing import Computer
from radlens.families.cdmam.rows import Row
from radlens.families.cdmam.settings import Settings
from radlens.service.failures import failure
from radlens.service.messages import Emit
from radlens.wire import array_to_json

__all__ = ["Pace", "stream_explanation"]


@dataclass(frozen=True)
class Pace:
    """Intervals between the lines of a stream.

    Attributes:
        progress_s: smallest number of seconds between two lines of progress.
        partial_s: smallest number of seconds between two partial maps; the first map follows the first samples.
    """

    progress_s: float = 0.5
    partial_s: float = 15.0


def stream_explanation(row: Row, context: Context, computer: Computer, pace: Pace, emit: Emit) -> None:
    """Explain ``row`` and pass each line to ``emit``; errors become the last line, except those of ``emit``."""
    try:
        explanation = computer.explain_many(row, _Reporter(row.settings, pace, emit))
        last = _line("result", complete=True, **explanation_fields(row, explanation, context))
    except Exception as error:
        # The status 200 is already sent, so the error has to travel in the stream.
        emit(_line("error", complete=False, **failure(error, row.request.request_id)._asdict()))
        return
    members = explanation.upsampled().members
    for number, values in enumerate([] if members is None else members):
        emit(_line("member", member=number, map=array_to_json(values)))
    emit(last)


class _Reporter:
    """Emits lines for the progress of an upsampling."""

    def __init__(self, settings: Settings, pace: Pace, emit: Emit) -> None:
        self._pace, self._emit, self._is_automatic = pace, emit, settings.is_automatic
        self._started = self._progress_at = monotonic()
        self._partial_at = -float("inf")
        self._say(0, None if settings.is_automatic else settings.most_samples, None, math.nan, 0)

    def __call__(self, done: int, total: int | None, partial: Partial) -> None:
        now = monotonic()
        if done == total or now - self._progress_at >= self._pace.progress_s:
            self._progress_at = now
            here = done - partial.n_restored
            remaining = (now - self._started) * (total - done) / here if total is not None and here else None
            self._say(done, total, remaining, partial.reliability, partial.n_restored)
        if done != total and now - self._partial_at >= self._pace.partial_s:
            self._partial_at = now
            self._emit(_line("partial", done=done, total=total, map=preview(partial())))

    def _say(
        self, done: int, total: int | None, remaining_s: float | None, reliability: float, n_restored: int
    ) -> None:
        line = _line(
            "progress",
            done=done,
            total=total,
            total_is_estimated=self._is_automatic and done != total,
            elapsed_s=round(monotonic() - self._started, 3) if done else 0.0,
            remaining_s=None if remaining_s is None else round(remaining_s, 3),
            reliability=None if math.isnan(reliability) else round(reliability, 4),
            n_restored=n_restored,
        )
        self._emit(line)


def _line(event: str, **fields: Any) -> bytes:
    return json.dumps({"event": event, **fields}).encode() + b"\n"
