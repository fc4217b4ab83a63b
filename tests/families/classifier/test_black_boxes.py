"""ONNX files that ONNX Runtime runs and radlens cannot differentiate: predictions, occlusion, LIME and SHAP."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from radlens import explainers
from radlens.datasets import ModelInput
from radlens.errors import UnsupportedMethod
from radlens.families.classifier import open_model
from radlens.families.classifier.making import bundle_classifier
from radlens.families.classifier.settings import explanation_settings

NODE = helper.make_node
SHAPE = (12, 10)
IMAGES = torch.randn(3, 1, *SHAPE, generator=torch.Generator().manual_seed(0))


def write(path, nodes, **weights):
    """Write a file from ``x`` to ``y``, whose nodes start from the flattened image ``f``."""
    weights = {"w": np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32), **weights}
    graph = helper.make_graph(
        [NODE("Flatten", ["x"], ["f"]), *nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 1, *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def branch(name, operation):
    """Return a branch of If that computes from the flattened image."""
    result = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([NODE(operation, ["f"], [name])], name, [], [result])


FILES = {
    "Hardmax": (
        [NODE("Hardmax", ["f"], ["h"], name="hard"), NODE("Add", ["f", "h"], ["g"]), NODE("MatMul", ["g", "w"], ["y"])],
        {},
    ),
    "If": (
        [
            NODE("If", ["t"], ["g"], name="choice", then_branch=branch("a", "Relu"), else_branch=branch("z", "Neg")),
            NODE("MatMul", ["g", "w"], ["y"]),
        ],
        {"t": np.array(True)},
    ),
    "DynamicQuantizeLinear": (
        [
            NODE("DynamicQuantizeLinear", ["w"], ["q", "s", "z"], name="quantised"),
            NODE("DequantizeLinear", ["q", "s", "z"], ["v"]),
            NODE("MatMul", ["f", "v"], ["y"]),
        ],
        {},
    ),
}


@pytest.mark.parametrize("operation", FILES)
def test_any_file_has_the_methods_that_need_only_predictions(operation, tmp_path):
    """The logits are those of ONNX Runtime on the file; other methods name the operator without a gradient."""
    nodes, weights = FILES[operation]
    path = write(tmp_path / "net.onnx", nodes, **weights)
    names = {"name": "box", "version": "1.0", "classes": ("a", "b", "c"), "model_input": ModelInput(SHAPE)}
    bundle = bundle_classifier([path], tmp_path / "bundle", **names)
    assert bundle.manifest.graphs == ("prediction",)
    assert bundle.manifest.explainers == ("lime", "occlusion", "shap")
    model = open_model(bundle)
    expected = onnxruntime.InferenceSession(str(path)).run(None, {"x": IMAGES.numpy()})[0]
    torch.testing.assert_close(model.outputs(IMAGES), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)
    for method in bundle.manifest.explainers:
        maps = explainers.create(method).attribute(model, IMAGES[:1], 1)
        assert maps.isfinite().all()
        assert maps.abs().max() > 0
    with pytest.raises(
        UnsupportedMethod, match=rf"saliency does not work .* cannot differentiate net.onnx: .*{operation}"
    ):
        explanation_settings({"method": "saliency"}, {}, bundle.manifest)
