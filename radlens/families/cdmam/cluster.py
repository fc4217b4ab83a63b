"""Samples of one image explained by the workers of a Ray cluster (Moritz et al., OSDI 2018).

Algorithm 2 of Amanova et al. 2022, section 2.3.2, adds up the maps of many samples, and a sample depends on its number
alone, so workers can explain ranges of samples independently.

- A worker is a Ray actor that holds the model. A task is one batch, a range of samples. Ray restarts a lost worker and
  retries its task; the run fails when a task has lost three workers.
- A task returns the maps of its samples, float32 ``(n, 1, 250, 250)``: 250 kB each, 1.3 GB for 5000 samples. A partial
  map of 7 million pixels would be 56 MB in float64 for any number of samples.
- The driver runs :func:`radlens.explainers.upsample` and adds the maps in the order of their numbers. The result
  therefore equals that of a single process **bit for bit**, whatever the number of workers and of lost workers, if
  every worker computes the same map of a batch: same engine, same kind of processor and, for engines whose sums depend
  on it, same number of threads. Otherwise results agree to within the rounding of the engine. All workers use the same
  engine.
- Workers compute at most two batches each ahead of the driver, so its memory exceeds that of a single process by at
  most ``2 * workers * batch_size * 250 kB``.

Every machine of the cluster needs Ray and the same version of radlens. The bundle travels through Ray's object store
and is unpacked once on each machine, to ``bundles/<bundle hash>`` in the cache folder of radlens. It stays there for
later runs, is verified whenever it is opened, and may be deleted while no run uses it.
"""

import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from inspect import signature
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor

import radlens
from radlens.bundles import MANIFEST
from radlens.engines import memory
from radlens.engines.calibration import cache_folder
from radlens.errors import BundleError, InvalidParameter, MissingDependency, RadlensError, ServerError
from radlens.explainers import Explainer, Goal, UpsampledMap, upsample
from radlens.explainers.upsampling import AUTO
from radlens.families.cdmam.manifest import Bundle
from radlens.families.cdmam.model import BundleEngine, open_bundle
from radlens.images.sampling import downsample

__all__ = ["MAX_TRIES", "Cluster", "open_cluster"]

MAX_TRIES = 3
"""Number of attempts of a task; the run fails when the last one loses its worker."""

_AHEAD = 2
"""Tasks per worker that are queued, running, or finished but not yet added up."""

_OBJECT_STORE_BYTES = 300_000_000
"""Shared memory of a local Ray; an image of 7 million pixels takes 28 MB, a batch of 8 maps 2 MB."""

_MAX_FOLDER = 24
"""Longest path of the folder for temporary files: Ray's socket paths add 80 characters, and unix(7) allows 107."""

