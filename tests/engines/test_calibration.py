import json
import multiprocessing
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from radlens.engines import Golden
from radlens.engines.calibration import Calibration, Candidate, Timing, cache_folder, choose, machine
from radlens.engines.memory import Footprint
from radlens.errors import BundleError, MissingDependency

KEY = {"graph": "0"}


class Sleeper:
    """An engine that takes a given time for each call and for each sample."""

    precision = "f32"

    def __init__(self, name, per_call=0.0, per_sample=0.0, value=1.0):
        self.name, self.batch_size = name, 8
        self.per_call, self.per_sample, self.value = per_call, per_sample, value
        self.batches = []

    def run(self, inputs):
        """Sleep, and return a constant."""
        n = len(inputs["x"])
        self.batches.append(n)
        time.sleep(self.per_call + n * self.per_sample)
        return {"y": np.full((n, 1), self.value)}


def _samples(batch_size):
    return {"x": np.zeros((batch_size, 1))}


GOLDEN = Golden({"x": np.zeros((1, 1))}, {"y": np.ones((1, 1))}, {"y": 0.0})


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RADLENS_CACHE", str(tmp_path / "cache"))


def _same(engine):
    return engine


def _candidates(*engines, footprint=None):
    return [Candidate(engine.name, "f32", partial(_same, engine), footprint) for engine in engines]


def _choose(candidates, limit=10**9, **rest):
    return choose(candidates, GOLDEN, _samples, limit, KEY, **rest)


def test_the_fastest_engine_and_batch_are_chosen():
    """One has a cost for each call and gains from batches, the other not."""
    slow, fast = Sleeper("slow", per_sample=0.005), Sleeper("fast", per_call=0.02)
    choice = _choose(_candidates(slow, fast))
    assert choice.engine is fast
    assert fast.batch_size == 32
    assert choice.refused == {}
    assert {timing.engine for timing in choice.calibration.timings} == {"slow", "fast"}


def test_of_equal_batches_the_smallest_is_taken():
    """Within 3 % it is noise, and memory is worth something."""
    timings = (Timing("a", 1, 10.0, 10), Timing("a", 8, 9.9, 80), Timing("a", 32, 9.0, 320))
    assert Calibration(timings[:2]).ranking(10**9)[0].batch_size == 1
    assert Calibration(timings).ranking(10**9)[0].batch_size == 32
    assert Calibration(timings).ranking(100)[0].batch_size == 1


def test_memory_bounds_what_is_tried_and_taken():
    """Batches that do not fit are not run; with more memory they are measured later."""
    engine = Sleeper("a", per_call=0.01)
    choice = _choose(_candidates(engine, footprint=Footprint(100, 10)), limit=200)
    assert (engine.batch_size, choice.peak) == (8, 180)
    assert max(engine.batches) == 8
    choice = _choose(_candidates(engine, footprint=Footprint(100, 10)), limit=1000)
    assert (engine.batch_size, choice.peak) == (32, 420)
    _choose(_candidates(engine, footprint=Footprint(100, 10)), limit=120)
    assert engine.batch_size == 1
    _choose(_candidates(engine, footprint=Footprint(100, 10)), limit=1)
    assert engine.batch_size == 1


def test_engines_that_cannot_win_are_left_alone():
    """No batch makes up for a factor of six, and none may take longer than 4 s."""
    fast, slow = Sleeper("fast", per_call=0.001), Sleeper("slow", per_sample=0.2)
    _choose(_candidates(fast, slow))
    assert max(slow.batches) == 1
    endless = Sleeper("endless", per_sample=0.6)
    _choose(_candidates(endless), again=True)
    assert max(endless.batches) == 1


def test_a_stored_calibration_is_used_again(monkeypatch):
    """The second process measures nothing but the golden check; other keys and `again` do."""
    engine = Sleeper("a")
    first = _choose(_candidates(engine)).calibration
    engine.batches.clear()
    assert _choose(_candidates(engine)).calibration == first
    assert engine.batches == [1]
    _choose(_candidates(engine), again=True)
    assert len(engine.batches) > 2
    engine.batches.clear()
    choose(_candidates(engine), GOLDEN, _samples, 10**9, {"graph": "1"})
    assert len(engine.batches) > 2
    assert len(list((cache_folder() / "calibration").glob("*.json"))) == 2


