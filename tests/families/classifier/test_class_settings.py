"""What may be asked of a classifier, and how what may not is refused."""

import re

import pytest
from class_requests import answer, asked, explained, fields, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_classifier import make_classifier

from radlens.errors import BundleError, InvalidInput
from radlens.families import open_service
from radlens.families.classifier import ClassifierService
from radlens.families.classifier.manifest import save_classifier
from radlens.families.classifier.rows import MAX_EVALUATIONS
from radlens.service import request_from_http
from radlens.wire import PARAMETER_PREFIX

REFUSED = {
    "target=3": "target must be predicted, or one of normal, benign, malignant, or its number from 0 to 2, got '3'",
    "target=-1": "target must be predicted",
    "target=Malignant": "target must be predicted",
    "members=all": "members must be one of mean, each, got 'all'",
    "output=sampled": "output must be one of map, overlay, disagreement, got 'sampled'",
    "trust=yes": "trust must be true or false, got 'yes'",
    "n_steps=0": "n_steps must be an integer from 1 to 10000, got '0'",
    "n_steps=1.5": "n_steps must be an integer from 1 to 10000, got '1.5'",
    "baseline=nan": "baseline must be a number from -1000000 to 1000000, got 'nan'",
    "baseline=-2e6": "baseline must be a number from -1000000 to 1000000, got '-2e6'",
    "internal_batch_size=33": "internal_batch_size must be an integer from 1 to 32, or auto, got '33'",
    "window=5": "parameters of explanations by integrated_gradients are method, target, .*; got 'window'",
    "method=lrb": "method must be one of cam, .*, got 'lrb'",
    "method=": "method must be one of cam, .*, got ''",
    "method=omig": "method omig does not work with this model: it explains models of another kind; methods that do are",
    "method=occlusion&effect=fall": "effect must be one of drop, rise, got 'fall'",
    "method=smooth_grad&noise=-0.1": "noise must be a number from 0 to 1000000, got '-0.1'",
    "method=saliency&absolute=2": "absolute must be true or false, got '2'",
    "method=lime&seed=4294967296": "seed must be an integer from 0 to 4294967295, got '4294967296'",
    "method=occlusion&window=5&stride=6": "stride must be at most window, 5, got 6",
    "method=occlusion&window=1&stride=1&n_steps=3": "parameters of explanations by occlusion are .*; got 'n_steps'",
}


@pytest.mark.parametrize("query", REFUSED)
def test_wrong_parameters_are_named(service, query):
    """400, with what was expected and what came."""
    status, message = refused(service, **dict(pair.split("=") for pair in query.split("&")))
    assert status == 400
    assert re.match(REFUSED[query], message), message


ACCEPTED: dict[str, dict[str, object]] = {
    "target=1&baseline=-1.5e-1&n_steps=3": {"baseline": -0.15, "n_steps": 3},
    "internal_batch_size=2&n_steps=5": {"internal_batch_size": 2},
    "internal_batch_size=auto&n_steps=2": {"internal_batch_size": None},
    "method=saliency&absolute=0": {"absolute": False},
    "method=saliency&absolute=TRUE": {"absolute": True},
    "method=occlusion&effect=rise": {"effect": "rise"},
    "method=smooth_grad&noise=.5&n_draws=2&seed=4294967295": {"noise": 0.5, "seed": 2**32 - 1},
}


@pytest.mark.parametrize("query", ACCEPTED)
def test_parameters_are_read_and_stated(service, query):
    """Each kind in each of its spellings."""
    _, said = explained(service, **dict(pair.split("=") for pair in query.split("&")))
    stated = said["provenance"]["explainer"]["parameters"]
    assert {name: stated[name] for name in ACCEPTED[query]} == ACCEPTED[query]


def test_a_method_that_the_model_does_not_allow_is_refused(pair):
    """With the reason that the bundle gives, and the methods that work."""
    response = answer(pair, method="cam")
    assert (response.status, fields(response)["type"]) == (400, "UnsupportedMethod")
    assert fields(response)["message"] == (
        "method cam does not work with this model: the model has no graph of what it needs; "
        "methods that do are lime, occlusion, shap"
    )


