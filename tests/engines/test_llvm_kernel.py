import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gradient_file import write_gradient
from onnx import numpy_helper

from radlens.engines.llvm_kernel import kernel_text, load_members, strands, unstrand
from radlens.errors import BundleError


def test_strands_and_back():
    """An image laid out for the kernel and read back is the same; around it there are zeros."""
    image = np.random.default_rng(0).normal(size=(250, 250)).astype(np.float32)
    stored = strands(image)
    assert np.array_equal(unstrand(stored), image)
    assert np.count_nonzero(stored) == image.size
    # Column 5 is place 1 of strand 1.
    assert stored[1, 1, 16 + 1] == image[0, 5]


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_members_hold_the_weights_of_the_graph(tmp_path, at_once):
    """Every weight of a member is packed once, whichever the order."""
    ensemble = write_gradient(tmp_path / "gradient.onnx", 2, rank=4, logarithmic=True)
    for m, member in enumerate(load_members(tmp_path / "gradient.onnx", at_once)):
        weights = member.weights
        assert np.array_equal(weights.columns[..., :62].reshape(4, -1).T, ensemble.weight[m].numpy())
        assert not weights.columns[..., 62:].any()
        for layer, width, packed in ((2, 16, weights.kernel2), (2, 16, weights.back2), (3, 32, weights.kernel3)):
            kernel = getattr(ensemble, f"conv{layer}").weight[m * width : (m + 1) * width]
            assert packed.shape[2 if layer == 2 else 3] == at_once
            assert np.array_equal(np.sort(packed, axis=None), kernel.flatten().sort().values.numpy())


@pytest.mark.parametrize(("rank", "logarithmic"), [(2, False), (4, True), (16, True)])
def test_the_outcome_of_sums_is_the_midpoint_and_its_derivative(tmp_path, rank, logarithmic):
    """Parts of the members add up to the score; coefficients equal central differences of the part (float64)."""
    ensemble = write_gradient(tmp_path / "gradient.onnx", 2, rank, logarithmic=logarithmic).double()
    members = load_members(tmp_path / "gradient.onnx")
    image = torch.randn(1, 1, 250, 250, dtype=torch.float64)
    features = ensemble.features(image)[0].numpy()
    columns = [member.weights.columns[..., :62].reshape(len(member.head), -1) for member in members]
    sums = [weight.astype(np.float64) @ own for weight, own in zip(columns, features, strict=True)]
    parts = [member.outcome(own)[0] for member, own in zip(members, sums, strict=True)]
    # The linear graph stores the mean over the points, rounded to float32.
    assert sum(parts) == pytest.approx(float(ensemble.score(image)), rel=1e-5)
    step = 1e-5
    for member, own in zip(members, sums, strict=True):
        directions = step * np.eye(len(own))
        slopes = [(member.outcome(own + d)[0] - member.outcome(own - d)[0]) / (2 * step) for d in directions]
        # The coefficients are float32.
        np.testing.assert_allclose(member.outcome(own)[1], slopes, rtol=1e-5, atol=1e-7)


def test_absurd_sums_give_infinity_without_a_warning(tmp_path):
    """What overflows float64 is infinite, as in other engines."""
    write_gradient(tmp_path / "gradient.onnx", 1, 4, logarithmic=True)
    (member,) = load_members(tmp_path / "gradient.onnx")
    part, _ = member.outcome(1e6 * member.head[:, 0] / np.linalg.norm(member.head[:, 0]) ** 2)
    assert part == np.inf


def test_the_text_defines_one_function_per_step():
    """Seven steps and the two functions; only those are visible from outside."""
    text = kernel_text(rank=4)
    assert text.count("define internal void") == 7
    for name in ("@cdmam_forward", "@cdmam_backward"):
        assert text.count(f"define void {name}") == 1


def test_other_graphs_are_refused(tmp_path):
    """No ONNX file, one without the mark, one whose operations or weights were changed: each says so."""
    file = tmp_path / "gradient.onnx"
    file.write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"gradient\.onnx must be an ONNX graph"):
        load_members(file)
    write_gradient(file, n_members=1)
    marked = onnx.load(file)
    changed = onnx.ModelProto.FromString(marked.SerializeToString())
    next(node for node in changed.graph.node if node.op_type == "Relu").op_type = "Identity"
    onnx.save(changed, file)
    with pytest.raises(BundleError, match="must be as it was exported, got other operations"):
        load_members(file)
    changed = onnx.ModelProto.FromString(marked.SerializeToString())
    next(tensor for tensor in changed.graph.initializer if tensor.name == "conv3.weight").name = "lost"
    onnx.save(changed, file)
    with pytest.raises(BundleError, match="must hold the weights of a CDMAM ensemble"):
        load_members(file)
    # A graph of an earlier release: same property, another kernel.
    next(entry for entry in marked.metadata_props if entry.key == "radlens.kernel").value = "cdmam_gradient"
    onnx.save(marked, file)
    with pytest.raises(BundleError, match="computes gradients of CDMAM ensembles only"):
        load_members(file)
    del marked.metadata_props[:]
    onnx.save(marked, file)
    with pytest.raises(BundleError, match="computes gradients of CDMAM ensembles only"):
        load_members(file)


@pytest.mark.parametrize("name", ["weight", "head", "bias"])
def test_graphs_without_their_last_layers_are_refused(tmp_path, name):
    """Logarithms whose sums, head or bias are lost or of another size are not taken for um of gold."""
    file = tmp_path / "gradient.onnx"
    write_gradient(file, 2, 4, logarithmic=True)
    marked = onnx.load(file)
    lost = onnx.ModelProto.FromString(marked.SerializeToString())
    next(tensor for tensor in lost.graph.initializer if tensor.name == name).name = "lost"
    onnx.save(lost, file)
    with pytest.raises(BundleError, match="must hold the weights of a CDMAM ensemble"):
        load_members(file)
    tensor = next(tensor for tensor in marked.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:, :-1], name))
    onnx.save(marked, file)
    with pytest.raises(BundleError, match="must hold the weights of a CDMAM ensemble"):
        load_members(file)


def test_files_written_for_the_tests_are_the_gradient(tmp_path):
    """The graph that these tests use is the written-out backward pass of its ensemble."""
    ensemble = write_gradient(tmp_path / "gradient.onnx", n_members=1)
    images = torch.randn(2, 1, 250, 250)
    session = onnxruntime.InferenceSession(tmp_path / "gradient.onnx", providers=["CPUExecutionProvider"])
    score, _ = session.run(["score", "gradient"], {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(score), ensemble.score(images), rtol=1e-4, atol=1e-5)
