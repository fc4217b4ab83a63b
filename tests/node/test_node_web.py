"""DICOMweb as a client: what is found, fetched and sent, and what a service's failures mean."""

import io
import json
from typing import Any

import httpx
import pytest
from node_parts import (
    CAPTURE,
    Pacs,
    answering,
    encoded,
    image,
    new_object,
    result_of,
    settings_in,
    wait_until,
)

from radlens.node import Node
from radlens.node.header import read_header
from radlens.node.lanes import Refused, Unavailable
from radlens.node.loops import Searching, Wake
from radlens.node.multipart import PartWriter
from radlens.node.overview import summary
from radlens.node.queue import Delivery
from radlens.node.settings import Source, Web
from radlens.node.web import WebSender, WebSource
from radlens.wire import related

WEB = Web("http://pacs/dicom-web")


def transport(answer):
    """Return a transport that answers a request by a function."""
    return httpx.MockTransport(answer)


def element(value: Any) -> dict[str, Any]:
    """Return an element of the DICOM JSON model."""
    return {"vr": "UI", "Value": [value]}


class Archive:
    """A DICOMweb service that holds images, one a series.

    Attributes:
        asked: addresses of the requests.
        knows_offset: whether it skips what was given before.
    """

    def __init__(self, numbers, knows_offset=True):
        self.images = {str(image(n).SOPInstanceUID): image(n) for n in numbers}
        self.asked: list[httpx.URL] = []
        self.knows_offset = knows_offset

    def __call__(self, request):
        """Answer a request."""
        self.asked.append(request.url)
        parts = request.url.path.removeprefix("/dicom-web/").split("/")
        offset = int(request.url.params.get("offset", 0)) if self.knows_offset else 0
        if parts == ["series"]:
            found = [
                {"0020000D": element(each.StudyInstanceUID), "0020000E": element(str(i))}
                for i, each in enumerate(self.images.values())
            ]
            return httpx.Response(200, json=found[offset:][:3])
        if parts[-1] == "instances":
            uid = list(self.images)[int(parts[3])]
            return httpx.Response(200, json=[{"00080018": element(uid)}][offset:])
        kind, body = related([encoded(self.images[parts[-1]])])
        return httpx.Response(200, content=body, headers={"Content-Type": kind})


@pytest.mark.parametrize("knows_offset", [True, False])
def test_all_pages_are_searched(knows_offset):
    """A service that gives three results at a time; one that ignores the offset ends the search as well."""
    archive = Archive(range(7), knows_offset)
    found = list(WebSource(WEB, transport(archive)).find("MG", 2))
    assert [each.instance for each in found] == list(archive.images)[: 7 if knows_offset else 3]
    query = archive.asked[0].params
    assert query["Modality"] == "MG"
    assert len(query["StudyDate"]) == 17


@pytest.mark.parametrize(
    ("response", "error", "message"),
    [
        (httpx.Response(503), Unavailable, "answered 503"),
        (httpx.Response(401), Unavailable, "answered 401"),
        (httpx.Response(400), Refused, "answered 400"),
        (httpx.Response(200, content=b"<html>"), Unavailable, "must answer in JSON, got 6 bytes"),
        (httpx.Response(200, json={"a": 1}), Unavailable, "must answer QIDO-RS with a list"),
        (
            httpx.Response(200, json=[{"0020000D": element("../x")}]),
            Unavailable,
            "a UID in 0020000D, got another value",
        ),
    ],
)
def test_answers_to_a_search_that_are_none(response, error, message):
    """An address is made of UIDs alone, and every other answer is named."""
    with pytest.raises(error, match=message):
        list(WebSource(WEB, transport(lambda request: response)).find("MG", 1))


def test_a_service_that_is_away():
    """No connection, and one that breaks, are held."""
    with pytest.raises(Unavailable, match="cannot be reached"):
        WebSource(Web("http://127.0.0.1:1")).check()

    def breaking(request):
        raise httpx.ReadError("broken")

    with pytest.raises(Unavailable, match="did not answer in full: ReadError"):
        WebSource(WEB, transport(breaking)).check()


