"""``radlens explain``, with a server and without."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

import radlens
from radlens.client import Client
from radlens.families.cdmam.drawing import upsampled_map
from radlens.images import read

OMIG = ("--method", "omig", "--n-steps", "2", "--upsample", "3")
FILES = {"map.npy", "visits.npy", "map.png", "overlay.png", "overlay.dcm", "explanation.json"}


def test_writes_map_pictures_and_provenance(run, phantom, bundle, tmp_path):
    """All files are there and belong to each other."""
    result = run("explain", phantom, *OMIG, "-o", "out", "--bundle", bundle.path)
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "out"
    assert {file.name for file in out.iterdir()} == FILES
    values, visits = np.load(out / "map.npy"), np.load(out / "visits.npy")
    assert values.shape == visits.shape == read(phantom.read_bytes()).pixels.shape
    assert visits.sum() == 3 * 250 * 250
    assert np.all(values[visits == 0] == 0)
    answer = json.loads((out / "explanation.json").read_text())
    assert answer["explanation"]["n_samples"] == 3
    assert answer["provenance"]["explainer"]["parameters"]["n_steps"] == 2
    assert "map" not in answer["explanation"]


def test_the_secondary_capture_belongs_to_the_study(run, phantom, bundle, tmp_path):
    """overlay.dcm refers to the image it was made from."""
    run("explain", phantom, *OMIG, "-o", "out", "--bundle", bundle.path)
    source, made = pydicom.dcmread(phantom), pydicom.dcmread(tmp_path / "out" / "overlay.dcm")
    assert made.StudyInstanceUID == source.StudyInstanceUID
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_every_dicom_object_is_written(run, phantom, bundle, server_url, tmp_path):
    """Beside the files, in a folder of their own; a server answers with the same objects."""
    result = run("explain", phantom, *OMIG, "-o", "out", "--dicom", "sent", "--bundle", bundle.path)
    assert result.exit_code == 0, result.stderr
    names = ("capture", "report", "map", "segmentation", "presentation")
    assert {file.name for file in (tmp_path / "sent").iterdir()} == {f"{name}.dcm" for name in names}
    made = {name: pydicom.dcmread(tmp_path / "sent" / f"{name}.dcm") for name in names}
    np.testing.assert_array_equal(
        made["map"].pixel_array.ravel(), np.load(tmp_path / "out" / "map.npy").astype(np.float32).ravel()
    )
    with Client(server_url, token="secret") as client:
        asked = client.dicom(phantom, objects=names, method="omig", n_steps=2, n_samples=3)
    assert [pydicom.dcmread(io.BytesIO(each)).SOPInstanceUID for each in asked] == [
        made[name].SOPInstanceUID for name in names
    ]


def test_server_and_local_give_the_same_map(run, phantom, bundle, server_url, tmp_path):
    """Both modes run the same service on the same samples: equal bit for bit."""
    local = run("explain", phantom, *OMIG, "--seed", "4", "-o", "local", "--bundle", bundle.path)
    asked = run("explain", phantom, *OMIG, "--seed", "4", "-o", "asked", "--server", server_url, "--token", "secret")
    assert (local.exit_code, asked.exit_code) == (0, 0), asked.stderr
    for name in ("map.npy", "visits.npy"):
        np.testing.assert_array_equal(np.load(tmp_path / "local" / name), np.load(tmp_path / "asked" / name))


@pytest.mark.parametrize("mode", ["local", "server"])
def test_progress_is_shown_in_both_modes(run, phantom, bundle, server_url, mode):
    """The bar reaches the number of samples."""
    source = ("--bundle", bundle.path) if mode == "local" else ("--server", server_url, "--token", "secret")
    result = run("explain", phantom, *OMIG, "-o", "out", *source)
    assert "explaining samples" in result.stderr
    assert "3 of 3" in result.stderr


@pytest.mark.parametrize(
    "parameters",
    [
        ("--method", "sensitivity"),
        ("--method", "occlusion", "--window", "50", "--stride", "50"),
        ("--method", "omig", "--n-steps", "1", "--path-length", "0.5", "--zscore", "2", "--sampler", "grid"),
        ("--method", "sensitivity", "--upsample", "2", "--normalize", "visits"),
    ],
)
def test_every_method_and_parameter_is_passed_on(run, noise, bundle, tmp_path, parameters):
    """What is given on the command line is what the provenance states."""
    result = run("explain", noise, *parameters, "-o", "out", "--bundle", bundle.path)
    assert result.exit_code == 0, result.stderr
    stated = json.loads((tmp_path / "out" / "explanation.json").read_text())["provenance"]
    said = {**stated["explainer"]["parameters"], **stated["sampling"], "method": stated["explainer"]["method"]}
    said["upsample"] = said.pop("n_samples")
    for name, value in zip(parameters[::2], parameters[1::2], strict=True):
        assert said[name.removeprefix("--").replace("-", "_")] == type(said[name[2:].replace("-", "_")])(value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (["--method", "lime"], "method must be one of occlusion, omig, sensitivity, got 'lime'"),
        (["--n-steps", "0"], "n_steps must be an integer from 1 to 1000, got '0'"),
        (["--method", "sensitivity", "--n-steps", "3"], "got 'n_steps'"),
        (["--upsample", "0"], "n_samples must be an integer from 1 to 100000, or auto, got '0'"),
        (["--upsample", "auto", "--reliability", "95"], "reliability must be a number above 0 and below 1, got '95.0'"),
        (["--upsample", "5", "--reliability", "0.9"], "n_samples must be auto with reliability, got 5"),
        (
            ["--upsample", "2", "--checkpoint", "missing/run.npz"],
            "checkpoint must be a file that can be written, got No",
        ),
        (["--sampler", "all"], "sampler must be one of grid, jitter, stratified, got 'all'"),
    ],
)
def test_refuses_parameters_out_of_range(run, noise, bundle, tmp_path, parameters, message):
    """The service's message is the command's, and nothing is written."""
    result = run("explain", noise, *parameters, "-o", "out", "--bundle", bundle.path)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_automatic_runs_tell_their_reliability(run, phantom, bundle, tmp_path):
    """Beside the bar, in the end, and in the files; what was not reached is a warning."""
    auto = (
        "--method",
        "sensitivity",
        "--upsample",
        "auto",
        "--max-samples",
        "20",
        "-o",
        "out",
        "--bundle",
        bundle.path,
    )
    result = run("explain", phantom, *auto, "--reliability", "0.2")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"explaining samples: 20 of 20, reliability 0\.\d{3}", result.stderr)
    assert re.search(r"^reliability 0\.\d{3} after 20 samples$", result.stderr, re.MULTILINE)
    assert json.loads((tmp_path / "out" / "explanation.json").read_text())["explanation"]["reliability_reached"] is True
    result = run("explain", phantom, *auto, "--reliability", "0.9999")
    said = r"warning: reliability 0\.\d{3} after 20 samples, less than 0\.9999: raise --max-samples"
    assert re.search(said, result.stderr)


def run_apart(arguments, folder, until):
    """Run a command in a process of its own and kill it, without warning, as soon as ``until()`` is true."""
    code = "from radlens.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": str(Path(radlens.__file__).parents[1])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not until() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    return process.returncode


@pytest.mark.slow
def test_a_killed_run_goes_on(run, phantom, bundle, tmp_path):
    """SIGKILL in the middle; the same command again gives the uninterrupted map, bit for bit."""
    arguments = ("explain", phantom, "--n-steps", "1", "--upsample", "96", "--bundle", bundle.path)
    file = tmp_path / "run.npz"
    resumable = (*arguments, "-o", "out", "--checkpoint", file)

    def is_under_way():
        return file.exists() and n_saved(file) >= 8

    assert run_apart([*resumable, "--checkpoint-every", "0"], tmp_path, is_under_way) == -signal.SIGKILL
    before = n_saved(file)
    assert 8 <= before < 96
    result = run(*resumable)
    assert result.exit_code == 0, result.stderr
    assert f"continuing after {before} samples" in result.stderr
    assert run(*arguments, "-o", "whole").exit_code == 0
    for name in ("map.npy", "visits.npy"):
        np.testing.assert_array_equal(np.load(tmp_path / "out" / name), np.load(tmp_path / "whole" / name))


def n_saved(file):
    """Return how many samples a checkpoint holds."""
    with file.open("rb") as opened, np.load(opened) as saved:
        return int(saved["counts"][0])


def test_a_checkpoint_of_a_server_is_continued(run, phantom, bundle, server_url, tmp_path):
    """The command asks for ranges and saves them; given again it has nothing left to ask."""
    asked = ("explain", phantom, "--method", "sensitivity", "--upsample", "3", "--checkpoint", "run.npz")
    source = ("--server", server_url, "--token", "secret")
    first = run(*asked, "-o", "first", *source)
    assert first.exit_code == 0, first.stderr
    again = run(*asked, "-o", "again", "--server", "http://127.0.0.1:9")
    assert again.exit_code == 0, again.stderr
    for name in ("map.npy", "visits.npy"):
        np.testing.assert_array_equal(np.load(tmp_path / "first" / name), np.load(tmp_path / "again" / name))
    refused = run(*asked, "--seed", "5", "-o", "other", *source)
    assert (refused.exit_code, "checkpoint must be of the same run" in refused.stderr) == (2, True)


def test_a_decoded_answer_is_an_upsampled_map():
    """Totals are what the samples gave, whichever way the map was divided."""
    answer = {
        "explanation": {
            "map": np.full((2, 2), 3.0, dtype=np.float32),
            "visits": np.array([[1, 2], [0, 4]], dtype=np.uint8),
            "n_samples": 5,
            "normalize": "visits",
        }
    }
    np.testing.assert_array_equal(upsampled_map(answer).total, [[3, 6], [0, 12]])


def test_members_are_written_and_drawn(run, phantom, bundle, tmp_path):
    """Of CDMAM as of classifiers: arrays of all members, and a figure of them."""
    result = run("explain", phantom, *OMIG, "--members", "each", "-o", "out", "--bundle", bundle.path)
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "out"
    further = {"members.npy", "members.png", "disagreement.npy", "disagreement.png"}
    assert {file.name for file in out.iterdir()} == FILES | further
    members, mean = np.load(out / "members.npy"), np.load(out / "map.npy")
    np.testing.assert_allclose(members.mean(axis=0), mean, rtol=1e-4, atol=1e-9)
    assert "members" not in json.loads((out / "explanation.json").read_text())["explanation"]
