"""Boxes of all maps against the truth."""

from dataclasses import replace

import numpy as np
import pytest

from radlens.errors import InvalidParameter
from radlens.evaluation import iou, merge_boxes, merged_box
from radlens.evaluation.baselines import baseline_map
from radlens.studies import BoxRule, CaseSet, MapSet, Store, StudyModel, measure_localisation, methods_of
from radlens.studies.localisation import box_of


class Given(MapSet):
    """Maps that were made by hand."""

    def map(self, method: str, index: int) -> np.ndarray:
        """Return a square at (4, 6), larger where the method is not dilated, or nothing for image 3."""
        found = np.zeros((32, 32))
        if index != 3:
            found[6:12, 4:9] = 1.0
        return found


@pytest.fixture
def maps(model: StudyModel, cases: CaseSet, store: Store) -> Given:
    """Maps of two methods."""
    methods = methods_of(["saliency", "lime"])
    return Given(model, cases, methods, dict.fromkeys(range(len(cases)), 1), store, "maps")


def test_boxes_follow_the_thesis(maps: Given, cases: CaseSet) -> None:
    """Saliency is dilated by 9 x 9 pixels, LIME is not; an image whose map has no region counts with 0."""
    rule = BoxRule(quantile=0.7)
    found = measure_localisation(maps, [1, 3, 5], rule)
    assert found is not None
    assert list(found.indices) == [1, 3, 5]
    assert found.boxes["lime"] == [(4, 6, 9, 12), None, (4, 6, 9, 12)]
    assert found.boxes["saliency"] == [(0, 2, 13, 16), None, (0, 2, 13, 16)]
    for name in ("lime", "saliency"):
        expected = [iou(box, merge_boxes(cases[i].boxes)) for box, i in zip(found.boxes[name], (1, 3, 5), strict=True)]
        assert found.ious[name].tolist() == expected
        assert expected[1] == 0
    assert found.n_without_box == {"saliency": 1, "lime": 1}
    assert found.n_several == sum(len(cases[i].boxes) > 1 for i in (1, 3, 5))


def test_a_rule_is_that_of_the_measure(maps: Given) -> None:
    """Quantile and opening are passed on; a rule out of range is refused."""
    rule = BoxRule(quantile=0.9, opening=3)
    expected = merged_box(maps.map("lime", 1), quantile=0.9, opening=3, dilation=1)
    assert box_of(maps, "lime", 1, rule) == expected
    with pytest.raises(InvalidParameter, match=r"quantile must be in \[0, 1\], got 2"):
        box_of(maps, "lime", 1, BoxRule(2))
    with pytest.raises(InvalidParameter, match="opening must be odd and at least 1, got 4"):
        box_of(maps, "lime", 1, BoxRule(opening=4))


def test_images_without_boxes_are_left_out(maps: Given, cases: CaseSet) -> None:
    """Nothing is measured where there is no truth."""
    bare = [replace(case, sample=replace(case.sample, boxes=(), masks=(), labels=())) for case in cases]
    assert measure_localisation(replace(maps, cases=bare), [0, 1]) is None
    mixed = [*bare[:3], cases[3]]
    found = measure_localisation(replace(maps, cases=mixed), [1, 2, 3])
    assert found is not None
    assert list(found.indices) == [3]


def test_baselines_are_boxes_of_maps_that_know_no_network(maps: Given, cases: CaseSet) -> None:
    """Image and centre equal the boxes made by hand, undilated; dark pixels are high in ultrasound."""
    found = measure_localisation(maps, [1, 3, 5])
    assert found is not None
    assert set(found.baselines) == {"image", "centre", "random"}
    for place, i in enumerate((1, 3, 5)):
        for name in ("image", "centre"):
            guess = baseline_map(name, cases[i].sample.pixels, dark=True)
            expected = iou(merged_box(guess, dilation=1), merge_boxes(cases[i].boxes))
            assert found.baselines[name][place] == expected
    assert found.compared.best == max(found.baselines, key=lambda name: found.baselines[name].mean())
    assert set(found.compared.p) == {"saliency", "lime"}
