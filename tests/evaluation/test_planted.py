"""Whether maps point at a planted cause."""

import numpy as np
import pytest

from radlens.errors import InvalidInput
from radlens.evaluation.planted import evidence_share, hits_table, known_of, peak_hits, wilson
from radlens.evaluation.planted_record import RECORD
from radlens.studies import class_methods

CAUSE = np.zeros((30, 30), bool)
CAUSE[10:14, 20:25] = True


@pytest.mark.parametrize(
    ("row", "column", "hit"), [(12, 22, True), (16, 22, True), (17, 22, False), (12, 17, True), (12, 16, False)]
)
def test_a_peak_hits_within_three_pixels(row, column, hit):
    """Of a single positive pixel; its sign matters."""
    map = np.zeros((30, 30))
    map[row, column] = 2.0
    assert peak_hits(map, CAUSE) == hit
    assert evidence_share(map, CAUSE) == float(hit)
    assert not peak_hits(-map, CAUSE)
    assert evidence_share(-map, CAUSE) == 0


def test_a_plateau_hits_if_half_of_it_does():
    """Two of four pixels are enough, one of three is not; a constant map hits nothing."""
    map = np.zeros((30, 30))
    map[12, [21, 22, 2, 3]] = 1.0
    assert peak_hits(map, CAUSE)
    map[12, 21] = 0.0
    assert not peak_hits(map, CAUSE)
    assert not peak_hits(np.ones((30, 30)), CAUSE)


def test_the_share_of_evidence_is_that_of_positive_values():
    """Three units at the cause, one elsewhere, negative values do not count."""
    map = np.full((30, 30), -1.0)
    map[11, 21], map[0, 0] = 3.0, 1.0
    assert evidence_share(map, CAUSE) == 0.75


def test_wilson_by_its_formula():
    """8 of 10."""
    z2 = 1.959964**2
    centre, half = (8 + z2 / 2) / (10 + z2), np.sqrt(z2) * np.sqrt(1.6 + z2 / 4) / (10 + z2)
    assert wilson(8, 10) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_shapes_must_agree():
    """The error names both shapes."""
    with pytest.raises(InvalidInput, match=r"cause must have the shape of the map \(30, 30\), got \(2, 2\)"):
        peak_hits(np.zeros((30, 30)), np.zeros((2, 2)))


def test_the_shipped_record_is_complete():
    """Every method of classes that needs no other network was measured on all four causes, with a passed control."""
    names = set(class_methods())
    assert set(RECORD["causes"]) == {"shadow", "margin", "marker", "density"}
    for found in RECORD["causes"].values():
        assert set(found["methods"]) == names
        assert found["auc"] > 0.9
        assert found["auc_without_low"] <= 0.5 <= found["auc_without_high"]
        assert found["flipped"] > 0.8
        for each in found["methods"].values():
            assert (each["low"], each["high"]) == pytest.approx(wilson(each["n_hits"], each["n"]), abs=1e-3)


def test_what_is_known_of_a_method():
    """The trust card gets hits, interval and the best baseline of each cause; an unknown method has none."""
    each = {"n_hits": 9, "n": 12, "low": 0.4, "high": 0.9, "p": 0.01, "share": 0.5}
    cause = {"methods": {"cam": each}, "best_baseline": "image", "baselines": {"image": {"rate": 0.25}}}
    record = {"command": "make it", "causes": {"shadow": cause}}
    found = known_of("cam", record)
    assert found["causes"]["shadow"]["n_hits"] == 9
    assert found["causes"]["shadow"]["best_baseline_rate"] == 0.25
    assert found["command"] == "make it"
    assert known_of("tea leaves", record) is None
    assert hits_table(record, ["shadow"]) == [("cam", "75% (40% to 90%) *")]
