"""A long explanation as several requests for ranges of samples: what a broken connection loses is one range.

The maps of the ranges are joined here (Amanova et al. 2022, Algorithm 2, is a sum over samples) and saved after each
one, so that a run goes on after its client, its server or the network between them has failed. Maps travel in float32,
so the result equals that of one request to within their rounding.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from radlens.client import Client, Progress
from radlens.errors import InvalidParameter, ServerError
from radlens.explainers import Checkpoint, Goal, Halves, UpsampledMap, merge
from radlens.explainers.upsampling import AUTO

__all__ = ["RANGE", "explain_in_ranges"]

RANGE = 64
"""Samples of one request: their map is downloaded in a small part of the time that explaining them takes."""

_MODEL = ("model", "version", "bundle_hash", "engine", "precision")
"""What must not change between two ranges, as provenance names it."""


@dataclass
class _Joined:
    """What is known of a run so far.

    Attributes:
        upsampled: map of all its samples, None before the first.
        answer: the last answer without its arrays.
        looks: samples and reliability after each range.
        n_restored: samples that came from the checkpoint.
    """

    upsampled: UpsampledMap | None
    answer: dict[str, Any]
    looks: list[tuple[int, float]]
    n_restored: int = 0

    @property
    def n_samples(self) -> int:
        return 0 if self.upsampled is None else self.upsampled.n_samples

    def add(self, answer: dict[str, Any], start: int) -> None:
        """Add the next range.

        Raises:
            ServerError: another model or another engine computed it.
        """
        found = _stated_model(answer)
        if self.answer and found != (began := _stated_model(self.answer)):
            raise ServerError(f"the server must compute all ranges with {began}, got one with {found}")
        part = _part(answer["explanation"], start + self.n_samples)
        self.upsampled = part if self.upsampled is None else merge([self.upsampled, part])
        described = {name: v for name, v in answer["explanation"].items() if not isinstance(v, np.ndarray | list)}
        self.answer = answer | {"explanation": described}
        self.looks.append((self.n_samples, self.upsampled.reliability))


def explain_in_ranges(
    client: Client,
    image: bytes | Path,
    checkpoint: Path,
    *,
    n_samples: int | str,
    version: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    **parameters: Any,
) -> dict[str, Any]:
    """Return what :meth:`Client.explain` returns, asked for in ranges that are saved to ``checkpoint``.

    Args:
        client: of the server.
        image: see :meth:`Client.explain`.
        checkpoint: where the run is saved, and continued if it was interrupted; it stays when the run is finished.
        n_samples: as many, or ``"auto"``; an automatic run is looked at after each range.
        version: see :meth:`Client.explain`.
        on_progress: called with the progress of the run; the reliability is that of all complete ranges.
        parameters: parameters of :meth:`Client.explain`.

    Raises:
        InvalidInput: the checkpoint is of another run, or see :meth:`Client.explain`.
        InvalidParameter: ``n_samples`` is no number, or smaller than what the checkpoint holds.
        ServerError: the model changed in the middle, or see :meth:`Client.explain`. What was done is saved.
    """
    data = image if isinstance(image, bytes) else image.read_bytes()
    goal, limit = _goal(n_samples, parameters)
    given = {name: value for name, value in parameters.items() if name not in ("reliability", "max_samples", "start")}
    start = int(parameters.get("start", 0))
    saved = Checkpoint(checkpoint)
    identity = {
        "kind": "ranges of a server",
        "image": hashlib.sha256(data).hexdigest(),
        "parameters": json.dumps({"start": start, **given}, sort_keys=True, default=str),
    }
    run = _restored(saved.load(identity))
    if run.n_samples > limit:
        raise InvalidParameter(
            f"n_samples must be at least the {run.n_samples} samples that the checkpoint holds, got {limit}"
        )
    report = _Reporter(run, goal, limit, on_progress)
    while run.n_samples < limit and not (goal and goal.is_reached(run.looks)):
        asked: dict[str, Any] = {"n_samples": min(RANGE, limit - run.n_samples), "start": start + run.n_samples}
        run.add(client.explain(data, version=version, on_progress=report, **asked, **given), start)
        saved.save(identity, _arrays(run))
    return _answer(run, start, goal)


def _goal(n_samples: int | str, parameters: Mapping[str, Any]) -> tuple[Goal | None, int]:
    if n_samples == AUTO:
        most = int(parameters.get("max_samples", Goal.max_samples))
        goal = Goal(float(parameters.get("reliability", Goal.reliability)), min(Goal.min_samples, most), most)
        return goal, most
    try:
        limit = int(n_samples)
    except ValueError:
        limit = 0
    if limit < 1:
        raise InvalidParameter(f"n_samples must be an integer of at least 1, or {AUTO}, got {n_samples!r}")
    return None, limit


def _part(found: Mapping[str, Any], start: int) -> UpsampledMap:
    """Return the map of one range; that of a single sample comes without halves."""
    values, visits, n_samples = found["map"].astype(np.float64), found["visits"].astype(np.int32), found["n_samples"]
    if "half_totals" in found:
        halves = Halves(values.shape, found["reliability_scale_px"], found["half_totals"], found["half_visits"])
    else:
        halves, pixels = Halves.empty(values.shape), np.flatnonzero(visits)
        halves.add(start, pixels, values.ravel()[pixels])
    return UpsampledMap(values, visits, n_samples, found["normalize"], halves, members=_stacked(found.get("members")))


def _stacked(members: Sequence[np.ndarray] | None) -> np.ndarray | None:
    return None if members is None else np.stack(members)


def _arrays(run: _Joined) -> dict[str, np.ndarray]:
    assert run.upsampled is not None, "a run is saved after a range"
    assert run.upsampled.halves is not None, "every range has halves"
    return {
        "map": run.upsampled.map,
        "visits": run.upsampled.visits,
        "half_totals": run.upsampled.halves.totals,
        "half_visits": run.upsampled.halves.visits,
        "looks": np.array(run.looks),
        "scale_px": np.array(run.upsampled.halves.scale_px),
        "answer": np.array(json.dumps(run.answer)),
        **({} if run.upsampled.members is None else {"members": run.upsampled.members}),
    }


def _restored(arrays: Mapping[str, np.ndarray] | None) -> _Joined:
    if arrays is None:
        return _Joined(None, {}, [])
    answer, looks = json.loads(str(arrays["answer"])), [(int(n), r) for n, r in arrays["looks"].tolist()]
    values, n_samples = arrays["map"], looks[-1][0]
    halves = Halves(values.shape, int(arrays["scale_px"]), arrays["half_totals"], arrays["half_visits"])
    normalize, members = answer["explanation"]["normalize"], arrays.get("members")
    joined = UpsampledMap(values, arrays["visits"], n_samples, normalize, halves, members=members)
    return _Joined(joined, answer, looks, n_samples)


def _stated_model(answer: Mapping[str, Any]) -> str:
    return " ".join(str(answer["provenance"].get(name)) for name in _MODEL)


def _answer(run: _Joined, start: int, goal: Goal | None) -> dict[str, Any]:
    """Return the answer of the last range with the map of all in it."""
    assert run.upsampled is not None, "there is at least one range"
    assert run.upsampled.halves is not None, "every range has halves"
    reliability = run.upsampled.reliability
    found: dict[str, Any] = {
        "n_samples": run.n_samples,
        "reliability": None if math.isnan(reliability) else round(reliability, 4),
        "reliability_scale_px": run.upsampled.halves.scale_px,
    }
    wanted = {}
    if goal:
        found["reliability_reached"] = goal.is_reached(run.looks)
        wanted = {"wanted_reliability": goal.reliability, "max_samples": goal.max_samples}
    arrays = {
        "map": run.upsampled.map.astype(np.float32),
        "visits": run.upsampled.visits,
        "half_totals": run.upsampled.halves.totals,
        "half_visits": run.upsampled.halves.visits,
    }
    if run.upsampled.members is not None:
        found |= {"members": list(run.upsampled.members), "disagreement": run.upsampled.disagreement()}
    stated = run.answer["provenance"]
    sampling = stated["sampling"] | found | wanted | {"start": start, "range": RANGE}
    return run.answer | {
        "explanation": run.answer["explanation"] | found | arrays,
        "provenance": stated | {"sampling": sampling},
    }


class _Reporter:
    """Turn the progress of a range into that of the run."""

    def __init__(
        self, run: _Joined, goal: Goal | None, limit: int, on_progress: Callable[[Progress], None] | None
    ) -> None:
        self._run, self._goal, self._limit, self._on_progress = run, goal, limit, on_progress
        self._started = monotonic()

    def __call__(self, of_range: Progress) -> None:
        if self._on_progress is None:
            return
        done, reliability = self._run.n_samples + of_range.done, self._run.looks[-1][1] if self._run.looks else math.nan
        total: int | None = self._limit
        if self._goal:
            expected = self._goal.expected_samples(max(self._run.n_samples, 1), reliability)
            total = None if expected is None else max(expected, self._run.n_samples + (of_range.total or 0))
        elapsed, here = monotonic() - self._started, done - self._run.n_restored
        remaining = elapsed * (total - done) / here if total is not None and here else None
        known = None if math.isnan(reliability) else reliability
        self._on_progress(
            Progress(done, total, elapsed, remaining, known, self._goal is not None, self._run.n_restored)
        )