def test_credentials(tmp_path):
    """A bearer token from a file, or a user with a password from a file."""
    (tmp_path / "token").write_text("t0ken\n")
    seen = []

    def answer(request):
        seen.append(request.headers["Authorization"])
        return httpx.Response(200, json=[])

    WebSource(Web("http://pacs", token_file=tmp_path / "token"), transport(answer)).check()
    WebSource(Web("http://pacs", user="u", password_file=tmp_path / "token"), transport(answer)).check()
    assert seen == ["Bearer t0ken", f"Basic {_base64('u:t0ken')}"]
    with pytest.raises(Unavailable, match="must hold a token, got FileNotFoundError"):
        WebSource(Web("http://pacs", token_file=tmp_path / "none")).check()


def _base64(text):
    import base64

    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_a_part_arrives_in_any_pieces(size):
    """Also where a piece ends within the boundary; what follows the first part is not written."""
    content = encoded(image(1)) + b"\r\n--"
    kind, body = related([content, b"second"])
    stream = io.BytesIO()
    writer = PartWriter(kind, stream, len(content))
    for start in range(0, len(body), size):
        writer.feed(body[start : start + size])
    writer.close()
    assert stream.getvalue() == content


def test_parts_that_are_none():
    """Another type, a body that breaks off, one without parts, and one that is too large."""
    kind, body = related([bytes(1000)])
    with pytest.raises(Refused, match="multipart/related with a boundary, got another type"):
        PartWriter("application/json", io.BytesIO(), 10)
    broken = PartWriter(kind, io.BytesIO(), 1000)
    broken.feed(body[:500])
    with pytest.raises(Unavailable, match="got a body that broke off"):
        broken.close()
    with pytest.raises(Refused, match="must answer WADO-RS with parts, got a body without"):
        PartWriter(kind, io.BytesIO(), 10**6).feed(bytes(70_000))
    with pytest.raises(Refused, match="must have at most 999 bytes, got more"):
        PartWriter(kind, io.BytesIO(), 999).feed(body)


def searching(node, archive):
    """Return the search of a node in an archive."""
    source = Source("archive", WEB, ("MG",), 1, 1)
    web = WebSource(WEB, transport(archive))
    return Searching(node.queue, node.settings, Wake(), source, web, node._accept, node._room)


def test_each_found_image_is_fetched_once(tmp_path):
    """What a rule wants is accepted, and neither that nor the rest is fetched again."""
    node = Node(settings_in(tmp_path), lambda: answering)
    archive = Archive(range(3))
    list(archive.images.values())[2].Modality = "US"
    searching(node, archive)._search()
    assert summary(node.queue)["counts"] == {"accepted": 2, "unwanted": 1}
    archive.asked.clear()
    searching(node, archive)._search()
    assert not [each for each in archive.asked if each.path.split("/")[-2] == "instances"]
    kept = [read_header(file).sop_instance_uid for file in node.queue.folder.images.iterdir()]
    assert sorted(kept) == sorted(list(archive.images)[:2])
    assert not list(node.queue.folder.incoming.iterdir())
    node.stop()


def test_own_results_are_not_fetched(tmp_path):
    """By their UID, so that they need not be fetched to be known."""
    node = Node(settings_in(tmp_path), lambda: answering)
    archive = Archive([1])
    searching(node, archive)._search()
    task = node.queue.next_task(())
    result = new_object(result_of(task.file.read_bytes()))
    node.queue.computed(task.id, [result], ["pacs"])
    archive.images = {result.uid: image(2)}
    archive.asked.clear()
    searching(node, archive)._search()
    assert len([each for each in archive.asked if "/instances/" in each.path]) == 0
    node.stop()


def test_a_short_disk_ends_the_search(tmp_path, monkeypatch):
    """Nothing is fetched that could not be kept."""
    node = Node(settings_in(tmp_path), lambda: answering)
    monkeypatch.setattr(type(node.queue.folder), "free_mb", lambda folder: 1)
    with pytest.raises(Unavailable, match="disk is short"):
        searching(node, Archive([1]))._search()
    node.stop()


def test_what_cannot_be_read_is_refused_once(tmp_path):
    """An answer that is no DICOM file is counted, and not fetched again."""
    node = Node(settings_in(tmp_path), lambda: answering)
    archive = Archive([1])

    def answer(request):
        response = archive(request)
        if "/instances/" in request.url.path:
            kind, body = related([b"no DICOM"])
            return httpx.Response(200, content=body, headers={"Content-Type": kind})
        return response

    for _ in range(2):
        searching(node, answer)._search()
    assert summary(node.queue)["counts"] == {"refused": 1}
    node.stop()