def test_a_new_engine_is_measured():
    """A stored calibration that does not know a candidate does not count."""
    a, b = Sleeper("a", per_sample=0.002), Sleeper("b")
    _choose(_candidates(a))
    assert _choose(_candidates(a, b)).engine is b


def test_refused_engines_stay_refused_and_missing_ones_are_not_mentioned(caplog):
    """The reason is kept with the timings; nothing is said of what is not installed."""

    def missing():
        raise MissingDependency("not here")

    wrong, right = Sleeper("wrong", value=2.0), Sleeper("right", per_call=0.002)
    candidates = [*_candidates(wrong, right), Candidate("missing", "f32", missing)]
    for _ in range(2):
        caplog.clear()
        choice = _choose(candidates)
        assert choice.engine is right
        assert list(choice.refused) == ["wrong"]
        assert "y must be within 1.0e-05 of the golden values, got 1.0e+00" in choice.refused["wrong"]
        assert "engine wrong is refused: y must be within" in caplog.text
        assert "missing" not in caplog.text
    assert len(wrong.batches) == 1


def test_an_engine_that_fails_after_it_was_measured_is_passed_over():
    """Checked at every load: the next in the order serves."""
    first, second = Sleeper("first"), Sleeper("second", per_call=0.003)
    assert _choose(_candidates(first, second)).engine is first
    first.value = 2.0
    choice = _choose(_candidates(first, second))
    assert choice.engine is second
    assert list(choice.refused) == ["first"]
    second.value = 2.0
    with pytest.raises(BundleError, match=r"got none that does \(first: y must .*; second: y must"):
        _choose(_candidates(first, second))


def test_refusals_from_elsewhere_are_carried_along(caplog):
    """A damaged graph has no candidate, but a reason."""
    choice = _choose(_candidates(Sleeper("a")), refused={"b": "damaged"})
    assert choice.refused == {"b": "damaged"}
    assert "engine b is refused: damaged" in caplog.text
    with pytest.raises(BundleError, match=r"got none that does \(no engine\)"):
        _choose([])


@pytest.mark.parametrize("content", ["", "{", '{"timings": [{}]}', '{"timings": [], "refused": {}, "tried": {}}'])
def test_a_damaged_calibration_is_measured_again(content):
    """The file is only a cache."""
    engine = Sleeper("a")
    _choose(_candidates(engine))
    (file,) = (cache_folder() / "calibration").glob("*.json")
    file.write_text(content)
    assert _choose(_candidates(engine)).engine is engine
    assert json.loads(file.read_text())["timings"]


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch, caplog):
    """Only the time is lost."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RADLENS_CACHE", str(tmp_path / "file"))
    assert _choose(_candidates(Sleeper("a"))).engine.name == "a"
    assert "the calibration is not cached" in caplog.text


def test_the_cache_lies_where_the_desktop_wants_it(monkeypatch):
    """RADLENS_CACHE, XDG_CACHE_HOME, the home directory."""
    monkeypatch.delenv("RADLENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_folder() == Path("/cache/radlens")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "radlens"


def test_the_machine_is_its_processor_and_its_gpus():
    """What a calibration depends on beside the software."""
    found = machine()
    assert found["processor"]
    assert found["cores"] >= 1


def _measure(folder, queue):
    engine = Sleeper("a", per_call=0.02)
    choose(_candidates(engine), GOLDEN, _samples, 10**9, KEY)
    queue.put(len(engine.batches))


def test_processes_that_start_together_measure_once():
    """The others wait for the file, and read it whole."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_measure, args=(None, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    counts = sorted(queue.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert counts[:2] == [1, 1]
    assert counts[2] > 3
    assert [file.suffix for file in (cache_folder() / "calibration").iterdir()].count(".part") == 0


def test_a_candidate_without_footprint_is_tried_with_all_batches():
    """Nobody knows what it needs."""
    candidate = _candidates(Sleeper("a"))[0]
    assert candidate.batch_sizes(1) == (1, 8, 32)
    assert candidate.peak(8) is None
    assert replace(candidate, footprint=Footprint(1, 1)).batch_sizes(9) == (1, 8)
