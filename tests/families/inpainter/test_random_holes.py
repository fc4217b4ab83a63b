"""Random holes: where they lie, how many, how large, single, clustered or in a grid."""

import numpy as np
import pytest

from radlens.datasets import ModelInput
from radlens.errors import InvalidParameter
from radlens.families.inpainter.holes import random_mask
from radlens.families.inpainter.recipes import Holes, InpainterPreset, Phase

SHAPE = (64, 48)
REGION = np.zeros(SHAPE, dtype=bool)
REGION[20:50, :25] = True


def drawn(holes, seed=0, region=REGION):
    """Return the mask of a seed."""
    return random_mask(np.random.default_rng(seed), region, holes)


@pytest.mark.parametrize("holes", [Holes(), Holes(5, (3, 6)), Holes(p_grid=1.0), Holes(p_clustered=1.0, p_grid=0.0)])
def test_masks_are_0_in_holes_and_1_elsewhere(holes):
    """The same seed gives the same mask, another one another."""
    first = drawn(holes)
    assert (first.shape, first.dtype) == (SHAPE, np.float32)
    assert set(np.unique(first)) == {0.0, 1.0}
    assert np.array_equal(first, drawn(holes))
    assert any(not np.array_equal(first, drawn(holes, seed)) for seed in range(1, 5))


@pytest.mark.parametrize("side", [1, 4, 7, 8])
def test_a_single_hole_is_a_square_around_a_pixel_of_the_region(side):
    """Cut at the edges of the image; the centre is the pixel after the middle."""
    for seed in range(40):
        rows, columns = np.nonzero(drawn(Holes(1, (side, side), p_grid=0.0, p_clustered=0.0), seed) == 0)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width
        assert height == side
        assert width == side or (width < side and columns.min() == 0)
        assert REGION[rows.max() - side + 1 + side // 2, max(columns.max() - side + 1 + side // 2, 0)]


@pytest.mark.parametrize("p_clustered", [0.0, 1.0])
def test_centres_lie_in_the_region(p_clustered):
    """So no hole reaches further than half its side, and in a region of one pixel there is one hole alone."""
    near = np.zeros(SHAPE, dtype=bool)
    near[20 - 4 : 49 + 4, : 24 + 4] = True
    holes = Holes(60, (8, 8), p_clustered=p_clustered, p_grid=0.0)
    for seed in range(20):
        assert not (drawn(holes, seed) == 0)[~near].any()
    point = np.zeros(SHAPE, dtype=bool)
    point[30, 20] = True
    expected = np.ones(SHAPE)
    expected[26:34, 16:24] = 0
    assert np.array_equal(drawn(holes, region=point), expected)


def test_there_are_at_most_as_many_as_allowed():
    """Single pixels in a wide region show their number, from 1 to the most."""
    region = np.ones((200, 200), dtype=bool)
    counts = [
        int((drawn(Holes(9, (1, 1), p_clustered=c, p_grid=0), k, region) == 0).sum())
        for k in range(200)
        for c in (0, 1)
    ]
    assert (min(counts), max(counts)) == (1, 9)
    sizes = {int((drawn(Holes(1, (3, 5), p_clustered=0, p_grid=0), k, region) == 0).sum()) for k in range(60)}
    assert {9, 16, 25} <= sizes


def test_clusters_lie_closer_than_single_holes():
    """The spread of the holes of an image is a few of their sides."""
    region = np.ones((200, 200), dtype=bool)

    def spread(p_clustered):
        found = []
        for seed in range(30):
            rows, columns = np.nonzero(drawn(Holes(14, (4, 4), p_clustered=p_clustered, p_grid=0), seed, region) == 0)
            found.append(rows.std() + columns.std())
        return np.median(found)

    assert spread(1.0) < 0.7 * spread(0.0)


def test_a_grid_is_regular_and_cut_to_the_region():
    """One side and one distance in both directions."""
    for seed in range(20):
        holes = drawn(Holes(1, (2, 3), p_grid=1.0), seed) == 0
        assert not holes[~REGION].any()
        rows, columns = np.unique(np.nonzero(holes)[0]), np.unique(np.nonzero(holes)[1])
        assert np.array_equal(holes[np.ix_(rows, columns)], np.ones((len(rows), len(columns)), dtype=bool))
        starts = rows[np.flatnonzero(np.diff(rows, prepend=-9) > 1)]
        assert len(set(np.diff(starts[1:]))) <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Holes(0), "most holes must be at least 1, got 0"),
        (lambda: Holes(sides=(3, 2)), r"sides of holes must be rising and at least 1, got \(3, 2\)"),
        (lambda: Holes(sides=(0, 2)), "sides of holes must be rising"),
        (lambda: Holes(p_grid=1.5), "p_grid must be from 0 to 1, got 1.5"),
        (lambda: Holes(p_clustered=-1), "p_clustered must be from 0 to 1, got -1"),
        (lambda: Phase(0, 1e-3, has_norm=True), "at least 1 epoch and a learning rate above 0, got 0 and 0.001"),
        (lambda: Phase(1, float("nan"), has_norm=True), "learning rate above 0, got 1 and nan"),
        (lambda: InpainterPreset(input=ModelInput((32, 32)), width=0), "width must be at least 1, got 0"),
        (lambda: InpainterPreset(input=ModelInput((32, 32)), phases=()), "phases must be at least one, got none"),
    ],
)
def test_recipes_out_of_range_are_refused(make, message):
    """When they are made."""
    with pytest.raises(InvalidParameter, match=message):
        make()


def test_the_recipe_of_the_paper():
    """Major et al. 2020, section 3: images of one, 100 and 50 epochs, up to 400 holes of 8x8."""
    preset = InpainterPreset(input=ModelInput((576, 448)))
    assert preset.batch_size == 1
    assert [(p.epochs, p.learning_rate, p.has_norm) for p in preset.phases] == [(100, 1e-5, True), (50, 1e-6, False)]
    assert (preset.holes.most, preset.holes.sides) == (400, (8, 8))
