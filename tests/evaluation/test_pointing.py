"""The pointing game, against its three regions written as loops over pixels."""

import math

import numpy as np
import pytest
import torch

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation import breast_regions, pointing_hits, pointing_table


def slow_regions(mass, spacing, ring_mm):
    """Byra et al. 2022, the three regions, pixel by pixel."""
    h, w = mass.shape
    inside = [(y, x) for y in range(h) for x in range(w) if mass[y, x]]
    ring, below = np.zeros((h, w), dtype=bool), np.zeros((h, w), dtype=bool)
    for y in range(h):
        for x in range(w):
            if not mass[y, x]:
                nearest = min(math.hypot((y - j) * spacing[0], (x - i) * spacing[1]) for j, i in inside)
                ring[y, x] = nearest <= ring_mm + 1e-9
            column = [j for j, i in inside if i == x]
            below[y, x] = bool(column) and y > max(column)
    return {"mass": mass, "peritumoral": ring, "below": below}


def blob(seed, shape=(24, 30)):
    """Return a ragged mass with holes, at times in several parts."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    near = (y - rng.uniform(5, 18)) ** 2 + (x - rng.uniform(5, 25)) ** 2 < rng.uniform(10, 60)
    return near & (rng.uniform(size=shape) > 0.3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spacing", [0.75, (0.5, 1.25), (2.0, 0.3), (0.1, 0.1)])
def test_regions_are_those_of_the_loops(seed, spacing):
    """Mass, ring and below, isotropic and anisotropic spacing (row, column)."""
    mass = blob(seed)
    both = spacing if isinstance(spacing, tuple) else (spacing, spacing)
    ring_mm = 1.0 if both == (0.1, 0.1) else 3.0
    found, expected = breast_regions(mass, spacing, ring_mm), slow_regions(mass, both, ring_mm)
    assert list(found) == ["mass", "peritumoral", "below"]
    for name, region in expected.items():
        assert found[name].dtype == bool
        np.testing.assert_array_equal(found[name], region, err_msg=name)


def test_ring_is_five_millimetres_by_default_and_follows_the_spacing():
    """(row, column): rows twice as far apart give a ring half as many rows wide."""
    mass = np.zeros((41, 41), dtype=bool)
    mass[20, 20] = True
    ring = breast_regions(mass, (1.0, 0.5))["peritumoral"]
    assert np.flatnonzero(ring[:, 20]).tolist() == [*range(15, 20), *range(21, 26)]
    assert np.flatnonzero(ring[20]).tolist() == [*range(10, 20), *range(21, 31)]
    assert not breast_regions(mass, 1.0, ring_mm=0.0)["peritumoral"].any()


def test_pixels_exactly_on_the_ring_belong_to_it():
    """At 0.1 mm, 14 rows and 48 columns are 5 mm, though floating point makes them 5.000000000000001."""
    mass = np.zeros((121, 121), dtype=bool)
    mass[60, 60] = True
    ring = breast_regions(mass, 0.1)["peritumoral"]
    for dy, dx in [(50, 0), (30, 40), (14, 48), (48, 14)]:
        assert ring[60 + dy, 60 + dx]
        assert not ring[60 + dy + 1, 60 + dx]


def test_two_masses_one_above_the_other():
    """Below is under the lowest pixel of the column, not between the masses."""
    mass = np.zeros((20, 10), dtype=bool)
    mass[2:5, 2:8] = True
    mass[10:12, 5:7] = True
    below = breast_regions(mass, 1.0)["below"]
    assert np.flatnonzero(below[:, 3]).tolist() == [*range(5, 20)]
    assert np.flatnonzero(below[:, 5]).tolist() == [*range(12, 20)]
    assert not below[:, [0, 1, 8, 9]].any()


def test_mass_at_the_border_and_over_the_whole_image():
    """Nothing lies below a mass that reaches the lower border; a full mask leaves no ring."""
    mass = np.zeros((12, 12), dtype=bool)
    mass[8:, 4:7] = True
    found = breast_regions(mass, 1.0, ring_mm=1.0)
    assert not found["below"].any()
    assert np.count_nonzero(found["peritumoral"]) == 4 + 4 + 3
    full = breast_regions(np.ones((5, 5)), 0.2)
    assert full["mass"].all()
    assert not full["peritumoral"].any()
    assert not full["below"].any()


def test_masks_of_files_are_taken_as_they_are():
    """0 and 255, as image files hold masks."""
    mass = blob(1)
    for name, region in breast_regions(mass, 1.0).items():
        np.testing.assert_array_equal(breast_regions((255 * mass).astype(np.uint8), 1.0)[name], region)


def slow_hits(scores, regions):
    """An extreme hits a region that holds at least half of the pixels that reach it."""
    values = scores.ravel().tolist()
    hits = dict.fromkeys(regions, False)
    if min(values) == max(values):
        return hits
    for extreme in (min(values), max(values)):
        points = [(y, x) for y in range(scores.shape[0]) for x in range(scores.shape[1]) if scores[y, x] == extreme]
        for name, region in regions.items():
            if sum(bool(region[point]) for point in points) >= len(points) / 2:
                hits[name] = True
    return hits


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n_levels", [3, 40, 10**6])
def test_hits_are_those_of_the_loops(seed, n_levels):
    """With many ties, with few and with none."""
    mass = blob(seed)
    regions = breast_regions(mass, 0.5)
    scores = np.random.default_rng(seed).integers(-n_levels, n_levels, size=mass.shape) / n_levels
    assert pointing_hits(scores, regions) == slow_hits(scores, regions)


def test_maximum_and_minimum_both_hit():
    """Red in the mass, blue below it: two hits (Byra et al., "Results")."""
    mass = np.zeros((30, 30), dtype=bool)
    mass[5:10, 10:20] = True
    regions = breast_regions(mass, 1.0)
    scores = np.random.default_rng(0).uniform(-1, 1, size=mass.shape)
    scores[7, 12], scores[25, 15] = 2, -2
    assert pointing_hits(scores, regions) == {"mass": True, "peritumoral": False, "below": True}
    assert pointing_hits(-scores, regions) == pointing_hits(scores, regions)
    scores[7, 12], scores[25, 15], scores[0, 0], scores[29, 0] = 0, 0, 2, -2
    assert pointing_hits(scores, regions) == {"mass": False, "peritumoral": False, "below": False}


def test_a_pixel_in_two_regions_hits_both():
    """The ring and the region below overlap."""
    mass = np.zeros((20, 20), dtype=bool)
    mass[5:8, 8:12] = True
    scores = np.zeros((20, 20))
    scores[10, 9] = 1.0
    assert pointing_hits(scores, breast_regions(mass, 1.0)) == {"mass": False, "peritumoral": True, "below": True}


def test_the_background_of_a_rectified_map_is_no_hit():
    """Its minimum is a plateau of zeros, most of which lies outside small regions."""
    mass = np.zeros((40, 40), dtype=bool)
    mass[10:14, 10:14] = True
    scores = np.zeros((40, 40))
    scores[11, 12] = 1.0
    regions = breast_regions(mass, 1.0)
    assert pointing_hits(scores, regions) == {"mass": True, "peritumoral": False, "below": False}


def test_ties_at_the_maximum():
    """Half of the tied pixels is enough, less is not; the order of pixels plays no part."""
    region = {"mass": np.eye(1, 8, 7, dtype=bool).repeat(2, axis=0)}
    scores = np.arange(16.0).reshape(2, 8)
    scores[0, 7] = scores[1, 0] = 20
    assert pointing_hits(scores, region) == {"mass": True}
    assert pointing_hits(scores[:, ::-1], {"mass": region["mass"][:, ::-1]}) == {"mass": True}
    scores[1, 1] = 20
    assert pointing_hits(scores, region) == {"mass": False}


@pytest.mark.parametrize("value", [0.0, -2.5])
def test_a_constant_map_hits_nothing(value):
    """It has no extreme, not even where a region is the whole image."""
    regions = {"mass": np.ones((6, 6)), "below": np.zeros((6, 6))}
    assert pointing_hits(np.full((6, 6), value), regions) == {"mass": False, "below": False}


def test_a_one_pixel_mass():
    """Has all three regions, and can be hit."""
    mass = np.zeros((15, 15), dtype=bool)
    mass[7, 7] = True
    regions = breast_regions(mass, 1.0)
    assert [np.count_nonzero(region) for region in regions.values()] == [1, 80, 7]
    assert pointing_hits(mass - 0.5, regions)["mass"]


def test_table_counts_correct_cases_only():
    """Byra et al., Table 2: each region, and at least one of them."""
    rng = np.random.default_rng(5)
    hits = [{name: bool(rng.random() < 0.35) for name in ("mass", "peritumoral", "below")} for _ in range(40)]
    correct = rng.random(40) < 0.8
    table = pointing_table(hits, correct)
    assert list(table) == ["mass", "peritumoral", "below", "any"]
    n_cases = sum(correct.tolist())
    for name, row in table.items():
        n_hits = 0
        for case, is_correct in zip(hits, correct, strict=True):
            if is_correct and (case[name] if name != "any" else True in case.values()):
                n_hits += 1
        assert row == (n_hits, n_cases, n_hits / n_cases)


@pytest.mark.parametrize(
    ("mass", "message"),
    [
        (np.zeros((5, 5)), "mass_mask must hold at least one pixel of the mass, got an empty mask"),
        (np.zeros((5, 5, 1)), r"mass_mask must have shape \(h, w\) .* got \(5, 5, 1\)"),
        (np.zeros((5, 5, 1), dtype=bool), r"mass_mask must have shape \(h, w\) .* got \(5, 5, 1\)"),
        (np.full((5, 5), np.nan), "mass_mask must be finite, got 25 values"),
    ],
)
def test_odd_masks_are_refused(mass, message):
    """Empty, of another shape, or not finite."""
    with pytest.raises(InvalidInput, match=message):
        breast_regions(mass, 1.0)


@pytest.mark.parametrize("spacing", [0.0, -1.0, (1.0, 0.0), (1.0, 1.0, 1.0), float("nan"), float("inf"), "1.0"])
def test_odd_spacings_are_refused(spacing):
    """Not positive, not finite, of three axes, or text."""
    with pytest.raises(InvalidParameter, match="spacing_mm must be one positive number or"):
        breast_regions(np.ones((3, 3)), spacing)


@pytest.mark.parametrize("ring_mm", [-1.0, float("nan"), float("inf"), "5"])
def test_odd_rings_are_refused(ring_mm):
    """Negative, not finite, or text."""
    with pytest.raises(InvalidParameter, match=r"ring_mm must be (finite and not negative|a number)"):
        breast_regions(np.ones((3, 3)), 1.0, ring_mm)


def test_odd_maps_are_refused():
    """NaN, and a shape that differs from the region's, naming both."""
    regions = {"mass": np.ones((3, 4))}
    with pytest.raises(InvalidInput, match="map must be finite, got 1 values"):
        pointing_hits([[0.0, np.nan]], {})
    with pytest.raises(InvalidInput, match=r"region mass must have the shape of the map \(4, 3\), got \(3, 4\)"):
        pointing_hits(np.ones((4, 3)), regions)


