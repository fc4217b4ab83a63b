"""The front door before a TorchServe that is a few lines of ASGI; `tests/serving` has the real one."""

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from front_door_site import KEY, MAX_BODY, eventually, reply, site, whole

from radlens.web.heads import read_head
from radlens.web.refusals import Refused


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A site that answers with the length of the body."""
    with site(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture
def here(running):
    """The same site with nothing seen."""
    running.torchserve.seen.clear()
    running.torchserve.answer = whole
    return running


def passed(target="/predictions/cdmam", **headers):
    """Return what TorchServe gets of a request."""
    path, _, query = target.partition("?")
    named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return read_head({"raw_path": path.encode(), "query_string": query.encode()}, named)


def test_the_query_string_becomes_a_header():
    """It wins over a header of the same name; without one, a proxy's header passes."""
    head = passed("/explanations/cdmam?n_steps=5&seed=%201", X_Radlens_Query="seed=2")
    assert (head.path, head.headers["x-radlens-query"]) == ("/explanations/cdmam", "n_steps=5&seed=%201")
    assert passed(X_Radlens_Query="seed=2").headers["x-radlens-query"] == "seed=2"
    assert "x-radlens-query" not in passed().headers


def test_what_curl_calls_a_form_is_an_image():
    """Curl declares every body as a form unless it is told otherwise; other types pass as they are."""
    octets = "application/octet-stream"
    assert passed(Content_Type="application/x-www-form-urlencoded").headers["content-type"] == octets
    assert passed().headers["content-type"] == octets
    assert passed(Content_Type="image/png; a=b").headers["content-type"] == "image/png; a=b"


def test_connections_and_keys_are_not_handed_on():
    """Nothing of the client's connection, of its key, or of what the front door states itself."""
    head = passed(
        *["/predictions/cdmam"],
        Connection="keep-alive",
        Expect="100-continue",
        TE="trailers",
        Authorization="Bearer x",
        Radlens_Live="0" * 32,
        Explain="true",
        Accept="image/png",
    )
    assert head.headers == {"accept": "image/png", "content-type": "application/octet-stream"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/predictions/cdmam", ("predict", "cdmam", None)),
        ("/explanations/a-b.c/2.0", ("explain", "a-b.c", "2.0")),
        ("/explanations/cdmam/1.0/n_steps=3&seed=5", ("explain", "cdmam", "1.0")),
    ],
)
def test_paths_name_models_and_versions(target, expected):
    """With parameters after the version, as TorchServe hands them on."""
    head = passed(target)
    assert ((head.kind, head.model, head.version), head.path) == (expected, target)


@pytest.mark.parametrize(
    "target",
    ["/", "/models", "/predictions", "/predictions/", "//predictions/x", "/predictions/../models", "/predictions/x/..",
     "/predictions/%2e%2e/models", "/predictions/x/../../models", "/predictions/x/1.0/../../../models",
     "/predictions/x/1.0/%2E./m",
     "/predictions/x/1.0/a\\..\\b", "/predictions/x/1.0/a#b", "http://h/predictions/x", "*"],
)  # fmt: skip
def test_other_paths_stay_outside(target):
    """No management, no metrics, no other way to name a model."""
    with pytest.raises(Refused, match="path must be /predictions/MODEL or /explanations/MODEL"):
        passed(target)


@pytest.mark.parametrize("text", ["", "0", "-1", "1e3", "soon", "inf", "604801", "1_0"])
def test_deadlines_are_numbers_of_seconds(text):
    """Above 0, and at most a week."""
    with pytest.raises(Refused, match="X-Radlens-Deadline-S must be a number of seconds above 0, got"):
        passed(X_Radlens_Deadline_S=text)
    assert passed(X_Radlens_Deadline_S="2.5").deadline_s == 2.5


def test_requests_and_answers_pass(here):
    """One after the other over one connection, as large as is allowed."""
    with httpx.Client(base_url=here.url, headers=KEY) as client:
        for body in (b"", b"abc", bytes(MAX_BODY)):
            answer = client.post("/predictions/cdmam?seed=1", content=body)
            assert answer.json() == {"length": len(body), "path": "/predictions/cdmam"}
            assert answer.headers["x-radlens-provenance"] == "{}"
            assert "ts_stream_next" not in answer.headers
    assert here.torchserve.seen[0].headers["x-radlens-query"] == "seed=1"
    assert eventually(lambda: here.live == [])


