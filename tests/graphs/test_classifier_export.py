"""Files of the graphs of a classifier, with golden values that engines are held against."""

from copy import deepcopy

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from classifiers import images, network
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from references import autograd, relative
from torch import nn
from zoo import Lambda

from radlens import engines
from radlens.engines.golden import Golden
from radlens.errors import BundleError, InvalidInput, InvalidParameter
from radlens.families.classifier.export import export_classifier
from radlens.graphs import CompiledGraph, classifier_graphs, turned_kernels, writing
from radlens.graphs.turned_kernels import store_kernels_once
from radlens.graphs.writing import golden_weights


@pytest.mark.slow
def test_a_graph_is_written_with_its_golden_values(tmp_path, monkeypatch):
    """What it must compute is what autograd computes in float64, and engines do, with kernels that are stored once."""
    monkeypatch.setattr(turned_kernels, "LARGE", 100)
    x, stages = images("plain", 2).float(), []
    report = export_classifier(
        deepcopy(network("plain")).float(),
        tmp_path,
        "member-0",
        x,
        2,
        names=["gradient"],
        on_progress=lambda *a: stages.append(a),
    )
    assert report.graphs == ("gradient",)
    assert report.missing == {}
    assert 0 < report.errors["gradient"] < 1e-3
    assert stages == [("gradient", 0, 1), ("done", 1, 1)]
    path = tmp_path / "member-0.gradient.onnx"
    golden = Golden.load(path)
    weights = torch.from_numpy(golden.inputs["weights"])
    assert sorted(weights.argmax(1).tolist()) == [0, 1]
    output, gradient = autograd(network("plain"), (x.double(),), lambda y: (y * weights).sum(1))
    assert relative(golden.outputs["gradient"], gradient) < 1e-9
    assert relative(golden.outputs["output"], output) < 1e-9
    operations = [node.op_type for node in onnx.load(path).graph.node]
    assert operations.count("Transpose") > 0
    for engine in ("onnxruntime", "openvino", "torch"):
        engines.open(path, engine)


@pytest.mark.parametrize("n_outputs", [1, 2, 7])
def test_golden_scores_are_of_two_classes(n_outputs):
    """Two different rows of a one-hot matrix, or both signs of the only logit."""
    weights = golden_weights(n_outputs)
    assert weights.shape == (2, n_outputs)
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights.abs().sum(1), torch.ones(2))
    assert (weights.min() < 0) == (n_outputs == 1)


def test_what_cannot_be_compiled_is_reported(tmp_path):
    """The reason stands in the report; graphs that can are written."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    report = export_classifier(module, tmp_path, "m", torch.rand(2, 1, 4, 4), 2, names=["features"])
    assert report.graphs == ()
    assert "must have maps (b, k, h, w)" in report.missing["features"]
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_computes_something_else_is_refused(tmp_path, monkeypatch):
    """It is held against the module before it is written."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    graphs = classifier_graphs(module, torch.rand(2, 1, 4, 4), n_outputs=2)
    graphs["prediction"].graph_module.register_forward_hook(lambda _, __, outputs: tuple(2 * y for y in outputs))
    monkeypatch.setattr(graphs, "build", graphs.__getitem__)
    with pytest.raises(BundleError, match=r"output of graph prediction must be within 1.0e-05 of float64, got 1.0e"):
        export_classifier(graphs, tmp_path, "m", torch.rand(2, 1, 4, 4), 2, names=["prediction"])
    assert list(tmp_path.iterdir()) == []


