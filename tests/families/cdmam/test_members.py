"""Explanations of each member of a CDMAM ensemble, and where they disagree."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from sample_images import noise
from tiny_bundle import make_bundle

from radlens.client import Client
from radlens.families.cdmam import Pace, Service, ranges
from radlens.images import to_npy
from radlens.local import LocalTransport
from radlens.service import Request
from radlens.wire import array_from_json

DATA = to_npy(noise())


@pytest.fixture(scope="module")
def service(bundle):
    """Of two members."""
    return Service(bundle, pace=Pace(progress_s=0.0, partial_s=0.0))


def ask(service, *asked, accept="application/json"):
    """Return responses to explanations of one batch."""
    parameters = [{"n_steps": "2"} | each for each in asked]
    return service.respond([Request("explain", DATA, accept=accept, parameters=each) for each in parameters])


def explanation(response):
    """Return the decoded explanation of a response."""
    assert response.status == 200, response.body
    found = json.loads(response.body)["explanation"]
    return {name: _decoded(value) for name, value in found.items()}


def _decoded(value):
    if isinstance(value, list):
        return np.stack([array_from_json(each) for each in value])
    return array_from_json(value) if isinstance(value, dict) else value


@pytest.mark.parametrize("output", ["map", "sampled"])
def test_mean_and_disagreement_are_those_of_the_members(service, output):
    """In a batch with a request that does not tell members apart, which gets what it gets alone."""
    each, mean = ask(service, {"members": "each", "output": output}, {"output": output})
    (solo,) = ask(service, {"output": output})
    name = "map" if output == "map" else "sampled"
    found, plain = explanation(each), explanation(mean)
    assert found["members"].shape == (2, *found[name].shape)
    np.testing.assert_allclose(found["members"].mean(axis=0), found[name], rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(found["members"].std(axis=0), found["disagreement"], rtol=1e-4, atol=1e-12)
    assert found["disagreement"].max() > 0
    assert not {"members", "disagreement"} & plain.keys()
    np.testing.assert_array_equal(plain[name], explanation(solo)[name])


def test_the_disagreement_comes_as_picture_and_array(service):
    """As of classifiers: the output implies that members are told apart."""
    (values,) = ask(service, {"output": "disagreement"}, accept="application/x-npy")
    (picture,) = ask(service, {"output": "disagreement"}, accept="image/png")
    (each,) = ask(service, {"members": "each"})
    np.testing.assert_allclose(np.load(io.BytesIO(values.body)), explanation(each)["disagreement"], rtol=1e-6)
    with Image.open(io.BytesIO(picture.body)) as opened:
        assert np.asarray(opened).max() > 0


def test_many_samples_stream_a_line_for_each_member(service, bundle):
    """The client puts them together; one sample after the other gives the same maps."""
    pieces = []
    given = {"n_steps": "1", "n_samples": "5", "members": "each", "normalize": "visits"}
    service.stream(Request("explain", DATA, parameters=given, request_id="id"), pieces.append)
    events = [json.loads(piece) for piece in pieces]
    assert [event["member"] for event in events if event["event"] == "member"] == [0, 1]
    assert events[-1]["complete"] is True
    assert "members" not in events[-1]["explanation"]
    with Client("http://local", transport=LocalTransport(bundle)) as client:
        found = client.explain(DATA, **given)["explanation"]
        singles = [client.explain(DATA, **given | {"n_samples": 1, "start": n})["explanation"] for n in range(5)]
    total, visits = (sum(np.stack(one[name]).astype(float) for one in singles) for name in ("members", "visits"))
    np.testing.assert_allclose(found["members"], total / np.maximum(visits, 1), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found["disagreement"], np.std(found["members"], axis=0), rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(found["map"], np.mean(found["members"], axis=0), rtol=1e-4, atol=1e-9)


def test_ranges_of_a_server_are_joined(bundle, tmp_path, monkeypatch):
    """A run that is saved after each range has the maps of one run."""
    monkeypatch.setattr(ranges, "RANGE", 2)
    given = {"n_steps": 1, "members": "each", "normalize": "visits", "n_samples": 5}
    with Client("http://local", transport=LocalTransport(bundle)) as client:
        whole = client.explain(DATA, **given)["explanation"]
        joined = ranges.explain_in_ranges(client, DATA, tmp_path / "run.npz", **given)["explanation"]
        again = ranges.explain_in_ranges(client, DATA, tmp_path / "run.npz", **given)["explanation"]
    for name in ("members", "disagreement"):
        np.testing.assert_allclose(joined[name], whole[name], rtol=1e-3, atol=1e-9)
        np.testing.assert_allclose(again[name], joined[name], rtol=1e-6)


@pytest.mark.parametrize("parameters", [{"members": "each"}, {"output": "disagreement"}])
def test_a_model_of_one_member_has_no_others(tmp_path, parameters):
    """A clear 400, which says what works."""
    single = Service(make_bundle(tmp_path / "single", n_members=1))
    (response,) = ask(single, parameters, accept="image/png")
    assert response.status == 400
    assert "members must be mean" in json.loads(response.body)["message"]


def test_other_processes_do_not_tell_members_apart(bundle):
    """Their maps are means: refused in the stream, before any work."""
    service = Service(bundle, workers=Workers())
    pieces = []
    given = {"members": "each", "n_samples": "4", "n_steps": "1"}
    service.stream(Request("explain", DATA, parameters=given, request_id="id"), pieces.append)
    last = json.loads(pieces[-1])
    assert (last["event"], last["code"]) == ("error", 400)
    assert "members must be mean for samples that workers explain, got each" in last["message"]


class Workers:
    """Processes that are not asked."""

    def stated(self):
        """What provenance says."""
        return {"engine": "none", "precision": "f32", "batch_size": 8}
