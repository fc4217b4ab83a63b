"""Strict reading of parameters."""

import math
from dataclasses import dataclass
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radlens import explainers
from radlens.errors import InvalidParameter
from radlens.explainers import Ask, Attribution, Explainer
from radlens.explainers.base import _REGISTRY
from radlens.explainers.ranges import Positive, Whole
from radlens.families.cdmam.settings import (
    Settings,
    evaluations,
    explanation_parameters,
    explanation_settings,
    prediction_settings,
)
from radlens.service.parameters import Above, Choice, Integer, shown

METHODS = ("occlusion", "omig", "sensitivity")


def explain(given=None, hints=None, methods=METHODS):
    """Read the parameters of an explanation by a model with the usual methods."""
    return explanation_settings(given or {}, hints or {}, sampler="grid", methods=methods, n_members=4)


def test_defaults_are_those_of_the_paper():
    """An explanation without parameters is OMIG with 50 steps, c = 1 and t = 3, of one sample."""
    settings = explain()
    assert settings.explainer == explainers.create("omig", n_steps=50, path_length=1.0, zscore=3.0)
    assert (settings.n_samples, settings.seed, settings.normalize, settings.output) == (1, 0, "paper", "map")
    assert settings.sampler == "grid"


def test_occlusion_is_affordable_by_default():
    """Served occlusion has windows of 10 pixels: 625 squares instead of 62 500, and the image itself."""
    settings = explain({"method": "occlusion"})
    assert settings.explainer == explainers.create("occlusion", window=10, stride=10, effect="rise")
    assert evaluations(settings) == 626
    assert evaluations(explain({"method": "occlusion", "window": "1", "stride": "1"})) == 62_501


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, 50), ({"n_samples": "7"}, 350), ({"method": "sensitivity", "n_samples": "9"}, 9), ({"n_steps": "3"}, 3)],
)
def test_cost_counts_evaluations_of_the_network(given, expected):
    """Samples times steps."""
    assert evaluations(explain(given)) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("n_steps", "0", "n_steps must be an integer from 1 to 1000, got '0'"),
        ("n_steps", "1001", "n_steps must be an integer from 1 to 1000, got '1001'"),
        ("n_steps", "1e3", "got '1e3'"),
        ("n_steps", "-3", "got '-3'"),
        ("n_steps", "+3", r"got '\+3'"),
        ("n_steps", " 3", "got ' 3'"),
        ("n_steps", "3.0", "got '3.0'"),
        ("n_steps", "1_000", "got '1_000'"),
        ("n_steps", "", "got ''"),
        ("n_steps", "٣", r"got '\\u0663'"),
        ("n_steps", "9" * 5000, "got '9{40}'\\.\\.\\."),
        ("n_samples", "100001", "n_samples must be an integer from 1 to 100000"),
        ("n_samples", "0", "n_samples must be an integer from 1 to 100000, or auto, got '0'"),
        ("n_samples", "AUTO", "or auto, got 'AUTO'"),
        ("reliability", "1", "reliability must be a number above 0 and below 1, got '1'"),
        ("reliability", "0", "reliability must be a number above 0 and below 1, got '0'"),
        ("reliability", "95%", "reliability must be a number above 0 and below 1, got '95%'"),
        ("max_samples", "1", "max_samples must be an integer from 2 to 100000, got '1'"),
        ("start", "-1", "start must be an integer from 0 to 2147483647, got '-1'"),
        ("seed", str(2**32), "seed must be an integer from 0 to 4294967295"),
        ("path_length", "0", "path_length must be a finite number above 0, got '0'"),
        ("path_length", "-1", "got '-1'"),
        ("path_length", "nan", "got 'nan'"),
        ("path_length", "inf", "got 'inf'"),
        ("path_length", "1e999", "got '1e999'"),
        ("path_length", "0x1p3", "got '0x1p3'"),
        ("path_length", "1,5", "got '1,5'"),
        ("path_length", ".", r"got '\.'"),
        ("zscore", "1e-999", "zscore must be a finite number above 0"),
        ("sampler", "random", "sampler must be one of grid, jitter, stratified, got 'random'"),
        ("normalize", "PAPER", "normalize must be one of paper, visits, got 'PAPER'"),
        ("output", "json", "output must be one of map, sampled, overlay, disagreement, got 'json'"),
        ("method", "lime", "method must be one of occlusion, omig, sensitivity, got 'lime'"),
        ("method", "<script>\n", r"got '<script>\\n'"),
    ],
)
def test_text_that_is_no_value_is_refused(name, text, message):
    """The message names the parameter, what was expected and what came, made harmless."""
    auto = {"n_samples": "auto"} if name in ("reliability", "max_samples") else {}
    with pytest.raises(InvalidParameter, match=message):
        explain(auto | {name: text})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": "5"}, r"parameters of explanations by omig are method, n_samples, .*, n_steps, path_length, zscore"),
        ({"batch_size": "5"}, "got 'batch_size'"),
        ({"method": "sensitivity", "n_steps": "5"}, "parameters of explanations by sensitivity are .*; got 'n_steps'"),
        ({"b": "", "a": "", "c": ""}, "got 'a' and 2 more"),
        ({"method": "omig", "window": "5"}, "got 'window'"),
    ],
)
def test_unknown_names_are_refused(given, message):
    """A misspelt parameter must not be ignored: the map would be another one than was asked for."""
    with pytest.raises(InvalidParameter, match=message):
        explain(given)


