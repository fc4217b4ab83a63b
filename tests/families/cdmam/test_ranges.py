"""Long explanations of a server in ranges that are saved."""

import math

import httpx
import numpy as np
import pytest
from sample_images import noise

from radlens.client import Client
from radlens.errors import InvalidInput, InvalidParameter, ServerError
from radlens.families.cdmam import ranges
from radlens.families.cdmam.ranges import explain_in_ranges
from radlens.images import to_npy
from radlens.local import LocalTransport

IMAGE = to_npy(noise())
QUICK = {"n_steps": 1, "normalize": "visits"}


@pytest.fixture(autouse=True)
def short_ranges(monkeypatch):
    """Four samples each."""
    monkeypatch.setattr(ranges, "RANGE", 4)


@pytest.fixture(scope="module")
def local(bundle):
    """What answers."""
    return LocalTransport(bundle)


class Failing(httpx.BaseTransport):
    """A server whose connection breaks after a number of answers."""

    def __init__(self, transport, n_answers=10**9):
        self.transport, self.n_answers, self.asked = transport, n_answers, []

    def handle_request(self, request):
        """Note what is asked, and answer or not."""
        self.asked.append((request.headers.get("x-radlens-start"), request.headers["x-radlens-n-samples"]))
        if len(self.asked) > self.n_answers:
            raise httpx.ConnectError("gone")
        return self.transport.handle_request(request)


def explained(transport, checkpoint, n_samples=10, on_progress=None, image=IMAGE, **parameters):
    """Ask in ranges."""
    with Client("http://server", transport=transport) as client:
        given = QUICK | parameters
        return explain_in_ranges(client, image, checkpoint, n_samples=n_samples, on_progress=on_progress, **given)


@pytest.mark.parametrize("normalize", ["paper", "visits"])
def test_ranges_give_the_map_of_one_request(local, tmp_path, normalize):
    """To the rounding of float32, in which maps travel; reliability and provenance are those of the whole."""
    transport = Failing(local)
    found = explained(transport, tmp_path / "run.npz", n_samples=9, normalize=normalize)
    assert transport.asked == [("0", "4"), ("4", "4"), ("8", "1")]
    with Client("http://server", transport=local) as client:
        whole = client.explain(IMAGE, n_samples=9, n_steps=1, normalize=normalize)
    expected = whole["explanation"]["map"]
    np.testing.assert_allclose(found["explanation"]["map"], expected, rtol=0, atol=2e-7 * np.abs(expected).max())
    np.testing.assert_array_equal(found["explanation"]["visits"], whole["explanation"]["visits"])
    assert found["explanation"]["reliability"] == pytest.approx(whole["explanation"]["reliability"], abs=2e-4)
    assert found["explanation"]["n_samples"] == found["provenance"]["sampling"]["n_samples"] == 9
    assert (found["provenance"]["sampling"]["start"], found["provenance"]["sampling"]["range"]) == (0, 4)
    assert set(found["explanation"]) == set(whole["explanation"])


@pytest.mark.slow
@pytest.mark.parametrize("n_answers", [0, 1, 2])
@pytest.mark.parametrize("goal", [{"n_samples": 10}, {"n_samples": "auto", "reliability": 0.9999, "max_samples": 10}])
def test_a_broken_connection_costs_one_range(local, tmp_path, n_answers, goal):
    """The same call goes on after the last complete range and gives the uninterrupted map, bit for bit."""
    with pytest.raises(ServerError, match="a server must listen"):
        explained(Failing(local, n_answers), tmp_path / "run.npz", **goal)
    transport = Failing(local)
    found = explained(transport, tmp_path / "run.npz", **goal)
    assert transport.asked[0][0] == str(4 * n_answers)
    whole = explained(local, tmp_path / "other.npz", **goal)
    for name in ("map", "visits", "half_totals", "half_visits"):
        np.testing.assert_array_equal(found["explanation"][name], whole["explanation"][name])
    assert found["explanation"]["reliability"] == whole["explanation"]["reliability"]