@pytest.mark.parametrize(
    ("hits", "correct", "message"),
    [
        ([{"mass": True}], [True, False], r"one value per case, got shape \(2,\) for 1 cases"),
        ([{"mass": True}], ["no"], "correct must be an array of real numbers, got <U2"),
        ([{"mass": True}], [float("nan")], "correct must be 0 or 1 for each case, got nan to nan"),
        ([{"mass": True}], [False], "at least one case must be classified correctly, got none of 1"),
        ([], [], "at least one case must be classified correctly, got none of 0"),
        ([{"any": True}], [True], "regions must not be called 'any', got any"),
        ([{"mass": True}, {"below": True}], [True, True], "all cases must have the regions mass, got below"),
    ],
)
def test_odd_tables_are_refused(hits, correct, message):
    """Lengths, no correct case, and regions that differ."""
    with pytest.raises(InvalidInput, match=message):
        pointing_table(hits, correct)


def test_tensors_are_masks_and_maps():
    """Masks of bool and maps whose gradient is recorded give what arrays give."""
    mass = torch.zeros(20, 16, dtype=torch.bool)
    mass[5:8, 4:9] = True
    scores = torch.linspace(-1, 1, 320).reshape(20, 16).requires_grad_()
    found, expected = breast_regions(mass, torch.tensor([1.0, 2.0])), breast_regions(mass.numpy(), (1.0, 2.0))
    for name, region in expected.items():
        np.testing.assert_array_equal(found[name], region)
    assert pointing_hits(scores, {"mass": mass}) == pointing_hits(scores.detach().numpy(), {"mass": mass.numpy()})
