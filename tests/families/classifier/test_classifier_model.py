"""The graphs of classifiers: opened when they are needed, and measured once for all members."""

import pytest
import torch
from small_classifier import EagerMember, make_classifier

from radlens.engines import opening
from radlens.errors import BundleError, UnsupportedOperation
from radlens.families.classifier import open_model
from radlens.families.classifier.manifest import save_classifier
from radlens.families.classifier.model import GraphClassifier

IMAGES = torch.randn(3, 1, 32, 24, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def measurements(monkeypatch):
    """Names of the graphs that engines are measured with."""
    seen, measure = [], opening._fastest

    def counted(graph, *arguments, **options):
        seen.append(graph.path.name)
        return measure(graph, *arguments, **options)

    monkeypatch.setattr(opening, "_fastest", counted)
    return seen


def test_members_share_measurements(classifier_pair, measurements):
    """What is fastest for the first member computes the others, with their own weights."""
    model = open_model(classifier_pair)
    assert measurements == ["member-0.prediction.onnx"]
    first, second = (member.engine("prediction") for member in model.members)
    assert (second.name, second.batch_size) == (first.name, first.batch_size)
    expected = torch.stack([EagerMember(seed).outputs(IMAGES) for seed in (0, 1)])
    torch.testing.assert_close(model.member_outputs(IMAGES), expected, rtol=1e-4, atol=1e-5)


def test_a_member_that_the_engine_gets_wrong_is_measured_itself(classifier_pair, tmp_path, measurements):
    """Here no other engine does better: the golden values are those of another network."""
    bundle = make_classifier(tmp_path, n_members=2, graphs=("prediction",))
    wrong = tmp_path / "member-1.prediction.golden.npz"
    wrong.write_bytes((classifier_pair.path / "member-0.prediction.golden.npz").read_bytes())
    with pytest.raises(
        BundleError, match="an engine must reproduce the golden values of the graph, got none that does"
    ):
        open_model(save_classifier(tmp_path, bundle.manifest))
    assert measurements == ["member-0.prediction.onnx", "member-1.prediction.onnx"]


def test_graphs_without_golden_values_are_measured_themselves(classifier_pair, tmp_path, measurements):
    """An engine that is taken by its name alone would not be checked."""
    bundle = make_classifier(tmp_path, n_members=2, graphs=("prediction",))
    for file in tmp_path.glob("*.golden.npz"):
        file.unlink()
    open_model(save_classifier(tmp_path, bundle.manifest))
    assert measurements == ["member-0.prediction.onnx", "member-1.prediction.onnx"]


def test_graphs_are_opened_when_they_are_needed(classifier):
    """Those that there are not cannot be."""
    model = GraphClassifier(classifier.graphs(0), 3, (1, 32, 24), engine="onnxruntime")
    assert model.engines == {}
    assert model.outputs(IMAGES).isfinite().all()
    assert model.engines == {"prediction": "onnxruntime"}
    with pytest.raises(UnsupportedOperation, match="the model must have a graph 'guided', it has prediction, gradient"):
        model.guided(IMAGES, torch.tensor([0, 1, 2]))
