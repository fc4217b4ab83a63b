import logging
import shutil

import pytest
import torch

from radlens import engines
from radlens.engines import Golden
from radlens.errors import BundleError, InvalidParameter
from radlens.families.cdmam.manifest import GRADIENT_ONNX, PREDICTION_ONNX, Bundle
from radlens.families.cdmam.model import open_bundle


@pytest.fixture
def copy(exported, tmp_path):
    """The folder of a copy of the bundle that a test may damage."""
    return shutil.copytree(exported.path, tmp_path / "bundle")


@pytest.mark.parametrize("name", ["auto", "onnxruntime", "openvino", "torch"])
def test_every_engine_reproduces_the_model(exported, name):
    """Prediction, midpoint and gradient of 17 images, more than one chunk, equal the torch module's (float32)."""
    images = torch.randn(17, 1, 250, 250, generator=torch.Generator().manual_seed(0))
    engine, model = open_bundle(exported, name), exported.model()
    with torch.no_grad():
        score = model.score(images)
    torch.testing.assert_close(engine.score(images), score, rtol=1e-4, atol=1e-6)
    for found, expected in zip(engine.predict(images), model.predict(images), strict=True):
        # Curves reach 2 um; the epistemic part is the difference of members, in the last bits of theirs.
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=5e-6)
    gradient = model.gradient(images)
    error = (engine.gradient(images) - gradient).norm() / gradient.norm()
    # A ReLU or a maximum that float32 decides differently moves single pixels: 2.5e-3 was seen between f32 and f64.
    assert error < 5e-3


def test_auto_takes_an_engine_that_passes(exported):
    """On an intact bundle one without autograd."""
    assert open_bundle(exported).name in ("llvm", "onnxruntime", "openvino")


def test_a_wrong_graph_is_refused_and_the_next_engine_serves(copy, caplog):
    """No engine that runs graphs can read a damaged one: torch takes over, and the log says so."""
    bundle = Bundle.load(copy, verify=False)
    (copy / GRADIENT_ONNX).write_bytes(b"not a graph")
    with caplog.at_level(logging.WARNING):
        assert open_bundle(bundle).name == "torch"
    for engine in ("openvino", "onnxruntime"):
        assert f"engine {engine} is refused: gradient.onnx must be a graph" in caplog.text
        with pytest.raises(BundleError, match="must reproduce the golden values of the graph, got none that does"):
            open_bundle(bundle, engine)


@pytest.mark.parametrize(("graph", "output"), [(PREDICTION_ONNX, "mean"), (GRADIENT_ONNX, "gradient")])
def test_wrong_numbers_are_refused(copy, graph, output):
    """Golden values that are 5 % off are outside the tolerance of prediction and gradient."""
    golden = Golden.load(copy / graph)
    golden.outputs[output] *= 1.05
    golden.save(copy / graph)
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(BundleError, match=f"{output} must be within .* of the golden values"):
            engines.open(copy / graph, engine)
    with pytest.raises(BundleError, match=f"{output} must be within"):
        open_bundle(Bundle.load(copy, verify=False), "torch")


def test_unknown_engines_are_refused(exported):
    """The message lists the engines there are."""
    with pytest.raises(InvalidParameter, match=r"engine must be one of auto, .*onnxruntime.*openvino.*, got 'tpu'"):
        open_bundle(exported, "tpu")
