"""Commands that were killed between two steps: the next one goes on."""

import json
import zipfile

import pytest

from radlens.errors import InvalidInput, InvalidParameter
from radlens.versions import registered
from radlens.versions.deployment import Deployment
from radlens.versions.management import Management, Version
from radlens.versions.state import Versions


class Loaded:
    """TorchServe's management API as far as registering goes."""

    def __init__(self):
        self.versions_by_name = {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def versions(self):
        """Return what is loaded."""
        return [Version(model, version, True, 1, 0) for model, version in self.versions_by_name]

    def register(self, archive):
        """Load an archive, once."""
        name, version = archive.split("-")[:2]
        if (name, version) in self.versions_by_name:
            raise InvalidInput(f"Model version {version} is already registered for model {name}")
        self.versions_by_name[name, version] = archive

    def unregister(self, name, version):
        """Forget a version."""
        del self.versions_by_name[name, version]


def write(archive, version="2.0", content="code"):
    """Write an archive of cdmam, and return it."""
    manifest = {"model": {"modelName": "cdmam", "modelVersion": version}}
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        written.writestr("handler.py", content)
    return archive


@pytest.fixture
def server(monkeypatch):
    """A server on which nothing is loaded."""
    found = Loaded()
    monkeypatch.setattr(Management, "of_server", lambda workdir: found)
    return found


def test_a_registration_that_was_killed_can_be_repeated(server, tmp_path, monkeypatch):
    """The version is loaded and not kept; its archive must not go while its workers run."""
    archive, workdir = write(tmp_path / "cdmam-2.0.mar"), tmp_path / "run"

    def killed(self, workdir):
        raise KeyboardInterrupt

    with monkeypatch.context() as first:
        first.setattr(Versions, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            Deployment(workdir).register(archive)
    assert server.versions_by_name
    assert Versions.load(workdir).models == {}
    assert Deployment(workdir).register(archive)[:2] == ("cdmam", "2.0")
    found = Versions.load(workdir).registered("cdmam", "2.0")
    assert (workdir / "archives" / found.archive).is_file()
    assert server.versions_by_name == {("cdmam", "2.0"): found.archive}


def test_an_archive_that_changes_meanwhile_is_what_was_copied(server, tmp_path, monkeypatch):
    """Name and version are those of the checked copy, whatever the store held before."""
    archive, workdir = write(tmp_path / "cdmam.mar"), tmp_path / "run"
    copied = registered._copied

    def late(path, folder):
        write(path, "3.0")
        return copied(path, folder)

    monkeypatch.setattr(registered, "_copied", late)
    assert Deployment(workdir).register(archive)[:2] == ("cdmam", "3.0")
    assert list(Versions.load(workdir).models["cdmam"].versions) == ["3.0"]
    assert list(server.versions_by_name) == [("cdmam", "3.0")]


@pytest.mark.parametrize("content", ["code", "other code"])
def test_what_is_registered_twice_is_refused_and_stays(server, tmp_path, content):
    """Neither its archive goes, nor does another one of the same version stay."""
    archive, workdir = write(tmp_path / "cdmam-2.0.mar"), tmp_path / "run"
    Deployment(workdir).register(archive)
    kept = {file.name: file.read_bytes() for file in (workdir / "archives").iterdir()}
    with pytest.raises(InvalidParameter, match=r"registered once, got cdmam 2\.0 again"):
        Deployment(workdir).register(write(archive, content=content))
    assert {file.name: file.read_bytes() for file in (workdir / "archives").iterdir()} == kept
    assert list(server.versions_by_name) == [("cdmam", "2.0")]
