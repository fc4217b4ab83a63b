"""`radlens doctor`: a table with what to do, JSON, and an exit code."""

import json

import pytest

from radlens.cli import doctor as command
from radlens.doctor import Finding

GOOD = Finding("Python", "good", "3.11.7", is_needed=True)
WRONG = Finding("port 8080", "wrong", "taken by nginx", "stop that process", is_needed=True)
OPTIONAL = Finding("extra train", "missing", "all missing", "pip install 'radlens[train]'")


@pytest.fixture
def found(monkeypatch):
    """Return a function that sets what is found."""

    def let(*findings):
        monkeypatch.setattr("radlens.doctor.examine", lambda *where: list(findings))

    return let


def test_machine_that_can_serve(run, found):
    """What is only missing for other uses does not change the exit code."""
    found(GOOD, OPTIONAL)
    result = run("doctor")
    assert result.exit_code == 0
    assert "This machine can serve." in result.stdout
    assert "- extra train: pip install 'radlens[train]'" in result.stdout.split("Optional:")[1]


def test_machine_that_cannot_serve(run, found):
    """Exit code 1, and what to do about it comes first."""
    found(GOOD, OPTIONAL, WRONG)
    result = run("doctor")
    assert result.exit_code == 1
    to_serve = result.stdout.split("Needed to serve:")[1].split("Optional:")[0]
    assert to_serve.split() == ["-", "port", "8080:", "stop", "that", "process"]


def test_json(run, found):
    """The same for programs."""
    found(GOOD, WRONG)
    result = run("doctor", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"ready": False, "findings": [GOOD.as_json(), WRONG.as_json()]}


def test_this_machine(run):
    """An empty folder has neither configuration nor models; everything else was looked at."""
    findings = {each["check"]: each for each in json.loads(run("doctor", "--json").stdout)["findings"]}
    assert findings["config.properties"]["status"] == findings["models"]["status"] == "missing"
    assert findings["engines"]["status"] == findings["Java"]["status"] == "good"
    assert {"memory", "cache", "GPU", "TensorRT", "extra train", "disk of temporary files"} <= set(findings)


@pytest.mark.parametrize("form", ["file", "folder"])
def test_stored_models(tmp_path, form):
    """Newest version of each model, with its size and the workers that its configuration asks for."""
    import zipfile

    files = {
        "MAR-INF/MANIFEST.json": '{"model": {"modelName": "m", "modelVersion": "%s", "configFile": "c.yaml"}}',
        "c.yaml": "# two\nminWorkers: 2\nmaxWorkers: 4\n",
    }
    for version in ("1.0", "2.0"):
        path = tmp_path / f"m-{version}"
        if form == "file":
            with zipfile.ZipFile(path.with_suffix(".0.mar"), "w") as archive:
                for name, text in files.items():
                    archive.writestr(name, text.replace("%s", version))
            continue
        for name, text in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text.replace("%s", version))
    (stored,), damaged = command._stored(tmp_path, tmp_path / "run")
    assert damaged == []
    assert (stored.name, stored.n_workers) == ("m 2.0", 2)
    assert stored.n_bytes > 100


def test_no_store(tmp_path):
    """A store that is not there has no models."""
    assert command._stored(tmp_path / "none", tmp_path / "run") == ([], [])


def test_registered_models_count(tmp_path):
    """Where a server has some, it starts those, with the workers that they were scaled to."""
    from radlens.versions.state import Registered, Versions

    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "m-1.0.mar").write_bytes(bytes(1000))
    Versions().with_version("m", "1.0", Registered("m-1.0.mar", "0" * 64, workers=3)).save(tmp_path)
    (stored,), _ = command._stored(tmp_path / "store", tmp_path)
    assert (stored.name, stored.n_bytes, stored.n_workers) == ("m 1.0", 1000, 3)


def test_a_damaged_archive_keeps_a_server_from_its_first_start(tmp_path):
    """It is named, and what to do about it."""
    from radlens import doctor

    (tmp_path / "m-2.0.mar").write_bytes(b"PK")
    assert command._stored(tmp_path, tmp_path / "run") == ([], ["m-2.0.mar"])
    found = doctor.archives_finding([], tmp_path, ["m-2.0.mar"])
    assert (found.status, found.is_needed) == ("wrong", True)
    assert found.found == f"m-2.0.mar in {tmp_path} cannot be read"
