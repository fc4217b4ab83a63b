"""``radlens explain``, with a server and without."""

import json

import numpy as np
import pydicom
import pytest

from radlens.cli.results import upsampled_map
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
    assert "3/3" in result.stderr


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
        (["--sampler", "all"], "sampler must be one of grid, jitter, stratified, got 'all'"),
    ],
)
def test_refuses_parameters_out_of_range(run, noise, bundle, tmp_path, parameters, message):
    """The service's message is the command's, and nothing is written."""
    result = run("explain", noise, *parameters, "-o", "out", "--bundle", bundle.path)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


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
