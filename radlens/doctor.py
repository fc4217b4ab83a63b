"""Checks whether this machine can serve, with a remedy for each problem.

Each check is a function from observations to findings; `examine` makes the observations. The module needs the core of
radlens alone, and changes nothing.
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
"""Result of a check; ``wrong`` is present, but harmful or unusable."""

LEAST_PYTHON = (3, 11)
"""Oldest Python that radlens runs with."""

LEAST_JAVA = 11
"""Oldest Java that TorchServe 0.12 runs with."""

WORKER_BYTES = 512 * 2**20
"""Memory of a worker without its model, bytes."""

LEAST_DISK = 2**30
"""Free bytes that a disk needs for unpacked archives, logs and compiled graphs."""

_NEEDED_EXTRAS, _OTHER_EXTRAS = ("explain", "serve"), ("train", "report", "cluster", "load")
_CALL_TIMEOUT_S = 30.0
_GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        check: Name of the check.
        status: Result of the check.
        found: Observation behind the result.
        remedy: Remedy of a problem; empty without one.
        is_needed: Whether a server needs the checked item.
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
        """Estimated memory of the workers in bytes; each has its own copy of the model."""
        return self.n_workers * (WORKER_BYTES + self.n_bytes)


def is_ready(findings: Sequence[Finding]) -> bool:
    """Return whether every check that a server needs is good."""
    return all(each.status == "good" for each in findings if each.is_needed)


def python_finding(version: tuple[int, ...]) -> Finding:
    """Check the version of Python."""
    found = ".".join(map(str, version[:3]))
    if version[:2] >= LEAST_PYTHON:
        return Finding("Python", "good", found, is_needed=True)
    least = ".".join(map(str, LEAST_PYTHON))
    return Finding("Python", "wrong", found, f"install Python {least} or newer and radlens with it", is_needed=True)


def radlens_finding(code: str, installed: str | None) -> Finding:
    """Compare the version of the running code with that of the installed package.

    Args:
        code: Version of the running code.
        installed: Version of the installed package; None if radlens runs from a folder.
    """
    if installed is None:
        return Finding("radlens", "good", f"{code}, not installed by pip", is_needed=True)
    if installed == code:
        return Finding("radlens", "good", code, is_needed=True)
    remedy = "install radlens again: make install"
    return Finding("radlens", "wrong", f"{code}, but pip installed {installed}", remedy, is_needed=True)


def extra_finding(extra: str, installed: Mapping[str, str], *, is_needed: bool = False) -> Finding:
    """Check for the packages of an extra.

    Args:
        extra: Name of the extra.
        installed: Version of each installed package, by the name that `normal` returns.
        is_needed: Whether a server needs the extra.
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
    """Check for the extra ``cpu`` or ``gpu``, depending on the machine.

    The packages of ONNX Runtime for CPUs and for GPUs overwrite each other's files, so installing both is wrong.
    """
    for_cpu, for_gpu = (name in installed for name in ("onnxruntime", "onnxruntime-gpu"))
    wanted = extra_finding("gpu" if has_gpu or for_gpu else "cpu", installed)
    if for_cpu and for_gpu:
        found = "onnxruntime and onnxruntime-gpu, one of which overwrote the other"
        remedy = f"pip uninstall --yes onnxruntime onnxruntime-gpu, then {install('gpu' if has_gpu else 'cpu')}"
        return Finding("extras cpu and gpu", "wrong", found, remedy, is_needed=True)
    if for_cpu and has_gpu:
        remedy = f"pip uninstall --yes onnxruntime, then {install('gpu')}"
        return Finding(wanted.check, "missing", "onnxruntime is the package for CPUs", remedy)
    return wanted


def engine_findings(opened: Mapping[str, str | None]) -> list[Finding]:
    """Check the engines, of which a server needs one.

    Args:
        opened: Reason why an engine cannot compute on this machine, by name; None if it computed a small graph.
    """
    good = [name for name, reason in opened.items() if reason is None]
    if good:
        first = Finding("engines", "good", ", ".join(good), is_needed=True)
    else:
        found = "no engine can compute on this machine"
        first = Finding("engines", "missing", found, install("explain", "cpu"), is_needed=True)
    refused = [(name, reason) for name, reason in opened.items() if reason is not None]
    return [first, *(Finding(f"engine {name}", "missing", reason) for name, reason in refused)]


def java_finding(home: Path | None, printed: str) -> Finding:
    """Check the Java runtime that a server would start.

    Args:
        home: Directory of the runtime; None if there is no runtime.
        printed: Output of ``java -version``.
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
    """Check the ports of a server.

    Args:
        users: Process that listens on each port; None for a free port.
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


