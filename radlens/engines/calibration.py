"""Calibration: measures once which engine is fastest on this machine, and caches the result.

A calibration is a file in the cache folder. Its name is a hash of everything the result depends on: graph, golden
values, processor, GPU, threads, precision and the versions of all engines. A file lock makes processes that start at
the same time wait for the first one's measurement.
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
"""Batch sizes that are measured."""

_MEASURING_S = 0.2
"""Seconds for which a measurement is repeated, with at least one run after the warm-up run."""

_MAX_SLOWDOWN = 6.0
"""Ratio to the fastest engine so far, above which larger batches of an engine are not measured."""

_MAX_BATCH_MS = 4000.0
"""Milliseconds for a batch, above which larger batches are not measured."""

_TIE = 1.03
"""Largest ratio of two timings that count as equal; the smaller batch then wins, because it needs less memory."""

log = logging.getLogger(__name__)

Progress = Callable[[str, int], None]

Samples = Callable[[int], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Candidate:
    """An engine that may compute a graph.

    Attributes:
        name: name of the engine.
        precision: arithmetic precision.
        open: function that opens the graph.
        footprint: estimated memory; None where unknown.
    """

    name: str
    precision: str
    open: Callable[[], BatchEngine]
    footprint: Footprint | None = None

    def peak(self, batch_size: int) -> int | None:
        """Return the estimated peak of memory in bytes; None where unknown."""
        return None if self.footprint is None else self.footprint.peak(batch_size)

    def batch_sizes(self, limit: int) -> tuple[int, ...]:
        """Return the sizes of :data:`BATCH_SIZES` that fit into ``limit`` bytes, and at least the first."""
        largest = BATCH_SIZES[-1] if self.footprint is None else self.footprint.largest_batch(limit)
        return tuple(size for size in BATCH_SIZES if size <= largest) or BATCH_SIZES[:1]


@dataclass(frozen=True)
class Timing:
    """Measured speed of an engine with one batch size.

    Attributes:
        engine: name of the engine.
        batch_size: number of samples computed together.
        ms: milliseconds per sample.
        peak: estimated peak of memory in bytes; None where unknown.
    """

    engine: str
    batch_size: int
    ms: float
    peak: int | None


@dataclass(frozen=True)
class Calibration:
    """Measurements on this machine.

    Attributes:
        timings: timings of the engines that passed the check.
        refused: reasons why the other engines did not pass, by name.
        tried: largest batch size that memory allowed, by engine.
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
            best[engine] = next(timing for timing in fitting if timing.ms <= _TIE * fastest)
        return sorted(best.values(), key=lambda timing: timing.ms)

    def covers(self, candidates: Sequence[Candidate], limit: int) -> bool:
        """Return whether every candidate was measured with all batch sizes that fit into ``limit`` bytes."""
        known = {**self.tried, **dict.fromkeys(self.refused, BATCH_SIZES[-1])}
        return all(known.get(each.name, 0) >= each.batch_sizes(limit)[-1] for each in candidates)


@dataclass(frozen=True)
class Choice:
    """The chosen engine.

    Attributes:
        engine: opened and checked engine with its batch size.
        peak: estimated peak of memory in bytes; None where unknown.
        refused: reasons why other engines were refused, by name.
        calibration: measurements on which the choice is based.
    """

    engine: BatchEngine
    peak: int | None
    refused: Mapping[str, str]
    calibration: Calibration


def machine() -> dict[str, Any]:
    """Return the hardware on which speed depends: processor, number of cores, GPUs."""
    # Read from /proc, because torch.cuda would initialise CUDA in this process.
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
    """Return the fastest engine that passes the check, with its best batch size.

    Args:
        candidates: engines to choose from.
        golden: golden values that the chosen engine must reproduce, at every call; None if ``stand_in`` computes them.
        samples: function that returns inputs of a given batch size for the measurement; None to choose the first engine
            that passes, without a measurement.
        limit: largest number of bytes that the engine may use.
        key: everything that the result depends on besides the machine.
        stand_in: function that computes golden values if ``golden`` is None; the engine is not checked if it returns
            None, too.
        refused: reasons for engines that were refused before, by name.
        again: whether to measure even if there is a cached result.
        on_progress: callback ``on_progress(engine, batch_size)`` before each measurement.

    Raises:
        BundleError: no engine opens the graph and passes the check.
    """
    before, golden = dict(refused or {}), golden or stand_in()
    for name, reason in before.items():
        log.warning("engine %s is refused: %s", name, reason)
    if samples is None:
        # Equal times keep the order of the candidates.
        timings = tuple(Timing(c.name, c.batch_sizes(limit)[-1], 0.0, None) for c in candidates)
        return _first_passing(Calibration(timings), candidates, golden, limit, before)
    digest = hashlib.sha256(json.dumps({**machine(), **key}, sort_keys=True).encode()).hexdigest()[:32]
    file = cache_folder() / "calibration" / f"{digest}.json"
    with _locked(file):
        calibration = None if again else _load(file)
        if calibration is None or not calibration.covers(candidates, limit):
            report = on_progress or (lambda engine, batch_size: None)
            calibration = _measure(candidates, golden, samples, limit, report)
            _save(file, calibration)
    return _first_passing(calibration, candidates, golden, limit, before)


