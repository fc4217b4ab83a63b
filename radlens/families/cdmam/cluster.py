"""Samples of one image spread over the workers of a Ray cluster (Moritz et al., OSDI 2018): Algorithm 2 in ranges.

Amanova et al. 2022, section 2.3.2, add up the maps of many samples, each of which depends on nothing but its number.

- A worker is a Ray actor that has opened the model once. It is given one range of samples at a time, one batch, as
  soon as it is free.
- What it returns are the samples' own maps, float32 ``(b, 250, 250)``: 250 kB each, where a partial map of 7 million
  pixels is 56 MB in float64 however few samples it holds. So a lost worker loses one batch, and 5000 samples are
  1.3 GB of traffic altogether.
- The driver runs :func:`radlens.explainers.upsample` itself, which adds the maps up in the order of their numbers,
  whoever computed them and whenever. The result is therefore that of a single run **bit for bit**, whatever the number
  of workers and whichever of them are lost, as long as an explainer gives one batch the same map everywhere: same
  engine, same kind of processor and, for engines whose sums depend on them, same number of threads. Otherwise it is
  that of a single run on those machines, to within the rounding of the engine. All workers compute with one engine.
- Maps that come before their turn wait. At most twice as many batches as there are workers are on their way or
  waiting, which bounds the memory of the driver by ``2 * workers * batch_size * 250 kB`` more than a single run's.
- A range whose worker was lost, killed or failed is given to another one, and a new worker takes the old one's place.
  A range that costs three workers ends the run.

Machines of a cluster need radlens in the same version, and Ray. The bundle travels through Ray's object store and is
unpacked once for each machine, to ``bundles/<bundle hash>`` in radlens' cache folder there. It stays for later runs, is
verified each time it is opened, and may be deleted while nothing runs.
"""

import fcntl
import heapq
import itertools
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor

import radlens
from radlens.bundles import MANIFEST
from radlens.engines import memory
from radlens.engines.calibration import cache_folder
from radlens.errors import BundleError, InvalidParameter, MissingDependency, RadlensError, ServerError
from radlens.explainers import Checkpoint, Explainer, Goal, UpsampledMap, upsample
from radlens.explainers.upsampling import AUTO
from radlens.families.cdmam.manifest import Bundle
from radlens.families.cdmam.model import BundleEngine, open_bundle
from radlens.images.sampling import downsample

__all__ = ["MAX_TRIES", "Cluster", "open_cluster"]

MAX_TRIES = 3
"""Workers that one range of samples, or opening the model, may cost before the run is given up."""

_AHEAD = 2
"""Ranges per worker that are on their way or wait for their turn."""

_POLL_S = 0.2
"""How soon a cluster notices that another thread closes it."""

_OBJECT_STORE_BYTES = 300_000_000
"""Shared memory of a Ray of our own: an image of 7 million pixels is 28 MB, a batch of 8 maps 2 MB."""

_MAX_PLACE = 24
"""Characters of a path 80 above Ray's sockets, whose paths may have 107 (sun_path in unix(7))."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A call after the connection was lost would otherwise start another Ray.
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
"""While Ray is used."""

_LOCAL_ENVIRONMENT = {
    # Despite its name this is what makes Ray listen on the loopback interface alone.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
"""Of the processes of a Ray of our own."""

_TOKEN = secrets.token_hex(32)
"""What whoever wants to use a Ray of our own must know. Ray reads it once in a process, so it stays the same."""

_PROBE = """
import sys, ray
try:
    ray.init(sys.argv[1], logging_level="error", log_to_driver=False)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(1)
