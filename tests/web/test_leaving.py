"""Clients that leave, deadlines that pass, and explanations that would keep predictions from a worker."""

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest
from front_door_site import KEY, eventually, reply, site, version_of, whole

EXPLAIN = b"POST /explanations/cdmam HTTP/1.1\r\nHost: h\r\nAuthorization: " + KEY["Authorization"].encode() + b"\r\n"


class Works:
    """A worker that works until it is let go, or sees that nobody waits, as real ones do between two steps."""

    def __init__(self, here, *, begins=b"") -> None:
        self.here, self.begins = here, begins
        self.done = threading.Event()
        self.started: list[str] = []
        self.ended: list[str] = []
        self.abandoned: list[str] = []

    async def __call__(self, asked, send):
        """Answer a prediction at once, and an explanation in the end."""
        if asked.path.startswith("/predictions"):
            await whole(asked, send)
            return
        name = asked.headers["radlens-live"]
        self.started.append(name)
        if self.begins:
            headers = [(b"content-type", b"application/x-ndjson"), (b"transfer-encoding", b"chunked")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": self.begins, "more_body": True})
        while not self.done.is_set() and (name in self.here.live or not self.sees):
            await asyncio.sleep(0.01)
        (self.ended if self.done.is_set() else self.abandoned).append(name)
        if self.begins:
            await send({"type": "http.response.body", "body": b'{"event": "result"}\n'})
        else:
            await reply(send, 200, b"{}")

    sees = True


@pytest.fixture
def here(tmp_path):
    """A site with two workers, on which an explanation waits for half a second."""
    with site(tmp_path, turn_s=0.5) as found:
        yield found


def leave(here, path=b"/explanations/cdmam", read=0):
    """Ask for an explanation, and go once it is at work and ``read`` bytes have come."""
    connection = socket.create_connection(("127.0.0.1", here.port), timeout=10)
    connection.sendall(EXPLAIN + b"Content-Length: 3\r\n\r\nabc")
    assert eventually(lambda: len(here.torchserve.answer.started) > len(here.torchserve.answer.abandoned))
    got = b""
    while len(got) < read:
        got += connection.recv(4096)
    connection.close()


@pytest.mark.parametrize("begins", [b"", b'{"event": "progress"}\n'])
def test_work_ends_when_its_client_leaves(here, begins):
    """Before the answer has begun, and in the middle of it; what follows is answered."""
    here.torchserve.answer = works = Works(here, begins=begins)
    for n in (1, 2):
        leave(here, read=len(begins))
        assert eventually(lambda n=n: len(works.abandoned) == n)
        assert here.ask().status_code == 200
    assert works.ended == []
    assert eventually(lambda: here.live == [])


def test_a_turn_lasts_as_long_as_its_worker(here):
    """A worker that does not see that its client left is busy still: the next explanation would take the last one."""
    here.torchserve.answer = works = Works(here)
    works.sees = False
    leave(here)
    answer = here.ask("/explanations/cdmam")
    assert (answer.status_code, len(works.started)) == (503, 1)
    assert answer.json()["message"] == "a worker must become free for an explanation within 0.5 s, got 1 at work"
    works.done.set()
    assert eventually(lambda: here.ask("/explanations/cdmam").status_code == 200)


def test_explanations_leave_a_worker_for_predictions(here):
    """Of two workers one explains; the second explanation waits, and then is asked to come back."""
    here.torchserve.answer = works = Works(here)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(here.ask, "/explanations/cdmam")
        assert eventually(lambda: len(works.started) == 1)
        refused = here.ask("/explanations/cdmam")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert here.ask().status_code == 200
        works.done.set()
        assert first.result().status_code == 200
    assert len(works.started) == 1


@pytest.mark.parametrize(("n_workers", "n_started"), [(1, 1), (3, 2)])
def test_turns_follow_the_number_of_workers(here, n_workers, n_started):
    """One less than there are, and one on a single worker."""
    here.torchserve.models["cdmam"] = [version_of("1.0", ready=n_workers, workers=n_workers)]
    here.torchserve.answer = works = Works(here)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(here.ask, "/explanations/cdmam") for _ in range(4)]
        assert eventually(lambda: sum(each.done() for each in asked) == 4 - n_started)
        works.done.set()
        assert sorted(each.result().status_code for each in asked) == [200] * n_started + [503] * (4 - n_started)


