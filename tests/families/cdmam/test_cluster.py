"""Samples on Ray workers: equal to a single run, whichever workers are lost on the way."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from typer.testing import CliRunner

import radlens
from radlens.cli import app
from radlens.errors import BundleError, InvalidInput, InvalidParameter, MissingDependency, ServerError
from radlens.explainers import Checkpoint, Explainer, Omig, Sensitivity, upsample
from radlens.families.cdmam import cluster
from radlens.families.cdmam.cluster import open_cluster
from radlens.families.cdmam.manifest import Bundle
from radlens.families.cdmam.model import open_bundle

pytestmark = pytest.mark.slow


class OfBatches(Explainer):
    """Explains batches by itself; its fields are no parameters of requests."""

    def __post_init__(self):
        """Check nothing."""

    def work(self, image, target):
        """Explain no image alone."""
        raise AssertionError("batches are explained as a whole")


@dataclass(frozen=True)
class Doubling(OfBatches):
    """Doubles images and leaves a file in ``folder`` that names its process; the first call of all takes longer."""

    folder: Path
    seconds: float = 0.0
    first_s: float = 0.0

    def attribute(self, model, images, targets=None):
        """Return twice the images."""
        is_first = not any(self.folder.iterdir())
        (self.folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(self.first_s if is_first else self.seconds)
        return 2 * images


@dataclass(frozen=True)
class Failing(OfBatches):
    """Raises an error, or kills its process."""

    error: Exception | None = None

    def attribute(self, model, images, targets=None):
        """Raise, or die."""
        if self.error is not None:
            raise self.error
        os.kill(os.getpid(), signal.SIGKILL)


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
def ray():
    """A Ray of three cores, one of which stays free."""
    with cluster._connected(None, 3, 60.0) as (ray, _):
        # Workers get the classes of this file as they are, and need not find it.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield ray


@pytest.fixture(scope="module")
def workers(ray, bundle):
    """Two workers, to which the bundle was sent."""
    with open_cluster(bundle, 2, cores=1) as opened:
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


@pytest.mark.parametrize(("n_saved", "smaller"), [(6, 4), (5, 3)])
def test_a_saved_run_goes_on_with_workers(workers, single, pixels, tmp_path, n_saved, smaller):
    """What one process began, workers end, in the batches that it made."""
    saved = Checkpoint(tmp_path / "run.npz")
    sampling = {"reliability": 0.99, "min_samples": 4, "max_samples": 30, "scale_px": 100}
    single(pixels, Sensitivity(), n_samples=n_saved, batch_size=smaller, checkpoint=saved, scale_px=100)
    told = []
    found = workers.upsample(
        pixels,
        Sensitivity(),
        n_samples="auto",
        batch_size=5,
        checkpoint=saved,
        on_progress=lambda done, total, partial: told.append(done),
        **sampling,
    )
    expected = single(pixels, Sensitivity(), n_samples="auto", batch_size=5, **sampling)
    np.testing.assert_allclose(found.map, expected.map, rtol=0, atol=1e-9)
    assert (told[0], told[1], found.n_samples) == (n_saved, n_saved + smaller, 30)


def test_a_checkpoint_of_another_run_is_refused(workers, single, pixels, tmp_path):
    """With workers as without."""
    saved = Checkpoint(tmp_path / "run.npz")
    single(pixels, Sensitivity(), n_samples=2, checkpoint=saved)
    with pytest.raises(InvalidInput, match="checkpoint must be of the same run"):
        workers.upsample(pixels, Sensitivity(), n_samples=4, seed=1, checkpoint=saved)


def test_progress_is_in_the_order_of_samples(workers, pixels, tmp_path):
    """Each batch is told once, when everything before it is there, also where the first one is the last to be done."""
    told = []
    workers.upsample(
        pixels,
        Doubling(tmp_path, first_s=0.5),
        n_samples=10,
        batch_size=3,
        on_progress=lambda done, total, partial: told.append((done, total, partial().n_samples)),
    )
    assert told == [(3, 10, 3), (6, 10, 6), (9, 10, 9), (10, 10, 10)]


def test_workers_do_not_run_far_ahead(workers, pixels, tmp_path):
    """At most two batches for each of the two workers are begun before they are added up."""
    ahead = []

    def wait(done, total, partial):
        time.sleep(0.1)
        ahead.append(len(list(tmp_path.iterdir())) - done // 2)

    workers.upsample(pixels, Doubling(tmp_path), n_samples=40, batch_size=2, on_progress=wait)
    assert 2 <= max(ahead) <= 4


def test_a_killed_worker_changes_nothing(workers, single, pixels, tmp_path, caplog):
    """A worker that dies of SIGKILL in the middle of a task is started again and repeats it; the log says so."""
    victims = []

    def kill(done, total, partial):
        if not victims:
            # While this runs, each worker has a task.
            victims.append(int(next(tmp_path.iterdir()).name.partition("-")[0]))
            os.kill(victims[0], signal.SIGKILL)

    sampling = {"n_samples": 32, "batch_size": 4}
    with caplog.at_level(logging.WARNING, "radlens.families.cdmam.cluster"):
        found = workers.upsample(pixels, Doubling(tmp_path, seconds=0.3), on_progress=kill, **sampling)
    assert_same(found, single(pixels, Doubling(tmp_path), **sampling))
    (replacement,) = workers.replacements
    assert f"a worker was lost; {replacement} replaces it and repeats its samples" in caplog.text
    assert not psutil.pid_exists(victims[0])


def test_errors_of_explainers_come_through(workers, single, pixels):
    """An error of ours is raised as it is, and its worker goes on."""
    with pytest.raises(InvalidParameter, match="small enough for a finite map") as caught:
        workers.upsample(pixels, Omig(n_steps=2, path_length=1e300), n_samples=8, batch_size=2)
    assert type(caught.value) is InvalidParameter
    before = set(workers.replacements)
    found = workers.upsample(pixels, Sensitivity(), n_samples=8, batch_size=2)
    assert_same(found, single(pixels, Sensitivity(), n_samples=8, batch_size=2))
    assert workers.replacements == before


@pytest.mark.parametrize(
    ("explainer", "told"),
    [(Failing(RuntimeError("no")), r"RuntimeError\('no'\)"), (Failing(), "[Aa]ctor")],
)
def test_a_task_that_cannot_be_done_ends_the_run(workers, pixels, explainer, told):
    """An error that is not ours at once, a task that kills its workers after three of them."""
    with pytest.raises(ServerError, match=f"cluster must explain samples, got .*({told})"):
        workers.upsample(pixels, explainer, n_samples=2, batch_size=2)


def test_a_run_that_was_left_does_not_disturb_the_next(workers, single, pixels, tmp_path):
    """Results of a run that nobody waits for any more are dropped."""

    def leave(*told):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workers.upsample(pixels, Doubling(tmp_path), n_samples=20, batch_size=2, on_progress=leave)
    found = workers.upsample(pixels, Sensitivity(), n_samples=4, batch_size=2)
    assert_same(found, single(pixels, Sensitivity(), n_samples=4, batch_size=2))


def test_the_bundle_is_unpacked_once(workers, bundle):
    """A machine without the bundle gets it through the object store, all files of it."""
    (unpacked,) = Path(os.environ["RADLENS_CACHE"]).glob("bundles/*/")
    assert unpacked.name == bundle.bundle_hash
    assert Bundle.load(unpacked).bundle_hash == bundle.bundle_hash


def test_a_closed_cluster_ends_the_run(ray, bundle, pixels, tmp_path):
    """Closing stops the workers, and a run that waits for them."""
    with open_cluster(bundle, 1, cores=1) as opened:
        assert opened.stated()["workers"] == {"ray": ray.__version__, "n": 1, "cores": 1, "gpus": 0}
        with pytest.raises(ServerError, match="cluster must explain samples, got a closed one"):
            opened.upsample(
                pixels, Doubling(tmp_path), n_samples=20, batch_size=2, on_progress=lambda *told: opened.close()
            )
        with pytest.raises(ServerError, match="cluster must explain samples, got a closed one"):
            opened.upsample(pixels, Doubling(tmp_path), n_samples=20)


def test_a_model_that_cannot_be_opened_is_an_error(ray, bundle):
    """The error of the worker is raised as it is."""
    with (
        pytest.raises(InvalidParameter, match="engine must be one of") as caught,
        open_cluster(bundle, 1, cores=1, engine="steam"),
    ):
        pass
    assert type(caught.value) is InvalidParameter


def test_a_cluster_without_room_is_an_error(ray, bundle):
    """Nobody waits for ever for cores that others use."""
    message = "cluster must have room for a worker of 64 cores and 0 GPUs, got none within 0.5 s"
    with pytest.raises(ServerError, match=message), open_cluster(bundle, 1, cores=64, timeout_s=0.5):
        pass


@pytest.mark.parametrize(
    ("bundle_hash", "version", "error"),
    [
        ("", "0.0.0", ServerError(f"workers must have radlens 0.0.0, got {radlens.__version__}")),
        ("0" * 64, radlens.__version__, BundleError("bundle must be the one that the driver opened, got another")),
    ],
)
def test_workers_hold_one_model(bundle, monkeypatch, bundle_hash, version, error):
    """Another radlens, or another bundle in the place of the one that was sent, may compute another map."""
    monkeypatch.setattr(torch, "set_num_threads", lambda n_threads: None)
    context = SimpleNamespace(was_current_actor_reconstructed=False)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    worker = cluster._Worker(bundle.path, bundle_hash, version, 1, 1)
    with pytest.raises(type(error), match=str(error)):
        worker.open("auto")


@pytest.fixture
def explain(bundle, pixels, tmp_path, monkeypatch):
    """Runs ``radlens explain`` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RADLENS_SERVER", raising=False)
    np.save("image.npy", pixels)
    return lambda *arguments: CliRunner().invoke(app, ["explain", "image.npy", "-o", *map(str, arguments)])


