"""Commands that were killed between two steps: the next one goes on."""

import json
import zipfile

import pytest

from radlens.errors import InvalidInput
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


def test_a_registration_that_was_killed_can_be_repeated(tmp_path, monkeypatch):
    """The version is loaded and not kept; its archive must not go while its workers run."""
    server, archive, workdir = Loaded(), tmp_path / "cdmam-2.0.mar", tmp_path / "run"
    manifest = {"model": {"modelName": "cdmam", "modelVersion": "2.0"}}
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    monkeypatch.setattr(Management, "of_server", lambda workdir: server)

    def killed(self, workdir):
        raise KeyboardInterrupt

    with monkeypatch.context() as first:
        first.setattr(Versions, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            Deployment(workdir).register(archive)
    assert server.versions_by_name
    assert Versions.load(workdir).models == {}
    assert Deployment(workdir).register(archive)[:2] == ("cdmam", "2.0")
    registered = Versions.load(workdir).registered("cdmam", "2.0")
    assert (workdir / "archives" / registered.archive).is_file()
    assert server.versions_by_name == {("cdmam", "2.0"): registered.archive}
