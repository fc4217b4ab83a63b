"""Versions replace each other on a real TorchServe: under load, over restarts, and not where something is wrong."""

import json
import tempfile
import threading
import time
import zipfile
from dataclasses import asdict
from pathlib import Path

import httpx
import psutil
import pytest
from archives import make_archive
from sample_images import noise
from shared_server import TOP
from tiny_bundle import make_bundle
from typer.testing import CliRunner

from radlens.audit import records, verify
from radlens.cli import app
from radlens.cli.serve import make_server, restore
from radlens.client import Client
from radlens.errors import BundleError, InvalidInput, InvalidParameter, RadlensError, ServerError
from radlens.images import to_npy
from radlens.server import MANAGEMENT_URL, free_ports
from radlens.versions.deployment import Deployment
from radlens.versions.management import Management
from radlens.versions.signing import Trust, create_pair, sign
from radlens.versions.state import Versions

pytestmark = [pytest.mark.serving, pytest.mark.slow]

IMAGE = to_npy(noise())


class Site:
    """A model store, a configuration and a server of its own that can be restarted."""

    def __init__(self, folder: Path, workdir: Path) -> None:
        self.store, self.workdir, self.config = folder / "store", workdir, folder / "config.properties"
        self.store.mkdir()
        lines = [f"{key}={value}" for key, value in free_ports().properties().items()]
        self.config.write_text("\n".join([(TOP / "config.properties").read_text(), *lines]) + "\n")
        (folder / "log4j2.xml").write_bytes((TOP / "log4j2.xml").read_bytes())
        for seed, version in enumerate(("1.0", "2.0")):
            bundle = make_bundle(folder / f"bundle-{version}", version=version, seed=seed)
            make_archive(bundle, self.store / f"cdmam-{version}.mar")
        make_archive(
            make_bundle(folder / "bundle-3.0", version="3.0"),
            self.store / "cdmam-3.0.mar",
            changed={"radlens/families/cdmam/service.py": "import nothing_of_that_name"},
        )

    @property
    def deployment(self) -> Deployment:
        """The versions of the server."""
        return Deployment(self.workdir, Trust())

    def start(self, **given: str) -> None:
        """Start the server as `radlens serve` does."""
        self.server, versions = make_server(self.config, self.store, given, self.workdir)
        self.server.__enter__()
        restore(self.workdir, self.config, versions)

    def restart(self, **given: str) -> None:
        """Stop and start it."""
        self.server.stop()
        self.start(**given)

    def served(self, version: str | None = None) -> str:
        """Return the version that answers."""
        with Client.of_server(self.workdir, model="cdmam") as client:
            return client.predict(IMAGE, version=version)["provenance"]["version"]

    def loaded(self) -> dict[str, bool]:
        """Return the loaded versions, and whether each is the default; all have workers."""
        with Management.of_server(self.workdir) as management:
            found = management.versions()
        assert all(each.n_ready > 0 for each in found)
        return {each.version: each.is_default for each in found}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A running server with version 1.0."""
    # Paths of sockets are short.
    with tempfile.TemporaryDirectory(prefix="radlens-") as workdir:
        site = Site(tmp_path_factory.mktemp("site"), Path(workdir))
        samples = site.workdir / "samples" / "cdmam"
        samples.mkdir(parents=True)
        for seed in range(2):
            (samples / f"Doe^John-{seed}.npy").write_bytes(to_npy(noise(seed=seed)))
        site.start(cdmam="cdmam-1.0.mar")
        try:
            yield site
        finally:
            site.server.stop()


def test_a_swap_under_load_loses_no_request_and_a_rollback_survives(site):
    """Four clients ask all the time, while 2.0 is registered, compared, promoted, and rolled back; then a restart."""
    assert site.deployment.register(site.store / "cdmam-2.0.mar")[:2] == ("cdmam", "2.0")
    assert site.loaded() == {"1.0": True, "2.0": False}
    ended, versions, failures, reports = threading.Event(), [], [], []

    def ask():
        with Client.of_server(site.workdir, model="cdmam") as client:
            while not ended.is_set():
                try:
                    versions.append(client.predict(IMAGE)["provenance"]["version"])
                except RadlensError as error:
                    failures.append(error)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for each in clients:
        each.start()
    try:
        change = site.deployment.promote(None, "2.0", on_report=reports.append)
        assert change[:4] == ("cdmam", "1.0", "2.0", True)
        n_asked = len(versions)
        while len(versions) < n_asked + 8:
            time.sleep(0.05)
        assert set(versions[n_asked + 4 :]) == {"2.0"}
        assert site.deployment.rollback(None)[:4] == ("cdmam", "2.0", "1.0", True)
        n_asked = len(versions)
        while len(versions) < n_asked + 8:
            time.sleep(0.05)
        assert set(versions[n_asked + 4 :]) == {"1.0"}
    finally:
        ended.set()
        for each in clients:
            each.join()
    assert failures == []
    assert len(versions) > 20
    # The report names no file, since files may be named after patients, and says what differs.
    (report,) = reports
    assert json.loads(change.report.read_text()) == report
    assert "Doe" not in change.report.read_text()
    for row in report["samples"]:
        assert row["largest_difference"]["relative"] > 0
        assert set(row["time_s"]) == {"1.0", "2.0"}
    site.restart()
    assert site.loaded() == {"1.0": True, "2.0": False}
    assert site.served() == "1.0"
    assert site.served("2.0") == "2.0"


def test_a_rollback_finds_the_archive_though_the_store_lost_it(site):
    """After a restart as well; what the server serves is its own copy."""
    site.deployment.promote("cdmam", "2.0", compare=False)
    (site.store / "cdmam-1.0.mar").rename(site.store / "gone")
    site.restart()
    assert site.loaded() == {"2.0": True, "1.0": False}
    assert site.deployment.rollback("cdmam")[:3] == ("cdmam", "2.0", "1.0")
    assert site.served() == "1.0"
    with pytest.raises(InvalidParameter, match="a rollback needs an earlier default of cdmam, got none"):
        site.deployment.rollback("cdmam")
    (site.store / "gone").rename(site.store / "cdmam-1.0.mar")


def test_a_version_that_does_not_start_leaves_nothing(site):
    """TorchServe would keep it with 0 workers."""
    with pytest.raises(ServerError, match=r"Failed to start workers for model cdmam version: 3\.0"):
        site.deployment.register(site.store / "cdmam-3.0.mar")
    assert "3.0" not in site.loaded()
    assert "3.0" not in Versions.load(site.workdir).models["cdmam"].versions
    assert not list((site.workdir / "archives").glob("cdmam-3.0*"))
    assert site.served() == "1.0"


def test_the_default_is_not_removed(site):
    """Nor scaled to nothing, nor is a version registered twice."""
    with pytest.raises(
        InvalidParameter, match=r"must not be the default, got cdmam 1\.0, which is; promote another one"
    ):
        site.deployment.retire(None, "1.0")
    with pytest.raises(InvalidParameter, match="number of workers must be at least 1, got 0"):
        site.deployment.scale(None, None, 0)
    with pytest.raises(InvalidParameter, match=r"a version is registered once, got cdmam 1\.0 again"):
        site.deployment.register(site.store / "cdmam-1.0.mar")
    with pytest.raises(InvalidParameter, match=r"version of cdmam must be one of 1\.0, 2\.0, got '7\.0'"):
        site.deployment.promote(None, "7.0")
    assert site.loaded() == {"1.0": True, "2.0": False}


def test_a_changed_archive_is_not_promoted(site):
    """The copy of the server is compared with what was registered."""
    registered = Versions.load(site.workdir).registered("cdmam", "2.0")
    copy = site.workdir / "archives" / registered.archive
    whole = copy.read_bytes()
    copy.write_bytes(whole + b"x")
    try:
        with pytest.raises(BundleError, match=r"the archive of cdmam 2\.0 was changed after it was registered"):
            site.deployment.promote(None, "2.0", compare=False)
    finally:
        copy.write_bytes(whole)
    assert site.served() == "1.0"


def test_a_version_that_fails_where_the_old_one_answers_is_not_promoted(site, monkeypatch):
    """The default stays the same."""
    real = Client.predict

    def predict(self, image, *, version=None, **options):
        if version == "2.0":
            raise ServerError("the worker died")
        return real(self, image, version=version, **options)

    monkeypatch.setattr(Client, "predict", predict)
    with pytest.raises(ServerError, match=r"2\.0 must answer what 1\.0 answers, got 2 samples that it does not.*died"):
        site.deployment.promote(None, "2.0")
    assert site.loaded() == {"1.0": True, "2.0": False}


def test_only_signed_archives_are_registered_where_that_is_required(site):
    """Unsigned, changed after it was signed, signed."""
    create_pair(site.store / "signing.key")
    keys = site.config.parent / "trusted_keys"
    keys.mkdir()
    (site.store / "signing.key.pub").rename(keys / "release.pub")
    strict = Deployment(site.workdir, Trust.configured({"radlens_signatures": "required"}, site.config.parent))
    archive = site.store / "cdmam-4.0.mar"
    make_archive(make_bundle(site.store / "bundle-4.0", version="4.0"), archive)
    with pytest.raises(BundleError, match=r"archives must be signed by a trusted key.*cdmam-4\.0\.mar is not signed"):
        strict.register(archive)
    sign(archive, site.store / "signing.key")
    whole = archive.read_bytes()
    # Bytes after a zip are read by nobody, and are signed.
    archive.write_bytes(whole + b"\0")
    with pytest.raises(BundleError, match=r"cdmam-4\.0\.mar is not the archive that was signed"):
        strict.register(archive)
    archive.write_bytes(whole)
    assert strict.register(archive) == ("cdmam", "4.0", "cdmam-4.0.mar is signed by release")
    assert site.loaded()["4.0"] is False
    strict.retire("cdmam", "4.0")
    assert "4.0" not in site.loaded()


def test_workers_are_scaled_also_for_the_next_start(site):
    """The number is kept."""
    site.deployment.scale("cdmam", "1.0", 1)
    site.restart()
    with Management.of_server(site.workdir) as management:
        assert len(management.describe("cdmam", "1.0")["workers"]) == 1


def test_workers_start_from_what_was_registered_alone(site):
    """A worker that crashed does not come back from files that somebody changed since; from the right ones it does."""
    with Management.of_server(site.workdir) as management:
        (before,) = management.describe("cdmam", "1.0")["workers"]

        def restarted(known):
            return [
                each
                for each in management.describe("cdmam", "1.0")["workers"]
                if each["status"] == "READY" and each["pid"] not in known
            ]

        folder = Path(psutil.Process(before["pid"]).cwd())
        assert folder.is_relative_to(site.workdir / "tmp")
        changed = folder / "radlens" / "errors.py"
        whole = changed.read_bytes()
        changed.write_bytes(whole + b"# changed\n")
        psutil.Process(before["pid"]).kill()
        log = site.workdir / "logs" / "model_log.log"
        while b"must be a registered archive, got other contents" not in log.read_bytes():
            time.sleep(0.1)
        assert restarted({before["pid"]}) == []
        changed.write_bytes(whole)
        while not restarted({before["pid"]}):
            time.sleep(0.1)
    assert site.served() == "1.0"


def test_archives_may_be_folders(site):
    """In which workers leave compiled code; a restart serves them all the same."""
    bundle = make_bundle(site.store / "bundle-6.0", version="6.0")
    archive = make_archive(bundle, site.store / "zipped")
    with zipfile.ZipFile(archive) as entries:
        entries.extractall(site.store / "cdmam-6.0")
    archive.unlink()
    site.deployment.register(site.store / "cdmam-6.0")
    assert site.served("6.0") == "6.0"
    site.restart()
    assert site.served("6.0") == "6.0"
    site.deployment.retire(None, "6.0")


def test_the_management_api_has_no_port(site, tmp_path):
    """A folder that is no model of the store: no port that answers registers it, with or without a key."""
    state = site.server.state
    folder = tmp_path / "evil"
    (folder / "MAR-INF").mkdir(parents=True)
    manifest = {"runtime": "python", "model": {"modelName": "evil", "modelVersion": "1.0", "handler": "h.py"}}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "h.py").write_text("def handle(data, context): return data")
    java = psutil.Process(state.java.number)
    listening = {each.laddr.port for each in java.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    assert listening == set(asdict(state.ports).values()) - {state.ports.gateway}
    for port in (*listening, state.ports.gateway):
        for token in (None, *asdict(state.keys()).values()):
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            try:
                answer = httpx.post(
                    f"http://127.0.0.1:{port}/models",
                    params={"url": str(folder), "initial_workers": 0},
                    headers=headers,
                )
                assert answer.status_code >= 400
            except httpx.HTTPError:
                continue
    with Management.of_server(site.workdir) as management:
        assert {each.model for each in management.versions()} == {"cdmam"}
    # The socket wants the key, and only its owner may open the folder in which it is.
    assert state.management_socket.parent.stat().st_mode & 0o777 == 0o700
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(state.management_socket))) as other:
        assert other.get(f"{MANAGEMENT_URL}/models").status_code == 400


def test_the_commands_say_what_they_do(site):
    """Each with the server of the working directory; only the last one asks."""

    def run(*arguments, **options):
        where = ["--workdir", site.workdir, "--config", site.config]
        found = CliRunner().invoke(app, [str(each) for each in ("models", *arguments, *where)], **options)
        assert found.exit_code == 0, found.output
        return " ".join(found.output.split())

    listed = CliRunner().invoke(app, ["models", "list", "--workdir", str(site.workdir)])
    assert [line.split()[3] for line in listed.stdout.splitlines() if line.startswith("│")] == ["1.0", "2.0"]
    compared = run("promote", "2.0", "--dry-run", "--no-maps")
    assert "cdmam: 1.0 -> 2.0" in compared
    assert "cdmam 1.0 is still the default" in compared
    assert site.served() == "1.0"
    promoted = run("promote", "2.0", "--no-shadow")
    assert "cdmam 2.0 is the default, in place of 1.0, which has no requests left and stays registered" in promoted
    assert site.served() == "2.0"
    assert "cdmam 1.0 is the default, in place of 2.0" in run("rollback")
    assert site.served() == "1.0"
    assert "cdmam 1.0 has 2 workers" in run("scale", "2")
    archive = site.store / "cdmam-7.0.mar"
    make_archive(make_bundle(site.store / "bundle-7.0", version="7.0"), archive)
    registered = run("register", "cdmam-7.0.mar", "--store", site.store)
    assert "cdmam-7.0.mar is not signed" in registered
    assert "next: radlens models promote 7.0 --model cdmam" in registered
    retired = run("retire", "7.0", input="y\n")
    assert "remove cdmam 7.0? cdmam 1.0 stays the default" in retired
    assert "7.0" not in site.loaded()


def test_what_was_done_is_in_the_audit_log(site):
    """Who, what, which versions, with what outcome; the chain holds."""
    log = site.workdir / "audit.jsonl"
    assert verify(log).faults == ()
    # The front door writes what clients asked between them.
    changes = [each for each in records(log) if "archive_sha256" in each or each["event"] in ("promote", "rollback")]
    done = [(each["event"], each["outcome"]) for each in changes]
    assert done[:3] == [("register", "done"), ("promote", "done"), ("rollback", "done")]
    assert ("register", "failed") in done
    first = changes[0]
    assert first["who"].startswith("user:")
    assert (first["model"], first["version"], len(first["archive_sha256"])) == ("cdmam", "2.0", 64)


def test_a_damaged_archive_is_refused_in_seconds(site):
    """With its cause, and without asking TorchServe."""
    damaged = site.store / "cdmam-5.0.mar"
    damaged.write_bytes((site.store / "cdmam-2.0.mar").read_bytes()[:20000])
    with pytest.raises(BundleError, match=r"cdmam-5\.0\.mar must be an archive, got a file that cannot be read"):
        site.deployment.register(damaged)
    damaged.unlink()
    with pytest.raises((BundleError, InvalidInput), match=r"nowhere\.mar"):
        site.deployment.register(site.store / "nowhere.mar")
