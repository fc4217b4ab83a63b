"""Which engine is fastest here: each that passes is timed once, and the result is kept for the next time.

A calibration is a file in the cache folder, named after everything that it depends on: graph, golden values, processor,
GPU, threads, precision and the versions of all engines. Processes that start together wait for the first to measure.
"""

import fcntl
import hashlib
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from radlens.cache import cache_folder
from radlens.engines.base import BatchEngine
from radlens.engines.golden import Golden
from radlens.engines.memory import Footprint
from radlens.errors import BundleError, MissingDependency, RadlensError

__all__ = [
    "BATCH_SIZES",
    "Calibration",
    "Candidate",
    "Choice",
    "Timing",
    "cache_folder",
    "choose",
    "machine",
]

BATCH_SIZES = (1, 8, 32)
"""Samples computed together that are tried."""

_SECONDS = 0.2
"""Time spent on repeating a measurement; at least one run after the one that warms up."""

_HOPELESS = 6.0
"""An engine this many times slower than the fastest so far is not tried with larger batches."""

_LONGEST = 4000.0
"""Milliseconds; larger batches that would take longer are not tried."""

_NOISE = 1.03
"""Of batches whose times differ by less, the smallest is taken: it needs the least memory."""

log = logging.getLogger(__name__)

Progress = Callable[[str, int], None]

