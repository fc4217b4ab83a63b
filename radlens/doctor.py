"""Whether this machine can serve: what it has, what is missing, what is wrong, and what to do about it.

Each check is a function of what was observed and returns findings; `examine` observes. Nothing but the core of radlens
is needed, and nothing is changed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

import radlens
from radlens.cache import CACHE_VARIABLE, cache_folder
from radlens.errors import MissingDependency, RadlensError
from radlens.extras import EXTRAS, install
from radlens.server import Ports, State, is_free, java_home

if TYPE_CHECKING:
    from radlens.engines import GraphEngine

__all__ = [
    "Finding",
    "Status",
    "Stored",
    "archives_finding",
    "cache_finding",
    "disk_finding",
    "engine_findings",
    "examine",
    "extra_finding",
    "gpu_finding",
    "is_ready",
    "java_finding",
    "memory_finding",
    "normal",
    "opened_engines",
    "ports_findings",
    "python_finding",
    "radlens_finding",
    "runtime_finding",
    "tensorrt_finding",
]

Status = Literal["good", "missing", "wrong"]
"""``missing``: not there; ``wrong``: there, and it does harm or cannot be used."""

LEAST_PYTHON = (3, 11)
"""Oldest Python that radlens runs with."""

LEAST_JAVA = 11
"""Oldest Java that TorchServe 0.12 runs with."""

WORKER_BYTES = 512 * 2**20
"""Memory of a worker without its model, see `radlens.families.Worker`."""

LEAST_DISK = 2**30
"""Free bytes below which a disk is full: archives are unpacked, and logs and compiled graphs are written."""

_NEEDED_EXTRAS, _OTHER_EXTRAS = ("explain", "serve"), ("train", "report", "cluster", "load")
_CALL_TIMEOUT_S = 30.0
_GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: What was looked at.
        status: Whether it is as it should be.
        found: What is there.
        remedy: What to do; empty where there is nothing to do.
        is_needed: Whether a server needs it.
    """

    check: str
    status: Status
    found: str
    remedy: str = ""
    is_needed: bool = False

    def as_json(self) -> dict[str, object]:
        """Return the attributes as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Stored:
    """An archive of the model store.

    Attributes:
        name: Name and version of the model.
        n_bytes: Size of the archive.
        n_workers: Workers that TorchServe starts for it.
    """

    name: str
    n_bytes: int
    n_workers: int = 1

    @property
    def memory(self) -> int:
        """Estimated bytes that its workers hold: each has its own copy of the model."""
        return self.n_workers * (WORKER_BYTES + self.n_bytes)


def is_ready(findings: Sequence[Finding]) -> bool:
    """Return whether everything that a server needs is as it should be."""
    return all(each.status == "good" for each in findings if each.is_needed)


def python_finding(version: tuple[int, ...]) -> Finding:
    """Judge the version of Python."""
    found = ".".join(map(str, version[:3]))
    if version[:2] >= LEAST_PYTHON:
        return Finding("Python", "good", found, is_needed=True)
    least = ".".join(map(str, LEAST_PYTHON))
    return Finding("Python", "wrong", found, f"install Python {least} or newer and radlens with it", is_needed=True)


def radlens_finding(code: str, installed: str | None) -> Finding:
    """Compare the version of the code that runs with the one that pip knows.

    Args:
        code: Version of the code.
        installed: Version of the installed package; None where radlens runs from a folder.
    """
    if installed is None:
        return Finding("radlens", "good", f"{code}, not installed by pip", is_needed=True)
    if installed == code:
        return Finding("radlens", "good", code, is_needed=True)
    remedy = "install radlens again: make install"
    return Finding("radlens", "wrong", f"{code}, but pip installed {installed}", remedy, is_needed=True)


def extra_finding(extra: str, installed: Mapping[str, str], *, is_needed: bool = False) -> Finding:
    """Look for the packages of an extra.

    Args:
        extra: Name of the extra.
        installed: Version of each installed package, by the name that `normal` gives.
        is_needed: Whether a server needs it.
    """
    names = [package.distribution for package in EXTRAS[extra]]
    there = [f"{name} {installed[normal(name)]}" for name in names if normal(name) in installed]
    absent = [name for name in names if normal(name) not in installed]
    check = f"extra {extra}"
    if not absent:
        return Finding(check, "good", ", ".join(there), is_needed=is_needed)
    found = f"{'all' if not there else ', '.join(absent)} missing"
    return Finding(check, "missing", found, install(extra), is_needed)


def runtime_finding(installed: Mapping[str, str], *, has_gpu: bool) -> Finding:
    """Look for the extra ``cpu`` or ``gpu``, whichever this machine is for.

    ONNX Runtime for CPUs and that for GPUs overwrite each other's files, so both together are wrong.
    """
    for_cpu, for_gpu = (name in installed for name in ("onnxruntime", "onnxruntime-gpu"))
    wanted = extra_finding("gpu" if has_gpu or for_gpu else "cpu", installed)
    if for_cpu and for_gpu:
        found = "onnxruntime and onnxruntime-gpu, one of which overwrote the other"
        remedy = f"pip uninstall --yes onnxruntime onnxruntime-gpu, then {install('gpu' if has_gpu else 'cpu')}"
        return Finding("extras cpu and gpu", "wrong", found, remedy, is_needed=True)
    if for_cpu and has_gpu:
        remedy = f"pip uninstall --yes onnxruntime, then {install('gpu')}"
        return Finding(wanted.check, "missing", "onnxruntime is that for CPUs", remedy)
    return wanted


def engine_findings(opened: Mapping[str, str | None]) -> list[Finding]:
    """Judge the engines; a server needs one of them.

    Args:
        opened: Reason why each engine cannot compute here, by name; None where it computed a small graph.
    """
    good = [name for name, reason in opened.items() if reason is None]
    if good:
        first = Finding("engines", "good", ", ".join(good), is_needed=True)
    else:
        first = Finding("engines", "missing", "none can compute here", install("explain", "cpu"), is_needed=True)
    refused = [(name, reason) for name, reason in opened.items() if reason is not None]
    return [first, *(Finding(f"engine {name}", "missing", reason) for name, reason in refused)]


def java_finding(home: Path | None, printed: str) -> Finding:
    """Judge the Java runtime that a server would start.

    Args:
        home: Its directory; None where there is none.
        printed: What ``java -version`` prints.
    """
    check, remedy = "Java", f"{install('serve')} brings a Java runtime, or install one of version {LEAST_JAVA} or later"
    if home is None:
        return Finding(check, "missing", "no runtime", remedy, is_needed=True)
    stated = re.search(r'version "(\d+)(?:\.(\d+))?', printed)
    if stated is None:
        return Finding(check, "wrong", f"the runtime in {home} does not run", remedy, is_needed=True)
    # Java 8 calls itself 1.8.
    major = int(stated[2] or 0) if stated[1] == "1" else int(stated[1])
    status: Status = "good" if major >= LEAST_JAVA else "wrong"
    return Finding(check, status, f"version {major} in {home}", "" if status == "good" else remedy, is_needed=True)


def ports_findings(users: Mapping[int, str | None], own: frozenset[int] = frozenset()) -> list[Finding]:
    """Judge the ports of a server.

    Args:
        users: Process that listens on each port; None where it is free.
        own: Ports of the server that runs in the working directory.
    """
    check = "ports"
    wrong = [
        Finding(
            f"port {port}",
            "wrong",
            f"taken by {user}",
            "stop that process, or set another port in config.properties",
            is_needed=True,
        )
        for port, user in users.items()
        if user is not None and port not in own
    ]
    free = [str(port) for port, user in users.items() if user is None]
    ours = [str(port) for port, user in users.items() if user is not None and port in own]
    parts = [*([f"{', '.join(free)} free"] if free else []), *([f"{', '.join(ours)} of this server"] if ours else [])]
    return [*([Finding(check, "good", "; ".join(parts), is_needed=True)] if parts else []), *wrong]


def archives_finding(archives: Sequence[Stored], store: Path) -> Finding:
    """Look for models in the model store."""
    check = "models"
    if archives:
        return Finding(check, "good", ", ".join(each.name for each in archives), is_needed=True)
    remedy = "radlens export RUN makes an archive; radlens demo exports and serves the demo model"
    return Finding(check, "missing", f"no archive in {store}", remedy, is_needed=True)


def memory_finding(available: int, archives: Sequence[Stored]) -> Finding:
    """Compare the memory that is free with what the workers of all models hold, an estimate.

    Args:
        available: Bytes that can still be taken.
        archives: Models that a server would start.
    """
    needed = sum(each.memory for each in archives) or WORKER_BYTES
    found = f"{_size(available)} free, about {_size(needed)} needed"
    if available >= needed:
        return Finding("memory", "good", found, is_needed=True)
    remedy = "free memory, or start fewer models: radlens serve --model NAME=ARCHIVE"
    return Finding("memory", "wrong", found, remedy, is_needed=True)


def disk_finding(use: str, folder: Path, free: int) -> Finding:
    """Judge the disk of a folder.

    Args:
        use: What the folder is for.
        folder: The folder, which need not be there.
        free: Free bytes of its disk.
    """
    check, found = f"disk of {use}", f"{_size(free)} free at {folder}"
    if free >= LEAST_DISK:
        return Finding(check, "good", found, is_needed=True)
    return Finding(check, "wrong", found, f"free {_size(LEAST_DISK)} there, or use another folder", is_needed=True)


def cache_finding(folder: Path) -> Finding:
    """Try to write to the cache folder; without one, engines are measured anew at each start."""
    there = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            return Finding("cache", "good", str(folder))
    except OSError:
        remedy = f"make it writable, or set {CACHE_VARIABLE} to a folder that is"
        return Finding("cache", "wrong", f"{folder} cannot be written", remedy)


def gpu_finding(printed: str | None) -> Finding:
    """Judge what ``nvidia-smi`` says.

    Args:
        printed: One line for each GPU; None where it is not installed, or fails.
    """
    if printed is None:
        return Finding("GPU", "missing", "no NVIDIA GPU, or no driver", "if there is one, install NVIDIA's driver")
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    if lines:
        return Finding("GPU", "good", "; ".join(lines))
    return Finding("GPU", "wrong", "the driver finds no GPU", "see what nvidia-smi prints")


def tensorrt_finding(installed: Mapping[str, str], *, has_gpu: bool) -> Finding:
    """Look for TensorRT, which computes fastest on GPUs."""
    names = ("tensorrt", "tensorrt-rtx-cu13")
    found = [f"{name} {installed[name]}" for name in names if name in installed]
    if found:
        return Finding("TensorRT", "good", ", ".join(found) + ("" if has_gpu else ", unused without a GPU"))
    if not has_gpu:
        return Finding("TensorRT", "missing", "not installed, and of no use without a GPU")
    return Finding("TensorRT", "missing", "not installed", f"{install('gpu')}, or 'radlens[rtx]' on a workstation")


def normal(name: str) -> str:
    """Return the name of a package as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def examine(config: Path, store: Path, workdir: Path, archives: Sequence[Stored]) -> list[Finding]:
    """Look at this machine.

    Args:
        config: The ``config.properties`` that a server would be started with.
        store: Model store.
        workdir: Working directory of the server.
        archives: Models that the store holds.
    """
    installed = {normal(each.metadata["Name"]): each.version for each in distributions()}
    gpu = gpu_finding(_printed(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]))
    has_gpu = gpu.status == "good"
    folders = {
        "temporary files": Path(tempfile.gettempdir()),
        "the model store": store,
        "the server": workdir,
        "the cache": cache_folder(),
    }
    return [
        python_finding(sys.version_info[:3]),
        radlens_finding(radlens.__version__, installed.get("radlens")),
        *(extra_finding(extra, installed, is_needed=True) for extra in _NEEDED_EXTRAS),
        _java(),
        *engine_findings(opened_engines()),
        *_ports(config, workdir),
        archives_finding(archives, store),
        memory_finding(available_memory(), archives),
        *(disk_finding(use, each, shutil.disk_usage(_nearest(each)).free) for use, each in folders.items()),
        cache_finding(cache_folder()),
        gpu,
        runtime_finding(installed, has_gpu=has_gpu),
        tensorrt_finding(installed, has_gpu=has_gpu),
        *(extra_finding(extra, installed) for extra in _OTHER_EXTRAS),
    ]


