"""Back-off: the server, each destination and each source is a lane that rests after a failure."""

from __future__ import annotations

import random
import time

from radlens.errors import RadlensError
from radlens.node.database import Database
from radlens.node.settings import Retry

__all__ = ["Lane", "Refused", "Unavailable", "delay_s"]


class Unavailable(RadlensError):
    """The other side cannot be reached or has no resources now; the step is held.

    Args:
        message: reason for people, without header values.
        is_general: whether other steps would fail as well, so that the lane rests.
    """

    def __init__(self, message: str, *, is_general: bool = True) -> None:
        super().__init__(message)
        self.is_general = is_general


class Refused(RadlensError):
    """The other side works, and refuses this image or object.

    Args:
        message: reason for people, without header values.
        is_final: whether another try cannot help.
    """

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


def delay_s(retry: Retry, failures: int) -> float:
    """Return the seconds until the next try: doubled with each failure, less a random part of up to a half."""
    longest = min(retry.longest_s, retry.first_s * 2.0 ** min(failures - 1, 60))
    return longest * random.uniform(0.5, 1.0)


class Lane:
    """One lane; its state is in the database, so that people see it and a restart does not forget it.

    Args:
        database: database of the queue.
        name: ``server``, ``to NAME`` for a destination, or ``from NAME`` for a source.
        retry: when failed steps are tried again.
    """

    def __init__(self, database: Database, name: str, retry: Retry) -> None:
        self._database, self.name, self._retry = database, name, retry

    def rest_s(self) -> float:
        """Return the seconds for which the lane still rests; 0 if it is open."""
        found = self._database.rows("SELECT until FROM lanes WHERE name = ?", self.name)
        rest = found[0]["until"] - time.time() if found else 0.0
        # No rest is longer, unless the clock was set back since it began.
        return rest if 0 < rest <= self._retry.longest_s else 0.0

    def failed(self, error: str) -> float:
        """Let the lane rest, and return until when, in seconds since 1970."""
        now = time.time()
        with self._database.transaction() as run:
            row = run("SELECT * FROM lanes WHERE name = ?", (self.name,)).fetchone()
            failures, since = (row["failures"] + 1, row["since"]) if row else (1, now)
            until = now + delay_s(self._retry, failures)
            run("INSERT OR REPLACE INTO lanes VALUES (?, ?, ?, ?, ?)", (self.name, failures, since, until, error))
        return until

    def worked(self) -> None:
        """Open the lane."""
        if self._database.rows("SELECT 1 FROM lanes WHERE name = ?", self.name):
            with self._database.transaction() as run:
                run("DELETE FROM lanes WHERE name = ?", (self.name,))

    def next_try(self, attempts: int, since: float) -> float | None:
        """Return when a step that has failed ``attempts`` times before is tried again; None to give it up.

        Args:
            attempts: number of failures before this one.
            since: when the step could first be done, in seconds since 1970.
        """
        now = time.time()
        if now - since > 3600 * self._retry.give_up_hours:
            return None
        return now + delay_s(self._retry, attempts + 1)

    def next_try_after_refusal(self, refusals: int, is_final: bool) -> float | None:
        """Return when a step that was refused ``refusals`` times before is tried again; None to give it up."""
        if is_final or refusals + 1 >= self._retry.refusals:
            return None
        return time.time() + delay_s(self._retry, refusals + 1)
