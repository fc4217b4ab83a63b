import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gradient_file import write_gradient

from radlens.errors import BundleError
from radlens.graphs import CdmamGradient
from radlens.graphs.cdmam_kernel import kernel_text, load_members, strands, unstrand


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
    ensemble = write_gradient(tmp_path / "gradient.onnx", n_members=2)
    members, offset = load_members(tmp_path / "gradient.onnx", at_once)
    assert offset == pytest.approx(float(CdmamGradient(ensemble).bias))
    for m, member in enumerate(members):
        for layer, width, packed in ((2, 16, member.kernel2), (2, 16, member.back2), (3, 32, member.kernel3)):
            kernel = getattr(ensemble, f"conv{layer}").weight[m * width : (m + 1) * width]
            assert packed.shape[2 if layer == 2 else 3] == at_once
            assert np.array_equal(np.sort(packed, axis=None), kernel.flatten().sort().values.numpy())


def test_the_text_defines_one_function_per_step():
    """Six steps and the entry; only the entry is visible from outside."""
    text = kernel_text()
    assert text.count("define internal void") == 6
    assert text.count("define void @cdmam_gradient") == 1


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
    del marked.metadata_props[:]
    onnx.save(marked, file)
    with pytest.raises(BundleError, match="computes gradients of CDMAM ensembles only"):
        load_members(file)


def test_files_written_for_the_tests_are_the_gradient(tmp_path):
    """The graph that these tests use is the written-out backward pass of its ensemble."""
    ensemble = write_gradient(tmp_path / "gradient.onnx", n_members=1)
    images = torch.randn(2, 1, 250, 250)
    session = onnxruntime.InferenceSession(tmp_path / "gradient.onnx", providers=["CPUExecutionProvider"])
    score, _ = session.run(["score", "gradient"], {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(score), ensemble.score(images), rtol=1e-4, atol=1e-5)
