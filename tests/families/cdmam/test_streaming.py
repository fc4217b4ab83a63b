"""Explanations of many samples as streams of JSON lines."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from sample_images import PATIENT, dicom, noise

from radlens.explainers import Halves, UpsampledMap, merge
from radlens.families.cdmam import Pace, Service
from radlens.images import to_npy
from radlens.service import Request
from radlens.wire import array_from_json

PARAMETERS = {"n_steps": "1", "n_samples": "20"}


@pytest.fixture(scope="module")
def service(bundle):
    """Return a service that reports as often as it can, in batches of eight."""
    return in_eights(Service(bundle, pace=Pace(progress_s=0.0, partial_s=0.0)))


def in_eights(service):
    """Set the size of a service's batches, which is its engine's otherwise."""
    service._computer = replace(service._computer, batch_size=8)
    return service


def streamed(service, data=None, accept=None, **parameters):
    """Return the response to a request that streams, and its events."""
    pieces = []
    data = to_npy(noise()) if data is None else data
    request = Request("explain", data, accept=accept, parameters=PARAMETERS | parameters, request_id="id")
    response = service.stream(request, pieces.append)
    assert all(piece.endswith(b"\n") for piece in pieces)
    return response, [json.loads(piece) for piece in pieces]


@pytest.mark.parametrize("accept", [None, "application/json", "application/x-ndjson", "*/*"])
def test_many_samples_stream(service, accept):
    """Progress first and often, partial maps between, and a last line that says it is complete."""
    response, events = streamed(service, accept=accept)
    assert (response.status, response.content_type) == (200, "application/x-ndjson")
    kinds = [event["event"] for event in events]
    assert kinds == ["progress", "progress", "partial", "progress", "partial", "progress", "result"]
    assert [event["done"] for event in events[:-1]] == [0, 8, 8, 16, 16, 20]
    first = {"event": "progress", "done": 0, "total": 20, "elapsed_s": 0.0, "remaining_s": None}
    assert events[0] == first | {"total_is_estimated": False, "reliability": None, "n_restored": 0}
    assert events[5]["remaining_s"] == 0
    assert events[1]["reliability"] is None
    assert 0 <= events[5]["reliability"] <= 1
    assert events[-1]["complete"] is True


def test_the_last_line_is_the_answer(service):
    """The same map as in one piece, with the same provenance as the header's."""
    response, events = streamed(service)
    plain = Request("explain", to_npy(noise()), accept="application/x-npy", parameters=PARAMETERS)
    (whole,) = service.respond([plain])
    last = events[-1]
    np.testing.assert_array_equal(array_from_json(last["explanation"]["map"]), np.load(io.BytesIO(whole.body)))
    sampling = last["provenance"].pop("sampling")
    stated = json.loads(response.headers["X-Radlens-Provenance"])
    reliability = last["explanation"]["reliability"]
    assert 0 < reliability < 1
    assert sampling == stated.pop("sampling") | {"reliability": reliability, "reliability_scale_px": 8}
    assert last["provenance"] == stated
    assert last["warnings"]
    assert array_from_json(last["explanation"]["visits"]).sum() == 20 * 250 * 250


def test_automatic_runs_stream_what_they_expect(service):
    """No total at first, then an estimate, and in the end what it took, in the progress as in the result."""
    given = {"n_samples": "auto", "reliability": "0.9999", "max_samples": "40"}
    response, events = streamed(service, **given)
    progress = [event for event in events if event["event"] == "progress"]
    assert [event["done"] for event in progress] == [0, 8, 16, 24, 32, 40]
    assert [event["total"] for event in progress] == [None, None, 40, 40, 40, 40]
    assert [event["total_is_estimated"] for event in progress] == [True, True, True, True, True, False]
    assert [event["remaining_s"] is None for event in progress] == [True, True, False, False, False, False]
    assert json.loads(response.headers["X-Radlens-Provenance"])["sampling"]["n_samples"] == "auto"
    found, sampling = events[-1]["explanation"], events[-1]["provenance"]["sampling"]
    assert found["n_samples"] == sampling["n_samples"] == 40
    assert found["reliability"] == sampling["reliability"]
    assert found["reliability_reached"] is sampling["reliability_reached"] is False


def test_ranges_can_be_joined(service):
    """What is streamed of two ranges holds all that the whole is made of (float32 maps)."""
    parts = []
    for start, n_samples in (("0", "8"), ("8", "12")):
        _, events = streamed(service, start=start, n_samples=n_samples, normalize="visits")
        found = events[-1]["explanation"]
        arrays = {name: array_from_json(found[name]) for name in ("map", "visits", "half_totals", "half_visits")}
        halves = Halves(noise().shape, found["reliability_scale_px"], arrays["half_totals"], arrays["half_visits"])
        parts.append(UpsampledMap(arrays["map"], arrays["visits"], int(n_samples), "visits", halves))
    _, events = streamed(service, normalize="visits")
    whole, joined = events[-1]["explanation"], merge(parts)
    expected = array_from_json(whole["map"])
    # Maps travel in float32.
    np.testing.assert_allclose(joined.map, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert round(joined.reliability, 4) == pytest.approx(whole["reliability"], abs=1.1e-4)


def test_partial_maps_are_small(service):
    """At most 500x500, whatever the size of the image."""
    _, events = streamed(service, data=to_npy(noise((1200, 900))), n_samples="9")
    (partial,) = [event for event in events if event["event"] == "partial"]
    shape = array_from_json(partial["map"]).shape
    assert max(shape) <= 500
    assert min(shape) > 100


def test_one_sample_streams_if_asked(service):
    """With the media type of streams."""
    _, events = streamed(service, accept="application/x-ndjson", n_samples="1")
    assert [event["event"] for event in events] == ["progress", "progress", "result"]


def test_reports_are_rationed(bundle):
    """At the default pace a quick run says when it begins, shows one early map, and says when it is done."""
    _, events = streamed(in_eights(Service(bundle, pace=Pace(progress_s=60.0, partial_s=60.0))))
    assert [event["event"] for event in events] == ["progress", "partial", "progress", "result"]


def test_errors_are_the_last_line(service, monkeypatch, caplog):
    """The header has said 200 already, so the line says that the map is not complete; it tells nothing of patients."""
    calls = []

    def ask(name, targets=None, /, *, images):
        calls.append(len(images))
        if len(calls) > 1:
            raise RuntimeError(PATIENT)
        return (images,)

    monkeypatch.setattr(service._computer.model, "ask", ask)
    response, events = streamed(service, data=dicom(noise()))
    assert response.status == 200
    message = "internal error, logged under request id"
    last = {"event": "error", "complete": False, "code": 500, "type": "InternalError", "request_id": "id"}
    assert events[-1] == last | {"message": message}
    assert PATIENT not in caplog.text + json.dumps(events)


def test_overflow_is_the_senders_error(service):
    """A map that turns out not to be finite is a 400, also after the header."""
    _, events = streamed(service, path_length="1e300")
    assert (events[-1]["code"], events[-1]["complete"]) == (400, False)


def test_bad_requests_do_not_stream(service):
    """They are refused before the header is sent, in one piece."""
    pieces = []
    response = service.stream(Request("explain", b"", parameters=PARAMETERS), pieces.append)
    assert (response.status, response.content_type, len(pieces)) == (400, "application/json", 1)


def test_a_dead_client_ends_the_work(service):
    """What the receiver raises is the only thing a stream raises."""

    def broken(piece):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        service.stream(Request("explain", to_npy(noise()), parameters=PARAMETERS), broken)
