"""The gateway before a TorchServe that is a few lines of asyncio; `tests/serving` has the real one."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress

import h11
import httpx
import pytest

from radlens.gateway import Refused, forwarded, main, serve
from radlens.server import free_ports

MAX_BODY = 1_000_000


def passed(target="/predictions/cdmam", **headers):
    """Return the headers of a request behind the gateway, and its target."""
    given = [("Host", "h"), *((name.replace("_", "-"), value) for name, value in headers.items())]
    request = forwarded(h11.Request(method="POST", target=target, headers=given), MAX_BODY)
    return dict(request.headers), request.target.decode()


def test_the_query_string_becomes_a_header():
    """It wins over a header of the same name; without one, a proxy's header passes."""
    headers, target = passed("/explanations/cdmam?n_steps=5&seed=%201", X_Radlens_Query="seed=2")
    assert (target, headers[b"x-radlens-query"]) == ("/explanations/cdmam", b"n_steps=5&seed=%201")
    assert passed(X_Radlens_Query="seed=2")[0][b"x-radlens-query"] == b"seed=2"
    assert b"x-radlens-query" not in passed()[0]


def test_what_curl_calls_a_form_is_an_image():
    """Curl declares every body as a form unless it is told otherwise; other types pass as they are."""
    assert passed(Content_Type="application/x-www-form-urlencoded")[0][b"content-type"] == b"application/octet-stream"
    assert passed(Content_Type="image/png; a=b")[0][b"content-type"] == b"image/png; a=b"


def test_connections_are_not_shared():
    """Nothing of the client's connection is handed on."""
    headers, _ = passed(Connection="keep-alive", Expect="100-continue", TE="trailers", Authorization="Bearer x")
    assert headers[b"connection"] == b"close"
    assert headers.keys() == {b"host", b"authorization", b"connection"}


@pytest.mark.parametrize("target", ["/", "/models", "/predictions", "//predictions/x", "http://h/predictions/x", "*"])
def test_other_paths_stay_outside(target):
    """No management, no metrics, no other way to name a model."""
    with pytest.raises(Refused, match="path must begin with /predictions/ or /explanations/"):
        passed(target)


def test_multipart_forms_stay_outside():
    """TorchServe's parser of them has known holes."""
    with pytest.raises(Refused, match="expected the bytes of an image as the body, got a multipart form"):
        passed(Content_Type="Multipart/Form-Data; boundary=x")


def test_large_bodies_stay_outside():
    """TorchServe would answer without a word, or reset the connection."""
    with pytest.raises(Refused, match="body must have at most 1000000 bytes, got 1000001"):
        passed(Content_Length="1000001")


Behind = Callable[[h11.Request, bytes], list]


class Site:
    """A gateway with a server behind it that answers each request with the events ``behind`` returns."""

    def __init__(self, behind: Behind | None) -> None:
        self.behind, self.ports, self.seen = behind, free_ports(), []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request whole, answer it, and close."""
        try:
            with suppress(OSError, h11.ProtocolError):
                await self.answer(reader, writer)
        finally:
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say what ``behind`` says to one request."""
        http, request, body = h11.Connection(h11.SERVER), None, b""
        while not isinstance(event := http.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                request = event
            else:
                body += event.data
        if request is None:
            return
        self.seen.append((request.target.decode(), dict(request.headers), body))
        assert self.behind is not None
        for event in self.behind(request, body):
            writer.write(http.send(event))
            await writer.drain()

    async def __aenter__(self) -> "Site":
        """Start both."""
        ports = self.ports
        self.gateway = asyncio.create_task(serve(ports.gateway, ports.inference, MAX_BODY))
        self.server = await asyncio.start_server(self.talk, "127.0.0.1", ports.inference) if self.behind else None
        await asyncio.sleep(0.1)
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports.gateway}", timeout=10)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Stop both."""
        await self.client.aclose()
        # Connections that were accepted a moment ago become tasks first.
        await asyncio.sleep(0.05)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self.server:
            self.server.close()
        await asyncio.sleep(0)


def at_a_site(behind: Behind | None, visit: Callable[[Site], Awaitable[None]]) -> None:
    """Run ``visit`` at a site."""

    async def run() -> None:
        async with Site(behind) as site:
            await visit(site)

    asyncio.run(run())


def whole(request, body):
    """Answer with the length of the body."""
    text = json.dumps({"length": len(body), "path": request.target.decode()}).encode()
    headers = [("Content-Length", str(len(text))), ("X-Radlens-Provenance", "{}"), ("ts_stream_next", "false")]
    return [h11.Response(status_code=200, headers=headers), h11.Data(data=text), h11.EndOfMessage()]


def chunked(request, body):
    """Answer with the body, in pieces."""
    pieces = [h11.Data(data=body[start : start + 50_000]) for start in range(0, len(body), 50_000)]
    headers = [("Transfer-Encoding", "chunked")]
    return [h11.Response(status_code=200, headers=headers), *pieces, h11.EndOfMessage()]