def test_the_command_line_spreads_samples(ray, explain, bundle):
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


def test_a_running_cluster_is_used_and_left(ray, workers, started, single, pixels, tmp_path):
    """Another process uses the Ray at an address, gets the same map and takes its workers away with it."""
    assert settled(2), "workers of earlier commands are gone"
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
        assert listening([psutil.Process(process.pid), *family]) | {"127.0.0.1"} == {"127.0.0.1", "::ffff:127.0.0.1"}
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


def test_address_beside_a_connection_is_refused(ray, bundle):
    """One process talks to one Ray."""
    with (
        pytest.raises(InvalidParameter, match="must not be given in a process that is connected"),
        open_cluster(bundle, 1, address="127.0.0.1:6379"),
    ):
        pass


def test_a_damaged_copy_is_unpacked_again(bundle, tmp_path, monkeypatch):
    """A file in the cache that was changed is not used."""
    monkeypatch.setenv("RADLENS_CACHE", str(tmp_path))
    files = {file.name: np.fromfile(file, np.uint8) for file in bundle.path.iterdir()}
    unpacked = cluster._unpacked(bundle.bundle_hash, files)
    weights = unpacked.path / "weights.pt"
    weights.write_bytes(b"changed")
    assert cluster._unpacked(bundle.bundle_hash, files).path == unpacked.path
    assert weights.read_bytes() == (bundle.path / "weights.pt").read_bytes()


