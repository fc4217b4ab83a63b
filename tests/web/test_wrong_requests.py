"""Wrong, slow and lying requests: the right status, a clear error with an identifier, and nothing behind notices."""

import asyncio
import gzip
import json
import re
import socket
import time
import zlib

import httpx
import pytest
from front_door_site import KEY, MAX_BODY, eventually, site, version_of, whole

from radlens.keys import KeyRing

HEAD = b"POST /predictions/cdmam HTTP/1.1\r\nHost: h\r\nAuthorization: " + KEY["Authorization"].encode() + b"\r\n"

NAME = "Doe^Jane"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A site with short limits."""
    limits = {"head_s": 0.5, "stall_s": 0.5, "upload_s": 2.0, "linger_s": 1.0, "lost_s": 0.2, "idle_s": 1.0}
    with site(tmp_path_factory.mktemp("site"), **limits) as found:
        yield found


@pytest.fixture
def here(running):
    """The same site with nothing seen."""
    running.torchserve.seen.clear()
    running.torchserve.answer = whole
    running.torchserve.models["cdmam"] = [version_of("1.0")]
    return running


def refused(answer, status, kind=None):
    """Check an error, and return its message."""
    fields = answer.json()
    assert (answer.status_code, fields["code"]) == (status, status), fields
    assert fields["request_id"] == answer.headers["x-request-id"]
    assert kind in (None, fields["type"])
    return fields["message"]


def document(answer: bytes) -> dict:
    """Return the JSON document of a raw answer, after a check of its identifier."""
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = json.loads(body)
    assert re.search(rb"(?i)x-request-id: (\S+)", head)[1].decode() == fields["request_id"]
    return fields


@pytest.mark.parametrize("header", ["", "Bearer", "Basic eDp5", "secret-of-clients"])
def test_a_missing_key_is_asked_for(here, header):
    """401 with the scheme (RFC 9110 section 15.5.2), before anything of the body is read."""
    answer = here.ask(key={"Authorization": header} if header else {})
    assert "expected a key as Authorization: Bearer KEY" in refused(answer, 401, "Unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="radlens"'
    assert here.torchserve.seen == []


def test_an_unknown_key_is_refused(here):
    """With the error of RFC 6750 section 3.1."""
    answer = here.ask(key={"Authorization": "Bearer other"})
    refused(answer, 401)
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_may_be_written_in_any_case(here, scheme):
    """RFC 9110 section 11.1."""
    assert here.ask(key={"Authorization": f"{scheme} secret-of-clients"}).status_code == 200


def test_keys_have_roles(here):
    """A key for predictions explains nothing; a revoked one is unknown at once."""
    ring = KeyRing.of(here.workdir)
    key = {"Authorization": f"Bearer {ring.add('reader', ['predict'])}"}
    assert here.ask(key=key).status_code == 200
    answer = here.ask("/explanations/cdmam", key=key)
    assert refused(answer, 403) == "the key must have the role explain, got predict"
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    ring.revoke("reader")
    assert here.ask(key=key).status_code == 401


def test_an_open_server_needs_no_key(tmp_path):
    """As TorchServe behind it does not."""
    with site(tmp_path, is_open=True) as opened:

        async def answer(asked, send):
            assert "authorization" not in asked.headers
            await whole(asked, send)

        opened.torchserve.is_open, opened.torchserve.answer = True, answer
        assert opened.ask(key={}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/models", "/models/cdmam", "/metrics2", "/predictions"])
def test_unknown_paths_are_not_found(here, path):
    """404 in JSON."""
    with httpx.Client() as client:
        request = client.build_request("POST", here.url, headers=KEY)
        request.url = httpx.URL(here.url).copy_with(raw_path=path.encode())
        refused(client.send(request), 404, "ResourceNotFoundException")
    assert here.torchserve.seen == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE"])
def test_other_methods_are_refused(here, method):
    """405 with those that are allowed."""
    answer = here.ask(method=method, content=b"")
    refused(answer, 405, "MethodNotAllowed")
    assert answer.headers["allow"] == "OPTIONS, POST"


def test_head_has_no_body(here):
    """Also where it is refused."""
    answer = here.ask(method="HEAD", content=b"")
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (405, b"", "OPTIONS, POST")


def test_options_tell_the_methods(here):
    """Of a path, and of the server."""
    for path in ("/predictions/cdmam", "/explanations/cdmam/1.0"):
        answer = here.ask(path, method="OPTIONS", content=b"", key={})
        assert (answer.status_code, answer.headers["allow"]) == (204, "OPTIONS, POST")
    raw = here.raw(b"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 204")
    assert b"x-request-id" in raw


def test_http_1_0_is_answered(here):
    """With a connection that ends, and without chunks."""
    raw = here.raw(HEAD.replace(b"1.1", b"1.0") + b"Content-Length: 3\r\n\r\nabc")
    assert raw.startswith(b"HTTP/1.1 200")
    assert raw.endswith(b'{"length": 3, "path": "/predictions/cdmam"}')
    assert document(here.raw(HEAD.replace(b"1.1", b"1.0") + b"\r\n"))["code"] == 411


def test_identifiers_of_clients_are_kept(here):
    """If they are short and plain; otherwise the request gets another one."""
    assert here.ask(X_Request_Id="A-1.b_2", key={}).headers["x-request-id"] == "A-1.b_2"
    for wrong in ("a b", "x" * 65, "<script>"):
        assert re.fullmatch("[0-9a-f]{32}", here.ask(X_Request_Id=wrong, key={}).headers["x-request-id"])


def test_a_body_needs_a_length(here):
    """411 for neither a length nor chunks."""
    assert document(here.raw(HEAD + b"Connection: close\r\n\r\n"))["code"] == 411


def test_large_bodies_stay_outside(here):
    """By their stated length, and by what comes in chunks; the next request over the connection is served."""
    with httpx.Client(base_url=here.url, headers=KEY) as client:
        stated = client.post("/predictions/cdmam", content=bytes(MAX_BODY + 1))
        assert refused(stated, 413) == "body must have at most 1000000 bytes, got 1000001"
        assert client.post("/predictions/cdmam", content=b"abc").status_code == 200
    chunks = here.ask(content=(bytes(100_000) for _ in range(20)))
    assert refused(chunks, 413) == "body must have at most 1000000 bytes, got one that is larger"
    assert len(here.torchserve.seen) == 1


def test_multipart_forms_stay_outside(here):
    """TorchServe's parser of them has known holes."""
    answer = here.ask(Content_Type="Multipart/Form-Data; boundary=x")
    assert "got a multipart form" in refused(answer, 415, "UnsupportedMediaType")


