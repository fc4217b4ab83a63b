"""The service and the engines: what happens when a stored graph is damaged."""

import json
import logging
import shutil

import numpy as np
import pytest

from radlens.errors import BundleError
from radlens.families.cdmam import Service
from radlens.families.cdmam.manifest import GRADIENT_ONNX, PREDICTION_ONNX, WEIGHTS, Bundle
from radlens.images import to_npy
from radlens.service import request_from_http


@pytest.fixture
def copy(exported, tmp_path):
    """The folder of a copy of the bundle that a test may damage."""
    return shutil.copytree(exported.path, tmp_path / "bundle")


def _flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _explained(service):
    pixels = np.random.default_rng(0).normal(1000, 100, (250, 250)).astype(np.float32)
    headers = {"content-type": "application/octet-stream", "accept": "application/json"}
    request = request_from_http("explain", to_npy(pixels), headers, {"n_steps": "2"}, "id")
    (response,) = service.respond([request])
    assert response.status == 200, response.body
    return json.loads(response.body)


def test_a_damaged_gradient_graph_is_refused_and_torch_serves(exported, copy, caplog):
    """One bit: the answer is the same to rounding, provenance and log say which graph is not used and why."""
    _flip(copy / GRADIENT_ONNX)
    with caplog.at_level(logging.WARNING):
        service = Service(Bundle.load(copy))
    reason = "gradient.onnx is not the file this bundle was made with: its SHA-256 differs"
    assert f"engine openvino is refused: {reason}" in caplog.text
    answer = _explained(service)
    stated = answer["provenance"]
    assert stated["engine"] == "torch"
    refused = {"engine": "onnxruntime", "graph": "gradient.onnx", "reason": reason}
    assert refused in stated["refused_engines"]
    # The prediction graph is intact: an engine without autograd computes it.
    assert stated["prediction_engine"] != "torch"
    intact = _explained(Service(Bundle.load(exported.path)))
    assert intact["provenance"]["refused_engines"] == []
    assert intact["provenance"]["engine"] != "torch"
    assert intact["provenance"]["batch_size"] in (1, 8, 32)
    assert intact["provenance"]["peak_memory_bytes"] > 0


@pytest.mark.parametrize("graph", [PREDICTION_ONNX, GRADIENT_ONNX])
def test_a_missing_graph_is_like_a_damaged_one(copy, graph):
    """Predictions and explanations need none."""
    (copy / graph).unlink()
    service = Service(Bundle.load(copy))
    assert {refusal.graph for refusal in service.engine.refused} == {graph}
    assert f"bundle must hold {graph}, which is missing" in {refusal.reason for refusal in service.engine.refused}
    _explained(service)


def test_without_weights_there_is_nothing_to_serve(copy):
    """And a bundle whose golden values are damaged has nothing to trust an engine by."""
    golden = (copy / "gradient.golden.npz").read_bytes()
    (copy / "gradient.golden.npz").write_bytes(golden[:-9])
    with pytest.raises(BundleError, match=r"gradient\.golden\.npz is not the file this bundle was made with"):
        Bundle.load(copy)
    (copy / "gradient.golden.npz").write_bytes(golden)
    _flip(copy / WEIGHTS)
    with pytest.raises(BundleError, match=r"weights\.pt is not the file this bundle was made with"):
        Bundle.load(copy)