"""
"""Where there is no Ray, connecting takes minutes and may end the process; so another process tries first."""

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
    runtime_env: Mapping[str, Any] | None = None,
    timeout_s: float = 60.0,
) -> Iterator["Cluster"]:
    """Give workers once the first of them has opened the model; at the end, however it comes, they are stopped.

    Without ``address`` a Ray is started on this machine and stopped at the end: no dashboard, no usage statistics, a
    temporary folder of its own, on the loopback interface. In a process that is connected to a Ray already, that one
    is used and left as it is.

    Args:
        bundle: the model; it is sent to the machines of a cluster.
        workers: wanted, at least 1; a busy cluster may have room for fewer for a while.
        address: of a cluster: ``ray://host:port`` from any machine, with ``ray[client]`` installed, or ``host:port`` on
            a machine that belongs to it, where Ray ends this process if the cluster ends. If the cluster asks for a
            token, ``RAY_AUTH_TOKEN`` must hold it.
        cores: processor cores of each worker, at least 1; by default an equal share of the cluster's.
        gpus: GPUs of each worker, at least 0; below 1 for workers that share one.
        engine: of every worker, see `open_bundle`; with ``"auto"`` the first worker chooses.
        runtime_env: how Ray prepares the workers of the cluster at ``address``, as ``ray.init`` takes it, such as
            ``{"pip": [...]}``; by default they must have this version of radlens installed.
        timeout_s: to connect, and for the first worker to find a place.

    Raises:
        InvalidParameter: a number is out of range, or an address is malformed or given although Ray is connected.
        MissingDependency: Ray is not installed.
        ServerError: Ray cannot be started or reached, no worker found a place, or opening the model cost `MAX_TRIES`
            workers.
        RadlensError: what a worker raises that cannot open the model.
    """
    for name, value, least in (("workers", workers, 1), ("cores", cores, 1), ("gpus", gpus, 0)):
        if value is not None and value < least:
            raise InvalidParameter(f"{name} must be at least {least}, got {value}")
    ray = _import_ray()
    own_cores = workers * (cores or _share([_n_cores()], workers))
    with _connected(ray, address, own_cores, runtime_env, timeout_s) as is_own:
        parcel = _Parcel.of(ray, bundle, is_near=is_own)
        cores = cores or _share(_cores_of_machines(ray), workers)
        cluster = Cluster(ray, parcel, workers, cores, gpus, engine, timeout_s)
        try:
            cluster.open()
            yield cluster
        finally:
            cluster.close()


@dataclass(order=True)
class _Range:
    """Samples ``first`` to ``first + n - 1``.

    Attributes:
        number: its place in the order of ranges.
        tries: workers it has cost.
        maps: ``(n, 250, 250)`` once they are there.
    """

    number: int
    first: int = field(compare=False)
    n: int = field(compare=False)
    tries: int = field(default=0, compare=False)
    maps: np.ndarray | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"samples {self.first} to {self.first + self.n - 1}"


@dataclass(frozen=True, eq=False)
class _Job:
    """What samples are taken from and explained with; it is put into the object store once."""

    pixels: np.ndarray
    explainer: Explainer
    sampler: str
    seed: int


@dataclass(frozen=True, eq=False)
class _Errand:
    """What a worker was sent for: to ``"arrive"``, to ``"open"`` the model or to ``"explain"`` a range of a job."""

    worker: Any
    kind: Literal["arrive", "open", "explain"]
    job: Any = None
    range: _Range | None = None


class Cluster:
    """Workers that hold one model; :func:`open_cluster` makes it.

    Attributes:
        n_lost: workers lost so far.
    """

    def __init__(
        self, ray: Any, parcel: "_Parcel", workers: int, cores: int, gpus: float, engine: str, timeout_s: float
    ) -> None:
        self._ray, self._parcel, self._engine, self._timeout_s = ray, parcel, engine, timeout_s
        self._n_workers, self._cores, self._gpus = workers, cores, gpus
        # Ray would otherwise start a lost worker anew with its memory of the model gone.
        self._kind = ray.remote(num_cpus=cores, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_Worker)
        self._staff: list[Any] = []
        self._arrived: list[Any] = []
        self._free: list[Any] = []
        self._errands: dict[Any, _Errand] = {}
        self._opened: dict[str, Any] | None = None
        self._failed_openings = 0
        self.n_lost = 0
        self._heard = time.monotonic()
        self._turn, self._step = threading.Lock(), threading.Lock()
        self._closing = threading.Event()

    def stated(self) -> dict[str, Any]:
        """Return what provenance says of the engine and its workers, as JSON values; of a cluster that is open."""
        assert self._opened is not None, "a cluster states what its first worker has opened"
        workers = {"ray": self._ray.__version__, "n": self._n_workers, "cores": self._cores, "gpus": self._gpus}
        return {**self._opened, "workers": workers}

    def open(self) -> None:
        """Wait until the first worker has opened the model; errors are those of :func:`open_cluster`."""
        while self._opened is None:
            self._deal(None, [])
            self._receive(None, [])

    def upsample(
        self,
        pixels: np.ndarray,
        explainer: Explainer,
        *,
        n_samples: int | Literal["auto"],
        sampler: str = "stratified",
        seed: int = 0,
        batch_size: int | None = None,
        start: int = 0,
        max_samples: int = Goal.max_samples,
        checkpoint: Checkpoint | None = None,
        **options: Any,
    ) -> UpsampledMap:
        """Explain downsampled copies of an image: :func:`radlens.explainers.upsample`, computed by the workers.

        Args:
            pixels: ``(H, W)`` floating point, at least 250x250, as the image has them: not normalised.
            explainer: the method with its parameters.
            n_samples: number of samples, at least 1, or ``"auto"`` to end at the wanted reliability.
            sampler: name of the way pixels are chosen.
            seed: seed of the sequence of samples.
            batch_size: samples in a range, which one worker explains together; by default as many as the engine of
                the first worker computes together.
            start: number of the first sample.
            max_samples: largest number of samples of an automatic run.
            checkpoint: file from which an interrupted run continues; a run without workers can continue with workers,
                and the reverse.
            **options: the other arguments of that function, such as ``normalize`` and ``on_progress``.

        Raises:
            InvalidParameter: a parameter is out of range, or a map is not finite.
            RadlensError: what the explainer or the engine of a worker raises.
            ServerError: a range, or opening the model, has cost `MAX_TRIES` workers; no worker found a place in
                ``timeout_s``; or the cluster was closed.
        """
        self.open()
        job = _Job(np.asarray(pixels), explainer, sampler, seed)
        batch_size = self.stated()["batch_size"] if batch_size is None else batch_size
        plan = _Plan(start, max_samples if n_samples == AUTO else n_samples, batch_size, n_samples == AUTO)
        with self._turn:
            maps = self._in_order(job, plan.ranges())
            return upsample(
                torch.from_numpy(np.require(pixels, requirements="W")),
                lambda batch: torch.from_numpy(next(maps))[:, None],
                n_samples=n_samples,
                sampler=sampler,
                seed=seed,
                batch_size=batch_size,
                start=start,
                max_samples=max_samples,
                checkpoint=None if checkpoint is None else _Watched(**vars(checkpoint), plan=plan),
                **options,
            )

    def close(self) -> None:
        """Stop the workers, whatever they are at; a thread that waits for them gets a `ServerError`."""
        self._closing.set()
        with self._step:
            for worker in self._staff:
                self._ray.kill(worker)
            self._staff.clear()

    def _in_order(self, job: _Job, ranges: Iterator[_Range]) -> Iterator[np.ndarray]:
        """Yield the maps of each range, in the order of ranges."""
        with self._talking():
            stored = self._ray.put(job)
        taken: dict[int, _Range] = {}
        waiting: list[_Range] = []
        wanted = 0
        while True:
            while len(taken) < _AHEAD * self._n_workers and (following := next(ranges, None)) is not None:
                taken[following.number] = following
                heapq.heappush(waiting, following)
            if wanted not in taken:
                return
            self._deal(stored, waiting)
            while (maps := taken[wanted].maps) is None:
                self._receive(stored, waiting)
                self._deal(stored, waiting)
            del taken[wanted]
            wanted += 1
            yield maps

    def _deal(self, job: Any, waiting: list[_Range]) -> None:
        """Give everybody who is free something to do, and hire whoever is missing."""
        with self._talking():
            while len(self._staff) < self._n_workers:
                worker = self._kind.remote(self._cores, self._n_workers)
                self._staff.append(worker)
                self._send(_Errand(worker, "arrive"), worker.arrive.remote())
            while self._arrived and not self._is_choosing():
                worker = self._arrived.pop()
                opened = worker.open.remote(self._parcel, self._engine, radlens.__version__)
                self._send(_Errand(worker, "open"), opened)
            while self._free and waiting:
                worker, given = self._free.pop(), heapq.heappop(waiting)
                maps = worker.explain.remote(job, given.first, given.n)
                self._send(_Errand(worker, "explain", job, given), maps)

    def _send(self, errand: _Errand, result: Any) -> None:
        self._errands[result] = errand

    def _is_choosing(self) -> bool:
        """Whether one worker is about to choose the engine of all."""
        return self._engine == "auto" and any(errand.kind == "open" for errand in self._errands.values())

    def _receive(self, job: Any, waiting: list[_Range]) -> None:
        """Wait for a worker, but not for long, and take what it brings."""
        with self._talking():
            ready, _ = self._ray.wait(list(self._errands), num_returns=1, timeout=_POLL_S)
            for result in ready:
                self._heard = time.monotonic()
                errand = self._errands.pop(result)
                try:
                    self._take(errand, self._ray.get(result))
                except self._ray.exceptions.RayError as error:
                    if errand.range is not None and isinstance(cause := getattr(error, "cause", None), RadlensError):
                        # The worker has answered: it is free for the next range.
                        self._free.append(errand.worker)
                        if errand.job is job:
                            raise cause from None
                        continue
                    self._lose(errand, error, job, waiting)
            self._require_heard()

    def _take(self, errand: _Errand, brought: Any) -> None:
        if errand.kind == "arrive":
            self._arrived.append(errand.worker)
            return
        self._free.append(errand.worker)
        if errand.kind == "open":
            self._opened, self._failed_openings = self._opened or brought, 0
            if self._engine == "auto":
                # The weights themselves are engine torch, wherever they are.
                self._engine = "torch" if brought["engine"] == "torch-cuda" else brought["engine"]
        elif errand.range is not None:
            # A copy, because Ray's own is read-only and takes up room in the object store.
            errand.range.maps = np.array(brought)

    def _lose(self, errand: _Errand, error: Exception, job: Any, waiting: list[_Range]) -> None:
        """Dismiss a worker that failed, with its errand to be done again by another; or give up."""
        self._ray.kill(errand.worker)
        self._staff.remove(errand.worker)
        self.n_lost += 1
        if errand.range is None:
            self._failed_openings += 1
            tries, what = self._failed_openings, "opening the model"
        elif errand.job is job:
            errand.range.tries += 1
            heapq.heappush(waiting, errand.range)
            tries, what = errand.range.tries, str(errand.range)
        else:
            return
        if isinstance(cause := getattr(error, "cause", None), RadlensError):
            raise cause from None
        if tries == MAX_TRIES:
            raise ServerError(f"{what} must not cost {MAX_TRIES} workers, got: {_told(error)}") from error
        log.warning("a worker was lost at %s, which is done again: %s", what, _told(error))

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """One thread talks to Ray at a time, and only as long as it is there."""
        with self._step:
            if self._closing.is_set():
                raise ServerError("cluster must be open, got one that was closed")
            try:
                yield
            except ConnectionError as error:
                raise ServerError("Ray must stay within reach, got a connection that was lost") from error

    def _require_heard(self) -> None:
        quiet_s = time.monotonic() - self._heard
        if quiet_s > self._timeout_s and all(errand.kind == "arrive" for errand in self._errands.values()):
            raise ServerError(
                f"cluster must have room for a worker of {self._cores} cores and {self._gpus:g} GPUs, "
                f"got none within {self._timeout_s:g} s"
            )


@dataclass
class _Plan:
    """The batches that :func:`radlens.explainers.upsample` will make.

    Attributes:
        start: number of the first sample.
        limit: samples that are made at most.
        batch_size: samples of a batch.
        is_automatic: whether batches are cut where an automatic run looks at what it has.
        done: samples that a checkpoint holds.
    """

    start: int
    limit: int
    batch_size: int
    is_automatic: bool
    done: int = 0

    def ranges(self) -> Iterator[_Range]:
        """Yield what is to be done, once the checkpoint was read."""
        goal, done = Goal(min_samples=2, max_samples=max(self.limit, 2)), self.done
        for number in itertools.count():
            if done >= self.limit:
                return
            stop = min(goal.next_look(done), self.limit) if self.is_automatic else self.limit
            n = min(self.batch_size, stop - done)
            yield _Range(number, self.start + done, n)
            done += n


@dataclass(frozen=True, kw_only=True)
class _Watched(Checkpoint):
    """A checkpoint that tells the plan what it holds."""

    plan: _Plan

    def load(self, identity: Mapping[str, str]) -> dict[str, np.ndarray] | None:
        """See `Checkpoint`."""
        saved = super().load(identity)
        if saved is not None:
            self.plan.done, batch_size = saved["counts"].tolist()
            self.plan.batch_size = min(batch_size, self.plan.batch_size)
        return saved


def _told(error: Exception) -> str:
    """Return the line of a Ray error that says most: an exception ends with itself, a death begins with it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    is_exception = hasattr(error, "cause") or getattr(error, "_actor_init_failed", False)
    return lines[-1] if is_exception else lines[0]


