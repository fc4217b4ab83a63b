"""Results of a reader study as JSON and CSV."""

import csv
import io
import json

import numpy as np
import pytest
from scipy import stats
from simulated_readers import encoded, make_answers, make_key, reader_with_effect

from radlens.errors import InvalidParameter
from radlens.evaluation.reader_answers import collect_readings, read_study_key
from radlens.evaluation.reader_results import TABLES, answers_csv, study_results, tables_csv

EFFECT = {"cam": 2.0, "shap": 0.5, "lime": -1.5}

DOCUMENT = make_key(n_lesions=12)


def readings(n=8, effect=EFFECT, document=DOCUMENT):
    """Return the answers of readers with a known effect, every second one with variant B."""
    files = [
        (f"{i}.json", encoded(make_answers(document, f"r{i}", reader_with_effect(effect, i), "AB"[i % 2])))
        for i in range(n)
    ]
    return collect_readings(files, read_study_key(encoded(document)))


@pytest.fixture(scope="module")
def found():
    """Results of eight readers."""
    return study_results(readings())


def test_a_known_effect_is_in_every_table(found):
    """Means, order of ranks, and significant differences."""
    for criterion in ("intuitivity", "semantics", "quality"):
        raw = {name: each["mean"] for name, each in found["tables"]["raw"]["means"][criterion].items()}
        assert raw == pytest.approx(EFFECT, abs=0.3)
        ranked = {name: each["mean"] for name, each in found["tables"]["ranks"]["means"][criterion].items()}
        assert ranked["cam"] < ranked["shap"] < ranked["lime"]
        assert sum(ranked.values()) == pytest.approx(6)
        for table in TABLES:
            assert {name: test["p"] < 0.001 for name, test in found["tables"][table]["tests"][criterion].items()} == {
                "shap": True,
                "lime": True,
            }
        z = found["tables"]["z_adjusted"]["means"][criterion]
        assert sum(each["mean"] for each in z.values()) == pytest.approx(0, abs=1e-9)


def test_tests_are_those_of_the_answers(found):
    """SciPy on the scores themselves; the reference is the first method, and comes first."""
    scores = readings().scores
    assert found["reference"] == "cam"
    test = found["tables"]["raw"]["tests"]["semantics"]["lime"]
    means = scores[:, :, 1].mean(axis=1)
    expected = stats.ttest_rel(means[:, 0], means[:, 2])
    assert (test["t"], test["p"]) == pytest.approx((expected.statistic, expected.pvalue))
    assert test["difference"] > 0
    pairs = found["tables"]["raw"]["pairs"]["semantics"]
    assert [(pair["first"], pair["second"]) for pair in pairs] == [("cam", "shap"), ("cam", "lime"), ("shap", "lime")]
    assert pairs[1]["t"] == test["t"]
    order = found["order"]["quality"]["shap"]
    of_readers = scores[:, :, 2, 1].mean(axis=1)
    expected = stats.ttest_ind(of_readers[::2], of_readers[1::2])
    assert (order["t"], order["p"], order["df"]) == pytest.approx((expected.statistic, expected.pvalue, 6))


def test_an_order_effect_is_found():
    """Readers of B who score one method two lower."""
    files = []
    for i in range(8):
        effect = EFFECT | ({"cam": 0.0} if i % 2 else {})
        answers = make_answers(DOCUMENT, f"r{i}", reader_with_effect(effect, i), "AB"[i % 2])
        files.append((f"{i}.json", encoded(answers)))
    order = study_results(collect_readings(files, read_study_key(encoded(DOCUMENT))))["order"]
    for tests in order.values():
        assert tests["cam"]["difference"] == pytest.approx(2, abs=0.4)
        assert tests["cam"]["p"] < 0.001
        assert tests["lime"]["p"] > 0.01


def test_agreement_and_factor(found):
    """Readers with one effect agree; criteria with one effect have a factor, which orders the methods."""
    for agreement in found["agreement"].values():
        assert agreement["rho"] > 0.6
        assert (agreement["n_pairs"], agreement["undefined"]) == (28, [])
    assert 0.5 < found["kmo"] < 1
    assert found["factor"]["share"] > 0.8
    assert sum(found["factor"]["weights"].values()) == pytest.approx(1)
    means = [found["factor"]["means"][name]["mean"] for name in EFFECT]
    assert means == sorted(means, reverse=True)


