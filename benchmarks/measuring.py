"""Common parts of the benchmarks: description of the machine, its floors, a process per candidate, tables and files.

Each candidate runs in a separate process, so that its peak memory is measured alone. Candidates alternate over several
rounds, and the fastest time of each counts, because other work on the machine can only add time.
"""

import json
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

PACKAGES = ("torch", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx-cu13", "llvmlite")
"""Packages whose version affects the times."""


def machine() -> dict[str, Any]:
    """Return the description of the machine: hardware, system, package versions and date."""
    memory = psutil.virtual_memory().total / 2**30
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "gpu": _gpu_name(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "radlens": _version("radlens"),
        "date": datetime.now(UTC).date().isoformat(),
    }


def machine_line(described: Mapping[str, Any]) -> str:
    """Return the description of a machine as one line for the title of a table."""
    parts = [described["cpu"], f"{described['cores']} cores", f"{described['memory_gib']} GiB"]
    return ", ".join([*parts, *([described["gpu"]] if described["gpu"] else []), described["date"]])


def floors() -> dict[str, float]:
    """Measure the limits of the machine: ``gflops`` of float32 arithmetic and ``gb_per_s`` of copied memory."""
    import torch

    side, n_bytes = 2048, 2**28
    a, b = torch.randn(side, side), torch.randn(side, side)
    source, target = torch.zeros(n_bytes, dtype=torch.uint8), torch.ones(n_bytes, dtype=torch.uint8)
    arithmetic = fastest(lambda: a @ b, seconds=2)
    copying = fastest(lambda: target.copy_(source), seconds=1)
    return {"gflops": 2 * side**3 / arithmetic / 1e9, "gb_per_s": 2 * n_bytes / copying / 1e9}


def fastest(run: Callable[[], object], *, seconds: float, at_least: int = 2) -> float:
    """Return the shortest time of a call in seconds, after one warm-up call."""
    run()
    best, end, calls = float("inf"), time.perf_counter() + seconds, 0
    while calls < at_least or time.perf_counter() < end:
        started = time.perf_counter()
        run()
        best, calls = min(best, time.perf_counter() - started), calls + 1
    return best


class PeakMemory:
    """Peak resident memory of this process in MiB, since the last :meth:`reset` if Linux supports it."""

    def reset(self) -> None:
        """Forget the peak so far."""
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # some containers forbid it; the peak is then that of the whole process
            return

    def mib(self) -> float:
        """Return the peak in MiB."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``work(*arguments)``, computed in a new process; an exception becomes ``{"error": text}``."""
    # A forked process would inherit the memory of this one.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work, arguments))
    process.start()
    sender.close()  # otherwise recv would wait forever for a process that was killed
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        return {"error": f"process ended with {process.exitcode}"}
    finally:
        process.join()


def _send(sender: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        result = work(*arguments)
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    sender.send(result)


def merged(rounds: Iterable[Sequence[Mapping[str, Any]]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Merge rounds: rows with equal ``keys`` get the shortest ``ms`` and the highest ``peak_mib``."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in (row for rows in rounds for row in rows):
        key = tuple(row[name] for name in keys)
        known = best.setdefault(key, dict(row))
        known["ms"] = min(known["ms"], row["ms"])
        known["peak_mib"] = max(known["peak_mib"], row["peak_mib"])
    return list(best.values())


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    Console(width=max(120, Console().width)).print(table)


def save(path: Path, results: Mapping[str, Any]) -> None:
    """Write results as JSON and print the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, default=_plain) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"results must be plain values, got {type(value).__name__}")


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
