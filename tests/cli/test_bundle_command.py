"""``radlens bundle`` and ``radlens export`` of classifiers."""

import zipfile

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

MODULE = """
import torch
from torch import nn

def load():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16 * 12, 2)
    return nn.Sequential(*layers)
"""
"""A network of the user's own; its head is no global average."""

OPTIONS = ("--name", "chest", "--classes", "normal,nodule", "--shape", "16x12")


@pytest.mark.slow
def test_a_module_becomes_an_archive_that_answers(run, tmp_path):
    """The table of errors, the methods, the archive; and a prediction with it, but not of another kind of image."""
    (tmp_path / "images").mkdir()
    for k in range(250):
        np.save(tmp_path / "images" / f"{k}.npy", smooth(k))
    (tmp_path / "own_network_module.py").write_text(MODULE)
    result = run("bundle", "own_network_module:load", *OPTIONS, "--store", tmp_path / "store", "--images", "images")
    assert result.exit_code == 0, result.output
    assert "prediction" in result.stdout
    assert "methods: deep_lift, deep_shap, grad_cam" in result.stdout.replace("\n", " ")
    assert "not cam: cam must be given a network of global average pooling" in " ".join(result.stdout.split())
    with zipfile.ZipFile(tmp_path / "store" / "chest-1.0.mar") as archive:
        assert {"bundle.json", "member-0.gradient.onnx", "model_handler.py"} <= set(archive.namelist())
    np.save(tmp_path / "image.npy", smooth(1000))
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32))
    local = ("--bundle", tmp_path / "store" / "bundles" / "chest-1.0", "--local")
    answer = run("predict", "image.npy", *local)
    assert answer.exit_code == 0, answer.output
    assert "nodule" in answer.stdout
    refused = run("predict", "noise.npy", *local)
    assert refused.exit_code == 9
    assert "is not of the kind that the model was trained on" in " ".join(refused.output.split())


def smooth(seed):
    """Return an image of the training kind, float32."""
    return gaussian_filter(np.random.default_rng(seed).normal(size=(30, 20)), 4).astype(np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing_there:load", *OPTIONS), "MODEL must be a file or module:function"),
        (("model.onnx", *OPTIONS), "the model file must exist, got model.onnx, which is missing"),
        (("model.h5", *OPTIONS), "a model file must end in .onnx, .pt, .pth, .ts, got .h5"),
        (("model.onnx", *OPTIONS[:-1], "16"), "--shape must be rows x columns, such as 1024x512, got '16'"),
        (("model.onnx", *OPTIONS, "--mean", "a"), "--mean must be numbers separated by commas, got 'a'"),
        (("model.onnx", *OPTIONS, "--framing", "head"), "framing must be one of whole, breast, got 'head'"),
        (("model.onnx", *OPTIONS, "--version", "1/0"), "--version must be letters, digits"),
    ],
)
def test_what_cannot_be_bundled_is_refused(run, tmp_path, arguments, message):
    """One line that says what was expected, exit code 2 or 3, and nothing is left behind."""
    result = run("bundle", *arguments, "--store", tmp_path / "store")
    assert result.exit_code in (2, 3)
    assert message in " ".join(result.stderr.split())
    assert not list((tmp_path / "store").glob("bundles/*"))
