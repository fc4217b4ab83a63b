"""Pieces of work on disk."""

from pathlib import Path

import numpy as np
import pytest

from radlens.studies import Store
from radlens.studies.store import digest


def test_a_piece_is_computed_once(store: Store) -> None:
    """The second time, and in another process, it is read; keys that are equal as JSON are one key."""
    calls = []

    def compute() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"a": np.arange(3.0), "names": np.array(["x", "yz"])}

    for other in (store, store, Store(store.folder)):
        found = other.arrays("stage/model", {"n": 1, "shape": (2, 3)}, compute)
        np.testing.assert_array_equal(found["a"], [0.0, 1.0, 2.0])
        assert found["names"].tolist() == ["x", "yz"]
        assert "seconds" not in found
    assert len(calls) == 1
    assert store.has("stage/model", {"shape": [2, 3], "n": 1})
    assert not store.has("stage/model", {"n": 2, "shape": (2, 3)})
    assert not store.has("other", {"n": 1, "shape": (2, 3)})


def test_an_interruption_leaves_nothing(store: Store) -> None:
    """Neither an error while computing nor one while writing leaves a piece."""

    def interrupted() -> dict[str, np.ndarray]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.arrays("s", {}, interrupted)
    assert not store.has("s", {})
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        store.keep("s", {}, {"a": np.array([None])}, 1.0)
    assert not store.has("s", {})
    assert list(store.folder.rglob("*.*")) == []


def test_times_add_up_over_interruptions(store: Store) -> None:
    """Each stage tells the seconds of the pieces that were used, whenever they were computed; none counts twice."""
    store.keep("maps", {"i": 0}, {}, 2.0)
    store.keep("maps", {"i": 1}, {}, 3.5)
    store.keep("maps", {"i": 2}, {}, 100.0)
    store.keep("scores", {}, {}, 0.25)
    later = Store(store.folder)
    for key in ({"i": 0}, {"i": 1}, {"i": 1}):
        later.load("maps", key)
    later.load("scores", {})
    assert later.seconds == {"maps": 5.5, "scores": 0.25}


def test_digests_tell_values_apart(tmp_path: Path) -> None:
    """Order of names plays no part, order of values does; paths are text."""
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])
    assert digest(tmp_path) == digest(str(tmp_path))
