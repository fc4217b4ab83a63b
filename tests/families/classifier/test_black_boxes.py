"""Networks that ONNX Runtime runs and radlens cannot differentiate: predictions, occlusion, LIME and SHAP."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from radlens import explainers
from radlens.datasets import ModelInput
from radlens.engines.onnxruntime import cpu_session
from radlens.errors import UnsupportedMethod, UnsupportedOperation
from radlens.families.classifier import open_model
from radlens.families.classifier.making import bundle_classifier
from radlens.families.classifier.settings import explanation_settings
from radlens.graphs.onnx_file import OnnxFile

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


class Convolved(nn.Module):
    """Common layers of the networks below, which `torch.export` or ONNX cannot take."""

    def __init__(self):
        """Draw random weights."""
        super().__init__()
        torch.manual_seed(0)
        self.maps, self.head = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), nn.Linear(4, 3)
        # LIME leaves out superpixels of a small effect.
        nn.init.normal_(self.head.weight, std=30)
        self.register_buffer("scale", torch.tensor(2.0))


class Chosen(Convolved):
    """A branch on a buffer."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        y = self.maps(x)
        if bool(self.scale > 1):
            y = y * self.scale
        return self.head(y.mean((2, 3)))


class OneByOne(Convolved):
    """A branch for each image; the images take both ways."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        y = self.maps(x).mean((2, 3))
        rows = []
        for k in range(y.shape[0]):
            row = y[k]
            if bool(row.mean() > 0.29):
                row = 2 * row
            rows.append(row)
        return self.head(torch.stack(rows))


class Spectrum(Convolved):
    """An operation that neither radlens nor the exporter has."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(torch.fft.rfft2(self.maps(x)).abs().mean((2, 3)))


class Median(Convolved):
    """An operation that radlens has and ONNX has not."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.maps(x).flatten(2).median(-1).values)


class InNumpy(Convolved):
    """Arithmetic that no tracer sees."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        found = np.sort(self.maps(x).flatten(2).detach().numpy(), -1)[:, :, -3:].mean(-1)
        return self.head(torch.from_numpy(found))


NAMES = {"name": "box", "version": "1.0", "classes": ("a", "b", "c"), "model_input": ModelInput(SHAPE)}


@pytest.mark.parametrize("form", ["eager", "torchscript"])
@pytest.mark.parametrize("network", [Chosen, OneByOne])
def test_a_module_that_cannot_be_compiled_has_the_methods_that_need_only_predictions(network, form, tmp_path):
    """Its logits are those of the module, whichever way an image takes; a softmax at its end is left out."""
    module = network().eval()
    whole = nn.Sequential(module, nn.Softmax(1)).eval()
    source = whole if form == "eager" else tmp_path / "net.pt"
    if form == "torchscript":
        torch.jit.script(whole).save(source)
    bundle = bundle_classifier([source], tmp_path / "bundle", **NAMES)
    assert bundle.manifest.graphs == ("prediction",)
    assert bundle.manifest.explainers == ("lime", "occlusion", "shap")
    assert bundle.manifest.form == form
    assert bundle.manifest.left_out == {"member-0": "Softmax"}
    assert not bundle.traced.exists()
    model = open_model(bundle)
    with torch.no_grad():
        torch.testing.assert_close(model.outputs(IMAGES), module(IMAGES), rtol=1e-4, atol=1e-5)
    for method in bundle.manifest.explainers:
        maps = explainers.create(method).attribute(model, IMAGES[:1], 1)
        assert maps.isfinite().all()
        assert maps.abs().max() > 0
    with pytest.raises(UnsupportedMethod, match=r"saliency does not work .* cannot differentiate the network: "):
        explanation_settings({"method": "saliency"}, {}, bundle.manifest)


def test_values_of_a_file_may_have_the_names_of_ours(tmp_path):
    """Also where a branch uses a value of the graph around it."""
    nodes = [NODE("If", ["t"], ["images"], then_branch=branch("a", "Relu"), else_branch=branch("z", "Neg"))]
    path = write(tmp_path / "net.onnx", [*nodes, NODE("MatMul", ["images", "w"], ["y"])], t=np.array(True))
    model = onnx.load(path)
    for name, other in (("f", "output"), ("w", "file/images")):
        rename(model.graph, name, other)
    onnx.save(model, path)
    expected = onnxruntime.InferenceSession(str(path)).run(None, {"x": IMAGES.numpy()})[0]
    file = OnnxFile.read(path, IMAGES.numpy())
    for optimise in (True, False):
        session = cpu_session(file.model.SerializeToString(), optimise=optimise)
        np.testing.assert_allclose(session.run(None, {"images": IMAGES.numpy()})[0], expected, rtol=1e-5, atol=1e-6)


def rename(graph, name, other):
    """Give a value another name, in branches as well."""
    for tensor in graph.initializer:
        tensor.name = other if tensor.name == name else tensor.name
    for node in graph.node:
        for used in (node.input, node.output):
            used[:] = [other if each == name else each for each in used]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                rename(attribute.g, name, other)


def test_the_images_take_both_ways():
    """Otherwise the branch of each image would not be tested."""
    assert len({bool(row.mean() > 0.29) for row in OneByOne().maps(IMAGES).mean((2, 3))}) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Spectrum, r"_fft_r2c is not supported .*; scripted, it has no ONNX form: .*fft_rfft2"),
        (Median, r"the graph must have operations that ONNX has: .*median"),
        (InNumpy, r"traced, its path may depend on the data"),
    ],
)
def test_a_module_without_any_form_is_refused_with_the_reasons(network, message, tmp_path, capfd):
    """Why it cannot be compiled, and why it cannot be written as ONNX; the exporter prints nothing."""
    with pytest.raises(
        UnsupportedOperation, match=rf"must be one that can be compiled or written as ONNX: .*{message}"
    ):
        bundle_classifier([network().eval()], tmp_path, **NAMES)
    assert "graph(" not in capfd.readouterr().out
