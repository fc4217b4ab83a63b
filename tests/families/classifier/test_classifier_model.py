"""The graphs of classifiers: opened when they are needed, and measured once for all members."""

import pytest
import torch
from small_classifier import EagerMember, make_classifier, make_network

from radlens.engines import opening
from radlens.errors import BundleError, UnsupportedOperation
from radlens.families.classifier import ClassifierService, open_model
from radlens.families.classifier.making import write_traced
from radlens.families.classifier.manifest import TRACED, ClassifierBundle, save_classifier
from radlens.families.classifier.model import EnsembleClassifier, GraphClassifier
from radlens.graphs import asks

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
    with pytest.raises(BundleError, match="of the golden values, got"):
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
        model.ask("guided", torch.tensor([0, 1, 2]), images=IMAGES)


@pytest.fixture
def altered(tmp_path):
    """Return a function that makes a bundle of two members, alters graphs of the second and loads it.

    With ``swapped`` the golden values of one of its graphs are those of the first member.
    """

    def make(*graphs: str, swapped: str | None = None) -> ClassifierBundle:
        bundle = make_classifier(tmp_path / "altered", n_members=2, graphs=asks.answerable({}))
        write_traced(bundle.path / TRACED, [make_network(seed) for seed in (0, 1)], IMAGES)
        if swapped is not None:
            golden = [bundle.path / f"member-{number}.{swapped}.golden.npz" for number in (0, 1)]
            golden[1].write_bytes(golden[0].read_bytes())
        save_classifier(bundle.path, bundle.manifest)
        for graph in graphs:
            file = bundle.path / f"member-1.{graph}.onnx"
            file.write_bytes(file.read_bytes() + b"x")
        return ClassifierBundle.load(bundle.path)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["prediction", "gradient"])
def test_the_traced_module_stands_for_a_damaged_graph(altered, graph):
    """Of its member alone; provenance and metrics name every engine that may not use the graph, and why."""
    bundle = altered(graph)
    assert list(bundle.damaged) == [f"member-1.{graph}.onnx"]
    service = ClassifierService(bundle)
    expected = EnsembleClassifier([EagerMember(seed) for seed in (0, 1)])
    targets = torch.tensor([0, 1, 2])
    torch.testing.assert_close(service.model.outputs(IMAGES), expected.outputs(IMAGES), rtol=1e-4, atol=1e-5)
    found = service.model.gradient(IMAGES, targets)
    torch.testing.assert_close(found, expected.gradient(IMAGES, targets), rtol=1e-3, atol=1e-5)
    whole, part = service.model.members
    assert part.engines[graph] == "torch"
    assert not whole.refused
    refused = service.stated()["refused_engines"]
    assert {each["graph"] for each in refused} == {f"member-1.{graph}.onnx"}
    assert {"onnxruntime", "openvino"} <= {each["engine"] for each in refused}
    assert all("its SHA-256 differs" in each["reason"] for each in refused)


@pytest.mark.slow
def test_another_engine_is_not_put_in_the_place_of_the_one_asked_for(altered):
    """It was named."""
    with pytest.raises(BundleError, match="is not the file this bundle was made with"):
        open_model(altered("prediction"), "onnxruntime")


@pytest.mark.slow
def test_methods_without_their_graph_are_not_allowed(altered):
    """What the traced module cannot tell; the reason is that of the damage."""
    bundle = altered("deep_lift", "guided")
    lost = {"deep_lift", "deep_shap", "guided_grad_cam"}
    assert not lost & set(bundle.manifest.explainers)
    assert {"saliency", "integrated_gradients", "occlusion", "grad_cam"} <= set(bundle.manifest.explainers)
    for method, graph in (("deep_lift", "deep_lift"), ("deep_shap", "deep_lift"), ("guided_grad_cam", "guided")):
        assert bundle.manifest.refused[method].startswith(f"member-1.{graph}.onnx is not the file")


def test_a_traced_module_must_reproduce_golden_values(altered, tmp_path):
    """As any engine."""
    with pytest.raises(BundleError, match="of the golden values, got"):
        open_model(altered("prediction", swapped="prediction"))