_TOKEN = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
"""Token of the local Ray. Ray reads it once per process, so it must not change."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise a call after a lost connection starts another Ray.
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
"""Environment of every Ray, read when Ray is imported."""

_LOCAL_ENVIRONMENT = {
    # With clusters of several machines disabled, Ray listens on the loopback interface alone.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Otherwise Ray writes a token into the user's home folder, which may not exist.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": _TOKEN,
}
"""Environment of a local Ray; the first variable is read when Ray is imported."""

log = logging.getLogger(__name__)


@contextmanager
def open_cluster(
    bundle: Bundle,
    workers: int,
    *,
    address: str | None = None,
    cores: int | None = None,
    gpus: float = 0,
    engine: str = "auto",
    timeout_s: float = 60.0,
) -> Iterator["Cluster"]:
    """Start workers, yield them once the first has opened the model, and stop them at the end, also after an error.

    Without ``address`` a Ray is started on this machine and stopped at the end. It has no dashboard and no usage
    statistics, its own temporary folder and token, and listens on the loopback interface alone. A process that is
    already connected to Ray uses that connection and keeps it open.

    Args:
        bundle: Model; it is sent to the machines of the cluster.
        workers: Number of workers, at least 1; a busy cluster may start fewer at first.
        address: Address of a cluster: ``ray://host:port`` from any machine, with ``ray[client]`` installed, or
            ``host:port`` on a machine of the cluster, where Ray ends this process if the cluster ends. If the cluster
            requires a token, ``RAY_AUTH_TOKEN`` must hold it.
        cores: Number of processor cores of each worker, at least 1; by default an equal share of the cluster's cores.
        gpus: Number of GPUs of each worker, at least 0; below 1 for workers that share a GPU.
        engine: Name of the engine of every worker, as for `open_bundle`; with ``"auto"`` the first worker chooses.
        timeout_s: Seconds within which the address must answer and the first worker must start.

    Raises:
        InvalidParameter: A number is out of range, an address is malformed, or it is given although Ray is connected.
        MissingDependency: Ray is not installed.
        ServerError: Ray cannot be started or reached, no worker could start, or opening the model failed.
        RadlensError: A worker could not open the model; its error is raised here.
    """
    for name, value, least in (("workers", workers, 1), ("cores", cores, 1), ("gpus", gpus, 0)):
        if value is not None and value < least:
            raise InvalidParameter(f"{name} must be at least {least}, got {value}")
    own_cores = workers * (cores or _share([_n_cores()], workers))
    with _connected(address, own_cores, timeout_s) as (ray, is_local):
        cores = cores or _share(
            [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]], workers
        )
        cluster = Cluster(ray, workers, cores, gpus)
        try:
            cluster.open(bundle, engine, timeout_s, is_local=is_local)
            yield cluster
        finally:
            cluster.close()


class Cluster:
    """Workers that hold one model, created by :func:`open_cluster`.

    Attributes:
        replacements: Names of the processes that replaced lost workers.
    """

    def __init__(self, ray: Any, workers: int, cores: int, gpus: float) -> None:
        self._ray, self._engine = ray, "auto"
        self._stated: dict[str, Any] = {}
        self._described = {"ray": ray.__version__, "n": workers, "cores": cores, "gpus": gpus}
        self._workers: list[Any] = []
        self._tasks: dict[Any, Any] = {}
        self._running, self._is_closed = threading.RLock(), False
        self.replacements: set[str] = set()

    def open(self, bundle: Bundle, engine: str, timeout_s: float, *, is_local: bool) -> None:
        """Start the workers and wait until the first of them has opened the model.

        Arguments and errors are those of :func:`open_cluster`; local workers read the bundle from its own folder.
        """
        ray, n, cores, gpus = self._ray, *(self._described[name] for name in ("n", "cores", "gpus"))
        kind = ray.remote(num_cpus=cores, num_gpus=gpus, max_restarts=-1, max_task_retries=MAX_TRIES - 1)(_Worker)
        names = [name for name in (MANIFEST, *bundle.manifest.files) if name not in bundle.damaged]
        with self._answering("open the model"):
            contents = {} if is_local else {name: np.fromfile(bundle.path / name, np.uint8) for name in names}
            sent = bundle.path.resolve() if is_local else ray.put(contents)
            arguments = sent, bundle.bundle_hash, radlens.__version__, cores, n
            self._workers = [kind.remote(*arguments) for _ in range(n)]
            # A worker gets a new task whenever one of its tasks is done; the first ones are done when it has started.
            self._tasks = {worker.arrive.remote(): worker for worker in self._workers * _AHEAD}
            arrived, _ = ray.wait(list(self._tasks), timeout=timeout_s)
            if not arrived:
                room = f"a worker of {cores} cores and {gpus:g} GPUs"
                raise ServerError(f"cluster must have room for {room}, got none within {timeout_s:g} s")
            self._stated = ray.get(self._tasks[arrived[0]].open.remote(engine))
        # torch-cuda names the weights on a GPU; workers without a GPU compute the same weights as engine torch.
        chosen = "torch" if self._stated["engine"] == "torch-cuda" else self._stated["engine"]
        self._engine = chosen if engine == "auto" else engine

    def stated(self) -> dict[str, Any]:
        """Return the provenance of the engine and the workers as JSON values."""
        return {**self._stated, "workers": self._described}

    def upsample(self, pixels: np.ndarray, explainer: Explainer, **sampling: Any) -> UpsampledMap:
        """Run :func:`radlens.explainers.upsample` with the maps that the workers compute.

        Args:
            pixels: Image ``(H, W)``, floating point, at least 250x250, not normalised.
            explainer: Method with its parameters.
            **sampling: Other arguments of that function. A batch is a task; its default size is that of the engine of
                the first worker. Workers can continue a run that was saved without them, and vice versa.

        Raises:
            InvalidParameter: A parameter is out of range, or a map is not finite.
            RadlensError: The explainer or the engine of a worker raised this error.
            ServerError: A task lost its worker `MAX_TRIES` times or failed in another way, or the cluster was closed.
        """
        maps: Iterator[np.ndarray]
        sampling = {"batch_size": self._stated["batch_size"], **sampling}
        drawn = signature(upsample).bind(
            # torch warns about arrays that are read-only, such as views of a request.
            torch.from_numpy(np.require(pixels, requirements="W")),
            lambda batch: torch.from_numpy(next(maps)),
            **sampling,
        )
        drawn.apply_defaults()
        maps = self._in_order(np.asarray(pixels), explainer, drawn.arguments)
        with self._running:
            return upsample(*drawn.args, **drawn.kwargs)

    def close(self) -> None:
        """Stop the workers, even in the middle of a task; a thread that waits for them gets a `ServerError`."""
        self._is_closed = True
        with suppress(ConnectionError):
            for worker in self._workers:
                self._ray.kill(worker)
        # The waiting thread must have left before Ray is shut down.
        with self._running:
            pass

    def _in_order(self, pixels: np.ndarray, explainer: Explainer, sampling: Mapping[str, Any]) -> Iterator[np.ndarray]:
        """Yield the maps of each batch in the order of the batches."""
        with self._answering("explain samples"):
            job = self._ray.put(pixels), explainer, sampling["sampler"], sampling["seed"], self._engine
            queue: deque[Any] = deque()
            for first, n in _ranges(sampling):
                if len(queue) == _AHEAD * len(self._workers):
                    yield self._maps(queue.popleft())
                (done,), _ = self._ray.wait(list(self._tasks))
                worker = self._tasks.pop(done)
                queue.append(worker.explain.remote(*job, first, n))
                self._tasks[queue[-1]] = worker
            while queue:
                yield self._maps(queue.popleft())

    def _maps(self, task: Any) -> np.ndarray:
        replacement, maps = self._ray.get(task)
        if replacement is not None and replacement not in self.replacements:
            self.replacements.add(replacement)
            log.warning("a worker was lost; %s replaces it and repeats its samples", replacement)
        # A copy, because Ray's array is read-only and occupies the object store.
        return np.array(maps)

    @contextmanager
    def _answering(self, what: str) -> Iterator[None]:
        """Raise a worker's `RadlensError` unchanged, and any other failure of Ray as `ServerError`."""
        try:
            if self._is_closed:
                raise ServerError(f"cluster must {what}, got a closed one")
            yield
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, RadlensError):
                raise cause from None
            told = repr(cause) if cause else str(error).strip().partition("\n")[0] or type(error).__name__
            raise ServerError(f"cluster must {what}, got {'a closed one' if self._is_closed else told}") from error


