"""Figures of a reader study, Figs. 7 to 9: what they draw is what the results say."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from simulated_readers import encoded, make_answers, make_key, reader_with_effect

from radlens.errors import InvalidInput
from radlens.evaluation.reader_answers import collect_readings, read_study_key
from radlens.evaluation.reader_results import study_results
from radlens.figures.panels import save
from radlens.figures.reader_study import figure_criteria, figure_preference, figure_reader_scores

DOCUMENT = make_key(n_lesions=6)
EFFECT = {"cam": 2.0, "shap": 0.5, "lime": -1.5}


def results(n=4, score=None):
    """Return results of readers with a known effect, or of readers who give one score throughout."""
    files = []
    for i in range(n):
        reader = reader_with_effect(EFFECT, i) if score is None else lambda *_: score
        files.append((f"{i}.json", encoded(make_answers(DOCUMENT, f"r{i}", reader, "A"))))
    return study_results(collect_readings(files, read_study_key(encoded(DOCUMENT))))


@pytest.fixture(scope="module")
def found():
    """Results of four readers."""
    return results()


def bars(axes):
    """Return the length of each bar, from above."""
    return [patch.get_width() for patch in sorted(axes.patches, key=lambda patch: patch.get_y())]


def intervals(axes):
    """Return the ends of each interval, from above; the line at zero is none."""
    lines = sorted(
        (each for each in axes.lines if len(set(each.get_ydata())) == 1), key=lambda each: each.get_ydata()[0]
    )
    return [tuple(map(float, line.get_xdata())) for line in lines]


def test_scores_by_criterion_method_and_class(found):
    """Left the table of z-adjusted scores in its order, right both classes, blue and red, with all intervals."""
    left, right = figure_reader_scores(found).axes
    means = [each for of in found["tables"]["z_adjusted"]["means"].values() for each in of.values()]
    assert bars(left) == pytest.approx([each["mean"] for each in means])
    assert intervals(left) == [(each["low"], each["high"]) for each in means]
    assert [text.get_text() for text in left.get_yticklabels()] == ["CAM", "SHAP", "LIME"] * 3
    by_class = found["by_class"]["z_adjusted"]
    expected = [
        by_class[label][criterion][method]["mean"]
        for criterion in found["correlation"]
        for method in found["methods"]
        for label in ("benign", "malignant")
    ]
    assert bars(right) == pytest.approx(expected)
    colours = [to_hex(each.get_facecolor()) for each in sorted(right.patches, key=lambda patch: patch.get_y())]
    assert colours == ["#2166ac", "#b2182b"] * 9
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["benign (3)", "malignant (3)"]


def test_the_classes_make_up_the_whole(found):
    """With as many lesions of each, the mean of both is the mean of all."""
    by_class, means = found["by_class"]["z_adjusted"], found["tables"]["z_adjusted"]["means"]
    for criterion, of in means.items():
        for method, each in of.items():
            both = [by_class[label][criterion][method]["mean"] for label in ("benign", "malignant")]
            assert np.mean(both) == pytest.approx(each["mean"], abs=1e-9)


def test_criteria_that_go_together_are_joined_first(found):
    """Average linkage of 1 - r, by hand for three criteria."""
    r = {frozenset((a, b)): v for a, of in found["correlation"].items() for b, v in of.items() if a != b}
    closest = max(r, key=r.get)
    rest = [value for pair, value in r.items() if pair != closest]
    (axes,) = figure_criteria(found).axes
    shown = sorted((text.get_text() for text in axes.texts), reverse=True)
    assert shown == [f"r = {r[closest]:.2f}", f"r = {np.mean(rest):.2f}"]


def test_the_factor_and_its_weights(found):
    """Means of the methods in their order, and the share of the variance."""
    left, right = figure_preference(found).axes
    assert bars(left) == pytest.approx([found["factor"]["means"][name]["mean"] for name in EFFECT])
    assert bars(left) == sorted(bars(left), reverse=True)
    assert bars(right) == pytest.approx(list(found["factor"]["weights"].values()))
    assert f"{found['factor']['share']:.1%}" in left.get_title()


def test_one_reader_has_no_interval():
    """Bars alone."""
    left, right = figure_reader_scores(results(1)).axes
    assert (len(bars(left)), len(bars(right))) == (9, 18)
    assert intervals(left) == intervals(right) == []


def test_answers_without_a_difference():
    """Nothing goes together and nothing is preferred: an error says so; scores are drawn."""
    found = results(2, score=1)
    with pytest.raises(InvalidInput, match="correlations of the criteria must be defined"):
        figure_criteria(found)
    with pytest.raises(InvalidInput, match="factor of preferability must be defined"):
        figure_preference(found)
    assert save(figure_reader_scores(found)).startswith(b"\x89PNG")