def opened_engines() -> dict[str, str | None]:
    """Let each engine compute a small graph; return by name why it does not, None where it does.

    An engine for gradients alone is only asked whether its runtime is there. Empty without the extra ``explain``.
    """
    try:
        from radlens import engines
    except MissingDependency:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "relu.onnx"
        _write_graph(file)
        return {name: _refusal(engines.engine_class(name), file) for name in engines.names()}


def available_memory() -> int:
    """Return the bytes that can still be taken; limits of a container count where engines are installed."""
    try:
        from radlens.engines import memory
    except MissingDependency:
        return psutil.virtual_memory().available
    return memory.available_memory()


def _refusal(kind: type[GraphEngine], file: Path) -> str | None:
    import numpy as np

    from radlens import engines

    try:
        kind.require()
        if not kind.gradients_only:
            computed = engines.open(file, kind.name).run({"x": np.array([[-1.0, 2.0]], np.float32)})["y"]
            if computed.tolist() != [[0.0, 2.0]]:
                return f"max(x, 0) of -1 and 2 must be 0 and 2, got {computed.tolist()}"
    except RadlensError as error:
        return str(error)
    return None


def _write_graph(file: Path) -> None:
    """Write the graph of max(x, 0)."""
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)


def _java() -> Finding:
    try:
        home = java_home()
    except MissingDependency:
        return java_finding(None, "")
    return java_finding(home, _printed([str(home / "bin" / "java"), "-version"]) or "")


def _ports(config: Path, workdir: Path) -> list[Finding]:
    if not config.is_file():
        remedy = "run radlens in a clone of its repository, or name the file with --config"
        return [Finding("config.properties", "missing", f"no file {config}", remedy, is_needed=True)]
    ports = asdict(Ports.configured(config.read_text())).values()
    state = State.load(workdir)
    own = frozenset() if state is None else frozenset(asdict(state.ports).values())
    return ports_findings({port: None if is_free(port) else _listener(port) for port in ports}, own)


def _listener(port: int) -> str:
    """Return the process that listens on a port; other users' processes are seen by root alone."""
    with suppress(psutil.Error):
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port and each.pid is not None:
                return f"{psutil.Process(each.pid).name()} (process {each.pid})"
    return "a process of another user"


def _printed(command: Sequence[str]) -> str | None:
    """Return what a command prints, both streams; None where it is not installed or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CALL_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout + done.stderr


def _nearest(folder: Path) -> Path:
    """Return ``folder``, or the folder around it that is there; a file stays what it is."""
    folder = folder.absolute()
    return next(each for each in (folder, *folder.parents) if each.exists())


def _size(n_bytes: int) -> str:
    return f"{n_bytes / _GIB:.1f} GB"