def test_automatic_runs_have_a_goal():
    """Reliability and limit are stated; a limit below the least number of samples lowers it."""
    settings = explain({"n_samples": "auto", "reliability": "0.9", "max_samples": "30"})
    assert (settings.n_samples, settings.reliability, settings.max_samples) == ("auto", 0.9, 30)
    assert (settings.is_automatic, settings.most_samples, settings.min_samples) == (True, 30, 30)
    stated = settings.stated()["sampling"]
    assert (stated["n_samples"], stated["wanted_reliability"], stated["max_samples"]) == ("auto", 0.9, 30)
    assert evaluations(settings) == 30 * 50
    assert explain({"n_samples": "auto"}).min_samples == 64


@pytest.mark.parametrize("given", [{"reliability": "0.9"}, {"n_samples": "500", "reliability": "0.9"}])
def test_a_goal_that_would_be_ignored_is_refused(given):
    """Whoever names a reliability expects it; a plain header of that name says nothing."""
    with pytest.raises(InvalidParameter, match=r"n_samples must be auto with reliability, got (1|500)$"):
        explain(given)
    assert explain({}, {"reliability": "0.9"}).n_samples == 1


def test_predictions_have_a_sampler_and_a_seed():
    """Other parameters are refused."""
    settings = prediction_settings({"seed": "5"}, {"sampler": "jitter"}, sampler="grid")
    assert (settings.seed, settings.sampler, settings.explainer) == (5, "jitter", None)
    assert settings.stated() == {"sampling": {"sampler": "jitter", "seed": 5}}
    with pytest.raises(InvalidParameter, match="parameters of predictions are sampler, seed, objects; got 'method'"):
        prediction_settings({"method": "omig"}, {}, sampler="grid")


def test_hints_yield_to_what_is_given():
    """A plain header fills a gap, and is ignored where it names nothing."""
    settings = explain({"n_steps": "5"}, {"n_steps": "6", "zscore": "2", "host": "x", "window": "3"})
    assert settings.explainer == explainers.create("omig", n_steps=5, zscore=2.0)


def test_a_single_sample_has_one_sample():
    """Its rows and columns are those of one draw."""
    with pytest.raises(InvalidParameter, match="n_samples must be 1 for output 'sampled', got 2"):
        explain({"output": "sampled", "n_samples": "2"})


def test_models_choose_their_methods():
    """A method that the model does not allow does not exist; without OMIG the first is the default."""
    assert explain(methods=("occlusion", "sensitivity")).explainer.name == "occlusion"
    with pytest.raises(InvalidParameter, match="method must be one of occlusion, got 'omig'"):
        explain({"method": "omig"}, methods=("occlusion",))