def archives_finding(archives: Sequence[Stored], store: Path, damaged: Sequence[str] = ()) -> Finding:
    """Check for models that a server would start.

    Args:
        archives: Those models.
        store: Model store.
        damaged: Names of archives in the store that cannot be read, where they keep a server from starting.
    """
    check = "models"
    if damaged:
        remedy = "export it again, move it away, or name what to serve: radlens serve --model NAME=ARCHIVE"
        return Finding(check, "wrong", f"{', '.join(damaged)} in {store} cannot be read", remedy, is_needed=True)
    if archives:
        return Finding(check, "good", ", ".join(each.name for each in archives), is_needed=True)
    remedy = "radlens export RUN makes an archive; radlens demo exports and serves the demo model"
    return Finding(check, "missing", f"no archive in {store}", remedy, is_needed=True)


def memory_finding(available: int, archives: Sequence[Stored]) -> Finding:
    """Compare the free memory with the estimated memory of the workers of all models.

    Args:
        available: Free memory in bytes.
        archives: Models that a server would start.
    """
    needed = sum(each.memory for each in archives) or WORKER_BYTES
    found = f"{_size(available)} free, about {_size(needed)} needed"
    if available >= needed:
        return Finding("memory", "good", found, is_needed=True)
    remedy = "free memory, or start fewer models: radlens serve --model NAME=ARCHIVE"
    return Finding("memory", "wrong", found, remedy, is_needed=True)


def disk_finding(use: str, folder: Path, free: int) -> Finding:
    """Check the disk of a folder.

    Args:
        use: Use of the folder, for the name of the check.
        folder: The folder, which may be missing.
        free: Free bytes of its disk.
    """
    check, found = f"disk of {use}", f"{_size(free)} free at {folder}"
    if free >= LEAST_DISK:
        return Finding(check, "good", found, is_needed=True)
    return Finding(check, "wrong", found, f"free {_size(LEAST_DISK)} there, or use another folder", is_needed=True)


def cache_finding(folder: Path) -> Finding:
    """Check that the cache folder can be written; without it, every start measures the engines again."""
    there = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            return Finding("cache", "good", str(folder))
    except OSError:
        remedy = f"make it writable, or set {CACHE_VARIABLE} to a writable folder"
        return Finding("cache", "wrong", f"{folder} cannot be written", remedy)


def gpu_finding(printed: str | None) -> Finding:
    """Check the GPUs that ``nvidia-smi`` lists.

    Args:
        printed: Output of ``nvidia-smi``, one line per GPU; None if it is not installed or fails.
    """
    if printed is None:
        return Finding("GPU", "missing", "no NVIDIA GPU, or no driver", "if there is one, install NVIDIA's driver")
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    if lines:
        return Finding("GPU", "good", "; ".join(lines))
    return Finding("GPU", "wrong", "the driver finds no GPU", "read the output of nvidia-smi")


def tensorrt_finding(installed: Mapping[str, str], *, has_gpu: bool) -> Finding:
    """Check for TensorRT, the fastest engine on GPUs."""
    names = ("tensorrt", "tensorrt-rtx-cu13")
    found = [f"{name} {installed[name]}" for name in names if name in installed]
    if found:
        return Finding("TensorRT", "good", ", ".join(found) + ("" if has_gpu else ", unused without a GPU"))
    if not has_gpu:
        return Finding("TensorRT", "missing", "not installed, and useless without a GPU")
    return Finding("TensorRT", "missing", "not installed", f"{install('gpu')}, or 'radlens[rtx]' on a workstation")


def normal(name: str) -> str:
    """Return the normalised name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def examine(
    config: Path, store: Path, workdir: Path, archives: Sequence[Stored], damaged: Sequence[str] = ()
) -> list[Finding]:
    """Run every check on this machine.

    Args:
        config: File ``config.properties`` of the server.
        store: Model store.
        workdir: Working directory of the server.
        archives: Models that a server would start.
        damaged: Archives that keep it from starting, see `archives_finding`.
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
        archives_finding(archives, store, damaged),
        memory_finding(available_memory(), archives),
        *(disk_finding(use, each, shutil.disk_usage(_nearest(each)).free) for use, each in folders.items()),
        cache_finding(cache_folder()),
        gpu,
        runtime_finding(installed, has_gpu=has_gpu),
        tensorrt_finding(installed, has_gpu=has_gpu),
        *(extra_finding(extra, installed) for extra in _OTHER_EXTRAS),
    ]


def opened_engines() -> dict[str, str | None]:
    """Compute a small graph with each engine; return the reason of a failure by name of the engine, or None.

    For engines that compute gradients alone, only their runtime is checked. Empty without the extra ``explain``.
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
    """Return the free memory in bytes; the limit of a container counts if the extra ``explain`` is installed."""
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
    """Return the process that listens on a port; root alone sees the processes of other users."""
    with suppress(psutil.Error):
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port and each.pid is not None:
                return f"{psutil.Process(each.pid).name()} (process {each.pid})"
    return "a process of another user"


def _printed(command: Sequence[str]) -> str | None:
    """Return the output of a command, both streams; None if it is not installed or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CALL_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout + done.stderr


def _nearest(folder: Path) -> Path:
    """Return ``folder`` or its nearest existing parent."""
    folder = folder.absolute()
    return next(each for each in (folder, *folder.parents) if each.exists())


def _size(n_bytes: int) -> str:
    return f"{n_bytes / _GIB:.1f} GB"
