"""The client against a server that is a function; `tests/serving` has the real one."""

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from radlens import errors
from radlens.client import Client, Progress
from radlens.wire import DICOM, array_to_json, related

IMAGE = b"bytes of an image"
MAP = np.arange(6, dtype=np.float32).reshape(2, 3)


def client(answer, **options):
    """Return a client whose requests ``answer`` responds to."""
    return Client(
        "http://server:1/", management_url="http://server:2", transport=httpx.MockTransport(answer), **options
    )


def respond(status=200, body=b"{}", content_type="application/json", **headers):
    """Return a client that always gets one response."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client(
        lambda request: httpx.Response(status, content=body, headers={"content-type": content_type, **headers})
    )


def stream(*events):
    """Return a client that gets these events as a stream."""
    return respond(
        body=b"".join(json.dumps(event).encode() + b"\n" for event in events), content_type="application/x-ndjson"
    )


RESULT = {"event": "result", "complete": True, "explanation": {"map": array_to_json(MAP)}}


def test_requests_are_what_the_server_reads(tmp_path):
    """The path names kind, model and version; parameters are headers; the key is a bearer token."""
    seen = []

    def answer(request):
        seen.append(request)
        return httpx.Response(200, json={"prediction": {}})

    (tmp_path / "phantom.dcm").write_bytes(IMAGE)
    with client(answer, token="secret", model="other") as asked:
        asked.predict(tmp_path / "phantom.dcm", version="2.0", seed=3)
        asked.explain(IMAGE, n_steps=5, path_length=0.5)
    assert [str(request.url) for request in seen] == [
        "http://server:1/predictions/other/2.0",
        "http://server:1/explanations/other",
    ]
    assert [request.content for request in seen] == [IMAGE, IMAGE]
    assert seen[0].headers["x-radlens-seed"] == "3"
    assert seen[1].headers["x-radlens-n-steps"] == "5"
    assert seen[1].headers["x-radlens-path-length"] == "0.5"
    assert {request.headers["authorization"] for request in seen} == {"Bearer secret"}
    assert {request.headers["content-type"] for request in seen} == {"application/octet-stream"}


def test_arrays_are_decoded():
    """Wherever they are in an explanation."""
    found = respond(body={"explanation": {"map": array_to_json(MAP), "unit": "um"}, "warnings": []}).explain(IMAGE)
    np.testing.assert_array_equal(found["explanation"]["map"], MAP)
    assert found["explanation"]["unit"] == "um"


def test_streams_report_progress():
    """Progress and partial maps are handed on; the result is the last line."""
    progress, partial = [], []
    events = [
        {"event": "progress", "done": 0, "total": 9, "elapsed_s": 0.0, "remaining_s": None},
        {"event": "partial", "done": 8, "total": 9, "map": array_to_json(MAP)},
        {"event": "progress", "done": 9, "total": 9, "elapsed_s": 1.5, "remaining_s": 0.0, "reliability": 0.9},
        RESULT,
    ]
    found = stream(*events).explain(IMAGE, n_samples=9, on_progress=progress.append, on_partial=partial.append)
    assert progress == [Progress(0, 9, 0.0, None), Progress(9, 9, 1.5, 0.0, 0.9)]
    np.testing.assert_array_equal(partial, [MAP])
    np.testing.assert_array_equal(found["explanation"]["map"], MAP)
    assert set(found) == {"explanation"}


def test_nobody_has_to_listen():
    """Without callbacks only the result counts."""
    progress = {"event": "progress", "done": 0, "total": 9, "elapsed_s": 0.0, "remaining_s": None}
    assert "explanation" in stream(progress, {"event": "partial", "map": {}}, RESULT).explain(IMAGE)


@pytest.mark.parametrize(
    "events", [[], [{"event": "progress", "done": 1, "total": 2, "elapsed_s": 0, "remaining_s": 0}]]
)
def test_streams_that_break_off_are_noticed(events):
    """A stream without its last line is no result, although HTTP says that all is well."""
    with pytest.raises(errors.ServerError, match="the stream must end with a complete map, got one that broke off"):
        stream(*events).explain(IMAGE)


def test_a_result_must_be_complete():
    """The word alone does not make it one."""
    with pytest.raises(errors.ServerError, match="broke off"):
        stream(RESULT | {"complete": False}).explain(IMAGE)


def test_a_cut_line_is_noticed():
    """The connection can end within a line."""
    body = json.dumps(RESULT).encode()[:-20]
    with pytest.raises(errors.ServerError, match="the server must answer in JSON, got"):
        respond(body=body, content_type="application/x-ndjson").explain(IMAGE)


def test_errors_in_a_stream_are_raised():
    """As if the server had answered with them."""
    event = {"event": "error", "complete": False, "code": 400, "type": "InvalidParameter", "message": "zscore must be"}
    with pytest.raises(errors.InvalidParameter, match="zscore must be"):
        stream(event).explain(IMAGE)


@pytest.mark.parametrize(
    ("status", "fields", "kind"),
    [
        (400, {"type": "InvalidParameter", "message": "n_steps must be"}, errors.InvalidParameter),
        (422, {"type": "UnreadableImage", "message": "image must"}, errors.UnreadableImage),
        (415, {"type": "UnsupportedMediaType", "message": "expected"}, errors.UnsupportedMediaType),
        (406, {"type": "NotAcceptable", "message": "the answer"}, errors.NotAcceptable),
        (404, {"type": "ModelVersionNotFoundException", "message": "version 9"}, errors.ModelNotFound),
        (404, {"type": "ResourceNotFoundException", "message": "not found"}, errors.ModelNotFound),
        (400, {"type": "InvalidKeyException", "message": "Token"}, errors.ServerError),
        (401, {"type": "Unauthorized", "message": "no key"}, errors.ServerError),
        (409, {"type": "ConflictStatusException", "message": "registered"}, errors.InvalidInput),
        (500, {"type": "InternalError", "message": "internal error"}, errors.ServerError),
        (503, {"type": "ServiceUnavailableException", "message": "no worker"}, errors.ServerError),
        (400, {"type": "exit_code", "message": "a function"}, errors.InvalidInput),
    ],
)
def test_errors_keep_their_kind_and_message(status, fields, kind):
    """Ours come back as they were raised, TorchServe's as what they mean here."""
    with pytest.raises(kind, match=fields["message"]) as raised:
        respond(status, fields).predict(IMAGE)
    assert type(raised.value) is kind
    assert getattr(raised.value, "status", status) == status


