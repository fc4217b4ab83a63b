"""The server is asked over HTTP, and what its failures mean for an image."""

import httpx
import pytest
from fake_server import fake_server
from node_parts import encoded, image

from radlens.node.asking import Server, read_token
from radlens.node.lanes import Refused, Unavailable
from radlens.node.rules import Conditions, Rule
from radlens.node.settings import ServerSettings

RULE = Rule(
    "r", Conditions(), "cdmam", "1.0", "predictions", ("capture", "report"), ("pacs",), {"n_samples": "5", "seed": "3"}
)


@pytest.fixture
def server():
    """A server that answers with one object."""
    with fake_server() as started:
        yield started


def ask(server, rule=RULE, **settings):
    """Ask a server about an image."""
    asking = Server(ServerSettings(server.url, **settings))
    try:
        return asking(rule, encoded(image(1)))
    finally:
        asking.close()


def test_what_a_rule_says_is_asked(server, tmp_path):
    """Model, version, kind, objects, parameters and token arrive as they must."""
    (tmp_path / "token").write_text("t0ken\n")
    (found,) = ask(server, token_file=tmp_path / "token")
    (asked,) = server.asked
    assert asked["path"] == "/predictions/cdmam/1.0"
    assert (asked["x-radlens-objects"], asked["x-radlens-n-samples"]) == ("capture,report", "5")
    assert (asked["x-radlens-seed"], asked["authorization"]) == ("3", "Bearer t0ken")
    assert found.uid.encode() in found.content


@pytest.mark.parametrize("status", [401, 403, 404, 429, 502, 503, 504])
def test_what_says_nothing_of_the_image_is_held(server, status):
    """Keys, load, a missing model, and a gateway without a server."""
    server.status = status
    with pytest.raises(Unavailable) as held:
        ask(server)
    assert held.value.is_general is (status != 404)


@pytest.mark.parametrize(("status", "is_final"), [(400, True), (413, True), (422, True), (500, False), (507, False)])
def test_what_says_something_of_the_image_is_refused(server, status, is_final):
    """Invalid ones for ever, those at which the server fails after some tries."""
    server.status = status
    with pytest.raises(Refused, match="asked to fail") as refused:
        ask(server)
    assert refused.value.is_final is is_final


def test_a_server_that_is_away_is_held():
    """No connection says nothing of the image."""
    asking = Server(ServerSettings("http://127.0.0.1:1"))
    with pytest.raises(Unavailable, match="got no connection"):
        asking(RULE, b"")
    asking.close()


def test_a_server_that_takes_too_long_refuses(server):
    """An image that takes longer than the time-out is tried a few times, and does not stop the others."""
    server.longest_s = 0.0

    def slow(request):
        raise httpx.ReadTimeout("slow")

    asking = Server(ServerSettings(server.url))
    client = asking._client("cdmam")
    client._http = httpx.Client(transport=httpx.MockTransport(slow))
    with pytest.raises(Refused, match="ReadTimeout") as refused:
        asking(RULE, b"")
    assert not refused.value.is_final
    asking.close()


def test_answers_that_are_no_objects_are_refused(server, monkeypatch):
    """Bytes that are not DICOM files are not kept."""
    monkeypatch.setattr("fake_server.result_of", lambda content, is_new: b"no DICOM")
    with pytest.raises(Refused, match="must answer with DICOM files, got 8 other bytes"):
        ask(server)


def test_a_new_token_is_used(server, tmp_path):
    """TorchServe's keys expire: the file is read for each image, also as key_file.json."""
    file = tmp_path / "key_file.json"
    asking = Server(ServerSettings(server.url, token_file=file))
    for key in ("one", "two"):
        file.write_text(f'{{"inference": {{"key": "{key}"}}}}')
        asking(RULE, encoded(image(1)))
    asking.close()
    assert [each["authorization"] for each in server.asked] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize("text", ["", "{}", "{", "t\nwo", '{"inference": {"key": 3}}'])
def test_files_without_a_token(tmp_path, text):
    """They hold all tasks, since a person can mend them."""
    (tmp_path / "token").write_text(text)
    with pytest.raises(Unavailable, match="must hold a token"):
        read_token(tmp_path / "token")
