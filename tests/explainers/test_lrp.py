"""Layer-wise relevance propagation as a method: rules, further results, refusals."""

import pytest
import torch
from torch import nn

from radlens import explainers
from radlens.errors import InvalidParameter, UnsupportedOperation
from radlens.explainers.eager import EagerClassifier

IMAGES = torch.randn(2, 1, 16, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def network(activation=nn.ReLU):
    """Return a network in float64 whose second score is above zero."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), activation(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3)]
    found = nn.Sequential(*layers, activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)).double().eval()
    found[-1].bias.data = torch.tensor([-9.0, 9.0], dtype=torch.float64)
    return found


def test_the_epsilon_rule_is_the_default():
    """Gradient times image here, since epsilon is small."""
    net = network()
    asked = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(asked)[:, 1].sum(), asked)
    found = explainers.create("lrp").attribute(EagerClassifier(net, (1, 16, 14)), IMAGES, 1)
    torch.testing.assert_close(found, gradient * IMAGES, rtol=1e-3, atol=1e-6)


def test_a_large_epsilon_leaves_out_weak_neurons():
    """The parameter reaches the graph."""
    model = EagerClassifier(network(), (1, 16, 14))
    small, large = (explainers.create("lrp", epsilon=each).attribute(model, IMAGES, 1) for each in (1e-9, 10.0))
    assert large.abs().sum() < 0.2 * small.abs().sum()


def test_deep_taylor_decomposition_divides_the_score():
    """The further results state both sums; the score of the other class is negative, and its map empty."""
    model = EagerClassifier(network(), (1, 16, 14))
    for target in (0, 1):
        for image, found in zip(
            IMAGES, explainers.create("lrp", rule="deep_taylor").explain(model, IMAGES, target), strict=True
        ):
            score = float(model.score(image[None], torch.tensor([target])))
            assert found.numbers["score"] == pytest.approx(score)
            assert found.numbers["relevance"] == pytest.approx(max(score, 0.0), abs=1e-9)
            assert float(found.map.sum()) == pytest.approx(max(score, 0.0), abs=1e-9)
            assert found.map.min() >= 0
            assert found.delta is None
            assert ("the map is empty" in found.numbers.get("sentence", "")) is (score <= 0)
            assert bool(found.map.any()) is (score > 0)


def test_both_rules_in_one_batch():
    """Methods and rules that are explained together get what they get alone."""
    model = EagerClassifier(network(), (1, 16, 14))
    methods = [explainers.create("lrp", epsilon=0.5), explainers.create("lrp", rule="deep_taylor")]
    methods.append(explainers.create("lrp", epsilon=1e-3))
    together = explainers.complete(model, [method.work(IMAGES[0], 1) for method in methods])
    for method, found in zip(methods, together, strict=True):
        torch.testing.assert_close(found.map, method.attribute(model, IMAGES[:1], 1)[0])


def test_what_deep_taylor_decomposition_refuses_the_epsilon_rule_may_explain():
    """The message names the operation."""
    model = EagerClassifier(network(nn.SiLU), (1, 16, 14))
    assert explainers.create("lrp").attribute(model, IMAGES, 1).abs().sum() > 0
    with pytest.raises(UnsupportedOperation, match=r"deep_taylor has no rule for aten.silu \(layer 2\)"):
        explainers.create("lrp", rule="deep_taylor").attribute(model, IMAGES, 1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rule": "gamma"}, "rule must be one of epsilon, deep_taylor, got 'gamma'"),
        ({"epsilon": 0.0}, "epsilon must be positive and finite, got 0.0"),
        ({"epsilon": -1.0}, "epsilon must be positive and finite, got -1.0"),
    ],
)
def test_other_rules_are_refused(parameters, message):
    """Without an epsilon, a sum of 0 would be divided by."""
    with pytest.raises(InvalidParameter, match=message):
        explainers.create("lrp", **parameters)
