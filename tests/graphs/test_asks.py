"""Questions to a classifier, among them one that needs a companion network."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from radlens.errors import InvalidParameter, UnsupportedOperation
from radlens.explainers import EagerClassifier
from radlens.families.classifier.export import export_classifier
from radlens.families.classifier.model import EnsembleClassifier, GraphClassifier
from radlens.graphs import asks, classifier_graphs, forward_graph, gradient_graph

SHAPE = (1, 12, 10)
IMAGES = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
MASKS = (torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1)) > 0.5).float()
TARGETS = torch.tensor([0, 1, 2])


class Filler(nn.Module):
    """Fills holes with a blurred copy of what is around them."""

    def __init__(self):
        super().__init__()
        self.blur = nn.Conv2d(1, 1, 5, padding=2)

    def forward(self, images, masks):
        """Take images and holes (1 where a pixel is missing), ``(b, 1, h, w)`` each."""
        return images * (1 - masks) + self.blur(images * (1 - masks)) * masks


class Whole(nn.Module):
    """Score of an image whose holes were filled."""

    def __init__(self, network, filler):
        super().__init__()
        self.network, self.filler = network, filler

    def forward(self, images, masks, weights):
        """Return scores ``(b,)``."""
        return (self.network(self.filler(images, masks)) * weights).sum(dim=1)


INPUTS, OUTPUTS = ("images", "masks", "weights"), ("loss", "gradient")


def compile_filled(graphs):
    """Compile the score and its gradient by the mask."""
    whole = Whole(graphs.module, graphs.companions["filler"])
    return gradient_graph(whole, tuple(graphs.examples("filled")), lambda score: score, wrt=1).named(INPUTS, OUTPUTS)


def eager_filled(graphs, images, masks, weights):
    """Compute the same with autograd."""
    masks = masks.detach().requires_grad_()
    with torch.enable_grad():
        score = Whole(graphs.module, graphs.companions["filler"])(images, masks, weights)
        return score.detach(), torch.autograd.grad(score.sum(), masks)[0]


@pytest.fixture
def filled(monkeypatch):
    """A question whose graph holds a companion, known during one test."""
    monkeypatch.setattr(asks, "_REGISTRY", dict(asks._REGISTRY))
    examples = {"masks": lambda images: (images > 0).to(images)}
    return asks.register(
        asks.AskSpec(
            "filled", INPUTS, OUTPUTS, compile_filled, eager_filled, OUTPUTS, companions=("filler",), examples=examples
        )
    )


def network(seed=0):
    """A classifier of three classes."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    return nn.Sequential(*layers).eval()


@pytest.mark.slow
def test_a_companion_is_compiled_into_the_graph(filled, tmp_path):
    """Graph, engine, autograd and ensemble answer alike, with golden values that autograd gives in float64."""
    module, filler = network(), Filler()
    graphs = classifier_graphs(module, IMAGES[:2], n_outputs=3, companions={"filler": filler})
    report = export_classifier(graphs, tmp_path, "member-0", IMAGES[:2], 3)
    assert report.graphs == (*asks.answerable({}), "filled")
    paths = {name: tmp_path / f"member-0.{name}.onnx" for name in report.graphs}
    model = GraphClassifier(paths, 3, SHAPE)
    eager = EagerClassifier(module, SHAPE, companions={"filler": filler})
    both = EnsembleClassifier([model, model])
    expected = eager.ask("filled", TARGETS, images=IMAGES, masks=MASKS)
    for each in (model, both):
        assert each.can("filled") is None
        torch.testing.assert_close(each.ask("filled", TARGETS, images=IMAGES, masks=MASKS), expected)
    assert [each.name for each in onnxruntime.InferenceSession(str(paths["filled"])).get_inputs()] == list(INPUTS)


def test_without_its_companion_a_question_is_not_answered(filled, tmp_path):
    """It is not exported, and models say what they lack."""
    module = network()
    graphs = classifier_graphs(module, IMAGES[:2], n_outputs=3)
    assert "filled" not in asks.answerable(graphs.companions)
    with pytest.raises(UnsupportedOperation, match="filled needs a companion network, filler"):
        graphs["filled"]
    eager = EagerClassifier(module, SHAPE)
    assert eager.can("filled") == "it needs a companion network, filler"
    with pytest.raises(UnsupportedOperation, match="needs a companion network, filler"):
        eager.ask("filled", TARGETS, images=IMAGES, masks=MASKS)
    export_classifier(graphs, tmp_path, "member-0", IMAGES[:2], 3, names=["prediction"])
    model = GraphClassifier({"prediction": tmp_path / "member-0.prediction.onnx"}, 3, SHAPE)
    assert (model.can("score"), model.can("filled")) == (None, "the model has no graph 'filled'")


def test_names_and_specs_are_checked():
    """A name is taken once; answers and inputs must fit."""
    known = asks.spec("gradient")
    with pytest.raises(ValueError, match="ask 'gradient' is already registered"):
        asks.register(known)
    with pytest.raises(ValueError, match="answers of odd must be all of its outputs but the logits"):
        asks.AskSpec("odd", ("images",), ("output", "map", "other"), compile_filled, eager_filled, ("map",))
    with pytest.raises(ValueError, match="odd must have examples of masks"):
        asks.AskSpec("odd", ("images", "masks"), ("map",), compile_filled, eager_filled, ("map",))
    with pytest.raises(InvalidParameter, match=r"graph must be one of prediction, gradient, .*, got 'filled'"):
        asks.spec("filled")


def test_a_network_is_compiled_as_it_is(tmp_path):
    """A forward graph computes its module for any batch, in torch and as ONNX."""
    filler = Filler()
    graph = forward_graph(filler, (IMAGES[:1], MASKS[:1])).named(("images", "masks"), ("filled",))
    expected = filler(IMAGES, MASKS).detach()
    torch.testing.assert_close(graph(IMAGES, MASKS)[0], expected)
    graph.to_onnx(tmp_path / "filler.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "filler.onnx"))
    (found,) = session.run(["filled"], {"images": IMAGES.numpy(), "masks": MASKS.numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
