"""Processes that share work, and end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

__all__ = ["process_pool"]


def process_pool(n_workers: int, start: Callable[..., object] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """Return a pool of spawned processes; as a context manager it waits for them.

    Spawned, not forked: a fork of a process that runs threads, as torch does, can hang. A worker of a plain pool goes
    on after its parent was killed, and holds its memory; these look after their parent and end.

    Args:
        n_workers: processes, at least 1.
        start: called as ``start(*arguments)`` in each process before its first task; must be picklable.
        arguments: of ``start``.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(n_workers, context, initializer=_begin, initargs=(start, arguments))


def _begin(start: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True, name="end with parent").start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker of a pool was started by a process"
    parent.join()
    os._exit(1)