def test_gzip_is_inflated(here):
    """In one member or several; TorchServe gets the body as it was."""
    lengths = []

    async def look(asked, send):
        lengths.append(asked.body)
        await whole(asked, send)

    here.torchserve.answer = look
    body = bytes(range(256)) * 3000
    packed = gzip.compress(body[:1000]) + gzip.compress(body[1000:])
    assert here.ask(content=packed, Content_Encoding="gzip").json()["length"] == len(body)
    by_bytes = (packed[i : i + 1] for i in range(len(packed)))
    assert here.ask(content=by_bytes, Content_Encoding="x-gzip").status_code == 200
    assert lengths == [body, body]
    assert "content-encoding" not in here.torchserve.seen[0].headers


@pytest.mark.parametrize(
    "body",
    [b"", b"no gzip", gzip.compress(bytes(9000))[:-5], gzip.compress(b"x") + b"rest"],
    ids=["empty", "other", "cut", "followed"],  # gzip writes the time
)
def test_damaged_gzip_is_told(here, body):
    """400: the client's mistake."""
    answer = here.ask(content=body, Content_Encoding="gzip")
    assert refused(answer, 400) == "expected a complete gzip stream, got a damaged one"
    assert here.torchserve.seen == []


def test_gzip_bombs_are_bounded(here):
    """A few hundred kilobytes that inflate to 300 MB end at the limit, having taken the memory of one piece."""
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(300)) + packer.flush()
    assert len(bomb) < MAX_BODY
    answer = here.ask(content=bomb, Content_Encoding="gzip")
    assert refused(answer, 413).endswith("got one that is larger when it is inflated")