def test_a_reader_who_always_answers_the_same():
    """The pairs without a correlation are named; everything else is a number or None, and JSON."""
    document = make_key(n_lesions=4)
    score = {"r0": lambda *_: 3, "r1": reader_with_effect(EFFECT, 1), "r2": reader_with_effect(EFFECT, 2)}
    files = [(f"{name}.json", encoded(make_answers(document, name, each))) for name, each in score.items()]
    found = study_results(collect_readings(files, read_study_key(encoded(document))))
    assert found["agreement"]["quality"]["undefined"] == [["r0", "r1"], ["r0", "r2"]]
    assert found["agreement"]["quality"]["n_pairs"] == 1
    assert found["order"]["quality"]["cam"]["t"] is None
    json.dumps(found, allow_nan=False)


def test_one_reader_and_one_variant():
    """Means without intervals, no tests and no order effects."""
    document = make_key(n_lesions=2, variants={"A": make_key(n_lesions=2)["variants"]["A"]})
    found = study_results(readings(1, document=document))
    cam = found["tables"]["raw"]["means"]["quality"]["cam"]
    assert cam["mean"] is not None
    assert cam["low"] is None
    assert found["tables"]["raw"]["tests"]["quality"]["lime"]["p"] is None
    assert found["order"] == {}
    assert found["agreement"]["quality"]["rho"] is None
    json.dumps(found, allow_nan=False)


def test_reference():
    """Any method can be the one that is compared."""
    found = study_results(readings(3), reference="lime")
    assert set(found["tables"]["raw"]["tests"]["quality"]) == {"cam", "shap"}
    with pytest.raises(InvalidParameter, match="reference must be one of cam, shap, lime, got omig"):
        study_results(readings(1), reference="omig")


def test_by_class(found):
    """Means over the benign and over the malignant lesions."""
    scores = readings().scores
    by_class = found["by_class"]["raw"]
    assert found["n_lesions"] == {"benign": 6, "malignant": 6}
    assert by_class["benign"]["quality"]["cam"]["mean"] == pytest.approx(scores[:, 0::2, 2, 0].mean())
    assert by_class["malignant"]["semantics"]["lime"]["mean"] == pytest.approx(scores[:, 1::2, 1, 2].mean())


def test_csv_of_the_answers_reads_back():
    """One line for each answer, raw and adjusted; a missing answer is empty."""
    document = make_key(n_lesions=2)
    score = lambda lesion, criterion, method: None if (lesion, method) == ("l0", "cam") else 1  # noqa: E731
    files = [
        ("a.json", encoded(make_answers(document, "ann", score))),
        ("b.json", encoded(make_answers(document, "bea", score))),
    ]
    given = collect_readings(files, read_study_key(encoded(document)))
    rows = list(csv.DictReader(io.StringIO(answers_csv(given))))
    assert len(rows) == 2 * 2 * 3 * 3
    assert rows[0] == {
        **{"reader": "ann", "variant": "A", "lesion": "l0", "class": "benign", "criterion": "intuitivity"},
        **{"method": "cam", "raw": "", "z_adjusted": "", "centred": "", "ranks": ""},
    }
    assert rows[-1]["raw"] == "1"
    assert rows[-1]["ranks"] == "2"
    assert [float(row["raw"]) if row["raw"] else np.nan for row in rows] == pytest.approx(
        given.scores.ravel(), nan_ok=True
    )


def test_csv_of_the_tables_reads_back(found):
    """One line for each table, criterion and method, with the test against the reference."""
    rows = list(csv.DictReader(io.StringIO(tables_csv(found))))
    assert len(rows) == len(TABLES) * 3 * 3
    for row in rows:
        table = found["tables"][row["table"]]
        mean = table["means"][row["criterion"]][row["method"]]
        assert float(row["low"]) == pytest.approx(mean["low"], rel=1e-5, abs=1e-5)
        test = table["tests"][row["criterion"]].get(row["method"])
        assert (row["p_paper"] == "") == (test is None)
        if test is not None:
            assert float(row["p_paper"]) == pytest.approx(test["p_paper"], rel=1e-4, abs=1e-9)
            assert row["reference"] == "cam"