def test_bodies_stream_in_both_directions(here):
    """Chunks in, chunks out."""

    async def chunked(asked, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for start in range(0, len(asked.body), 50_000):
            await send({"type": "http.response.body", "body": asked.body[start : start + 50_000], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    here.torchserve.answer = chunked
    answer = here.ask("/explanations/cdmam", content=(bytes(100_000) for _ in range(5)))
    assert len(answer.content) == 500_000
    assert answer.headers["transfer-encoding"] == "chunked"
    assert here.torchserve.seen[0].headers["transfer-encoding"] == "chunked"


def test_many_can_ask_at_once(here):
    """Each gets the answer to its own question."""
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda i: here.ask(content=bytes(i)).json()["length"], range(40)))
    assert answers == list(range(40))


def test_clients_can_ask_before_they_send(here):
    """Curl waits for a go-ahead before it sends more than a megabyte; it comes after the key is checked."""
    head = b"POST /predictions/x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n"
    key = f"Authorization: {KEY['Authorization']}\r\n".encode()
    with socket.create_connection(("127.0.0.1", here.port), timeout=10) as connection:
        connection.sendall(head + key + b"\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 100")
        connection.sendall(b"abc")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    refused = here.raw(head + b"\r\n")
    assert refused.startswith(b"HTTP/1.1 401")
    # What the client sends next has no certain meaning.
    assert b"connection: close" in refused


def test_a_missing_torchserve_is_told(tmp_path):
    """502, with what is missing."""
    with site(tmp_path, inference_url="http://127.0.0.1:9") as alone:
        answer = alone.ask()
        assert answer.status_code == 502
        assert answer.json()["message"] == "TorchServe must run behind the front door, got no connection"
        assert alone.ask("/ping", method="GET").status_code == 502
        assert alone.ask("/ping", method="GET").json()["message"].startswith("TorchServe must run")


def test_torchserves_own_sign_of_life_passes(here):
    """Without a key; it says nothing of the models."""
    assert here.ask("/ping", method="GET", key={}).json() == {"status": "Healthy"}


def test_a_torchserve_that_hangs_up_is_told(here):
    """502 before an answer has begun; afterwards the broken answer is broken for the client as well."""

    async def nothing(asked, send):
        raise ConnectionAbortedError

    async def half(asked, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ConnectionAbortedError

    here.torchserve.answer = half
    with pytest.raises(httpx.RemoteProtocolError):
        here.ask()


def test_a_stream_of_lines_that_breaks_off_says_so(here):
    """A worker that is killed ends its connection; the last line is an error, on a line of its own."""

    async def lines(asked, send):
        headers = [(b"content-type", b"application/x-ndjson"), (b"transfer-encoding", b"chunked")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"event": "progress"}\n{"ev', "more_body": True})
        raise ConnectionAbortedError

    here.torchserve.answer = lines
    answer = here.ask("/explanations/cdmam")
    last = json.loads(answer.text.splitlines()[-1])
    assert (last["event"], last["complete"], last["code"]) == ("error", False, 502)
    assert last["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (503, "ServiceUnavailableException", (503, "ServiceUnavailable")),
        (507, "InternalServerException", (503, "ServiceUnavailable")),
        (400, "InvalidKeyException", (503, "ServiceUnavailable")),
        (404, "ModelNotFoundException", (404, "ModelNotFoundException")),
        (500, "InternalServerException", (500, "InternalServerException")),
    ],
)
def test_errors_of_torchserve_are_made_clear(here, status, kind, expected):
    """A dead worker and a full queue are temporary; the others stay, and each states its request."""

    async def fails(asked, send):
        await reply(send, status, json.dumps({"code": status, "type": kind, "message": "theirs"}).encode())

    here.torchserve.answer = fails
    answer = here.ask()
    assert (answer.status_code, answer.json()["type"]) == expected
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (answer.status_code == 503)


def test_errors_of_handlers_pass_unchanged(here):
    """They have an identifier."""
    document = {"code": 422, "type": "UnreadableImage", "message": "theirs", "request_id": "i"}

    async def refuses(asked, send):
        await reply(send, 422, json.dumps(document).encode())

    here.torchserve.answer = refuses
    answer = here.ask(X_Request_Id="i")
    assert (answer.status_code, answer.json()) == (422, document)


def test_an_error_that_is_not_json_is_told(here):
    """TorchServe has answered with nothing at all."""

    async def empty(asked, send):
        await reply(send, 500, b"")

    here.torchserve.answer = empty
    assert here.ask().json()["message"] == "TorchServe must answer in JSON, got another error"


def test_workers_get_the_identity_of_a_request(here):
    """Its identifier, and the name of a file that exists as long as the client waits."""
    files = []

    async def look(asked, send):
        files.extend(here.live)
        await whole(asked, send)

    here.torchserve.answer = look
    assert here.ask(X_Request_Id="mine-1").headers["x-request-id"] == "mine-1"
    (asked,) = here.torchserve.seen
    assert asked.headers["x-request-id"] == "mine-1"
    assert files == [asked.headers["radlens-live"]]
    assert eventually(lambda: here.live == [])


def test_an_answer_is_complete_before_its_batch_is(here):
    """TorchServe keeps the response open while an explanation of the same batch goes on; the client does not wait."""
    is_done = threading.Event()

    async def early(asked, send):
        headers = [(b"radlens-length", b"3"), (b"transfer-encoding", b"chunked")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        while not is_done.is_set():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b""})

    here.torchserve.answer = early
    with httpx.Client(base_url=here.url, headers=KEY, timeout=20) as client:
        for _ in range(2):
            answer = client.post("/predictions/cdmam", content=b"x")
            assert (answer.content, answer.headers["content-length"]) == (b"abc", "3")
            assert "radlens-length" not in answer.headers
    is_done.set()
    assert eventually(lambda: here.live == [])


def test_a_missing_model_is_torchserves_to_tell(here):
    """The front door does not know it, and hands the request on."""
    assert here.ask("/predictions/other").json()["path"] == "/predictions/other"