@pytest.mark.parametrize("coding", ["br", "zstd", "deflate", "gzip, gzip"])
def test_other_codings_are_named(here, coding):
    """415 with those that are read (RFC 9110 section 15.5.16)."""
    answer = here.ask(Content_Encoding=coding)
    assert coding in refused(answer, 415)
    assert answer.headers["accept-encoding"] == "gzip, identity"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (HEAD + b"Content-Length: +3\r\n\r\nabc", 400),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (HEAD + b" X: folded\r\nbad header\r\n\r\n", 400),
        (HEAD.replace(b"Host: h\r\n", b"") + b"\r\n", 400),
        (HEAD + b"X: " + b"a" * 200_000 + b"\r\n\r\n", 431),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", 400),
    ],
)
def test_requests_that_could_fool_a_parser_stay_outside(here, text, status):
    """What different parsers would read differently is refused by the strict one, in JSON."""
    assert document(here.raw(text))["code"] == status
    assert here.torchserve.seen == []
    assert here.ask().status_code == 200


def test_a_head_that_stalls_is_told(here):
    """408; a connection that says nothing is closed."""
    fields = document(here.raw(b"POST /predictions/cdmam HT"))
    assert (fields["code"], fields["type"]) == (408, "RequestTimeout")
    assert here.raw(b"") == b""


def test_a_body_that_stalls_is_told(here):
    """408, and TorchServe does not wait for it."""
    fields = document(here.raw(HEAD + b"Content-Length: 9\r\n\r\nabc"))
    assert (fields["code"], fields["type"]) == (408, "RequestTimeout")
    assert here.torchserve.seen == []
    assert eventually(lambda: here.live == [])


def test_a_body_that_dribbles_is_told(here):
    """A byte now and then is no way around the limit."""
    with socket.create_connection(("127.0.0.1", here.port), timeout=10) as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n")
        connection.settimeout(0.2)
        got = b""
        for _ in range(50):
            connection.sendall(b"x")
            try:
                got += connection.recv(4096)
                break
            except TimeoutError:
                continue
    assert got.startswith(b"HTTP/1.1 408")


def test_a_refused_client_that_goes_on_sending_is_cut_off(here):
    """After a while in which it can read its answer; what it sends takes no memory."""
    with socket.create_connection(("127.0.0.1", here.port), timeout=10) as connection:
        connection.sendall(HEAD.replace(b"Bearer", b"None") + b"Content-Length: 900000\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 401")

        def is_cut() -> bool:
            try:
                connection.sendall(b"x")
            except OSError:
                return True
            return False

        assert eventually(is_cut)


def test_idle_connections_are_closed(here):
    """After a while without a request."""
    with socket.create_connection(("127.0.0.1", here.port), timeout=10) as connection:
        connection.sendall(HEAD + b"Content-Length: 3\r\n\r\nabc")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        while connection.recv(4096):
            pass


def test_a_client_that_leaves_in_its_body_disturbs_nobody(here):
    """Nothing of its request is started."""
    here.raw(HEAD + b"Content-Length: 9\r\n\r\nabc", wait=False)
    assert here.ask().status_code == 200
    assert [len(asked.body) for asked in here.torchserve.seen] == [3]


def test_a_model_without_workers_is_told_at_once(here):
    """503 with a time to come back; TorchServe would let the client wait."""
    here.torchserve.models["cdmam"] = [version_of("1.0", ready=0)]
    assert eventually(lambda: here.ask().status_code == 503)
    answer = here.ask()
    assert refused(answer, 503) == "a worker of cdmam 1.0 must be ready, got none of 2"
    assert int(answer.headers["retry-after"]) > 0
    here.torchserve.models["cdmam"] = [version_of("1.0", ready=1)]
    assert eventually(lambda: here.ask().status_code == 200)


def test_a_model_that_loses_its_workers_is_told_soon(here):
    """A request that waits behind workers that do not come back gets its 503."""

    async def silent(asked, send):
        here.torchserve.models["cdmam"] = [version_of("1.0", ready=0)]
        while here.torchserve.models["cdmam"][0]["workers"][0]["status"] != "READY":
            await asyncio.sleep(0.05)
        await whole(asked, send)

    here.torchserve.answer = silent
    began = time.monotonic()
    refused(here.ask(), 503)
    assert time.monotonic() - began < 15
    here.torchserve.models["cdmam"] = [version_of("1.0")]