def stored(answer, tmp_path):
    """Send one object to a service, and return what was reported."""
    file = tmp_path / "result.dcm"
    file.write_bytes(result_of(encoded(image(1))))
    delivery = Delivery(1, new_object(file.read_bytes()).uid, CAPTURE, file, 0, 0, 0.0)
    reports = []
    sender = WebSender(WEB, is_stopping=lambda: False, transport=transport(answer))
    sender.store([delivery], lambda each, error: reports.append((each.id, error and str(error))))
    return reports


def stow(uid, *, reason=None, status=200):
    """Return an answer to STOW-RS."""
    item = {"00081150": element(CAPTURE), "00081155": element(uid)}
    if reason is not None:
        item["00081197"] = {"vr": "US", "Value": [reason]}
    tag = "00081199" if reason is None else "00081198"
    return httpx.Response(status, json={tag: {"vr": "SQ", "Value": [item]}})


def test_results_are_sent_as_they_are(tmp_path):
    """As one part of multipart/related, whose content is the file."""
    bodies = []

    def answer(request):
        bodies.append(request)
        return stow(new_object(result_of(encoded(image(1)))).uid)

    assert stored(answer, tmp_path) == [(1, None)]
    (request,) = bodies
    stream = io.BytesIO()
    writer = PartWriter(request.headers["Content-Type"], stream, 10**6)
    writer.feed(request.content)
    writer.close()
    assert stream.getvalue() == (tmp_path / "result.dcm").read_bytes()
    assert 'type="application/dicom"' in request.headers["Content-Type"]


@pytest.mark.parametrize(
    ("reason", "status", "expected"),
    [
        (0x0111, 409, [(1, None)]),
        (0xC000, 409, [(1, "refused with status C000H")]),
        (0x0122, 409, [(1, "refused with status 0122H")]),
        (0xA700, 409, "out of resources"),
        (0x0110, 202, "out of resources"),
        (0x0124, 409, "not authorized"),
    ],
)
def test_reasons_of_failure(tmp_path, reason, status, expected):
    """They mean what the statuses of C-STORE mean: stored before, refused, or held."""
    uid = new_object(result_of(encoded(image(1)))).uid

    def answer(request):
        return stow(uid, reason=reason, status=status)

    if isinstance(expected, str):
        with pytest.raises(Unavailable, match=expected):
            stored(answer, tmp_path)
    else:
        assert stored(answer, tmp_path) == expected


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_a_service_that_cannot_now(tmp_path, status):
    """Credentials, load and its own failures say nothing of the object: held."""
    with pytest.raises(Unavailable, match=f"answered {status}"):
        stored(lambda request: httpx.Response(status), tmp_path)


def test_a_service_that_refuses(tmp_path):
    """Other statuses refuse the object."""
    assert stored(lambda request: httpx.Response(415), tmp_path) == [(1, "answered 415")]


def test_an_answer_without_a_word_on_the_object(tmp_path):
    """Success of another object is not success of this one."""
    with pytest.raises(Unavailable, match="without a word on the object"):
        stored(lambda request: stow("1.2.3", status=202), tmp_path)


def test_json_is_what_the_standard_says():
    """The answer of the test is the example's form: PS3.18 F.2."""
    assert json.loads(stow("1.2").content) == {
        "00081199": {"vr": "SQ", "Value": [{"00081150": element(CAPTURE), "00081155": element("1.2")}]}
    }


def test_the_loop_searches_and_rests(tmp_path):
    """A source that fails rests with its reason, and is searched again."""
    node, answers, pacs = Node(settings_in(tmp_path), lambda: answering), [], Pacs()
    archive = Archive([1])

    def answer(request):
        answers.append(1)
        return httpx.Response(500) if len(answers) < 3 else archive(request)

    search = searching(node, answer)
    import threading

    thread = threading.Thread(target=search.run)
    thread.start()
    wait_until(lambda: node.queue.length() == 1)
    search._wake.stop()
    thread.join()
    assert len(pacs.got) == 0
    node.stop()
