"""``radlens predict``, with a server and without."""

import json
import re

import pytest

from radlens.images import read, to_png


def test_prints_the_curve_with_its_verdict(run, phantom, bundle):
    """Twelve points, four of them with an answer to each limit."""
    result = run("predict", phantom, "--bundle", bundle.path)
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("│")]
    assert len(lines) == 12
    answers = [re.findall(r"([✓✗?]) (met|not met|not settled)", line) for line in lines]
    assert sorted(map(len, answers)) == [0] * 8 + [2] * 4
    assert {"met": "✓", "not met": "✗", "not settled": "?"}.items() >= {(b, a) for row in answers for a, b in row}
    assert "Acceptable limit: " in result.stdout
    assert "Achievable limit: " in result.stdout
    assert f"computing here with cdmam 1.0 ({bundle.bundle_hash[:12]}) from {bundle.path}" in result.stderr
    assert "warning: pixel spacing 0.4 x 0.4 mm differs" in result.stderr


def test_json_is_all_there_is_on_stdout(run, phantom, bundle):
    """``--json`` can be piped."""
    result = run("predict", phantom, "--bundle", bundle.path, "--json", "--seed", "7")
    answer = json.loads(result.stdout)
    assert len(answer["prediction"]["mean_um"]) == 12
    assert answer["provenance"]["sampling"]["seed"] == 7


def test_writes_json_and_picture(run, phantom, bundle, tmp_path):
    """``-o`` can be given for each format, in folders that do not exist yet."""
    result = run("predict", phantom, "--bundle", bundle.path, "-o", "new/p.json", "-o", "new/p.png")
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "new" / "p.json").read_text())["provenance"]["model"] == "cdmam"
    assert (tmp_path / "new" / "p.png").read_bytes().startswith(b"\x89PNG")


def test_writes_dicom_objects(run, phantom, bundle, tmp_path):
    """Capture and report; a prediction has no map."""
    result = run("predict", phantom, "--bundle", bundle.path, "--dicom", "sent")
    assert result.exit_code == 0, result.stderr
    assert {file.name for file in (tmp_path / "sent").iterdir()} == {"capture.dcm", "report.dcm"}
    assert "wrote sent/report.dcm" in result.stderr


def test_server_and_local_predict_the_same(run, phantom, bundle, server_url):
    """Both modes run the same service."""
    local = json.loads(run("predict", phantom, "--bundle", bundle.path, "--json").stdout)
    asked = run("predict", phantom, "--server", server_url, "--token", "secret", "--json")
    assert asked.exit_code == 0, asked.stderr
    assert f"asking {server_url}" in asked.stderr
    assert json.loads(asked.stdout)["prediction"] == local["prediction"]


def test_the_server_can_come_from_the_environment(run, phantom, server_url, monkeypatch):
    """``RADLENS_SERVER`` and ``RADLENS_TOKEN`` stand for the options."""
    monkeypatch.setenv("RADLENS_SERVER", server_url)
    monkeypatch.setenv("RADLENS_TOKEN", "secret")
    assert run("predict", phantom).exit_code == 0


def test_local_wins_over_a_server_of_the_environment(run, phantom, bundle, monkeypatch):
    """The environment is a default, an option is a wish."""
    monkeypatch.setenv("RADLENS_SERVER", "http://127.0.0.1:9")
    assert run("predict", phantom, "--bundle", bundle.path).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 5, "no server runs here: start one with `radlens serve`, name one with --server, or use --local"),
        (["--server", "http://127.0.0.1:9"], 5, "a server must listen at http://127.0.0.1:9, got no connection"),
        (["--local"], 3, "model_store must hold a bundle or an archive, got none: make one with `radlens export`"),
        (["--local", "--server", "http://h"], 2, "--server and --local exclude each other, got both"),
        (["-o", "curve.svg"], 2, "--output must be one of .json, .png, got '.svg'"),
    ],
)
def test_refuses_what_it_cannot_ask(run, phantom, arguments, code, message):
    """One line, and the exit code of its kind."""
    result = run("predict", phantom, *arguments)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (code, f"error: {message}")


def test_other_models_and_versions_are_not_found(run, phantom, bundle):
    """A bundle answers for its own version alone."""
    result = run("predict", phantom, "--bundle", bundle.path, "--model-version", "9.0")
    assert result.exit_code == 2
    assert "error: model must be cdmam/1.0, the model of this bundle, got cdmam/9.0" in result.stderr


def test_an_image_that_cannot_be_read_is_refused(run, bundle, tmp_path):
    """The service's own message reaches the terminal."""
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = run("predict", "broken.png", "--bundle", bundle.path)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in result.stderr


def test_a_missing_image_is_a_usage_error(run):
    """The path is checked before anything else."""
    result = run("predict", "nowhere.dcm")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_a_wrong_key_is_refused(run, phantom, server_url):
    """What the server says counts, also without a message."""
    result = run("predict", phantom, "--server", server_url, "--token", "wrong")
    assert result.exit_code == 2
    assert "error: the server answered 400" in result.stderr


def test_pictures_can_be_asked_about(run, phantom, bundle, tmp_path):
    """The format of an image is told from its bytes; a picture states no spacing, and its cells of 25 px tell none."""
    (tmp_path / "no-suffix").write_bytes(to_png(read(phantom.read_bytes()).pixels.astype("uint16")))
    result = run("predict", "no-suffix", "--bundle", bundle.path)
    assert result.exit_code == 9
    assert "image must show the whole grid" in result.stdout
