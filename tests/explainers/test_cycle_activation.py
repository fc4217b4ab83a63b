"""CycleGAN activation maximisation: map, pictures, scores, and the questions behind them."""

import numpy as np
import pytest
import torch
from small_classifier import make_network
from torch import nn

from radlens import engines
from radlens.engines.golden import Golden
from radlens.errors import InvalidParameter, UnsupportedOperation
from radlens.explainers import CycleActivation, EagerClassifier, create
from radlens.graphs import classifier_graphs
from radlens.networks import GeneratorPair

SHAPE = (32, 24)


class Shift(nn.Module):
    """A generator that adds a constant."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, images):
        """Return brighter images."""
        return images + self.by


class Shifts(nn.Module):
    """G+ adds 0.5, G- takes 0.3: the ways there and back miss by 0.2."""

    def __init__(self, classes=(0, 1)):
        super().__init__()
        self.plus, self.minus, self.classes = Shift(0.5), Shift(-0.3), classes

    def forward(self, images):
        """Return both."""
        return self.plus(images), self.minus(images)


class Brightness(nn.Module):
    """Classifier whose log-odds of class 1 are the sum of the image, with one or several logits."""

    def __init__(self, n_outputs=2):
        super().__init__()
        self.n_outputs = n_outputs

    def forward(self, images):
        """Return logits ``(b, n)``."""
        odds = images.mean((1, 2, 3))[:, None]
        if self.n_outputs == 1:
            return odds
        return torch.cat([torch.zeros_like(odds), odds, *[odds - 100] * (self.n_outputs - 2)], 1)


def model(n_outputs=2, classes=(0, 1)):
    """Return the classifier with its generators."""
    return EagerClassifier(Brightness(n_outputs), (1, *SHAPE), companions={"generators": Shifts(classes)})


def pair(seed=0, classes=(0, 1), width=2):
    """Return random generators that change what they get."""
    torch.manual_seed(seed)
    found = GeneratorPair(1, width, classes=classes).eval()
    for generator in (found.plus, found.minus):
        nn.init.normal_(generator.last.weight)
    return found


def sigmoid(x):
    """Return the probability of log-odds."""
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("target", [0, 1])
def test_the_map_is_the_difference_of_both_images(n_outputs, target):
    """Eq. 6, the same for both classes; pictures, changes, probabilities and the error of the cycle."""
    image = torch.full((1, *SHAPE), 0.1)
    (found,) = CycleActivation().explain(model(n_outputs), image[None], [target])
    torch.testing.assert_close(found.map, torch.full_like(image, 0.8))
    torch.testing.assert_close(found.pictures["plus"], image + 0.5)
    torch.testing.assert_close(found.pictures["minus"], image - 0.3)
    torch.testing.assert_close(found.pictures["plus_change"] - found.pictures["minus_change"], found.map)
    numbers = found.numbers
    assert numbers["score_image"] == pytest.approx(sigmoid(0.1), abs=1e-6)
    assert numbers["score_plus"] == pytest.approx(sigmoid(0.6), abs=1e-6)
    assert numbers["score_minus"] == pytest.approx(sigmoid(-0.2), abs=1e-6)
    assert numbers["cycle_error"] == pytest.approx(0.2, abs=1e-6)
    assert (numbers["change_plus"], numbers["change_minus"]) == pytest.approx((0.5, 0.3), abs=1e-6)
    assert (numbers["class_minus"], numbers["class_plus"]) == (0, 1)
    assert "the probability of class 1 is 0.525, 0.646 with" in numbers["sentence"]


def test_images_between_are_scored():
    """A strip goes from G-(x) over x to G+(x) in equal parts; the score rises."""
    image = torch.full((1, *SHAPE), 0.1)
    (found,) = CycleActivation(n_between=1).explain(model(), image[None], [1])
    assert found.numbers["positions"] == [-1, -0.5, 0, 0.5, 1]
    expected = [sigmoid(x) for x in (-0.2, -0.05, 0.1, 0.35, 0.6)]
    assert found.numbers["scores"] == pytest.approx(expected, abs=1e-6)
    assert CycleActivation().drawn_as("strip").n_between == 3
    assert CycleActivation(n_between=5).drawn_as("strip").n_between == 5
    assert CycleActivation().drawn_as("map").n_between == 0


def test_generators_of_two_of_three_classes():
    """The score is that of the class of G+; a class that they were not trained for is refused."""
    image = torch.zeros(1, *SHAPE)
    several = model(3, (1, 0))
    (found,) = CycleActivation().explain(several, image[None], [1])
    assert (found.numbers["class_minus"], found.numbers["class_plus"]) == (1, 0)
    assert found.numbers["score_image"] == pytest.approx(0.5, abs=1e-6)
    assert found.numbers["score_plus"] == pytest.approx(sigmoid(-0.5), abs=1e-6)
    with pytest.raises(InvalidParameter, match="trained for, 1 or 0, got class 2"):
        CycleActivation().explain(several, image[None], [2])


def test_no_question_needs_a_gradient():
    """A network whose parameters and images have none."""
    assert "gradient" not in CycleActivation.needs
    with torch.inference_mode():
        (found,) = CycleActivation().explain(model(), torch.zeros(1, 1, *SHAPE), [1])
    assert found.map.isfinite().all()


def test_missing_generators_and_wrong_values_are_named():
    """The companion by its name, a pair for more classes, and a negative number."""
    alone = EagerClassifier(Brightness(), (1, *SHAPE))
    with pytest.raises(UnsupportedOperation, match="companion network, generators"):
        CycleActivation().explain(alone, torch.zeros(1, 1, *SHAPE), [1])
    with pytest.raises(InvalidParameter, match="for a classifier of 2 classes, got class 2"):
        CycleActivation().explain(model(2, (0, 2)), torch.zeros(1, 1, *SHAPE), [1])
    with pytest.raises(InvalidParameter, match="n_between must be at least 0, got -1"):
        create("cycle_activation", n_between=-1)


@pytest.mark.slow
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_the_compiled_questions_equal_the_networks(n_outputs):
    """Both generators in one graph, and the ways back in another; any batch, float64."""
    generators, classifier = pair().double(), make_network(3, n_outputs).double()
    images = torch.randn(3, 1, *SHAPE).double()
    graphs = classifier_graphs(classifier, images[:2], n_outputs=n_outputs, companions={"generators": generators})
    plus, minus = graphs["generated"](images)
    torch.testing.assert_close(plus, generators.plus(images))
    torch.testing.assert_close(minus, generators.minus(images))
    plus_back, minus_back, classes = graphs["cycled"](plus, minus)
    torch.testing.assert_close(plus_back, generators.minus(plus))
    torch.testing.assert_close(minus_back, generators.plus(minus))
    assert classes.tolist() == [[0, 1]] * 3
    eager = EagerClassifier(classifier, (1, *SHAPE), companions={"generators": generators})
    for found, expected in zip(eager.ask("generated", images=images), (plus, minus), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_engines_compute_both_generators_from_one_file(engine, tmp_path):
    """One input, two outputs, golden values that the engine reproduces."""
    generators = pair()
    graphs = classifier_graphs(
        make_network(0, 2), torch.zeros(2, 1, *SHAPE), n_outputs=2, companions={"generators": generators}
    )
    images = torch.randn(3, 1, *SHAPE)
    for name, inputs in (("generated", ["images"]), ("cycled", ["images", "others"])):
        file = tmp_path / f"{name}.onnx"
        graphs.to_onnx(name, file)
        assert Golden.load(file) is not None
        found = engines.open(file, engine).run({each: images.numpy() for each in inputs})
        expected = generators(images) if name == "generated" else generators(images)[::-1]
        outputs = ("plus", "minus") if name == "generated" else ("plus_back", "minus_back")
        for output, value in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(found[output], value.detach(), rtol=1e-4, atol=1e-4)
