"""Base of all services: one response for each request of a batch.

Rows that can share work are computed together, and a failing row does not affect the responses to the others.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from radlens.engines.base import Refusal
from radlens.service.failures import failed
from radlens.service.messages import Emit, Request, Response
from radlens.waiting import require_waiting, while_waited_for

__all__ = ["BatchService", "Serving", "Work"]

Result = TypeVar("Result")
Work = tuple[Callable[[Sequence[Any]], Sequence[Any]], Callable[[Any, Any, Any], Response], list[Any]]
"""Function that computes rows, function that encodes a row, its result and its context as a response, and the rows."""


class Serving(Protocol):
    """Engine of a service, for metrics."""

    @property
    def name(self) -> str:
        """Name of the engine."""

    @property
    def precision(self) -> str:
        """Precision of its arithmetic."""

    @property
    def refused(self) -> Sequence[Refusal]:
        """Engines that must not compute a graph, with reasons."""


class BatchService(ABC):
    """Answer requests with one model; a row is a validated request.

    Attributes:
        engine: Engine that serves.
    """

    engine: Serving

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """Return one response per request, in their order; never raises, whatever the requests contain.

        A streaming request gets a response whose ``stream`` does the work when it is called. A request for which no
        client waits any more is not started, and ends between two steps; requests that share its batch go on.
        """
        opened = [self._opened(request) for request in requests]
        answers: dict[Any, Response] = {}
        for compute, encode, rows in self._work([row for row in opened if not isinstance(row, Response)]):
            waiting = [row for row in rows if row.request.is_waited_for()]
            # Rows of other clients, who have left since, get the error that computing them alone would raise.
            for group in [waiting, *([row] for row in rows if row not in waiting)]:
                answers |= self._answer(compute, encode, group) if group else {}
        return [row if isinstance(row, Response) else answers[row] for row in opened]

    def stream(self, request: Request, emit: Emit) -> Response:
        """Answer one request with the body in pieces.

        Args:
            request: the request; without streaming the body is a single piece.
            emit: function that receives each piece of the body.

        Returns:
            The response with status and headers.
        """
        (response,) = self.respond([request])
        if response.stream is None:
            emit(response.body)
        else:
            response.stream(emit)
        return response

    @abstractmethod
    def _open(self, request: Request) -> Any:
        """Return the row of a request; raise if the request is invalid."""

    @abstractmethod
    def _work(self, rows: Sequence[Any]) -> Iterator[Work]:
        """Group rows that can be computed together."""

    @abstractmethod
    def _context(self, row: Any) -> Any:
        """Return the information that the response to a row contains besides its result, such as the provenance."""

    def _opened(self, request: Request) -> Any:
        try:
            with while_waited_for(request.is_waited_for):
                require_waiting()
                return self._open(request)
        except Exception as error:  # an exception out of respond would fail the whole batch
            return failed(error, request.request_id)

    def _answer(
        self,
        compute: Callable[[Sequence[Any]], Sequence[Result]],
        encode: Callable[[Any, Result, Any], Response],
        rows: Sequence[Any],
    ) -> dict[Any, Response]:
        try:
            with while_waited_for(lambda: any(row.request.is_waited_for() for row in rows)):
                require_waiting()
                results = compute(rows)
        except Exception as error:
            if len(rows) == 1:
                return {rows[0]: failed(error, rows[0].request.request_id)}
            # One row failed and took the group with it: compute rows one by one, so that only that row fails.
            return {row: self._answer(compute, encode, [row])[row] for row in rows}
        return {row: self._encode(encode, row, result) for row, result in zip(rows, results, strict=True)}

    def _encode(self, encode: Callable[[Any, Result, Any], Response], row: Any, result: Result) -> Response:
        try:
            response = encode(row, result, self._context(row))
        except Exception as error:
            return failed(error, row.request.request_id)
        if response.stream is None:
            return response
        return replace(response, stream=partial(_stream, row.request, response.stream))


def _stream(request: Request, stream: Callable[[Emit], None], emit: Emit) -> None:
    with while_waited_for(request.is_waited_for):
        stream(emit)
