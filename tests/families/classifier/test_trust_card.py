"""What can be measured of one map without any truth about the image."""

import json

import numpy as np
import pytest
import torch
from class_requests import QUICK, answer, explained, fields
from small_classifier import class_methods
from torch import nn

from radlens import explainers
from radlens.evaluation.planted import known_of
from radlens.explainers import Attribution, probabilities
from radlens.explainers.eager import EagerClassifier
from radlens.families.classifier.trust import N_STEPS, trust_card
from radlens.wire import PROVENANCE

SHAPE = (3, 16, 12)


@pytest.fixture(scope="module")
def linear():
    """A model whose score is a weighted sum of the pixels."""
    torch.manual_seed(0)
    return EagerClassifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 12, 3)), SHAPE)


IMAGE = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def card(model, method, target=1, sign=1.0, **parameters):
    """Return the card of a method's map, or of the map times ``sign``."""
    explainer = explainers.create(method, **parameters)
    (found,) = explainer.explain(model, IMAGE[None], target)
    return trust_card(model, explainer, IMAGE, Attribution(sign * found.map, found.delta), target)


@pytest.mark.parametrize(
    ("method", "parameters"), [("integrated_gradients", {"n_steps": 3}), ("occlusion", {"window": 1, "stride": 1})]
)
def test_contributions_of_a_linear_model_are_perfect(linear, method, parameters):
    """Nothing is missed when squares are removed, whether a map tells channels apart or not, but for float32."""
    found = card(linear, method, **parameters)
    assert found.infidelity < 1e-5 * found.score_change
    if method == "integrated_gradients":
        assert abs(found.delta) < 1e-5


def test_a_map_of_zeros_has_the_infidelity_of_no_map(linear):
    """Whatever it is scaled by."""
    found = card(linear, "integrated_gradients", sign=0.0)
    assert found.infidelity == pytest.approx(found.score_change)


def test_units_do_not_matter(linear):
    """A map in other units is scaled by the factor that fits best."""
    one, other = (card(linear, "integrated_gradients", sign=sign) for sign in (1.0, -250.0))
    assert other.infidelity == pytest.approx(one.infidelity, abs=1e-6 * one.score_change)


def test_the_right_order_beats_the_wrong_one(linear):
    """Removing what speaks for a class lowers its probability at once; putting it back raises it at once."""
    right, wrong = (card(linear, "integrated_gradients", sign=sign) for sign in (1.0, -1.0))
    assert right.deletion < wrong.deletion
    assert right.insertion > wrong.insertion
    assert all(0 <= area <= 1 for each in (right, wrong) for area in (each.deletion, each.insertion))


def test_deletion_is_the_area_under_the_curve(linear):
    """A slow re-implementation: pixels set to 0 in the order of the map, the trapezoidal rule."""
    explainer = explainers.create("integrated_gradients", n_steps=3)
    (found,) = explainer.explain(linear, IMAGE[None], 1)
    order = np.argsort(-found.map.sum(dim=0).flatten().numpy(), kind="stable")
    heights, n = [], order.size
    for step in range(N_STEPS + 1):
        copy = IMAGE.clone().reshape(3, -1)
        copy[:, order[: step * n // N_STEPS]] = 0
        heights.append(float(probabilities(linear.outputs(copy.reshape(1, *SHAPE)))[0, 1]))
    widths = np.diff([step * n // N_STEPS for step in range(N_STEPS + 1)]) / n
    area = sum(width * (a + b) / 2 for width, a, b in zip(widths, heights, heights[1:], strict=False))
    assert card(linear, "integrated_gradients", n_steps=3).deletion == pytest.approx(area)


@pytest.mark.parametrize("method", class_methods())
def test_every_method_can_be_trusted_or_not(eager_service, method):
    """The card has the same fields for all of them."""
    _, said = explained(eager_service(), method=method, trust="true", **QUICK.get(method, {}))
    trust = said["trust"]
    assert set(trust) == {
        "convergence_delta",
        "deletion",
        "insertion",
        "infidelity",
        "infidelity_of_no_map",
        "meaning",
        "randomisation",
        "planted_causes",
        "causal",
    }
    assert 0 <= trust["deletion"] <= 1
    assert 0 <= trust["insertion"] <= 1
    # The best factor is found on the same squares, so a map is never worse than none.
    assert 0 <= trust["infidelity"] <= trust["infidelity_of_no_map"] * (1 + 1e-4)
    assert (trust["convergence_delta"] is not None) == (method in ("integrated_gradients", "deep_lift", "deep_shap"))
    assert said["provenance"]["trust"] == trust


def test_the_card_comes_on_request_alone(service):
    """It takes as long as an explanation."""
    _, said = explained(service, method="cam")
    assert "trust" not in said
    assert "trust" not in said["provenance"]


def test_the_card_of_a_picture_is_in_its_provenance(service):
    """A PNG has no other place for it."""
    response = answer(service, method="cam", trust="true", accept="image/png")
    card = json.loads(response.headers[PROVENANCE])["trust"]
    assert card == fields(answer(service, method="cam", trust="true"))["trust"]


def test_the_bundles_randomisation_result_is_on_the_card(eager_service):
    """Of the method that was asked for; the others have none."""
    service = eager_service(randomisation={"cam": {"passed": True}})
    for method, expected in (("cam", {"passed": True}), ("saliency", None)):
        _, said = explained(service, method=method, trust="true")
        assert said["trust"]["randomisation"] == expected


def test_the_card_of_members_is_that_of_their_mean(pair):
    """The map that comes with it."""
    parameters = {"method": "occlusion", "trust": "true", **QUICK["occlusion"], "target": 1}
    cards = [explained(pair, members=members, **parameters)[1]["trust"] for members in ("mean", "each")]
    for name in ("deletion", "insertion", "infidelity"):
        assert cards[0][name] == pytest.approx(cards[1][name], rel=1e-3)


def test_what_is_known_of_the_method_on_planted_causes_is_on_the_card(service):
    """Hits with interval by cause, the same for every bundle, and the command that measured them."""
    _, said = explained(service, method="cam", trust="true")
    assert said["trust"]["planted_causes"] == known_of("cam")


def test_the_bundles_causal_record_is_on_the_card(eager_service):
    """Of the model, whatever the method; None if it was not measured."""
    record = {"lesion": {"n": 24, "n_lowered": 23}}
    for training, expected in (({"causal": record}, record), ({}, None)):
        _, said = explained(eager_service(training=training), method="cam", trust="true")
        assert said["trust"]["causal"] == expected
