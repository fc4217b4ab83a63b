"""``radlens demo``."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pydicom
import pytest

import radlens
from radlens.cli.demo import is_stale
from radlens.server import State, free_ports, stop

TOP = Path(radlens.__file__).parent.parent


@pytest.fixture
def workdir():
    """A directory for a server; paths of sockets have at most 108 characters, so this one is short."""
    with tempfile.TemporaryDirectory(prefix="radlens-") as folder:
        yield Path(folder)
        stop(Path(folder))


@pytest.fixture
def process(workdir, tmp_path):
    """Run a command in a process of its own, as a shell does; the server must outlive it."""

    def run(*arguments):
        command = [sys.executable, "-c", "from radlens.cli import main; main()", *map(str, arguments)]
        environment = os.environ | {"RADLENS_WORKDIR": str(workdir), "PYTHONPATH": str(TOP)}
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)

    return run


@pytest.fixture
def config(tmp_path):
    """The configuration of the repository, on free ports."""
    file = tmp_path / "config.properties"
    lines = [f"{key}={value}" for key, value in free_ports().properties().items()]
    file.write_text("\n".join([(TOP / "config.properties").read_text(), *lines]))
    shutil.copy(TOP / "log4j2.xml", tmp_path)
    return file


@pytest.mark.slow
@pytest.mark.serving
def test_from_trained_members_to_a_report_over_http(process, tmp_path, workdir, config, smallest_folder):
    """Everything is made, sent as DICOM and written; a second run changes neither archive nor server."""
    arguments = ("demo", "--members", smallest_folder, "--config", config, "--upsample", "2", "--n-steps", "1")
    result = process(*arguments)
    assert result.returncode == 0, result.stderr
    state, made = State.load(workdir), (tmp_path / "model_store" / "cdmam-1.0.mar").stat().st_mtime_ns
    demo = tmp_path / "demo"
    sent = pydicom.dcmread(demo / "phantom.dcm")
    for name in ("prediction.json", "explanation.json", "upsampled-explanation.json"):
        source = json.loads((demo / name).read_text())["provenance"]["input"]
        assert (source["media_type"], source["sop_instance_uid"]) == ("application/dicom", sent.SOPInstanceUID)
    assert np.load(demo / "upsampled-map.npy").shape == (sent.Rows, sent.Columns)
    pictures = ("cdc", "map", "overlay", "upsampled-map", "upsampled-overlay")
    assert all((demo / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert "<html" in (demo / "report.html").read_text()
    assert f"--data-binary @demo/phantom.dcm {state.url}/predictions/cdmam" in result.stdout
    assert process(*arguments).returncode == 0
    assert asdict(State.load(workdir)) == asdict(state)
    assert (tmp_path / "model_store" / "cdmam-1.0.mar").stat().st_mtime_ns == made


@pytest.mark.parametrize(("made_at", "stale"), [(None, True), (100, True), (200, False), (300, False)])
def test_an_archive_is_made_anew_when_a_source_is_newer(tmp_path, made_at, stale):
    """Missing or older than any of its sources."""
    sources = [tmp_path / "old", tmp_path / "new"]
    for source, at in zip(sources, (50, 200), strict=True):
        source.touch()
        os.utime(source, (at, at))
    made = tmp_path / "made"
    if made_at is not None:
        made.touch()
        os.utime(made, (made_at, made_at))
    assert is_stale(made, sources) == stale


def test_without_trained_members_there_is_no_demo(run):
    """The run to serve is named where it is missing."""
    result = run("demo", "--members", "nothing")
    assert result.exit_code == 6
    assert result.stderr.splitlines()[-1] == "error: a training run must hold training.json, which is missing"