def test_a_rule_that_the_model_does_not_allow_is_refused(tmp_path):
    """With the reason that the bundle gives; the other rule works."""
    reason = "deep_taylor has no rule for aten.silu (layer 2)"
    bundle = make_classifier(tmp_path, graphs=("prediction", "lrp_epsilon"), refused={"lrp rule=deep_taylor": reason})
    service = open_service(bundle)
    response = answer(service, method="lrp", rule="deep_taylor")
    assert (response.status, fields(response)["type"]) == (400, "UnsupportedMethod")
    assert fields(response)["message"] == f"lrp rule=deep_taylor does not work with this model: {reason}"
    assert refused(service, method="lrp", rule="z") == (400, "rule must be one of epsilon, deep_taylor, got 'z'")
    assert refused(service, method="lrp", epsilon="0")[1] == "epsilon must be a finite number above 0, got '0'"
    _, said = explained(service, method="lrp", epsilon="0.5")
    assert said["explanation"]["meaning"] == "relevance of each pixel for the score, by the rule epsilon"
    assert set(said["explanation"]["numbers"]) == {"score", "relevance"}


def test_the_default_method_is_integrated_gradients_or_the_first(service, pair):
    """A model that cannot be differentiated has others."""
    _, said = explained(service, n_steps=2)
    assert said["explanation"]["method"] == "integrated_gradients"
    _, said = explained(pair, n_segments=4, n_evaluations=5)
    assert said["explanation"]["method"] == "lime"


def test_headers_and_queries_are_parameters_too(service):
    """As of every model; the query wins."""
    headers = {f"{PARAMETER_PREFIX}method": "occlusion", f"{PARAMETER_PREFIX}window": "9", "target": "benign"}
    request = request_from_http("explain", asked().body, headers, {"window": "11", "stride": "6"}, "id")
    (response,) = service.respond([request])
    stated = fields(response)["provenance"]["explainer"]
    assert (stated["method"], stated["parameters"]["window"], stated["target_class"]) == ("occlusion", 11, "benign")


def test_predictions_have_no_seed(service):
    """It would mean that something is drawn."""
    message = "parameters of predictions of classes are objects; got 'seed'"
    assert refused(service, "predict", seed="1") == (400, message)


def test_bundles_have_defaults_of_their_own(tmp_path, eager_service):
    """Values of method parameters that suit the network's size; requests can still choose others."""
    service = eager_service(defaults={"occlusion": {"window": 7, "stride": 6}})
    for asked_for, expected in (({}, (7, 6)), ({"stride": 3}, (7, 3))):
        _, said = explained(service, method="occlusion", **asked_for)
        stated = said["provenance"]["explainer"]["parameters"]
        assert (stated["window"], stated["stride"]) == expected


@pytest.mark.parametrize("members", ["mean", "each"])
def test_costs_are_bounded(eager_service, members):
    """Every member is evaluated, whether maps of each are asked for or not."""
    status, message = refused(eager_service(n_members=3), n_steps=6667, members=members)
    expected = f"the method's parameters must ask for at most {MAX_EVALUATIONS} evaluations of the network, got 20001"
    assert (status, message) == (400, expected)


def test_options_of_other_models_are_refused(classifier):
    """Explanations of many samples are CDMAM's."""
    with pytest.raises(InvalidInput, match="checkpoint must not be given for models of task classification"):
        open_service(classifier, checkpoint=object(), workers=None)


def test_a_model_that_no_engine_computes_is_not_served(tmp_path, classifier_pair):
    """Golden values of another network: the engine is refused when the service starts."""
    bundle = make_classifier(tmp_path, graphs=("prediction",))
    golden = tmp_path / "member-0.prediction.golden.npz"
    golden.write_bytes((classifier_pair.path / "member-1.prediction.golden.npz").read_bytes())
    with pytest.raises(BundleError, match=r"output must be within .* of the golden values"):
        ClassifierService(save_classifier(tmp_path, bundle.manifest), engine="onnxruntime")


NAMES = ["method", "target", "members", "output", "trust", "n_steps", "window", "stride", "baseline", "seed", "noise"]
VALUES = st.sampled_from(["1", "2", "0", "-1", "nan", "1e3", "", "occlusion", "saliency", "cam", "each", "overlay"])
HEADERS = st.dictionaries(
    st.sampled_from([*NAMES, *(f"X-Radlens-{name}" for name in NAMES), "Accept", "Content-Type", "x-radlens-query"]),
    VALUES | st.text(max_size=10) | st.sampled_from(["image/png", "application/json", "*/*", "application/dicom"]),
    max_size=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["predict", "explain"]),
    headers=HEADERS,
    query=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), VALUES, max_size=3),
    body=st.sampled_from([asked().body, asked().body[:-9]]) | st.binary(max_size=50),
)
def test_any_request_is_answered_or_refused(service, kind, headers, query, body):
    """Whatever a client sends gets a 200 or a 4xx, and its neighbour never notices."""
    strange = request_from_http(kind, body, headers, query, "strange")
    response, neighbour = service.respond([strange, asked("predict")])
    assert neighbour.status == 200
    assert response.status == 200 or 400 <= response.status < 500
    if response.status != 200:
        assert fields(response)["message"].isascii()
