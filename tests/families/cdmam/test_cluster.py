"""Samples on Ray workers: equal to a single run, whoever is lost on the way."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import ray
import torch
from typer.testing import CliRunner

import radlens
from radlens.cli import app
from radlens.errors import BundleError, InvalidParameter, MissingDependency, ServerError
from radlens.explainers import Checkpoint, Explainer, Omig, Sensitivity, upsample
from radlens.families.cdmam import cluster
from radlens.families.cdmam.cluster import Cluster, open_cluster
from radlens.families.cdmam.manifest import Bundle
from radlens.families.cdmam.model import open_bundle

# Workers get the classes of this file as they are, and need not find it.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class Doubling(Explainer):
    """Doubles images and says in ``folder`` which process it was."""

    folder: Path
    seconds: float = 0.0

    def _attribute(self, model, images, targets):
        (self.folder / str(os.getpid())).touch()
        time.sleep(self.seconds)
        return 2 * images


@pytest.fixture(scope="module")
def pixels():
    """An image whose sides no sampler divides evenly."""
    return np.random.default_rng(0).normal(1000, 100, (303, 310)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Sums of torch depend on the number of threads; workers have one."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def local_ray():
    """A Ray of three cores, one of which stays free."""
    with cluster._local_ray(ray, 3):
        yield


@pytest.fixture(scope="module")
def workers(local_ray, bundle):
    """Two workers, to whom the bundle was sent."""
    with open_cluster(bundle, 2) as opened:
        yield opened


@pytest.fixture(scope="module")
def single(bundle):
    """The same in this process."""
    model = open_bundle(bundle)

    def run(pixels, explainer, **sampling):
        def explain(batch):
            return explainer.attribute(model, bundle.preprocess(batch[:, 0].numpy()))

        return upsample(pixels, explain, **sampling)

    return run


def assert_same(found, expected):
    """Bit for bit, the reliability included."""
    np.testing.assert_array_equal(found.map, expected.map)
    np.testing.assert_array_equal(found.visits, expected.visits)
    np.testing.assert_array_equal(found.halves.totals, expected.halves.totals)
    assert (found.n_samples, found.normalize, found.is_reached) == (
        expected.n_samples,
        expected.normalize,
        expected.is_reached,
    )


@pytest.mark.parametrize(
    "sampling",
    [
        {"n_samples": 14, "normalize": "visits", "start": 3, "seed": 5},
        {"n_samples": "auto", "reliability": 0.9, "min_samples": 4, "max_samples": 38, "scale_px": 100},
        {"n_samples": 3, "sampler": "grid"},
    ],
)
def test_equal_to_a_single_run(workers, single, pixels, sampling):
    """Map, visits and reliability are those of one process, bit for bit, also where an automatic run cuts batches."""
    found = workers.upsample(pixels, Omig(n_steps=2), batch_size=5, **sampling)
    assert_same(found, single(pixels, Omig(n_steps=2), batch_size=5, **sampling))


def test_progress_is_in_the_order_of_samples(workers, pixels, tmp_path):
    """Each batch is told once, when everything before it is there."""
    told = []
    workers.upsample(
        pixels,
        Doubling(tmp_path),
        n_samples=10,
        batch_size=3,
        on_progress=lambda done, total, partial: told.append((done, total, partial().n_samples)),
    )
    assert told == [(3, 10, 3), (6, 10, 6), (9, 10, 9), (10, 10, 10)]


def test_a_killed_worker_changes_nothing(workers, single, pixels, tmp_path, caplog):
    """A worker that dies of SIGKILL in the middle of a range loses only that: it is done again by another."""
    victims = []

    def kill(done, total, partial):
        if not victims:
            # While this runs, every worker is at a range, and each has been at one before.
            victims.append(int(next(tmp_path.iterdir()).name))
            os.kill(victims[0], signal.SIGKILL)

    n_lost = workers.n_lost
    sampling = {"n_samples": 32, "batch_size": 4}
    with caplog.at_level(logging.WARNING, "radlens.families.cdmam.cluster"):
        found = workers.upsample(pixels, Doubling(tmp_path, seconds=0.3), on_progress=kill, **sampling)
    assert_same(found, single(pixels, Doubling(tmp_path), **sampling))
    assert workers.n_lost == n_lost + 1
    assert "a worker was lost at samples" in caplog.text
    assert not psutil.pid_exists(victims[0])


def test_errors_of_explainers_come_through(workers, pixels):
    """What a worker raises on purpose is raised here."""
    n_lost = workers.n_lost
    with pytest.raises(InvalidParameter, match="small enough for a finite map"):
        workers.upsample(pixels, Omig(n_steps=2, path_length=1e300), n_samples=8, batch_size=2)
    assert workers.n_lost == n_lost
    assert settled(2), "a worker that answers with an error is not lost"
    workers.upsample(pixels, Omig(n_steps=2), n_samples=8, batch_size=2)
    assert workers.n_lost == n_lost


def test_the_bundle_is_unpacked_once(workers, bundle):
    """A machine without the bundle gets it through the object store, all files of it."""
    (unpacked,) = Path(os.environ["RADLENS_CACHE"]).glob("bundles/*/")
    assert unpacked.name == bundle.bundle_hash
    assert Bundle.load(unpacked).bundle_hash == bundle.bundle_hash


@pytest.fixture
def explain(bundle, pixels, tmp_path, monkeypatch):
    """Runs ``radlens explain`` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RADLENS_SERVER", raising=False)
    np.save("image.npy", pixels)
    return lambda *arguments: CliRunner().invoke(app, ["explain", "image.npy", "-o", *map(str, arguments)])