def test_images_at_a_kink_are_replaced(tmp_path, monkeypatch):
    """Where float32 and float64 fall on two sides of a rectifier, other images tell whether the graph is right."""
    net, seen = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval(), []
    compute = writing.one_by_one

    def wrong_at_first(function, inputs):
        found = compute(function, inputs)
        if isinstance(function, CompiledGraph) and inputs[0].dtype == torch.float32:
            seen.append(inputs[0].clone())
            return [each * 1.01 for each in found] if len(seen) == 1 else found
        return found

    monkeypatch.setattr(writing, "one_by_one", wrong_at_first)
    images = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    graphs = classifier_graphs(net, images, n_outputs=3)
    writing.GraphWriter(graphs, images).write("prediction", tmp_path / "prediction.onnx")
    assert len(seen) == 2
    assert torch.equal(seen[0], images)
    assert 0 < (seen[1] - images).abs().mean() < 0.02
    golden = Golden.load(tmp_path / "prediction.onnx")
    np.testing.assert_array_equal(golden.inputs["images"], seen[1].numpy())


def test_a_graph_that_is_wrong_in_float64_gets_no_other_images(tmp_path, monkeypatch):
    """Such an error is none of rounding."""
    net, seen = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval(), []
    compute = writing.one_by_one

    def wrong(function, inputs):
        seen.append((isinstance(function, CompiledGraph), inputs[0].dtype))
        return [each * (1 + 1e-3 * seen[-1][0]) for each in compute(function, inputs)]

    monkeypatch.setattr(writing, "one_by_one", wrong)
    images = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    with pytest.raises(BundleError, match=r"must be within 1.0e-05 of float64, got 1.0e-03"):
        writing.GraphWriter(classifier_graphs(net, images, n_outputs=3), images).write(
            "prediction", tmp_path / "p.onnx"
        )
    assert seen.count((True, torch.float32)) == 1
    assert not (tmp_path / "p.onnx").exists()


@pytest.mark.parametrize(
    ("examples", "names", "error", "message"),
    [
        (
            torch.zeros(1, 1, 4, 4),
            None,
            InvalidInput,
            r"must be torch.float32 of shape \(2, c, h, w\), got torch.float32",
        ),
        (torch.zeros(2, 1, 4, 4).double(), None, InvalidInput, r"got torch.float64 of \(2, 1, 4, 4\)"),
        (torch.zeros(2, 1, 4, 4), ["lrp"], InvalidParameter, "graph must be one of prediction, .*, got 'lrp'"),
    ],
)
def test_what_does_not_fit_is_refused(examples, names, error, message, tmp_path):
    """Examples and names."""
    with pytest.raises(error, match=message):
        export_classifier(Lambda(lambda x: x.flatten(1)), tmp_path, "m", examples, 16, names=names)


def test_kernels_of_two_convolutions_that_are_each_other_turned_round_are_stored_once(monkeypatch):
    """Slice and Transpose take the place of the second; kernels of other values or uses stay."""
    monkeypatch.setattr(turned_kernels, "LARGE", 1)

    generator = np.random.default_rng(0)
    a, c = generator.normal(size=(2, 4, 2, 3, 1)).astype(np.float32)
    initializers = {"a": a, "b": np.ascontiguousarray(np.flip(a.swapaxes(0, 1), 2)), "c": c}
    convolutions = [("x", "a", "y"), ("y", "b", "z"), ("z", "c", "u"), ("z", "a", "v")]
    graph = helper.make_graph(
        [
            *(helper.make_node("Conv", [image, kernels], [out], name=out) for image, kernels, out in convolutions),
            helper.make_node("Add", ["u", "v"], ["w"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2, 9, 5])],
        [helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [1, 4, 3, 5])],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = generator.normal(size=(1, 2, 9, 5)).astype(np.float32)
    expected = ReferenceEvaluator(model).run(None, {"x": x})[0]
    stored = ir.from_proto(model)
    store_kernels_once(stored)
    written = ir.to_proto(stored)
    onnx.checker.check_model(written, full_check=True)
    assert {tensor.name for tensor in written.graph.initializer if len(tensor.dims) == 4} == {"a", "c"}
    assert np.array_equal(ReferenceEvaluator(written).run(None, {"x": x})[0], expected)
