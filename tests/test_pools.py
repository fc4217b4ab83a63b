"""Processes that share work."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from radlens.pools import process_pool

_WITH_POOL = """
import os, time
from radlens.pools import process_pool

if __name__ == "__main__":
    with process_pool(2) as pool:
        tasks = [pool.submit(time.sleep, 600) for _ in range(2)]
        print(os.getpid(), *pool._processes, flush=True)
        tasks[0].result()
"""

_known = []


def _learn(*values):
    _known.extend(values)


def _recall(_number):
    return list(_known)


def test_each_process_starts_with_what_it_is_given():
    """The function is called once, before the first task."""
    with process_pool(1, _learn, "a", 2) as pool:
        assert list(pool.map(_recall, range(2))) == [["a", 2], ["a", 2]]
    with process_pool(1) as pool:
        assert list(pool.map(abs, [-1, 2])) == [1, 2]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(tmp_path, how):
    """Also when it is killed in the middle of a task, and cannot tell them."""
    script = tmp_path / "with_pool.py"
    script.write_text(_WITH_POOL)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        parent, *workers = map(int, process.stdout.readline().split())
        assert len(workers) == 2
        deadline = time.monotonic() + 60
        # A worker looks after its parent as soon as it runs.
        while any(len(psutil.Process(worker).threads()) < 2 for worker in workers) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(parent, how)
    while any(psutil.pid_exists(worker) for worker in workers):
        assert time.monotonic() < deadline, "workers go on without their parent"
        time.sleep(0.1)
