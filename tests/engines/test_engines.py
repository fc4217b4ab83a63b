import logging
import shutil

import numpy as np
import pytest
import torch

from radlens.bundles import GOLDEN, GRADIENT_ONNX, Bundle
from radlens.engines import OpenVinoEngine, TorchEngine, open_bundle
from radlens.engines.base import ENGINES, check_golden
from radlens.errors import BundleError, InvalidParameter


@pytest.fixture
def copy(exported, tmp_path):
    """The folder of a copy of the bundle that a test may damage."""
    return shutil.copytree(exported.path, tmp_path / "bundle")


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_reproduces_the_model(exported, name):
    """Prediction, midpoint and gradient of 17 images, more than one chunk, equal the torch module's (float32)."""
    images = torch.randn(17, 1, 250, 250, generator=torch.Generator().manual_seed(0))
    engine, model = open_bundle(exported, name), exported.model()
    with torch.no_grad():
        score = model.score(images)
    torch.testing.assert_close(engine.score(images), score, rtol=1e-4, atol=1e-6)
    for found, expected in zip(engine.predict(images), model.predict(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    gradient = model.gradient(images)
    error = (engine.gradient(images) - gradient).norm() / gradient.norm()
    # A ReLU or a maximum that float32 decides differently moves single pixels: 2.5e-3 was seen between f32 and f64.
    assert error < 5e-3


def test_auto_takes_the_fastest_that_passes(exported):
    """On an intact bundle that is OpenVINO."""
    assert isinstance(open_bundle(exported), OpenVinoEngine)


def test_a_wrong_graph_is_refused_and_the_next_engine_serves(copy, caplog):
    """Neither engine that runs graphs can read a damaged one: torch takes over, and the log says so."""
    bundle = Bundle.load(copy, verify=False)
    (copy / GRADIENT_ONNX).write_bytes(b"not a graph")
    with caplog.at_level(logging.WARNING):
        assert isinstance(open_bundle(bundle), TorchEngine)
    for engine in ("openvino", "onnxruntime"):
        assert f"engine {engine} is refused: gradient.onnx must be a graph" in caplog.text
        with pytest.raises(BundleError, match="must reproduce the golden values"):
            open_bundle(bundle, engine)


def test_wrong_numbers_are_refused(copy):
    """Golden values that are 1 % off are outside the tolerance of prediction and gradient."""
    with np.load(copy / GOLDEN) as stored:
        golden = dict(stored)
    bundle = Bundle.load(copy, verify=False)
    for quantity, key in (("prediction", "mean"), ("gradient", "gradient")):
        np.savez(copy / GOLDEN, allow_pickle=False, **(golden | {key: golden[key] * 1.05}))
        with pytest.raises(BundleError, match=f"{quantity} must be within"):
            check_golden(TorchEngine(bundle), bundle)


def test_unknown_engines_are_refused(exported):
    """The message lists the engines there are."""
    with pytest.raises(InvalidParameter, match="one of auto, openvino, onnxruntime, torch, got 'tpu'"):
        open_bundle(exported, "tpu")
