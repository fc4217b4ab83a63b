"""Health, metrics and the audit log: what an operator sees of the front door."""

import asyncio
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from front_door_site import KEY, eventually, reply, site, version_of, whole
from prometheus_client.parser import text_string_to_metric_families

from radlens.audit import AuditLog, records, verify
from radlens.keys import KeyRing

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana-dashboard.json"

STATED = {
    "model": "cdmam",
    "version": "1.0",
    "bundle_hash": "b" * 64,
    "engine": "llvm",
    "precision": "f32",
    "explainer": {"method": "omig", "parameters": {}},
    "input": {"sha256": "c" * 64, "sop_instance_uid": "1.2.3.4"},
}


async def answered(asked, send):
    """Answer as a worker does: with provenance, and what it says to the front door alone."""
    if not asked.body:
        document = {"code": 400, "type": "InvalidInput", "message": "empty", "request_id": "w"}
        await reply(send, 400, json.dumps(document).encode())
        return
    headers = {"X-Radlens-Provenance": json.dumps(STATED), "radlens-batch": "3", "radlens-begun": "9e9"}
    await reply(send, 200, json.dumps({"assessable": asked.body != b"odd"}).encode(), headers)


@pytest.fixture
def here(tmp_path):
    """A site whose worker answers."""
    with site(tmp_path) as found:
        found.torchserve.answer = answered
        yield found


def samples(here):
    """Return what ``/metrics`` says: ``{(name, labels): value}``."""
    answer = here.ask("/metrics", method="GET", content=b"")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for each in found}


def value(here, name, **labels):
    """Return one value; 0 if there is none."""
    return samples(here).get((name, tuple(sorted(labels.items()))), 0)


def test_life_needs_no_key_and_no_torchserve(tmp_path):
    """It says that the front door runs."""
    with site(tmp_path, inference_url="http://127.0.0.1:9", management_socket=Path("/nowhere")) as alone:
        answer = httpx.get(alone.url + "/health/live")
        assert (answer.status_code, answer.json()) == (200, {"status": "live"})
        assert httpx.head(alone.url + "/health/live").status_code == 200
        answer = httpx.get(alone.url + "/health/ready")
        assert (answer.status_code, answer.json()["reason"]) == (503, "TorchServe does not answer")


