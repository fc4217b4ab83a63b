"""Whether a client still waits for a computation; long work asks between two steps.

TorchServe does not tell its workers that a client has left. The front door keeps a file for each request that it
forwards, and removes it when the client leaves or its deadline passes. The worker looks for the file between two steps.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from radlens.errors import Abandoned

__all__ = ["LIVE", "MODELS", "SHARED_FOLDER", "require_waiting", "while_waited_for"]

SHARED_FOLDER = "RADLENS_FRONT_DOOR"
"""Environment variable of workers: folder that they share with the front door."""

LIVE, MODELS = "live", "models"
"""Folders in it: a file for each request whose client waits, and a document for each version of a model."""


def _always() -> bool:
    return True


_is_waited_for: ContextVar[Callable[[], bool]] = ContextVar("is_waited_for", default=_always)


@contextmanager
def while_waited_for(is_waited_for: Callable[[], bool]) -> Iterator[None]:
    """Let `require_waiting` raise within the block as soon as ``is_waited_for`` returns False."""
    token = _is_waited_for.set(is_waited_for)
    try:
        yield
    finally:
        _is_waited_for.reset(token)


def require_waiting() -> None:
    """Check that a client waits for the current computation; outside `while_waited_for` it always does.

    Raises:
        Abandoned: The client has left, or its deadline has passed.
    """
    if not _is_waited_for.get()():
        raise Abandoned("a client must wait for the answer, got one that has left or whose deadline has passed")