def _first_passing(
    calibration: Calibration,
    candidates: Sequence[Candidate],
    golden: Golden | None,
    limit: int,
    before: Mapping[str, str],
) -> Choice:
    """Open the engines, the fastest first, until one passes the check."""
    by_name = {candidate.name: candidate for candidate in candidates}
    refused = {**before, **calibration.refused}
    for name, reason in calibration.refused.items():
        log.warning("engine %s is refused: %s", name, reason)
    for timing in (each for each in calibration.ranking(limit) if each.engine in by_name):
        try:
            # Checked in every process: a cached calibration says only which engine is fast.
            engine = _opened(by_name[timing.engine], golden)
        except RadlensError as error:
            refused[timing.engine] = str(error)
            log.warning("engine %s is refused: %s", timing.engine, error)
            continue
        engine.batch_size = timing.batch_size
        return Choice(engine, by_name[timing.engine].peak(timing.batch_size), refused, calibration)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items()) or "no engine"
    raise BundleError(f"an engine must reproduce the golden values of the graph, got none that does ({reasons})")


def _opened(candidate: Candidate, golden: Golden | None) -> BatchEngine:
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
            engine = _opened(candidate, golden)
            timings += _timed(candidate, engine, samples, limit, timings, report)
        except MissingDependency as error:
            log.debug("engine %s is not available: %s", candidate.name, error)
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
        if found and found[-1].ms * batch_size > _MAX_BATCH_MS:
            break
        report(candidate.name, batch_size)
        engine.batch_size = batch_size
        ms = 1000 * _seconds(partial(engine.run, samples(batch_size))) / batch_size
        found.append(Timing(candidate.name, batch_size, ms, candidate.peak(batch_size)))
        if ms > _MAX_SLOWDOWN * min(timing.ms for timing in (*others, *found)):
            break
    return found


def _seconds(run: Callable[[], object]) -> float:
    """Return the shortest of several times; a slow run is not repeated, although it includes the warm-up."""
    times: list[float] = []
    while not times or (len(times) < 2 and times[0] < _MEASURING_S) or (sum(times) < _MEASURING_S and len(times) < 10):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _line(file: Path, name: str) -> str:
    """Return the value of the line ``name: value`` in a file of the kernel; empty if there is no such line."""
    with suppress(OSError):
        for line in file.read_text().splitlines():
            head, _, value = line.partition(":")
            if head.strip() == name:
                return value.strip()
    return ""


def _load(file: Path) -> Calibration | None:
    """Read a cached calibration; return None if it is missing or damaged, so that it is measured again."""
    try:
        document = json.loads(file.read_text())
        timings = tuple(Timing(**timing) for timing in document["timings"])
        return Calibration(timings, dict(document["refused"]), dict(document["tried"]))
    except (OSError, ValueError, TypeError, KeyError):  # TypeError: fields of another release
        return None


def _save(file: Path, calibration: Calibration) -> None:
    """Write a calibration atomically. A cache that is not writable is logged, and is not an error."""
    try:
        # In the same folder, because a file can be renamed atomically only within a file system.
        with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".part", delete=False) as part:
            json.dump(asdict(calibration), part)
        Path(part.name).replace(file)
    except OSError as error:
        log.warning("the calibration is not cached: %s", type(error).__name__)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Let only one process measure at a time, since simultaneous measurements would slow each other down."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.with_suffix(".lock").open("w")
    except OSError:  # a cache that is not writable: measure without a lock
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
