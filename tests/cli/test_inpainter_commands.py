"""Commands with an inpainter: a model that takes a mask, and has no explanations."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_inpainter import inpainter_files, tiny_recipe

from radlens.client import Client
from radlens.families import load
from radlens.families.inpainter import recipes
from radlens.images import read, to_npy, to_png
from radlens.local import LocalTransport
from radlens.wire import array_from_json

PIXELS = np.random.default_rng(0).normal(1000, 300, (50, 40)).astype(np.float32)
MASK = np.zeros(PIXELS.shape, dtype=bool)
MASK[10:20, 8:19] = True


@pytest.fixture
def asked(run, tmp_path):
    """Ask for a prediction of an image in the current folder."""
    (tmp_path / "image.npy").write_bytes(to_npy(PIXELS))
    (tmp_path / "mask.npy").write_bytes(to_npy(MASK))
    return lambda *options: run("predict", "image.npy", "--bundle", inpainter_files(), *options)


def test_predict_fills_an_image(asked, tmp_path):
    """A table, JSON and a picture; the values are those of the client."""
    result = asked("--mask", "mask.npy", "-o", "new/filled.png", "-o", "new/filled.json")
    assert result.exit_code == 0, result.stderr
    assert "pixels in holes" in result.stdout
    assert "110" in result.stdout
    picture = read((tmp_path / "new/filled.png").read_bytes())
    assert picture.pixels.shape == PIXELS.shape
    written = json.loads((tmp_path / "new/filled.json").read_text())
    printed = json.loads(asked("--mask", "mask.npy", "--json").stdout)
    bundle = load(inpainter_files())
    with Client("http://local", model="inpainter", transport=LocalTransport(bundle)) as client:
        answer = client.predict(to_npy(PIXELS), mask=to_npy(MASK))
        fetched = client.fetch("predict", to_npy(PIXELS), "application/x-npy", mask=to_npy(MASK), output="change")
    for found in (written, printed):
        np.testing.assert_array_equal(array_from_json(found["prediction"]["filled"]), answer["prediction"]["filled"])
    np.testing.assert_array_equal(read(fetched.content).pixels, answer["prediction"]["change"])
    assert fetched.provenance["output"] == "change"


def test_predict_without_a_mask_says_what_is_missing(asked, tmp_path):
    """And so does one with a mask of another size."""
    result = asked()
    assert result.exit_code != 0
    assert "got no mask" in " ".join(result.stderr.split())
    (tmp_path / "small.png").write_bytes(to_png(MASK[1:].astype(np.uint8)))
    result = asked("--mask", "small.png")
    assert result.exit_code != 0
    assert "the mask must have the size of the image" in " ".join(result.stderr.split())


def test_explanations_are_refused_in_words(run, tmp_path):
    """Of the command, and in the list of methods."""
    (tmp_path / "image.npy").write_bytes(to_npy(PIXELS))
    result = run("explain", "image.npy", "-o", "out", "--bundle", inpainter_files())
    assert result.exit_code != 0
    assert "an inpainter has no explanations; ask for a prediction" in " ".join(result.stderr.split())
    result = run("methods", inpainter_files())
    assert result.exit_code == 0, result.stderr
    assert "the model has no explanations" in result.stderr


def test_parity_prints_each_engine(run):
    """As the export measured them, and measured here."""
    for options in ((), ("--here",)):
        result = run("parity", inpainter_files(), *options)
        assert result.exit_code == 0, result.stderr
        assert "inpainter.onnx" in result.stdout
        for form in ("eager", "onnxruntime f32", "openvino f32", "torch f32"):
            assert form in result.stdout


@pytest.mark.slow
def test_training_and_export(run, monkeypatch, tmp_path):
    """From the command to a bundle that fills an image, with the tables of a run and of an export."""
    assert "mammogram-inpainter: demo, paper" in run("train", "x", "--model", "list").stdout
    assert "--vgg" in run("train", "--help").stdout
    refused = run("train", "x", "--model", "mammogram-inpainter", "--members", "2")
    assert refused.exit_code != 0
    assert "--members must come with --model of" in " ".join(refused.stderr.split())
    monkeypatch.setitem(recipes.INPAINTER_PRESETS["mammogram-inpainter"], "demo", tiny_recipe())
    result = run("train", "runs/demo", "--model", "mammogram-inpainter", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert "mean of the known tissue" in result.stdout
    assert "of 2 images" in result.stdout
    result = run("export", "runs/demo", "--form", "directory")
    assert result.exit_code == 0, result.stderr
    assert "Against the network in float64" in " ".join(result.stdout.split())
    bundle = next(Path("model_store/bundles").iterdir())
    assert load(bundle).manifest.input == tiny_recipe().input
    (tmp_path / "image.npy").write_bytes(to_npy(PIXELS))
    (tmp_path / "mask.npy").write_bytes(to_npy(MASK))
    assert run("predict", "image.npy", "--mask", "mask.npy", "--bundle", bundle).exit_code == 0


@pytest.mark.parametrize("command", ["report", "evaluate", "reliability"])
def test_commands_of_other_models_are_refused_in_words(run, tmp_path, command):
    """None of them shows an exception of Python."""
    (tmp_path / "image.npy").write_bytes(to_npy(PIXELS))
    arguments = {
        "report": ("image.npy", "-o", "report.html", "--bundle", inpainter_files()),
        "evaluate": (inpainter_files(), "--simulated", "4", "-o", "e"),
        "reliability": ("image.npy", "--bundle", inpainter_files(), "-o", "r"),
    }[command]
    result = run(command, *arguments)
    assert result.exit_code not in (0, 1)
    assert result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("mode", ["--causal", "--domain"])
def test_evaluations_of_other_models_are_refused_in_words(run, mode):
    """Disks and lesions are not asked of an inpainter."""
    result = run("evaluate", inpainter_files(), mode, "-o", "e")
    assert result.exit_code not in (0, 1)
    assert result.stderr
    assert "Traceback" not in result.stderr