def _ranges(sampling: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """Yield first sample and number of samples of each batch of `upsample` with these arguments."""
    is_automatic, done, batch_size = sampling["n_samples"] == AUTO, 0, sampling["batch_size"]
    limit = sampling["max_samples"] if is_automatic else sampling["n_samples"]
    if sampling["checkpoint"] is not None:
        # `upsample` has read or created the checkpoint before it requests the first batch.
        with np.load(sampling["checkpoint"].path) as saved:
            done, saved_size = saved["counts"].tolist()
        batch_size = min(saved_size, batch_size)
    # An automatic run cuts its batches where it estimates its reliability.
    goal = Goal(min_samples=2, max_samples=max(limit, 2))
    while done < limit:
        n = min(batch_size, (min(goal.next_look(done), limit) if is_automatic else limit) - done)
        yield sampling["start"] + done, n
        done += n


class _Worker:
    """Ray actor that holds a model and explains ranges of samples.

    Args:
        bundle: Path of the bundle on this machine, or contents of its files by name.
        bundle_hash: Hash of the bundle.
        version: Version of radlens of the driver.
        cores: Number of threads to compute with.
        n_workers: Number of workers of the cluster.
    """

    def __init__(
        self, bundle: Path | Mapping[str, np.ndarray], bundle_hash: str, version: str, cores: int, n_workers: int
    ) -> None:
        from ray import get_runtime_context

        torch.set_num_threads(cores)
        self._sent, self._bundle_hash, self._version = bundle, bundle_hash, version
        self._n_neighbours = min(n_workers, _n_cores() // cores)
        is_replacement = get_runtime_context().was_current_actor_reconstructed
        self._replacement = f"process {os.getpid()} on {socket.gethostname()}" if is_replacement else None
        self._opened: tuple[Bundle, BundleEngine] | None = None

    def arrive(self) -> None:
        """Do nothing; the call returns as soon as Ray has started the worker."""

    def open(self, engine: str) -> dict[str, Any]:
        """Open the model and return the provenance of its engine.

        Raises:
            RadlensError: The model cannot be opened, or the version of radlens differs from the driver's.
        """
        return self._model(engine)[1].stated()

    def _model(self, engine: str) -> tuple[Bundle, BundleEngine]:
        # Ray would wrap errors of the constructor, so the model is opened here.
        if radlens.__version__ != self._version:
            raise ServerError(f"workers must have radlens {self._version}, got {radlens.__version__}")
        if self._opened is None:
            sent = self._sent
            bundle = Bundle.load(sent) if isinstance(sent, Path) else _unpacked(self._bundle_hash, sent)
            if bundle.bundle_hash != self._bundle_hash:
                raise BundleError("bundle must be the one that the driver opened, got another")
            self._opened = bundle, open_bundle(bundle, engine, memory_limit=_memory_limit(self._n_neighbours))
        return self._opened

    def explain(
        self, pixels: np.ndarray, explainer: Explainer, sampler: str, seed: int, engine: str, first: int, n: int
    ) -> tuple[str | None, np.ndarray]:
        """Return the maps ``(n, 1, 250, 250)`` of samples ``first`` to ``first + n - 1``.

        The first value is the name of this process if it replaces a lost worker, otherwise None.

        Raises:
            InvalidParameter: A map is not finite.
        """
        bundle, model = self._model(engine)
        samples = [downsample(pixels, sampler, seed=seed, index=i).image for i in range(first, first + n)]
        maps: Tensor = explainer.attribute(model, bundle.preprocess(np.stack(samples)))
        if not torch.isfinite(maps).all():
            raise InvalidParameter(
                "path_length and pixels must be small enough for a finite map, got one that overflows"
            )
        return self._replacement, maps.detach().cpu().numpy()


def _memory_limit(n_neighbours: int) -> int | None:
    """Return the memory limit of one of ``n_neighbours`` engines on a machine, bytes; None for the default limit."""
    # The default limit of an engine leaves room for two.
    if n_neighbours <= 2 or memory.MEMORY_LIMIT_VARIABLE in os.environ:
        return None
    return int(memory.available_memory() * 2 * memory.FRACTION / n_neighbours)


def _unpacked(bundle_hash: str, files: Mapping[str, np.ndarray]) -> Bundle:
    """Return the bundle of ``files`` in the cache folder of this machine; the first worker writes it."""
    folder = cache_folder() / "bundles" / bundle_hash
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(BundleError):
            found = Bundle.load(folder)
            if found.bundle_hash == bundle_hash and found.damaged.keys().isdisjoint(files):
                return found
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in files.items():
            content.tofile(folder / name)
        return Bundle.load(folder)


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share(cores: Sequence[int], workers: int) -> int:
    """Return the largest number of cores, at least 1, with which ``workers`` fit on machines with these ``cores``."""
    fitting = (n for n in range(1, max(cores, default=0) + 1) if sum(have // n for have in cores) >= workers)
    return max(fitting, default=1)


@contextmanager
def _connected(address: str | None, n_cores: int, timeout_s: float) -> Iterator[tuple[Any, bool]]:
    """Connect this process to Ray; yield the module, and whether a local Ray was started."""
    with ExitStack() as stack:
        stack.enter_context(_environment(_ENVIRONMENT | (_LOCAL_ENVIRONMENT if address is None else {})))
        try:
            import ray
        except ImportError as error:
            raise MissingDependency("workers need the package ray: install the extra cluster") from error
        is_connected = ray.is_initialized()
        if address is not None:
            if is_connected:
                raise InvalidParameter("address must not be given in a process that is connected to Ray already")
            _require_reachable(address, timeout_s)
            wanted = "Ray must accept this process (RAY_AUTH_TOKEN must hold the token of the cluster, if it has one)"
            stack.enter_context(_session(ray, wanted, address=address))
        elif not is_connected:
            stack.enter_context(_local_ray(ray, n_cores))
        yield ray, address is None and not is_connected


@contextmanager
def _local_ray(ray: Any, n_cores: int) -> Iterator[None]:
    """Start a Ray on this machine with its own temporary folder."""
    if not ip_address(ray.util.get_node_ip_address()).is_loopback:
        raise ServerError(
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER must be 0 before ray is imported, so that a local Ray listens on the "
            "loopback interface alone; got an import without it"
        )
    usual = tempfile.gettempdir()
    parent = usual if len(usual) <= _MAX_FOLDER else "/tmp"
    own = {"num_cpus": n_cores, "object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
    with (
        tempfile.TemporaryDirectory(prefix="ray", dir=parent, ignore_cleanup_errors=True) as folder,
        _environment({"RAY_TMPDIR": folder}),
        _session(ray, "Ray must start on this machine", address="local", **own),
    ):
        yield


def _require_reachable(address: str, timeout_s: float) -> None:
    """Check that a server listens at an address; Ray itself would retry for minutes."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        place = parts.hostname, parts.port
    except ValueError:
        place = None, None
    if parts.scheme not in ("", "ray") or None in place:
        raise InvalidParameter("address must be host:port or ray://host:port, got another form")
    try:
        socket.create_connection(place, timeout_s).close()  # type: ignore[arg-type]
    except OSError as error:
        raise ServerError(f"Ray must answer within {timeout_s:g} s, got {type(error).__name__}") from error


@contextmanager
def _session(ray: Any, wanted: str, **arguments: Any) -> Iterator[None]:
    """Connect to Ray, and disconnect at the end, even after a start that failed halfway."""
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)

    def leave(signum: int, frame: Any) -> None:
        # An exception unwinds and stops everything on the way; Ray's own handler prints a stack trace.
        sys.exit(128 + signum)

    try:
        try:
            ray.init(logging_level="error", log_to_driver=False, **arguments)
        except Exception as error:  # ray.init passes on the errors of its parts, of any type
            raise ServerError(f"{wanted}, got {type(error).__name__}") from error
        if is_main:
            signal.signal(signal.SIGTERM, leave)
        yield
    finally:
        ray.shutdown()
        if is_main:
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and restore them at the end."""
    kept = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
