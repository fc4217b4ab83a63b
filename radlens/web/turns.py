"""Turns of explanations: all workers of a model but one may be busy with them, so that predictions find one free."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from radlens.web.refusals import later

__all__ = ["Turns", "most_explanations"]

_MOST_WAITING = 64


def most_explanations(n_workers: int) -> int:
    """Return how many explanations may be at work on ``n_workers``: one less, and one on a single worker."""
    return max(1, n_workers - 1)


class Turns:
    """Explanations that are at work, by model.

    Args:
        wait_s: Largest number of seconds for which one waits.
        retry_s: Seconds after which a client is asked to try again.
    """

    def __init__(self, wait_s: float, retry_s: int) -> None:
        self._wait_s, self._retry_s = wait_s, retry_s
        self._busy: Counter[Hashable] = Counter()
        self._waiting: Counter[Hashable] = Counter()
        self._changed: dict[Hashable, asyncio.Condition] = {}

    @asynccontextmanager
    async def one(self, model: Hashable, most: int) -> AsyncIterator[None]:
        """Hold a turn within the block.

        Args:
            model: What is asked.
            most: Most turns at the same time.

        Raises:
            Refused: No turn has become free in time, or too many explanations wait.
        """
        changed = self._changed.setdefault(model, asyncio.Condition())
        if self._waiting[model] >= _MOST_WAITING:
            raise later(f"at most {_MOST_WAITING} explanations may wait, got one more", self._retry_s)
        self._waiting[model] += 1
        try:
            async with changed, asyncio.timeout(self._wait_s):
                await changed.wait_for(lambda: self._busy[model] < most)
                self._busy[model] += 1
        except TimeoutError:
            message = f"a worker must become free for an explanation within {self._wait_s:g} s, got {most} at work"
            raise later(message, self._retry_s) from None
        finally:
            self._waiting[model] -= 1
        try:
            yield
        finally:
            self._busy[model] -= 1
            async with changed:
                changed.notify_all()
