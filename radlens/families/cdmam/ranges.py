"""A long explanation as several requests for ranges of samples, so that a broken connection loses one range at most.

Algorithm 2 of Amanova et al. 2022 is a sum over samples, so the client can merge the maps of the ranges. It saves the
merged map after each range, and a run continues after a failure of the client, the server or the network. The server
sends maps in float32, so the result equals that of a single request to within their rounding.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
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
"""Number of samples of one request; explaining them takes much longer than downloading their map."""

_MODEL = ("model", "version", "bundle_hash", "engine", "precision")
"""Fields of the provenance that must be the same in all ranges."""


@dataclass
class _Joined:
    """The state of a run.

    Attributes:
        upsampled: merged map of the ranges so far; None before the first range.
        answer: last answer without its arrays.
        looks: number of samples and reliability after each range.
        n_restored: number of samples restored from the checkpoint.
    """

    upsampled: UpsampledMap | None
    answer: dict[str, Any]
    looks: list[tuple[int, float]]
    n_restored: int = 0

    @property
    def n_samples(self) -> int:
        return 0 if self.upsampled is None else self.upsampled.n_samples

    def add(self, answer: dict[str, Any], start: int) -> None:
        """Merge the answer of the next range.

        Args:
            answer: answer of the server.
            start: number of the first sample of the run.

        Raises:
            ServerError: Another model or another engine computed the range.
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
    """Explain an image like :meth:`Client.explain`, range by range, with a checkpoint after each range.

    Args:
        client: client of the server.
        image: contents or path of the image file.
        checkpoint: file to save the run to, and to continue it from after an interruption; it stays when the run is
            finished.
        n_samples: number of samples, or ``"auto"``; an automatic run estimates its reliability after each range.
        version: version of the model; None for the server's default.
        on_progress: callback with the progress of the run; the reliability is that of the complete ranges.
        parameters: other parameters of :meth:`Client.explain`.

    Raises:
        InvalidInput: The checkpoint is of another run, or :meth:`Client.explain` raises the error.
        InvalidParameter: ``n_samples`` is not a number, or smaller than the number of samples in the checkpoint.
        ServerError: The model changed between two ranges, or :meth:`Client.explain` raises the error. Complete ranges
            are saved.
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
    """Return the map of one range, whose first sample has the number ``start``."""
    values, visits, n_samples = found["map"].astype(np.float64), found["visits"].astype(np.int32), found["n_samples"]
    if "half_totals" in found:
        halves = Halves(values.shape, found["reliability_scale_px"], found["half_totals"], found["half_visits"])
    else:
        # The answer to a range of one sample has no halves.
        halves, pixels = Halves.empty(values.shape), np.flatnonzero(visits)
        halves.add(start, pixels, values.ravel()[pixels])
    members = np.stack(found["members"]) if "members" in found else None
    return UpsampledMap(values, visits, n_samples, found["normalize"], halves, members=members)


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
    """Return the answer of the last range with the merged map in place of its own."""
    assert run.upsampled is not None, "a run has at least one range"
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
    """Converts the progress of a range to that of the run."""

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