def test_a_server_is_ready_when_every_model_answers(here):
    """It asks each: the error of the handler to an empty body is a sign of life."""
    answer = httpx.get(here.url + "/health/ready")
    ready = {"model": "cdmam", "version": "1.0", "ready": True, "reason": ""}
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "reason": "", "models": [ready]})
    assert [(asked.path, asked.body) for asked in here.torchserve.seen] == [("/predictions/cdmam/1.0", b"")]
    # Anybody may ask, so models are not asked each time.
    assert httpx.get(here.url + "/health/ready").status_code == 200
    assert len(here.torchserve.seen) == 1


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ({"good": [version_of("1.0")], "bad": [version_of("1.0", ready=0)]}, "none of its 2 workers is ready"),
        ({"good": [version_of("1.0")], "bad": []}, "TorchServe does not describe it"),
    ],
)
def test_a_model_that_is_not_ready_is_named(here, models, reason):
    """With the reason, beside the others."""
    here.torchserve.models = models
    answer = httpx.get(here.url + "/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
    assert answer.headers["retry-after"] == "5"
    assert {each["model"]: each["reason"] for each in answer.json()["models"]} == {"good": "", "bad": reason}


def test_an_answer_of_torchserve_is_no_sign_of_life(here):
    """It stands in place of the handler's."""

    async def theirs(asked, send):
        await reply(send, 503, b'{"code": 503, "type": "x", "message": "y"}')

    here.torchserve.answer = theirs
    (model,) = httpx.get(here.url + "/health/ready").json()["models"]
    assert model["reason"] == "TorchServe answers 503 in its place"


def test_a_busy_model_is_ready(here, monkeypatch):
    """Its workers compute answers and do not look up; one that is silent without work is not ready."""
    monkeypatch.setattr("radlens.web.health._TIMEOUT_S", 0.2)
    monkeypatch.setattr("radlens.web.health._FRESH_S", 0.0)
    is_done = False

    async def slow(asked, send):
        while not is_done:
            await asyncio.sleep(0.01)
        await whole(asked, send)

    here.torchserve.answer = slow
    (model,) = httpx.get(here.url + "/health/ready").json()["models"]
    assert model["reason"] == "it does not answer within 0.2 s"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(here.ask)
        assert eventually(lambda: here.live != [])
        assert httpx.get(here.url + "/health/ready").status_code == 200
        is_done = True
        assert asked.result().status_code == 200


def test_metrics_need_a_key_of_their_own_role(here):
    """Who reads metrics need not be able to ask for predictions."""
    assert httpx.get(here.url + "/metrics").status_code == 401
    ring = KeyRing.of(here.workdir)
    prometheus, reader = ring.add("prometheus", ["metrics"]), ring.add("reader", ["predict"])
    for token, status in ((prometheus, 200), (reader, 403)):
        assert httpx.get(here.url + "/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == status
    assert here.ask(key={"Authorization": f"Bearer {prometheus}"}).status_code == 403


def test_answers_are_counted(here):
    """By model, version, kind, method and status; with their time, their batch, their engine."""
    assert here.ask("/explanations/cdmam").status_code == 200
    asked = {"model": "cdmam", "version": "1.0", "kind": "explain", "method": "omig"}
    assert eventually(lambda: value(here, "radlens_requests_total", **asked, status="200") == 1)
    assert value(here, "radlens_request_seconds_count", **asked) == 1
    model = {"model": "cdmam", "version": "1.0"}
    assert value(here, "radlens_batch_rows_sum", **model) == 3
    assert value(here, "radlens_queue_seconds_count", **model, kind="explain") == 1
    assert value(here, "radlens_engine_answers_total", **model, engine="llvm", precision="f32") == 1
    assert value(here, "radlens_workers_ready", **model) == value(here, "radlens_workers", **model) == 2


def test_what_the_worker_says_to_the_front_door_goes_no_further(here):
    """Its batch and its clock are nobody else's business."""
    assert not {"radlens-batch", "radlens-begun"} & set(here.ask().headers)


def test_refusals_are_counted_by_type(here):
    """Those of the front door, and those of workers."""
    here.ask(key={})
    here.ask("/nowhere")
    here.ask(content=b"")
    assert eventually(lambda: value(here, "radlens_refusals_total", status="400", type="InvalidInput") == 1)
    assert value(here, "radlens_refusals_total", status="401", type="Unauthorized") == 1
    assert value(here, "radlens_refusals_total", status="404", type="ResourceNotFoundException") == 1


def test_images_that_cannot_be_judged_are_counted(here):
    """As the JSON answer says."""
    here.ask(content=b"odd")
    here.ask(content=b"even")
    counted = {"model": "cdmam", "version": "1.0", "kind": "predict"}
    assert eventually(lambda: value(here, "radlens_not_assessable_total", **counted) == 1)


def test_names_that_clients_invent_make_no_labels(here):
    """Their number would grow without end."""
    for number in range(3):
        here.ask(f"/predictions/invented-{number}")
    labels = {"model": "unknown", "version": "", "kind": "predict", "method": "omig", "status": "200"}
    assert eventually(lambda: value(here, "radlens_requests_total", **labels) == 3)
    assert "invented" not in here.ask("/metrics", method="GET", content=b"").text


def test_the_age_of_the_queue_is_that_of_the_oldest(here):
    """Of the requests that have no answer; those whose client has left are counted as abandoned."""

    async def silent(asked, send):
        while asked.headers["radlens-live"] in here.live:
            await asyncio.sleep(0.01)
        await reply(send, 504, b'{"type": "Abandoned", "message": "m", "request_id": "r"}')

    here.torchserve.answer = silent
    kind = {"model": "cdmam", "kind": "explain"}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(here.ask, "/explanations/cdmam", X_Radlens_Deadline_S="1.0")
        assert eventually(lambda: value(here, "radlens_queue_age_seconds", **kind) > 0.3)
        assert value(here, "radlens_under_way", **kind) == 1
        assert asked.result().status_code == 504
    assert eventually(lambda: value(here, "radlens_abandoned_total", **kind, version="1.0") == 1)
    assert value(here, "radlens_under_way", **kind) == value(here, "radlens_queue_age_seconds", **kind) == 0


def test_uploads_that_break_off_are_counted(here):
    """As abandoned: nothing of them was started."""
    head = f"POST /predictions/cdmam HTTP/1.1\r\nHost: h\r\nAuthorization: {KEY['Authorization']}\r\n"
    here.raw(head.encode() + b"Content-Length: 9\r\n\r\nabc", wait=False)
    counted = {"model": "cdmam", "version": "1.0", "kind": "predict"}
    assert eventually(lambda: value(here, "radlens_abandoned_total", **counted) == 1)
    log = here.workdir / "audit.jsonl"
    assert eventually(lambda: log.exists() and [each["result"] for each in records(log)] == ["abandoned"])


def test_requests_are_audited(here):
    """Who asked what of which model, with the hash of the input; one line each, in a chain."""
    assert here.ask("/explanations/cdmam", X_Request_Id="r-1").status_code == 200
    assert here.ask(content=b"", X_Request_Id="r-2").status_code == 400
    assert here.ask(content=b"odd", X_Request_Id="r-3").status_code == 200
    log = here.workdir / "audit.jsonl"
    assert eventually(lambda: log.exists() and len(list(records(log))) == 3)
    first, second, third = records(log)
    expected = {
        "event": "explain",
        "request_id": "r-1",
        "key": "server",
        "model": "cdmam",
        "version": "1.0",
        "method": "omig",
        "status": 200,
        "result": "answered",
    }
    assert {name: first[name] for name in expected} == expected
    assert (first["bundle_hash"], first["inputs"]) == ("b" * 64, ["c" * 64])
    assert "1.2.3.4" not in log.read_text()
    assert (second["result"], second["type"], third["result"]) == ("refused", "InvalidInput", "not assessable")
    assert verify(log).faults == ()
    here.ask("/predictions/Doe-Jane")
    assert eventually(lambda: len(list(records(log))) == 4)
    assert "Doe" not in log.read_text()


def test_a_record_that_cannot_be_written_is_counted(here, monkeypatch):
    """A full disk keeps nobody from an answer, and is seen."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AuditLog, "append", full)
    assert here.ask().status_code == 200
    assert eventually(lambda: value(here, "radlens_audit_failures_total") == 1)


def test_the_dashboard_shows_what_there_is(here):
    """Each query of the Grafana dashboard names metrics that the front door has."""
    here.ask("/explanations/cdmam")
    here.ask(key={})
    names = {name for name, _ in samples(here)} | {"radlens_not_assessable_total", "radlens_abandoned_total"}
    panels = [each for each in json.loads(DASHBOARD.read_text())["panels"] if each["type"] != "row"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    used = {name for query in queries for name in re.findall(r"\bradlens_\w+", query)}
    assert used <= names
    assert len(used) >= 10
    assert KEY["Authorization"] not in DASHBOARD.read_text()


def test_asking_often_whether_a_model_is_ready_costs_its_workers_nothing(here):
    """Anybody may ask without a key, and could otherwise fill the queue of the model with questions."""
    with httpx.Client() as client:
        answers = [client.get(here.url + "/v2/models/cdmam/ready") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    assert len(here.torchserve.seen) == 1


def test_refused_keys_are_audited(here):
    """As logins that failed; of a flood one a second, so that nobody fills the disk, and without the token."""
    reader = {"Authorization": f"Bearer {KeyRing.of(here.workdir).add('reader', ['predict'])}"}
    assert here.ask("/explanations/cdmam", key=reader).status_code == 403
    for _ in range(5):
        assert here.ask(key={"Authorization": "Bearer guessed"}).status_code == 401
    log = here.workdir / "audit.jsonl"
    assert eventually(lambda: log.exists() and len(list(records(log))) >= 1)
    first = next(records(log))
    told = {name: first[name] for name in ("event", "result", "reason", "key", "n")}
    assert told == {"event": "unauthorised", "result": "refused", "reason": "no role explain", "key": "reader", "n": 1}
    assert len(list(records(log))) < 6
    assert "guessed" not in log.read_text()


def test_explanations_by_the_protocol_leave_room_for_predictions(here):
    """Eight at work or waiting for their turn hold nobody's body; one more is told to come later."""
    over = threading.Event()

    async def slow(asked, send):
        while asked.path.startswith("/explanations") and not over.is_set():
            await asyncio.sleep(0.01)
        await answered(asked, send)

    here.torchserve.answer = slow
    tensor = {"name": "image", "datatype": "UINT8", "shape": [2, 2], "data": [1, 2, 3, 4]}

    def infer(**parameters):
        content = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
        return here.ask("/v2/models/cdmam/infer", content=content)

    with ThreadPoolExecutor(8) as pool:
        try:
            asked = [pool.submit(infer, explain=True) for _ in range(8)]
            labels = {"model": "cdmam", "kind": "explain"}
            assert eventually(lambda: value(here, "radlens_under_way", **labels) == 8)
            assert infer().status_code == 200
            more = infer(explain=True)
            assert (more.status_code, more.headers["retry-after"]) == (503, "5")
        finally:
            over.set()
        assert {each.result().status_code for each in asked} == {200}