def test_the_command_line_spreads_samples(workers, explain, bundle):
    """The same files with workers as without, and provenance that names them."""
    omig = ("--bundle", bundle.path, "--n-steps", 2, "--upsample", 12)
    alone, spread = explain("alone", *omig), explain("spread", *omig, "--workers", 1, "--worker-cores", 1)
    assert (alone.exit_code, spread.exit_code) == (0, 0), spread.stderr
    for name in ("map.npy", "visits.npy", "overlay.png"):
        assert Path("spread", name).read_bytes() == Path("alone", name).read_bytes()
    stated, expected = (json.loads(Path(o, "explanation.json").read_text())["provenance"] for o in ("spread", "alone"))
    assert stated.pop("workers") == {"ray": ray.__version__, "n": 1, "cores": 1, "gpus": 0}
    assert stated.keys() == expected.keys()
    assert stated["sampling"] == expected["sampling"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "2", "--upsample", "9"], "--workers needs --local or --bundle"),
        (["--local", "--workers", "2"], "and --upsample of several samples"),
        (["--local", "--ray-address", "host:1"], "--ray-address, --worker-cores and --worker-gpus need --workers"),
    ],
)
def test_options_that_do_not_go_together(explain, arguments, message):
    """Each is told before anything starts."""
    result = explain("out", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


SCRIPT = """
import signal
import sys
import numpy as np
from radlens.explainers import Omig
from radlens.families.cdmam.cluster import open_cluster
from radlens.families.cdmam.manifest import Bundle

# A process that was started in the background of a shell ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
bundle, folder, n_samples, address = sys.argv[1:]
with open_cluster(Bundle.load(bundle), 1, cores=1, address=address or None) as cluster:
    found = cluster.upsample(
        np.load(folder + "/pixels.npy"),
        Omig(n_steps=2),
        n_samples=int(n_samples),
        batch_size=4,
        on_progress=lambda done, total, partial: print(done, flush=True),
    )
np.save(folder + "/map.npy", found.map)
"""
"""For a process of its own."""


@pytest.fixture
def started(bundle, pixels, tmp_path):
    """Starts the script, with a temporary folder whose path is long."""
    np.save(tmp_path / "pixels.npy", pixels)

    def start(n_samples, address=""):
        command = [sys.executable, "-c", SCRIPT, str(bundle.path), str(tmp_path), str(n_samples), address]
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    return start


def test_a_running_cluster_is_used_and_left(workers, started, single, pixels, tmp_path):
    """Another process uses the Ray at an address, gets the same map and takes its workers away with it."""
    assert settled(2), "a worker that was lost is replaced, and those of earlier commands are gone"
    with started(8, ray.get_runtime_context().gcs_address) as process:
        told, said = process.communicate(timeout=120)
    assert (process.returncode, told.split()) == (0, ["4", "8"]), said
    expected = single(pixels, Omig(n_steps=2), n_samples=8, batch_size=4)
    np.testing.assert_array_equal(np.load(tmp_path / "map.npy"), expected.map)
    assert settled(2), "its workers are gone, those of this process are not"


def test_an_interrupt_leaves_nothing_behind(started):
    """Ctrl-C stops the workers and the Ray that was started for them, and removes its files."""
    with started(100_000) as process:
        assert process.stdout.readline() == "4\n", process.stderr.read()
        family = psutil.Process(process.pid).children(recursive=True)
        (folder,) = {part for one in family for part in one.cmdline() if part.startswith("--session-dir=")}
        assert listening(family) | {"127.0.0.1"} == {"127.0.0.1", "::ffff:127.0.0.1"}
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, said
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert not Path(folder.removeprefix("--session-dir=")).parent.exists()


def settled(n_workers, timeout_s=60.0):
    """Wait until so many processes of this one's Ray hold models: Ray starts and ends them in its own time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if sum("ray::_Worker" in process.name() for process in psutil.Process().children(recursive=True)) == n_workers:
            return True
        time.sleep(0.1)
    return False


def listening(family):
    """Return the addresses that ``family`` listens at."""
    connections = [each for process in family for each in process.net_connections("tcp")]
    return {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}


def test_address_beside_a_connection_is_refused(local_ray, bundle):
    """One process talks to one Ray."""
    with (
        pytest.raises(InvalidParameter, match="must not be given in a process that is connected"),
        open_cluster(bundle, 1, address="127.0.0.1:6379"),
    ):
        pass


class FakeRay:
    """Ray in this process: a call is done when it is waited for, the latest range first, unless it is meant to fail.

    Args:
        fail: given the name of a call and its arguments, returns the error it ends with, or None.
        is_late: given the same, returns whether it is not done yet.
    """

    __version__ = "0.0"
    exceptions = ray.exceptions

    def __init__(self, fail=lambda name, *arguments: None, is_late=lambda name, *arguments: False):
        self.fail, self.is_late, self.engines = fail, is_late, []
        self.hired = self.killed = self.most = 0

    def put(self, value):
        """Nothing is stored elsewhere."""
        return value

    def remote(self, **options):
        """Return what makes a class one of workers."""
        self.options = options
        return lambda kind: SimpleNamespace(remote=lambda *arguments: self._hire(kind(*arguments)))

    def _hire(self, worker):
        self.hired += 1
        return SimpleNamespace(**{name: self._method(worker, name) for name in ("arrive", "open", "explain")})

    def _method(self, worker, name):
        return SimpleNamespace(remote=lambda *arguments: FakeCall(worker, name, arguments))

    def wait(self, calls, *, num_returns, timeout):
        """Return one call that is done."""
        self.most = max(self.most, sum(call.name == "explain" for call in calls))
        ready = [call for call in calls if not self.is_late(call.name, *call.arguments)]
        return sorted(ready, key=lambda call: call.name != "explain")[-num_returns:], calls

    def get(self, call):
        """Do a call."""
        if call.name == "open":
            self.engines.append(call.arguments[1])
        if (error := self.fail(call.name, *call.arguments)) is not None:
            raise error
        return getattr(call.worker, call.name)(*call.arguments)

    def kill(self, worker):
        """Count."""
        self.killed += 1


@dataclass(eq=False)
class FakeCall:
    worker: object
    name: str
    arguments: tuple


def raised(error):
    """What Ray raises where a worker raised ``error``."""
    return ray.exceptions.RayTaskError("call", f"Traceback ...\n  in call\nRuntimeError: {error}", error)


@pytest.fixture
def fake_cluster(bundle):
    """Makes clusters of fake workers."""

    def make(fake, n_workers=3, timeout_s=60.0):
        parcel = cluster._Parcel.of(fake, bundle, is_near=True)
        return Cluster(fake, parcel, n_workers, 1, 0, "auto", timeout_s)

    return make


def test_whoever_is_first_maps_are_added_in_order(fake_cluster, single, pixels):
    """Three workers, the latest of whom is always done first, give the map of one process and do not run ahead."""
    fake = FakeRay()
    found = fake_cluster(fake).upsample(pixels, Sensitivity(), n_samples=20, batch_size=2)
    assert_same(found, single(pixels, Sensitivity(), n_samples=20, batch_size=2))
    assert fake.most == 3
    assert fake.options == {"num_cpus": 1, "num_gpus": 0, "max_restarts": 0, "max_task_retries": 0}


def test_nobody_runs_far_ahead(fake_cluster, pixels, tmp_path):
    """While one range is late, at most two ranges for each worker are on their way or done."""
    waits, done = [], []

    def first_is_late(name, *arguments):
        if name != "explain" or arguments[1] > 0:
            return False
        waits.append(name)
        return len(waits) < 50

    def note(name, *arguments):
        if name == "explain":
            done.append(arguments[1])

    found = fake_cluster(FakeRay(note, first_is_late)).upsample(pixels, Doubling(tmp_path), n_samples=40, batch_size=2)
    assert found.n_samples == 40
    assert max(done[: done.index(0)]) == 2 * (2 * 3 - 1)


def test_all_workers_have_the_engine_of_the_first(fake_cluster, pixels, tmp_path):
    """Maps of different engines must not be mixed, so one worker chooses and the others follow."""
    fake = FakeRay()
    opened = fake_cluster(fake)
    opened.upsample(pixels, Doubling(tmp_path), n_samples=12, batch_size=1)
    assert fake.engines == ["auto", "torch", "torch"]
    assert opened.stated()["engine"] == "torch"
    assert opened.stated()["workers"] == {"ray": "0.0", "n": 3, "cores": 1, "gpus": 0}


def test_a_range_that_fails_three_times_ends_the_run(fake_cluster, pixels):
    """What an explainer did not mean to raise may be the worker's fault, but not three times."""
    fake = FakeRay(lambda name, *arguments: raised(RuntimeError("no")) if arguments[1:2] == (4,) else None)
    opened = fake_cluster(fake, n_workers=2)
    expected = r"samples 4 to 5 must not cost 3 workers, got: RuntimeError: no"
    with pytest.raises(ServerError, match=expected) as caught:
        opened.upsample(pixels, Sensitivity(), n_samples=10, batch_size=2)
    assert isinstance(caught.value.__cause__.cause, RuntimeError)
    assert (opened.n_lost, fake.killed) == (3, 3)


def test_a_lost_map_is_computed_again(fake_cluster, single, pixels):
    """A map can be lost after it was computed, with the machine it lay on."""
    lost = []

    def lose_one(name, *arguments):
        if name == "explain" and arguments[1] == 2 and not lost:
            lost.append(ray.exceptions.ObjectLostError("00" * 28, "here", "there"))
            return lost[-1]
        return None

    opened = fake_cluster(FakeRay(lose_one))
    found = opened.upsample(pixels, Sensitivity(), n_samples=6, batch_size=2)
    assert_same(found, single(pixels, Sensitivity(), n_samples=6, batch_size=2))
    assert opened.n_lost == 1


def test_a_model_that_cannot_be_opened_ends_the_run(fake_cluster, pixels):
    """An error of ours at once, any other after three workers."""
    broken = FakeRay(lambda name, *arguments: raised(RuntimeError("no")) if name == "open" else None)
    with pytest.raises(ServerError, match=r"opening the model must not cost 3 workers, got: RuntimeError: no"):
        fake_cluster(broken).upsample(pixels, Sensitivity(), n_samples=2)
    refused = FakeRay(lambda name, *arguments: raised(BundleError("no engine")) if name == "open" else None)
    with pytest.raises(BundleError, match="no engine"):
        fake_cluster(refused).upsample(pixels, Sensitivity(), n_samples=2)


def test_a_cluster_without_room_is_an_error(fake_cluster, pixels):
    """Nobody waits for ever for cores that others use."""
    opened = fake_cluster(FakeRay(is_late=lambda name, *arguments: True), timeout_s=0.0)
    with pytest.raises(ServerError, match=r"must have room for a worker of 1 cores and 0 GPUs, got none within 0 s"):
        opened.upsample(pixels, Sensitivity(), n_samples=2)


def test_a_closed_cluster_ends_the_run(fake_cluster, pixels):
    """Closing stops the workers and whoever waits for them."""
    fake = FakeRay()
    opened = fake_cluster(fake)
    with pytest.raises(ServerError, match="cluster must be open, got one that was closed"):
        opened.upsample(pixels, Sensitivity(), n_samples=20, batch_size=2, on_progress=lambda *told: opened.close())
    assert fake.killed == fake.hired == 3


def test_a_lost_connection_ends_the_run(fake_cluster, pixels):
    """Without Ray there is nobody to wait for."""
    fake = FakeRay(lambda name, *arguments: ConnectionError("gone") if arguments[1:2] == (4,) else None)
    with pytest.raises(ServerError, match="Ray must stay within reach, got a connection that was lost"):
        fake_cluster(fake).upsample(pixels, Sensitivity(), n_samples=20, batch_size=2)


def test_a_run_that_was_left_does_not_disturb_the_next(fake_cluster, single, pixels):
    """What workers bring for, or lose with, a run that nobody waits for any more is dropped."""
    late = set()

    def lose_late(name, *arguments):
        return raised(BundleError("late")) if name == "explain" and arguments[0] in late else None

    opened = fake_cluster(FakeRay(lose_late))
    jobs = []
    opened._ray.put = lambda job: jobs.append(job) or job

    def leave(*told):
        late.update(jobs)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened.upsample(pixels, Sensitivity(), n_samples=20, batch_size=2, on_progress=leave)
    found = opened.upsample(pixels, Sensitivity(), n_samples=4, batch_size=2)
    assert_same(found, single(pixels, Sensitivity(), n_samples=4, batch_size=2))


@pytest.mark.parametrize(("n_saved", "smaller"), [(6, 4), (5, 3)])
def test_a_saved_run_goes_on_with_workers(fake_cluster, single, pixels, tmp_path, n_saved, smaller):
    """What one process began, workers end, in the batches that it made."""
    saved = Checkpoint(tmp_path / "run.npz")
    sampling = {"reliability": 0.99, "min_samples": 4, "max_samples": 30, "scale_px": 100}
    single(pixels, Sensitivity(), n_samples=n_saved, batch_size=smaller, checkpoint=saved, scale_px=100)
    found = fake_cluster(FakeRay()).upsample(
        pixels, Sensitivity(), n_samples="auto", batch_size=5, checkpoint=saved, **sampling
    )
    np.testing.assert_allclose(
        found.map, single(pixels, Sensitivity(), n_samples="auto", batch_size=5, **sampling).map, rtol=0, atol=1e-9
    )
    assert found.n_samples == 30


def test_many_neighbours_share_memory(monkeypatch):
    """Two workers may take what they would alone; more of them less, unless the environment says how much."""
    monkeypatch.setattr(torch, "set_num_threads", lambda n_threads: None)
    monkeypatch.setattr(cluster, "_n_cores", lambda: 16)
    monkeypatch.setattr(cluster.memory, "available_memory", lambda: 1000)
    assert cluster._Worker(1, 2)._memory_limit() is None
    assert cluster._Worker(1, 8)._memory_limit() == 100
    assert cluster._Worker(4, 8)._memory_limit() == 200
    monkeypatch.setenv("RADLENS_MEMORY_LIMIT", "2G")
    assert cluster._Worker(1, 8)._memory_limit() is None


def test_workers_run_one_version(bundle):
    """Another radlens may compute another map."""
    worker = cluster._Worker(1, 1)
    with pytest.raises(ServerError, match=f"workers must have radlens 0.0.0, got {radlens.__version__}"):
        worker.open(cluster._Parcel(bundle.bundle_hash, bundle.path, {}), "auto", "0.0.0")


def test_another_bundle_is_refused(bundle):
    """Not even in the place of the one that was sent."""
    with pytest.raises(BundleError, match="must be the one that was sent, got another"):
        cluster._Parcel("0" * 64, bundle.path, {}).unpacked(None)


def test_a_damaged_copy_is_unpacked_again(bundle, tmp_path, monkeypatch):
    """What lies in a temporary folder is not trusted."""
    monkeypatch.setenv("RADLENS_CACHE", str(tmp_path))
    parcel = cluster._Parcel.of(FakeRay(), bundle, is_near=False)
    unpacked = parcel.unpacked(lambda stored: stored)
    weights = unpacked.path / "weights.pt"
    weights.write_bytes(b"changed")
    assert parcel.unpacked(lambda stored: stored).path == unpacked.path
    assert weights.read_bytes() == (bundle.path / "weights.pt").read_bytes()


@pytest.mark.parametrize(
    ("cores", "workers", "expected"), [([8], 2, 4), ([4, 4], 3, 2), ([8, 2], 2, 4), ([2], 5, 1), ([], 1, 1)]
)
def test_workers_share_cores(cores, workers, expected):
    """Each has as many as all can have, for a worker is on one machine."""
    assert cluster._share(cores, workers) == expected


@pytest.mark.parametrize(("name", "value", "least"), [("workers", 0, 1), ("cores", 0, 1), ("gpus", -1, 0)])
def test_numbers_out_of_range_are_refused(bundle, name, value, least):
    """Before Ray is started."""
    arguments = {"workers": 1, name: value}
    with (
        pytest.raises(InvalidParameter, match=f"{name} must be at least {least}, got {value}"),
        open_cluster(bundle, **arguments),
    ):
        pass


def test_ray_is_an_extra(bundle, monkeypatch):
    """Without it the error says what to install."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(MissingDependency, match="workers need the package ray: install the extra cluster"),
        open_cluster(bundle, 1),
    ):
        pass


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:80", "127.0.0.1:many", "ray://127.0.0.1"])
def test_malformed_addresses_are_refused(address):
    """Host and port are needed."""
    with pytest.raises(InvalidParameter, match="address must be host:port or ray://host:port, got another form"):
        cluster._require_reachable(address, 1.0)


def test_addresses_without_ray_are_refused(monkeypatch):
    """Nobody there, somebody who says nothing, and somebody who refuses."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(ServerError, match=r"must answer at the address within 1 s, got TimeoutExpired"):
            cluster._require_reachable(address, 1.0)
        monkeypatch.setattr(cluster, "_PROBE", "print('Refused: other version'); raise SystemExit(1)")
        with pytest.raises(ServerError, match=r"within 30 s, got Refused: other version"):
            cluster._require_reachable(address, 30.0)
        monkeypatch.setattr(cluster, "_PROBE", "raise SystemExit('InvalidAuthToken')")
        with pytest.raises(ServerError, match=r"got a refusal: RAY_AUTH_TOKEN must hold the token of the cluster"):
            cluster._require_reachable(address, 30.0)
    with pytest.raises(ServerError, match=r"must answer at the address within 1 s, got ConnectionRefusedError"):
        cluster._require_reachable(address, 1.0)


@pytest.mark.parametrize(
    ("address", "message"),
    [(None, "Ray must start on this machine, got OSError"), ("host:1", "Ray must accept this process, got OSError")],
)
def test_a_ray_that_fails_is_told_and_left(bundle, monkeypatch, address, message):
    """Whatever Ray raises becomes one error of ours, and what was half started is shut down."""
    calls = []

    def fail(**arguments):
        calls.append("init")
        raise OSError("no sockets")

    fake = SimpleNamespace(
        _private=ray._private, init=fail, is_initialized=lambda: False, shutdown=lambda: calls.append("shutdown")
    )
    monkeypatch.setattr(cluster, "_import_ray", lambda: fake)
    monkeypatch.setattr(cluster, "_require_reachable", lambda address, timeout_s: None)
    before = dict(os.environ), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ServerError, match=message), open_cluster(bundle, 1, address=address):
        pass
    assert calls == ["init", "shutdown"]
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == before