def test_versions_have_turns_of_their_own(here):
    """Each has workers of its own; the default version is the same by name and without one."""
    here.torchserve.models["cdmam"] = [version_of("1.0"), version_of("2.0")]
    here.torchserve.answer = works = Works(here)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(here.ask, path) for path in ("/explanations/cdmam", "/explanations/cdmam/2.0")]
        assert eventually(lambda: len(works.started) == 2)
        assert here.ask("/explanations/cdmam/1.0").status_code == 503
        works.done.set()
        assert [each.result().status_code for each in asked] == [200, 200]


def test_a_deadline_ends_the_work(here):
    """504 for the client, and the worker sees that nobody waits."""
    here.torchserve.answer = works = Works(here)
    answer = here.ask("/explanations/cdmam", X_Radlens_Deadline_S="0.3")
    assert (answer.status_code, answer.json()["type"]) == (504, "DeadlineExceeded")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert eventually(lambda: len(works.abandoned) == 1)
    assert "x-radlens-deadline-s" not in here.torchserve.seen[0].headers


def test_a_deadline_ends_a_stream_with_a_line(here):
    """The status is sent already."""
    here.torchserve.answer = works = Works(here, begins=b'{"event": "progress"}\n')
    answer = here.ask("/explanations/cdmam", X_Radlens_Deadline_S="0.3")
    first, last = (json.loads(line) for line in answer.text.splitlines())
    assert (answer.status_code, first["event"]) == (200, "progress")
    assert (last["event"], last["complete"], last["code"]) == ("error", False, 504)
    assert eventually(lambda: len(works.abandoned) == 1)


def test_a_deadline_counts_while_an_explanation_waits_for_its_turn(here):
    """It is never started."""
    here.torchserve.answer = works = Works(here)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(here.ask, "/explanations/cdmam")
        assert eventually(lambda: len(works.started) == 1)
        assert here.ask("/explanations/cdmam", X_Radlens_Deadline_S="0.1").status_code == 504
        works.done.set()
        assert first.result().status_code == 200
    assert len(works.started) == 1


def test_a_client_that_does_not_read_counts_as_gone(tmp_path):
    """After the stated time; it takes bounded memory until then."""

    async def much(asked, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(400):
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with site(tmp_path, stall_s=0.5) as slow:
        slow.torchserve.answer = much
        with socket.create_connection(("127.0.0.1", slow.port), timeout=10) as connection:
            connection.sendall(EXPLAIN + b"Content-Length: 3\r\n\r\nabc")
            assert eventually(lambda: len(slow.torchserve.seen) == 1)
            assert eventually(lambda: slow.live == [])
            n_bytes = 0
            with suppress(ConnectionError):
                while piece := connection.recv(2**20):
                    n_bytes += len(piece)
            assert n_bytes < 40_000_000


def test_files_of_an_earlier_front_door_are_removed(tmp_path):
    """Its clients have lost their connections: their work ends."""
    folder = tmp_path / "tmp" / "front-door" / "live"
    folder.mkdir(parents=True)
    (folder / ("0" * 32)).touch()
    with site(tmp_path) as later:
        assert later.live == []


def test_a_server_that_stops_leaves_no_file(tmp_path):
    """Work that is left counts as abandoned."""
    with site(tmp_path) as stopping:
        stopping.torchserve.answer = works = Works(stopping)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(stopping.ask, "/explanations/cdmam")
            assert eventually(lambda: len(works.started) == 1)
            works.done.set()
            assert asked.result().status_code == 200
        assert isinstance(httpx.get(stopping.url + "/ping"), httpx.Response)
    assert list((tmp_path / "tmp" / "front-door" / "live").iterdir()) == []