def test_many_neighbours_share_memory(monkeypatch):
    """Two workers may take what they would alone; more of them less, unless the environment says how much."""
    monkeypatch.setattr(cluster.memory, "available_memory", lambda: 1000)
    assert [cluster._memory_limit(n) for n in (2, 4, 8)] == [None, 200, 100]
    monkeypatch.setenv("RADLENS_MEMORY_LIMIT", "2G")
    assert cluster._memory_limit(8) is None


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


@pytest.fixture
def fake_ray(monkeypatch):
    """Puts a Ray in place that cannot connect, and tells what is asked of it."""
    calls = []

    def fail(**arguments):
        calls.append("init")
        raise OSError("no sockets")

    fake = SimpleNamespace(
        init=fail,
        is_initialized=lambda: False,
        shutdown=lambda: calls.append("shutdown"),
        util=SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1"),
        calls=calls,
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:80", "127.0.0.1:many", "ray://127.0.0.1"])
def test_malformed_addresses_are_refused(fake_ray, bundle, address):
    """Host and port are needed."""
    with (
        pytest.raises(InvalidParameter, match="address must be host:port or ray://host:port, got another form"),
        open_cluster(bundle, 1, address=address),
    ):
        pass


def test_addresses_where_nobody_listens_are_refused(fake_ray, bundle):
    """Before Ray tries for minutes."""
    with (
        pytest.raises(ServerError, match=r"Ray must answer within 60 s, got ConnectionRefusedError"),
        open_cluster(bundle, 1, address="127.0.0.1:1"),
    ):
        pass
    assert fake_ray.calls == []


def test_a_ray_that_would_listen_to_others_is_not_started(fake_ray, bundle):
    """It was imported before its settings were made."""
    fake_ray.util.get_node_ip_address = lambda: "192.0.2.1"
    message = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER must be 0 before ray is imported"
    with pytest.raises(ServerError, match=message), open_cluster(bundle, 1):
        pass
    assert fake_ray.calls == []


@pytest.mark.parametrize(
    ("address", "message"),
    [(None, "Ray must start on this machine, got OSError"), ("host:1", "Ray must accept this process .*, got OSError")],
)
def test_a_ray_that_fails_is_told_and_left(fake_ray, bundle, monkeypatch, address, message):
    """Any error of Ray becomes one error of ours, and a half started Ray is shut down."""
    monkeypatch.setattr(cluster, "_require_reachable", lambda address, timeout_s: None)
    before = dict(os.environ), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ServerError, match=message), open_cluster(bundle, 1, address=address):
        pass
    assert fake_ray.calls == ["init", "shutdown"]
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == before