def test_requests_and_answers_pass():
    """One after the other over one connection, by `Content-Length` or in chunks, as large as is allowed."""

    async def visit(site):
        for body in (b"", b"abc", bytes(MAX_BODY)):
            answer = await site.client.post("/predictions/cdmam?seed=1", content=body)
            assert answer.json() == {"length": len(body), "path": "/predictions/cdmam"}
            assert answer.headers["x-radlens-provenance"] == "{}"
            assert "ts_stream_next" not in answer.headers
        assert site.seen[0][1][b"x-radlens-query"] == b"seed=1"

    at_a_site(whole, visit)


def test_bodies_stream_in_both_directions():
    """Chunks in, chunks out."""

    async def visit(site):
        async def pieces():
            for _ in range(5):
                yield bytes(100_000)

        answer = await site.client.post("/explanations/cdmam", content=pieces())
        assert len(answer.content) == 500_000
        assert answer.headers["transfer-encoding"] == "chunked"

    at_a_site(chunked, visit)


def test_many_can_ask_at_once():
    """Each gets the answer to its own question."""

    async def visit(site):
        answers = await asyncio.gather(*(site.client.post(f"/predictions/{i}", content=bytes(i)) for i in range(40)))
        assert [answer.json()["length"] for answer in answers] == list(range(40))

    at_a_site(whole, visit)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/models", {}, 404),
        ("POST", "/predictions/cdmam", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ("POST", "/predictions/cdmam", {"X-Large": "1"}, 413),
    ],
)
def test_refusals_are_json(method, path, headers, status):
    """With code, type and message, also while the client is still sending; the next request is served."""

    async def visit(site):
        body = bytes(3_000_000) if "X-Large" in headers else b"abc"
        answer = await site.client.request(method, path, headers=headers, content=body)
        assert (answer.status_code, answer.json()["code"]) == (status, status)
        assert answer.json()["message"]
        assert site.seen == []
        assert (await site.client.post("/predictions/cdmam")).status_code == 200

    at_a_site(whole, visit)


def raw(text: bytes) -> Callable[[Site], Awaitable[None]]:
    """Return a visit that says ``text`` and expects to be refused."""

    async def visit(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.ports.gateway)
        writer.write(text)
        writer.write_eof()
        answer = await reader.read()
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501"))
        assert b"expected an HTTP/1.1 request" in answer
        assert site.seen == []
        writer.close()

    return visit


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\r\n\r\n",
        b"POST /predictions/x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /predictions/x HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc",
        b"POST /predictions/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST /predictions/x HTTP/1.1\r\nHost: h\r\n X: folded\r\nbad header\r\n\r\n",
        b"POST /predictions/x HTTP/1.1\r\n\r\n",
        b"POST /predictions/x HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    ],
)
def test_requests_that_could_fool_a_parser_stay_outside(text):
    """What different parsers would read differently is refused by the strict one."""
    at_a_site(whole, raw(text))


def test_clients_can_ask_before_they_send():
    """Curl waits for a go-ahead before it sends more than a megabyte."""

    async def visit(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.ports.gateway)
        head = b"POST /predictions/x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        writer.write(head)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"abc")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()

    at_a_site(whole, visit)


def test_a_missing_torchserve_is_told():
    """502, with what is missing."""

    async def visit(site):
        answer = await site.client.post("/predictions/cdmam")
        assert answer.status_code == 502
        assert answer.json()["message"] == "TorchServe must run behind the gateway, got no connection"

    at_a_site(None, visit)


def test_a_torchserve_that_hangs_up_is_told():
    """502 before an answer has begun; afterwards the broken answer is broken for the client as well."""

    async def visit(site):
        answer = await site.client.post("/predictions/cdmam")
        assert answer.status_code == 502
        assert answer.json()["message"] == "TorchServe must answer, got a connection that closed"

    at_a_site(lambda request, body: [], visit)

    async def visit_broken(site):
        with pytest.raises(httpx.RemoteProtocolError):
            await site.client.post("/predictions/cdmam")

    half = [h11.Response(status_code=200, headers=[("Content-Length", "9")]), h11.Data(data=b"half")]
    at_a_site(lambda request, body: half, visit_broken)


def test_a_client_that_leaves_disturbs_nobody():
    """In the middle of its request, or before its answer."""

    async def visit(site):
        for text in (b"Content-Length: 9\r\n\r\nabc", b"Content-Length: 3\r\n\r\nabc"):
            _, writer = await asyncio.open_connection("127.0.0.1", site.ports.gateway)
            writer.write(b"POST /predictions/x HTTP/1.1\r\nHost: h\r\n" + text)
            await writer.drain()
            writer.transport.abort()
        assert (await site.client.post("/predictions/cdmam")).status_code == 200

    at_a_site(whole, visit)


def test_bodies_that_lie_are_noticed():
    """A chunk that is none ends the conversation with both sides."""

    async def visit(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.ports.gateway)
        writer.write(b"POST /predictions/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        await writer.drain()
        await asyncio.wait_for(reader.read(), 5)
        assert site.seen == []
        writer.close()

    at_a_site(whole, visit)


def test_idle_connections_are_closed(monkeypatch):
    """After a while without a request."""
    monkeypatch.setattr("radlens.gateway._IDLE_S", 0.1)

    async def visit(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.ports.gateway)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()

    at_a_site(whole, visit)


def test_the_command_says_what_it_needs(capsys):
    """Both ports and the limit."""
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "--port, --torchserve-port, --max-body" in capsys.readouterr().err
