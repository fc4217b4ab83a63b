"""Work whose client has left: never started, ended between two steps, and nothing of it for those who share a batch."""

import json
from dataclasses import dataclass

import pytest
import torch

from radlens.errors import Abandoned
from radlens.explainers.work import Ask, complete
from radlens.service import BatchService, Request, Response, request_from_http
from radlens.waiting import require_waiting, while_waited_for


@dataclass(frozen=True, eq=False)
class Row:
    """A row of a batch."""

    request: Request


class Counting(BatchService):
    """A service whose rows are requests, and whose work has as many steps as it is told."""

    engine = None

    def __init__(self, n_steps: int) -> None:
        self.n_steps, self.steps, self.batches = n_steps, 0, []

    def _open(self, request):
        return Row(request)

    def _work(self, rows):
        for kind in ("predict", "explain"):
            if alike := [row for row in rows if row.request.kind == kind]:
                yield self._compute, self._encode_row, alike

    def _compute(self, rows):
        self.batches.append(len(rows))
        for _ in range(self.n_steps):
            require_waiting()
            self.steps += 1
        return [b"done"] * len(rows)

    def _encode_row(self, row, result, context):
        if row.request.accept != "stream":
            return Response(200, "text/plain", result)

        def stream(emit):
            for _ in range(self.n_steps):
                require_waiting()
                emit(b"step")

        return Response(200, "text/plain", stream=stream)

    def _context(self, row):
        return None


def request(is_waited_for=lambda: True, kind="explain", **fields):
    """Return a request."""
    return Request(kind=kind, body=b"", is_waited_for=is_waited_for, **fields)


def after(n_looks: int):
    """Return what says that a client waits until it has been asked ``n_looks`` times."""
    looks = iter(range(n_looks))
    return lambda: next(looks, None) is not None


def test_work_ends_between_two_steps():
    """As soon as nobody waits."""
    service = Counting(1000)
    (response,) = service.respond([request(after(12), request_id="r")])
    assert (response.status, json.loads(response.body)["type"]) == (504, "Abandoned")
    assert json.loads(response.body)["request_id"] == "r"
    assert 5 <= service.steps <= 12


def test_work_that_nobody_waits_for_is_never_started():
    """Not even its image is read."""
    service = Counting(3)
    (response,) = service.respond([request(lambda: False)])
    assert (response.status, service.batches) == (504, [])


def test_neighbours_of_one_that_left_are_answered():
    """In the same group, and in the group after it."""
    service = Counting(10)
    left, stays, other = service.respond([request(after(1)), request(), request(kind="predict")])
    assert (left.status, stays.status, other.status, service.batches) == (504, 200, 200, [1, 1])
    # Who leaves in the middle of shared work keeps nobody else from the answer.
    service = Counting(10)
    left, stays, other = service.respond([request(after(4)), request(), request(after(4), kind="predict")])
    assert (left.status, stays.status, other.status, service.batches) == (200, 200, 504, [1, 2])


def test_a_stream_ends_between_two_steps():
    """It has begun; its worker goes on with the next one."""
    pieces = []
    (response,) = Counting(100).respond([request(after(150), accept="stream")])
    assert response.stream is not None
    with pytest.raises(Abandoned, match="a client must wait for the answer"):
        response.stream(pieces.append)
    assert 0 < len(pieces) < 100


def test_outside_of_requests_everybody_waits():
    """On the command line there is no client that could leave; a block that ends is over."""
    require_waiting()
    with while_waited_for(lambda: False), pytest.raises(Abandoned):
        require_waiting()
    require_waiting()


def test_methods_ask_between_their_questions():
    """Whatever the method: each round of questions is a step."""
    asked = []

    class Model:
        def answer(self, asks):
            asked.append(len(asks))
            return [(torch.zeros(1),) for _ in asks]

    def work():
        for _ in range(100):
            yield Ask("score", {"images": torch.zeros(1, 1, 2, 2)})

    with while_waited_for(after(7)), pytest.raises(Abandoned):
        complete(Model(), [work(), work()])
    assert asked == [2] * 7


def test_the_front_door_says_who_waits(tmp_path):
    """By a file, whose name it states; a name that leads elsewhere counts for nothing."""
    name = "0123456789abcdef" * 2
    (tmp_path / name).touch()

    def waits(header):
        return request_from_http("explain", b"", {"Radlens-Live": header}, {}, "id", tmp_path).is_waited_for()

    assert waits(name)
    (tmp_path / name).unlink()
    assert not waits(name)
    assert waits(f"../{name}")
    assert request_from_http("explain", b"", {"Radlens-Live": name}, {}, "id").is_waited_for()
    assert request_from_http("explain", b"", {}, {}, "id", tmp_path).is_waited_for()


@pytest.mark.parametrize(("stated", "expected"), [("mine-1", "mine-1"), ("a b", "id"), ("x" * 65, "id"), ("", "id")])
def test_identifiers_of_the_front_door_are_kept(stated, expected):
    """If they are plain: they appear in logs."""
    assert request_from_http("predict", b"", {"X-Request-Id": stated}, {}, "id").request_id == expected