def test_a_finished_run_is_not_asked_for_again(local, tmp_path):
    """And goes on where more samples are wanted."""
    first = explained(local, tmp_path / "run.npz", n_samples=4)
    transport = Failing(local)
    again = explained(transport, tmp_path / "run.npz", n_samples=4)
    np.testing.assert_array_equal(again["explanation"]["map"], first["explanation"]["map"])
    assert transport.asked == []
    assert explained(transport, tmp_path / "run.npz", n_samples=6)["explanation"]["n_samples"] == 6
    assert transport.asked == [("4", "2")]
    with pytest.raises(InvalidParameter, match="at least the 6 samples that the checkpoint holds, got 5"):
        explained(transport, tmp_path / "run.npz", n_samples=5)


def test_automatic_runs_end_at_their_goal(local, tmp_path):
    """As soon as two ranges in a row were reliable enough."""
    given = {"n_samples": "auto", "reliability": 0.3, "max_samples": 8, "seed": 2}
    found = explained(local, tmp_path / "run.npz", **given)
    sampling = found["provenance"]["sampling"]
    assert found["explanation"]["reliability"] >= 0.3
    assert (sampling["n_samples"], sampling["reliability_reached"], sampling["wanted_reliability"]) == (8, True, 0.3)


def test_progress_is_that_of_the_run(local, tmp_path):
    """Samples count on from range to range; the reliability is that of complete ranges, the total of auto a guess."""
    heard = []
    explained(local, tmp_path / "run.npz", n_samples=8, on_progress=heard.append)
    assert (heard[0].done, heard[-1].done) == (0, 8)
    assert {each.total for each in heard} == {8}
    assert heard[0].reliability is None
    assert 0 < heard[-1].reliability <= 1
    heard.clear()
    goal = {"n_samples": "auto", "reliability": 0.9999, "max_samples": 8}
    explained(local, tmp_path / "auto.npz", on_progress=heard.append, **goal)
    assert heard[0].total is None
    assert heard[-1].total == 8
    assert all(each.total_is_estimated for each in heard)


def test_another_run_is_refused(local, tmp_path):
    """Other parameters or another image."""
    explained(local, tmp_path / "run.npz", n_samples=1)
    with pytest.raises(InvalidInput, match="of the same run, got one of another: parameters "):
        explained(local, tmp_path / "run.npz", n_samples=2, seed=4)
    with pytest.raises(InvalidInput, match="of the same run, got one of another: image "):
        explained(local, tmp_path / "run.npz", n_samples=2, image=to_npy(noise(seed=3)))


def test_another_model_is_refused(local, tmp_path, monkeypatch):
    """A server whose default version changes in the middle must not mix two models in one map."""
    explained(local, tmp_path / "run.npz", n_samples=2)
    monkeypatch.setitem(local._service._stated, "version", "2.0")
    with pytest.raises(ServerError, match=r"compute all ranges with cdmam 1\.0 .*, got one with cdmam 2\.0 "):
        explained(local, tmp_path / "run.npz", n_samples=4)


@pytest.mark.parametrize("n_samples", ["all", "0", 0, "2.5"])
def test_numbers_that_are_none_are_refused(local, tmp_path, n_samples):
    """Before anything is asked."""
    with pytest.raises(InvalidParameter, match="n_samples must be an integer of at least 1, or auto, got "):
        explained(local, tmp_path / "run.npz", n_samples=n_samples)
    with pytest.raises(InvalidParameter, match="reliability must be above 0 and below 1, got 2"):
        explained(local, tmp_path / "run.npz", n_samples="auto", reliability=2)


def test_one_sample_alone_has_no_reliability(local, tmp_path):
    """Null, not a number that JSON does not know."""
    found = explained(local, tmp_path / "run.npz", n_samples=1)
    assert found["explanation"]["reliability"] is None
    assert not math.isnan(found["explanation"]["map"].sum())