class _Worker:
    """Holds a model and explains ranges of samples; runs as a Ray actor.

    Args:
        cores: threads to compute with.
        n_workers: of the cluster.
    """

    def __init__(self, cores: int, n_workers: int) -> None:
        torch.set_num_threads(cores)
        self._n_neighbours = min(n_workers, _n_cores() // cores)
        self._bundle: Bundle | None = None
        self._model: BundleEngine | None = None

    def arrive(self) -> None:
        """Answer as soon as there is a place to work at."""

    def open(self, parcel: "_Parcel", engine: str, version: str) -> dict[str, Any]:
        """Open the model and return what provenance says of its engine.

        Raises:
            ServerError: another version of radlens is installed here.
            BundleError: no engine, or not the one asked for, can run the bundle.
        """
        if radlens.__version__ != version:
            raise ServerError(f"workers must have radlens {version}, got {radlens.__version__}")
        self._bundle = parcel.unpacked(_import_ray().get)
        self._model = open_bundle(self._bundle, engine, memory_limit=self._memory_limit())
        return self._model.stated()

    def _memory_limit(self) -> int | None:
        """Return the bytes of an engine; None where the limit of a single process is right."""
        if self._n_neighbours <= 2 or memory.MEMORY_LIMIT_VARIABLE in os.environ:
            return None
        return int(memory.available_memory() * 2 * memory.FRACTION / self._n_neighbours)

    def explain(self, job: _Job, first: int, n: int) -> np.ndarray:
        """Return the maps ``(n, 250, 250)`` of samples ``first`` to ``first + n - 1`` as the explainer computes them.

        Raises:
            InvalidParameter: a map is not finite.
        """
        assert self._bundle is not None, "a worker opens its model first"
        assert self._model is not None, "a worker opens its model first"
        samples = [downsample(job.pixels, job.sampler, seed=job.seed, index=i).image for i in range(first, first + n)]
        maps: Tensor = job.explainer.attribute(self._model, self._bundle.preprocess(np.stack(samples)))
        if not torch.isfinite(maps).all():
            raise InvalidParameter(
                "path_length and pixels must be small enough for a finite map, got one that overflows"
            )
        return maps.detach().cpu().numpy()[:, 0]


@dataclass(frozen=True)
class _Parcel:
    """A bundle on its way to workers.

    Attributes:
        bundle_hash: of it.
        path: where workers find it; None where they have to unpack it.
        files: its files in the object store, by name.
    """

    bundle_hash: str
    path: Path | None
    files: Mapping[str, Any]

    @classmethod
    def of(cls, ray: Any, bundle: Bundle, *, is_near: bool) -> "_Parcel":
        """Pack ``bundle``; for workers that are ``is_near``, on this machine, its path is enough."""
        if is_near:
            return cls(bundle.bundle_hash, bundle.path.resolve(), {})
        names = [name for name in (MANIFEST, *bundle.manifest.files) if name not in bundle.damaged]
        return cls(
            bundle.bundle_hash, None, {name: ray.put(np.fromfile(bundle.path / name, np.uint8)) for name in names}
        )

    def unpacked(self, get: Any) -> Bundle:
        """Return the bundle on this machine, unpacked if it was not.

        Args:
            get: of Ray.

        Raises:
            BundleError: the bundle is not the one that was sent.
        """
        if self.path is not None:
            return self._checked(Bundle.load(self.path))
        folder = cache_folder() / "bundles" / self.bundle_hash
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                found = self._checked(Bundle.load(folder))
            except BundleError:
                found = None
            if found is None or not set(found.damaged).isdisjoint(self.files):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                for name, stored in self.files.items():
                    get(stored).tofile(folder / name)
                found = self._checked(Bundle.load(folder))
        return found

    def _checked(self, bundle: Bundle) -> Bundle:
        if bundle.bundle_hash != self.bundle_hash:
            raise BundleError("bundle must be the one that was sent, got another")
        return bundle


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingDependency("workers need the package ray: install the extra cluster") from error
    return ray


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cores_of_machines(ray: Any) -> list[int]:
    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def _share(cores: Sequence[int], workers: int) -> int:
    """Return the most cores a worker can have if ``workers`` are to fit on machines with so many ``cores``; least 1."""
    fitting = (n for n in range(1, max(cores, default=0) + 1) if sum(have // n for have in cores) >= workers)
    return max(fitting, default=1)


@contextmanager
def _connected(
    ray: Any, address: str | None, own_cores: int, runtime_env: Mapping[str, Any] | None, timeout_s: float
) -> Iterator[bool]:
    """Connect this process to Ray and say whether it is a Ray of our own."""
    if ray.is_initialized():
        if address is not None:
            raise InvalidParameter("address must not be given in a process that is connected to Ray already")
        yield False
    elif address is None:
        with _local_ray(ray, own_cores):
            yield True
    else:
        with _remote_ray(ray, address, runtime_env, timeout_s):
            yield False


@contextmanager
def _local_ray(ray: Any, n_cores: int) -> Iterator[None]:
    environment = dict(_LOCAL_ENVIRONMENT)
    if not any(name.startswith("RAY_AUTH_") for name in os.environ):
        # Without it Ray would write one into the home of the user, who may have none.
        environment["RAY_AUTH_TOKEN"] = _TOKEN
    with (
        tempfile.TemporaryDirectory(prefix="ray", dir=_place(), ignore_cleanup_errors=True) as folder,
        _environment(environment),
        # Ray has read it from the environment already.
        _replaced(ray._private.ray_constants, "ENABLE_RAY_CLUSTER", False),
        _session(
            ray,
            "Ray must start on this machine",
            address="local",
            num_cpus=n_cores,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            _temp_dir=folder,
        ),
    ):
        yield


def _place() -> str:
    """Return where temporary folders are, unless that is too far down for sockets."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= _MAX_PLACE else "/tmp"


@contextmanager
def _remote_ray(ray: Any, address: str, runtime_env: Mapping[str, Any] | None, timeout_s: float) -> Iterator[None]:
    _require_reachable(address, timeout_s)
    prepared = {} if runtime_env is None else {"runtime_env": dict(runtime_env)}
    with _session(ray, "Ray must accept this process", address=address, **prepared):
        yield


@contextmanager
def _session(ray: Any, wanted: str, **arguments: Any) -> Iterator[None]:
    """Connect to Ray with it quiet; leave it at the end, also where it was only half started."""
    handler = signal.getsignal(signal.SIGTERM)
    # Ray prints that a worker was lost on stdout, which is for results.
    with _environment(_ENVIRONMENT), _replaced(ray._private.worker, "_worker_logs_enabled", False):
        try:
            try:
                ray.init(logging_level="error", log_to_driver=False, **arguments)
            except Exception as error:  # Ray lets through whatever its parts raise
                raise ServerError(f"{wanted}, got {type(error).__name__}") from error
            _on_sigterm(_leave)
            yield
        finally:
            ray.shutdown()
            _on_sigterm(handler)


def _on_sigterm(handler: Any) -> None:
    """Set what SIGTERM does; Python allows that in the main thread alone."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _leave(signum: int, frame: Any) -> None:
    """Unwind, so that everything is stopped on the way: Ray's own handler prints a stack and aborts."""
    sys.exit(128 + signum)


def _require_reachable(address: str, timeout_s: float) -> None:
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        place = parts.hostname, parts.port
    except ValueError:
        place = None, None
    if parts.scheme not in ("", "ray") or None in place:
        raise InvalidParameter("address must be host:port or ray://host:port, got another form")
    wanted = f"Ray must answer at the address within {timeout_s:g} s"
    try:
        socket.create_connection(place, timeout_s).close()  # type: ignore[arg-type]
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE, address], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f"{wanted}, got {type(error).__name__}") from error
    if probe.returncode:
        said = " ".join(probe.stdout.split()) or f"exit code {probe.returncode}"
        if "AuthToken" in probe.stderr:
            said = "a refusal: RAY_AUTH_TOKEN must hold the token of the cluster"
        raise ServerError(f"{wanted}, got {said}")


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    # Ray sets the mode itself when it finds a token.
    kept = {name: os.environ.get(name) for name in (*variables, "RAY_AUTH_MODE")}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    kept = getattr(owner, name, value)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)
