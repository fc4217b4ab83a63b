"""What readers are told of a method stands with it."""

import re

import pytest

from radlens import explainers
from radlens.explainers import IntegratedGradients, Occlusion

WORDS = {"score": "score", "unit": "logit", "image": "grey value"}


@pytest.mark.parametrize("name", explainers.names())
def test_every_method_is_described(name):
    """By a title, a unit and a meaning of its own, whose braces are filled."""
    method = explainers.create(name)
    assert method.title not in {explainers.get(other).title for other in explainers.names() if other != name}
    described = method.described(**WORDS)
    assert described["unit"]
    assert described["meaning"][0].islower()
    assert not re.search(r"[{}]", "".join(described.values()))


@pytest.mark.parametrize("name", explainers.names())
def test_quick_parameters_are_parameters(name):
    """They are no larger than the defaults, and a method that has less keeps it."""
    method = explainers.create(name)
    assert {key: getattr(method.quicker(), key) for key in method.quick} == dict(method.quick)
    assert all(value <= getattr(method, key) for key, value in method.quick.items())


def test_less_than_quick_stays():
    """Seven steps are fewer than the quick ones."""
    assert IntegratedGradients(n_steps=7, baseline=0.5).quicker() == IntegratedGradients(n_steps=7, baseline=0.5)


def test_texts_name_parameters():
    """The effect of covering a square is a fall or a rise."""
    assert "score drops when" in Occlusion().described(**WORDS)["meaning"]
    assert "score rises when" in Occlusion(effect="rise").described(**WORDS)["meaning"]