Samples = Callable[[int], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Candidate:
    """An engine that may compute a graph.

    Attributes:
        name: of the engine.
        precision: of its arithmetic.
        open: opens the graph.
        footprint: estimated memory; None where it is unknown.
    """

    name: str
    precision: str
    open: Callable[[], BatchEngine]
    footprint: Footprint | None = None

    def peak(self, batch_size: int) -> int | None:
        """Return the estimated peak in bytes."""
        return None if self.footprint is None else self.footprint.peak(batch_size)

    def batch_sizes(self, limit: int) -> tuple[int, ...]:
        """Return the sizes of :data:`BATCH_SIZES` that fit into ``limit`` bytes, at least the first."""
        largest = BATCH_SIZES[-1] if self.footprint is None else self.footprint.largest_batch(limit)
        return tuple(size for size in BATCH_SIZES if size <= largest) or BATCH_SIZES[:1]


@dataclass(frozen=True)
class Timing:
    """How fast an engine is.

    Attributes:
        engine: its name.
        batch_size: samples computed together.
        ms: milliseconds a sample.
        peak: estimated peak of memory, bytes; None where it is unknown.
    """

    engine: str
    batch_size: int
    ms: float
    peak: int | None


@dataclass(frozen=True)
class Calibration:
    """What was measured on this machine.

    Attributes:
        timings: of the engines that passed.
        refused: why others did not, by name.
        tried: largest batch that memory allowed, by engine.
    """

    timings: tuple[Timing, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    tried: Mapping[str, int] = field(default_factory=dict)

    def ranking(self, limit: int) -> list[Timing]:
        """Return the best timing of each engine within ``limit`` bytes, the fastest engine first."""
        best = {}
        for engine in dict.fromkeys(timing.engine for timing in self.timings):
            own = sorted((t for t in self.timings if t.engine == engine), key=lambda timing: timing.batch_size)
            fitting = [timing for timing in own if timing.peak is None or timing.peak <= limit] or own[:1]
            fastest = min(timing.ms for timing in fitting)
            best[engine] = next(timing for timing in fitting if timing.ms <= _NOISE * fastest)
        return sorted(best.values(), key=lambda timing: timing.ms)

    def covers(self, candidates: Sequence[Candidate], limit: int) -> bool:
        """Return whether every candidate was tried with all batches that fit into ``limit`` bytes."""
        known = {**self.tried, **dict.fromkeys(self.refused, BATCH_SIZES[-1])}
        return all(known.get(each.name, 0) >= each.batch_sizes(limit)[-1] for each in candidates)


@dataclass(frozen=True)
class Choice:
    """The engine that was chosen.

    Attributes:
        engine: opened and checked; its batch size is set.
        peak: estimated peak of memory, bytes; None where it is unknown.
        refused: why others were not, by name.
        calibration: what was measured.
    """

    engine: BatchEngine
    peak: int | None
    refused: Mapping[str, str]
    calibration: Calibration


def machine() -> dict[str, Any]:
    """Return what speed depends on: processor, number of cores, GPUs."""
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return {
        "processor": _line(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpus": [_line(gpu, "Model") for gpu in gpus],
    }


def choose(
    candidates: Sequence[Candidate],
    golden: Golden | None,
    samples: Samples | None,
    limit: int,
    key: Mapping[str, Any],
    *,
    stand_in: Callable[[], Golden | None] = lambda: None,
    refused: Mapping[str, str] | None = None,
    again: bool = False,
    on_progress: Progress | None = None,
) -> Choice:
    """Return the fastest engine that passes, with its best batch.

    Args:
        candidates: engines to choose from.
        golden: what each must reproduce, at every call; None if there is nothing.
        samples: returns inputs of a given batch size to measure with; None to take the first that passes.
        limit: bytes that the engine may take.
        key: everything that the result depends on.
        stand_in: makes what each must reproduce when it is measured, if ``golden`` is None.
        refused: engines that were refused before, by name.
        again: measure even if there is a stored result.
        on_progress: called as ``on_progress(engine, batch_size)`` before each measurement.

    Raises:
        BundleError: no engine starts and passes.
    """
    before = dict(refused or {})
    for name, reason in before.items():
        log.warning("engine %s is refused: %s", name, reason)
    if samples is None:
        timings = tuple(Timing(c.name, c.batch_sizes(limit)[-1], 0.0, None) for c in candidates)
        return _first(Calibration(timings), candidates, golden, limit, before)
    file = cache_folder() / "calibration" / f"{_digest({**machine(), **key})}.json"
    with _alone(file):
        calibration = None if again else _load(file)
        if calibration is None or not calibration.covers(candidates, limit):
            report = on_progress or (lambda engine, batch_size: None)
            calibration = _measure(candidates, golden or stand_in(), samples, limit, report)
            _save(file, calibration)
    return _first(calibration, candidates, golden, limit, before)


def _first(
    calibration: Calibration,
    candidates: Sequence[Candidate],
    golden: Golden | None,
    limit: int,
    before: Mapping[str, str],
) -> Choice:
    """Open the engines in their order until one passes."""
    by_name = {candidate.name: candidate for candidate in candidates}
    refused = {**before, **calibration.refused}
    for name, reason in calibration.refused.items():
        log.warning("engine %s is refused: %s", name, reason)
    for timing in (each for each in calibration.ranking(limit) if each.engine in by_name):
        try:
            engine = _passing(by_name[timing.engine], golden)
        except RadlensError as error:
            refused[timing.engine] = str(error)
            log.warning("engine %s is refused: %s", timing.engine, error)
            continue
        engine.batch_size = timing.batch_size
        return Choice(engine, by_name[timing.engine].peak(timing.batch_size), refused, calibration)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items()) or "no engine"
    raise BundleError(f"an engine must reproduce the golden values of the graph, got none that does ({reasons})")


def _passing(candidate: Candidate, golden: Golden | None) -> BatchEngine:
    engine = candidate.open()
    if golden is not None:
        golden.check(engine)
    return engine


def _measure(
    candidates: Sequence[Candidate],
    golden: Golden | None,
    samples: Samples,
    limit: int,
    report: Progress,
) -> Calibration:
    timings: list[Timing] = []
    refused: dict[str, str] = {}
    for candidate in candidates:
        try:
            engine = _passing(candidate, golden)
            timings += _timed(candidate, engine, samples, limit, timings, report)
        except MissingDependency as error:
            log.debug("engine %s is not there: %s", candidate.name, error)
        except RadlensError as error:
            refused[candidate.name] = str(error)
    tried = {candidate.name: candidate.batch_sizes(limit)[-1] for candidate in candidates}
    return Calibration(tuple(timings), refused, tried)


def _timed(
    candidate: Candidate,
    engine: BatchEngine,
    samples: Samples,
    limit: int,
    others: Sequence[Timing],
    report: Progress,
) -> list[Timing]:
    found: list[Timing] = []
    for batch_size in candidate.batch_sizes(limit):
        if found and found[-1].ms * batch_size > _LONGEST:
            break
        report(candidate.name, batch_size)
        engine.batch_size = batch_size
        ms = 1000 * _seconds(partial(engine.run, samples(batch_size))) / batch_size
        found.append(Timing(candidate.name, batch_size, ms, candidate.peak(batch_size)))
        if ms > _HOPELESS * min(timing.ms for timing in (*others, *found)):
            break
    return found


def _seconds(run: Callable[[], object]) -> float:
    """Return the shortest time of some runs; a first one that was long enough counts."""
    times: list[float] = []
    while not times or (len(times) < 2 and times[0] < _SECONDS) or (sum(times) < _SECONDS and len(times) < 10):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _line(file: Path, name: str) -> str:
    """Return the value of ``name: value`` in a file of the kernel."""
    with suppress(OSError):
        for line in file.read_text().splitlines():
            head, _, value = line.partition(":")
            if head.strip() == name:
                return value.strip()
    return ""


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _load(file: Path) -> Calibration | None:
    """Read a stored calibration; one that cannot be read is measured again."""
    try:
        document = json.loads(file.read_text())
        timings = tuple(Timing(**timing) for timing in document["timings"])
        return Calibration(timings, dict(document["refused"]), dict(document["tried"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _save(file: Path, calibration: Calibration) -> None:
    """Write a calibration in one step, so that nobody reads half of it; a cache that cannot be written is no error."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".part", delete=False) as part:
            json.dump(asdict(calibration), part)
        Path(part.name).replace(file)
    except OSError as error:
        log.warning("the calibration is not kept: %s", type(error).__name__)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Let one process at a time measure: two would time each other."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.with_suffix(".lock").open("w")
    except OSError:
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
