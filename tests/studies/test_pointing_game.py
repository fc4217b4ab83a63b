"""The pointing game over all images."""

from dataclasses import replace

import numpy as np
import pytest

from radlens.evaluation import ANY_REGION, breast_regions, pointing_hits
from radlens.evaluation.baselines import baseline_map
from radlens.studies import CaseSet, MapSet, Store, StudyModel, measure_pointing, methods_of, regions_of


class Given(MapSet):
    """Maps of noise."""

    def map(self, method: str, index: int) -> np.ndarray:
        """Return noise of its own for each image."""
        return np.random.default_rng(index).normal(size=(32, 32))


@pytest.fixture
def maps(model: StudyModel, cases: CaseSet, store: Store) -> Given:
    """Maps of one method."""
    return Given(model, cases, methods_of(["cam"]), dict.fromkeys(range(len(cases)), 1), store, "maps")


def test_correct_images_alone_count(maps: Given, cases: CaseSet) -> None:
    """Table 2 counts hits of the images that are right, whatever the others hit."""
    correct = np.array([True, False, True, True, False, True])
    game = measure_pointing(maps, range(6), correct, ring_mm=3.0)
    assert game is not None
    assert list(game.indices) == [0, 2, 3, 5]
    assert (game.n_wrong, game.n_left_out) == (2, 0)
    by_hand = []
    for i in game.indices:
        regions = breast_regions(cases[i].mask, cases[i].sample.spacing_mm, 3.0)
        by_hand.append(pointing_hits(maps.map("cam", i), regions))
    assert list(game.hits["cam"]) == by_hand
    for name in ("mass", "peritumoral", "below"):
        assert game.tables["cam"][name].rate == np.mean([hits[name] for hits in by_hand])
        assert 0 < game.by_chance[name] < 1
    assert game.tables["cam"][ANY_REGION].n_hits == sum(any(hits.values()) for hits in by_hand)


def test_images_without_outline_or_spacing_are_left_out(maps: Given, cases: CaseSet) -> None:
    """They are counted as left out; where none is left there is no game."""
    bare = [replace(case, sample=replace(case.sample, masks=())) for case in cases[:2]]
    blind = [replace(case, sample=replace(case.sample, spacing_mm=None)) for case in cases[2:4]]
    assert regions_of(bare[1]) is None
    assert regions_of(blind[1]) is None
    some = replace(maps, cases=[*bare, *blind, *cases[4:]])
    game = measure_pointing(some, range(6), np.ones(6, dtype=bool))
    assert game is not None
    assert list(game.indices) == [4, 5]
    assert game.n_left_out == 4
    assert measure_pointing(some, range(4), np.ones(6, dtype=bool)) is None
    assert measure_pointing(maps, range(6), np.zeros(6, dtype=bool)) is None


def test_baselines_play_the_same_game(maps: Given, cases: CaseSet) -> None:
    """Image and centre by hand; random pixels are those of the column; methods are tested in each region."""
    game = measure_pointing(maps, range(6), np.ones(6, dtype=bool), ring_mm=3.0)
    assert game is not None
    for name in ("image", "centre"):
        hits = [
            pointing_hits(
                baseline_map(name, case.sample.pixels), breast_regions(case.mask, case.sample.spacing_mm, 3.0)
            )
            for case in cases
        ]
        for region in ("mass", "peritumoral", "below"):
            assert game.baselines[name][region] == np.mean([each[region] for each in hits])
        assert game.baselines[name][ANY_REGION] == np.mean([any(each.values()) for each in hits])
    assert game.baselines["random"] == pytest.approx(game.by_chance)
    assert set(game.compared) == set(game.by_chance)
    assert all(0 < found.p["cam"] <= 1 for found in game.compared.values())