def test_errors_without_a_message_have_one():
    """A proxy's error page."""
    with pytest.raises(errors.ServerError, match="the server answered 502 without a message"):
        respond(502, b"<html>").predict(IMAGE)


def test_answers_must_be_json():
    """Another server listens there."""
    with pytest.raises(errors.ServerError, match="the server must answer in JSON, got 6 bytes of another format"):
        respond(body=b"<html>").predict(IMAGE)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx.ConnectError("refused"), "a server must listen at http://server:1, got no connection"),
        (httpx.ReadTimeout("slow"), "the server at http://server:1 must answer in full, got ReadTimeout"),
        (httpx.RemoteProtocolError("reset"), "must answer in full, got RemoteProtocolError"),
    ],
)
def test_unreachable_servers_are_named(error, message):
    """With what happened."""

    def answer(request):
        raise error

    with pytest.raises(errors.ServerError, match=message):
        client(answer).predict(IMAGE)


def test_other_formats_come_as_bytes():
    """With their type and provenance."""
    fetched = respond(body=b"png", content_type="image/png", **{"X-Radlens-Provenance": '{"model": "cdmam"}'})
    answer = fetched.fetch("explain", IMAGE, "image/png", output="overlay")
    assert (answer.content, answer.media_type, answer.provenance) == (b"png", "image/png", {"model": "cdmam"})


def test_only_two_things_can_be_asked():
    """Anything else is a mistake of the caller."""
    with pytest.raises(errors.InvalidParameter, match="kind must be one of predict, explain, got 'describe'"):
        respond().fetch("describe", IMAGE, "image/png")


@pytest.mark.parametrize("value", ["a\nX-Evil: 1", "é", "\x00"])
def test_parameters_cannot_break_headers(value):
    """Nothing that ends a header or has no place in one."""
    with pytest.raises(errors.InvalidParameter, match="method must be printable ASCII, got '"):
        respond().explain(IMAGE, method=value)