CDMAM_METHODS = ("occlusion", "omig", "sensitivity")


@pytest.mark.parametrize("method", CDMAM_METHODS)
def test_every_registered_method_can_be_asked_for(method):
    """Its own parameters are read off its fields, and its defaults are accepted as text."""
    parameters = explanation_parameters("grid", CDMAM_METHODS, method)
    given = {name: str(parameter.default) for name, parameter in parameters.items()} | {"method": method}
    given["n_samples"] = "auto"
    assert explain(given, methods=CDMAM_METHODS).explainer.name == method


def test_models_have_defaults_of_their_own():
    """They stand in place of a method's, for that method alone, and give way to what is asked for."""
    own = {"omig": {"n_steps": 8, "path_length": 250.0}}

    def explainer(method, given):
        asked = {"method": method, **given}
        return explanation_settings(
            asked, {}, sampler="grid", methods=CDMAM_METHODS, n_members=1, defaults=own
        ).explainer

    assert explainer("omig", {}) == explainers.create("omig", n_steps=8, path_length=250.0)
    assert explainer("omig", {"n_steps": "3"}) == explainers.create("omig", n_steps=3, path_length=250.0)
    assert explainer("sensitivity", {}) == explainers.create("sensitivity")
    assert explanation_parameters("grid", CDMAM_METHODS, "omig", own)["path_length"].default == 250.0


def test_new_methods_need_no_change_here(monkeypatch):
    """Integers and numbers of a method that is registered later get a range and a default."""

    @dataclass(frozen=True)
    class Later(Explainer):
        n_copies: Annotated[int, Whole(1)] = 3
        width: Annotated[float, Positive()] = 0.5

        def work(self, image, target):
            (gradients,) = yield Ask("gradient", {"images": image[None]}, target)
            return Attribution(self.width * gradients[0])

    monkeypatch.setattr(Later, "name", "later", raising=False)
    monkeypatch.setitem(_REGISTRY, "later", Later)
    settings = explain({"method": "later", "width": "2.5"}, methods=("later",))
    assert settings.explainer == Later(n_copies=3, width=2.5)
    assert settings.stated()["explainer"] == {"method": "later", "parameters": {"n_copies": 3, "width": 2.5}}


@given(st.integers(1, 1000))
def test_integers_are_read_exactly(value):
    """Decimal digits and nothing else."""
    assert Integer(1, 1000, 5).parse(str(value)) == value


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_numbers_are_read_exactly(value):
    """The shortest text that Python writes for a number reads as that number."""
    assert Above(1.0).parse(repr(value)) == value


@given(st.text())
def test_no_text_reads_as_something_else(text):
    """What is read lies in its range."""
    integer, number = Integer(3, 9, 5).parse(text), Above(1.0).parse(text)
    assert integer is None or (3 <= integer <= 9 and text.isascii())
    assert number is None or (0 < number < math.inf and text.isascii())
    assert Choice(("a", "b"), "a").parse(text) == (text if text in ("a", "b") else None)


@given(st.text(max_size=3000))
def test_what_came_is_shown_harmless_and_short(text):
    """Printable ASCII on one line, at most 83 characters: nothing a terminal, log or page would obey."""
    assert shown(text).isascii()
    assert shown(text).isprintable()
    assert len(shown(text)) <= 83


def outcome(given):
    """Return the settings that text asks for, or the message of the error that refused it."""
    try:
        return explain(given)
    except InvalidParameter as error:
        return str(error)


@given(st.dictionaries(st.sampled_from(["n_steps", "zscore", "seed", "method", "output", "x"]), st.text(max_size=20)))
def test_any_parameters_are_read_or_refused(given):
    """Nothing but settings or one kind of error comes out, and its message is ASCII."""
    found = outcome(given)
    assert isinstance(found, Settings) or found.isascii()
