"""Process pools whose workers end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["mapped", "process_pool"]

T = TypeVar("T")


def process_pool(n_workers: int, start: Callable[..., object] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """Return a pool of spawned processes; as a context manager it waits for them.

    Workers of an ordinary pool continue to run, and to hold memory, after their parent was killed. Workers of this pool
    monitor their parent and end with it.

    Args:
        n_workers: number of processes, at least 1.
        start: function that is called as ``start(*arguments)`` in each process before its first task; must be
            picklable.
        arguments: arguments of ``start``.
    """
    # Forking a process with threads, such as torch's, can deadlock.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(n_workers, context, initializer=_begin, initargs=(start, arguments))


@contextmanager
def mapped(n_workers: int, chunk: int) -> Iterator[Callable[[Sequence[Callable[[], T]]], Iterable[T]]]:
    """Yield a function that runs jobs and yields their results in order.

    Args:
        n_workers: number of processes; with 1 the jobs run in this process.
        chunk: number of jobs that a process gets at once.
    """
    if n_workers == 1:
        yield lambda jobs: map(_run, jobs)
        return
    with process_pool(n_workers) as pool:
        yield lambda jobs: pool.map(_run, jobs, chunksize=chunk)


def _run(job: Callable[[], T]) -> T:
    return job()


def _begin(start: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True, name="end with parent").start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker of a pool has a parent"
    parent.join()
    # sys.exit would end only this thread.
    os._exit(1)