def test_versions_need_the_management_address():
    """It is another port, and often out of reach."""
    with pytest.raises(errors.InvalidParameter, match="management_url must be given to manage versions, got none"):
        Client("http://server:1").models()


def registering(status, version="1.0"):
    """Return a client of a server that says ``status`` of an archive, and has one version of two models then."""
    described = {"modelVersion": version, "workers": [], "jobQueueStatus": {"pendingRequests": 0}}

    def answer(request):
        if request.method == "POST":
            return httpx.Response(200, json={"status": status})
        if request.url.path == "/models":
            return httpx.Response(200, json={"models": [{"modelName": "cdmam"}, {"modelName": "lesions"}]})
        return httpx.Response(200, json=[described])

    return client(answer)


def test_an_archive_says_which_model_it_is():
    """Whichever model the client asks otherwise."""
    found = registering('Model "lesions" Version: 2.0 registered with 1 initial workers')
    assert found.register_archive("a.mar") == ("lesions", "2.0")
    assert found.register("a.mar") == "2.0"


def test_a_server_must_say_what_it_registered():
    """Nobody could ask for it."""
    with pytest.raises(errors.ServerError, match="the server must name the registered version, got 'done'"):
        registering("done").register_archive("a.mar")


def test_arrays_in_lists_are_decoded():
    """Those of the members of an ensemble."""
    encoded = array_to_json(np.eye(2))
    found = respond(body={"explanation": {"members": [encoded, encoded], "classes": ["a", "b"]}}).explain(IMAGE)
    assert [each.tolist() for each in found["explanation"]["members"]] == [np.eye(2).tolist()] * 2
    assert found["explanation"]["classes"] == ["a", "b"]


def test_a_client_of_nothing(tmp_path: Path):
    """No server was started there."""
    with pytest.raises(errors.ServerError, match="a server must run in this working directory, got none"):
        Client.of_server(tmp_path)


def test_versions_are_drained_before_they_go(monkeypatch):
    """A version is removed once its queue has been empty for a while, and not before."""
    monkeypatch.setattr("radlens.client._QUIET_S", 0.3)
    waiting = iter([1, 1])
    deleted = []

    def answer(request):
        assert str(request.url) == "http://server:2/models/cdmam/1.0"
        if request.method == "DELETE":
            deleted.append(next(waiting, "drained"))
            return httpx.Response(200, json={"status": "unregistered"})
        return httpx.Response(200, json=[{"jobQueueStatus": {"pendingRequests": next(waiting, 0)}}])

    client(answer).unregister("1.0")
    assert deleted == ["drained"]


def test_versions_that_stay_busy_stay(monkeypatch):
    """The wait has an end."""
    busy = respond(body=[{"jobQueueStatus": {"pendingRequests": 3}}])
    with pytest.raises(errors.ServerError, match=r"version 1\.0 must have no waiting requests within 0\.2 s"):
        busy.unregister("1.0", timeout_s=0.2)


def test_dicom_objects_are_asked_for_and_taken_apart():
    """Accept names both forms; one object comes as it is, several as parts."""
    seen = []

    def answer(request):
        seen.append(request)
        is_one = "," not in request.headers["x-radlens-objects"]
        content_type, body = (DICOM, b"one") if is_one else related([b"one", b"two"])
        return httpx.Response(200, content=body, headers={"content-type": content_type})

    with client(answer) as asked:
        assert asked.dicom(IMAGE, method="omig") == [b"one", b"two"]
        assert asked.dicom(IMAGE, kind="predictions", objects=["report"]) == [b"one"]
    assert [request.url.path for request in seen] == ["/explanations/cdmam", "/predictions/cdmam"]
    assert [request.headers["x-radlens-objects"] for request in seen] == ["capture,report", "report"]
    assert {request.headers["accept"] for request in seen} == {
        'application/dicom, multipart/related; type="application/dicom"'
    }


def test_half_an_answer_in_dicom_is_an_error():
    """Nothing of it is returned."""
    content_type, body = related([b"one", b"two"])
    with pytest.raises(errors.ServerError, match="must answer with DICOM objects in full: expected parts up to"):
        respond(body=body[:-9], content_type=content_type).dicom(IMAGE)
    with pytest.raises(errors.InvalidParameter, match="kind must be one of predictions, explanations, got 'predict'"):
        respond().dicom(IMAGE, kind="predict")