def test_the_number_of_requests_is_bounded(tmp_path):
    """One more is asked to come back."""
    with site(tmp_path, most_requests=0) as full:
        answer = full.ask()
        assert "at most 0 requests may be at work" in refused(answer, 503)
        assert answer.headers["retry-after"] == "5"


def test_a_server_that_starts_is_told(tmp_path):
    """Its keys are not there yet."""
    with site(tmp_path) as starting:
        (tmp_path / "key_file.json").unlink()
        token = KeyRing.of(tmp_path).add("reader", ["predict"])
        answer = starting.ask(key={"Authorization": f"Bearer {token}"})
        assert refused(answer, 503) == "the server must have started, got one that is starting"


def test_damaged_keys_let_nobody_in(tmp_path):
    """And the error says what is damaged, without a path."""
    with site(tmp_path) as damaged:
        (tmp_path / "keys.json").touch(mode=0o600)
        (tmp_path / "keys.json").write_text("{")
        answer = damaged.ask()
        assert int(answer.headers["retry-after"]) > 0
        message = refused(answer, 503)
        assert "keys.json must hold keys" in message
        assert str(tmp_path) not in message


def test_internal_errors_hold_no_message(here, monkeypatch, caplog):
    """An exception may quote its input: only its type is logged, under the identifier of the request."""

    def fails(*_):
        raise LookupError(NAME)

    monkeypatch.setattr("radlens.web.forwarding.read_head", fails)
    with caplog.at_level("ERROR"):
        answer = here.ask(X_Request_Id="r-1")
    assert refused(answer, 500) == "internal error, logged under request r-1"
    assert "Doe" not in caplog.text
    assert "request r-1: LookupError" in caplog.text


@pytest.mark.parametrize("header", [b"User-Agent: caf\xe9", "X-Clinic: Müller".encode()])
def test_headers_in_other_alphabets_do_no_harm(here, header):
    """RFC 9110 section 5.5 allows them; they say nothing to a model."""
    raw = here.raw(HEAD + header + b"\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
    assert raw.startswith(b"HTTP/1.1 200")
    assert not set(here.torchserve.seen[0].headers) & {"x-clinic"}


@pytest.mark.parametrize("name", ["Accept", "Content-Type", "X-Radlens-Method"])
def test_parameters_in_other_alphabets_are_refused(here, name):
    """They would be dropped without a word."""
    header = f"{name}: über".encode()
    raw = here.raw(HEAD + header + b"\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
    assert raw.startswith(b"HTTP/1.1 400")
    assert "must be ASCII" in document(raw)["message"]
    assert here.torchserve.seen == []


@pytest.mark.parametrize("name", ["explain", "%65xplain", "%2565xplain", "n_steps=2&explain", "n_steps=2/explain"])
@pytest.mark.parametrize("kind", ["predictions", "explanations"])
def test_the_path_does_not_turn_predictions_into_explanations(here, kind, name):
    """TorchServe hands the rest of the path to handlers; those of older archives read the kind from it.

    A key for predictions alone would get explanations, and without waiting for a turn.
    """
    path = f"/{kind}/cdmam/1.0/{name}=true".encode()
    with httpx.Client() as client:
        request = client.build_request("POST", here.url, headers=KEY, content=b"abc")
        request.url = httpx.URL(here.url).copy_with(raw_path=path)
        assert "must not hold explain" in refused(client.send(request), 400, "InvalidParameter")
    assert here.torchserve.seen == []
    assert here.ask(f"/{kind}/cdmam/1.0/n_steps=2").status_code == 200


def test_gzip_of_nothing_has_an_end(here):
    """Empty members take no room when they are inflated, and would be read for as long as an upload may last."""
    piece = gzip.compress(b"") * 1000
    answer = here.ask(content=(piece for _ in range(2 * MAX_BODY // len(piece))), Content_Encoding="gzip")
    assert f"body must have at most {MAX_BODY} bytes" in refused(answer, 413, "InvalidInput")
