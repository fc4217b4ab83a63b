"""Splits by patient."""

import pytest
from dataset_files import case
from hypothesis import given, settings
from hypothesis import strategies as st

from radlens.datasets import LABELS, split_patients
from radlens.errors import InvalidInput

cases = st.lists(
    st.builds(case, st.integers(0, 30).map(str), st.sampled_from(LABELS), st.integers()), min_size=2, max_size=50
).filter(lambda found: len({each.patient_id for each in found}) > 1)


@settings(max_examples=40, deadline=None)
@given(cases, st.floats(0.01, 0.99), st.integers(0, 1000))
def test_no_patient_is_on_both_sides(found: list, validation: float, seed: int) -> None:
    """Every case is on one side, both sides have a patient, and their number is the fraction, rounded."""
    split = split_patients(found, validation=validation, seed=seed)
    sides = [{each.patient_id for each in side} for side in split]
    assert sides[0].isdisjoint(sides[1])
    assert all(sides)
    n_patients = len(sides[0] | sides[1])
    assert len(sides[1]) == min(max(round(validation * n_patients), 1), n_patients - 1)
    assert len(split.training) + len(split.validation) == len(found)


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_of_cases_does_not_matter(found: list, seed: int, random) -> None:
    """The same patients and seed give the same sides; cases keep the order they came in."""
    shuffled = random.sample(found, len(found))
    one, other = split_patients(found, seed=seed), split_patients(shuffled, seed=seed)
    assert {each.patient_id for each in one.validation} == {each.patient_id for each in other.validation}
    assert list(one.training) == [each for each in found if each in one.training]


def test_labels_are_divided_alike() -> None:
    """20 % of each label, counted over patients by their gravest image."""
    found = [case(f"n{number}", "normal") for number in range(50)]
    found += [case(f"m{number}", label) for number in range(10) for label in ("normal", "malignant")]
    split = split_patients(found)
    patients = {each.patient_id for each in split.validation}
    assert (sum(name[0] == "n" for name in patients), sum(name[0] == "m" for name in patients)) == (10, 2)
    assert (len(split.training), len(split.validation)) == (40 + 16, 10 + 4)


def test_seeds_give_different_splits() -> None:
    """Ten seeds do not all draw the same two of ten patients."""
    found = [case(str(number), "normal") for number in range(10)]
    drawn = {frozenset(each.patient_id for each in split_patients(found, seed=seed).validation) for seed in range(10)}
    assert len(drawn) > 1


def test_two_patients_are_the_fewest() -> None:
    """One goes to each side; a single patient with two breasts cannot be split."""
    split = split_patients([case("a", "normal"), case("b", "malignant")])
    assert (len(split.training), len(split.validation)) == (1, 1)
    with pytest.raises(InvalidInput, match=r"^expected at least two patients to split, got 1$"):
        split_patients([case("a", "normal", 1), case("a", "malignant", 2)])
    with pytest.raises(InvalidInput, match=r"^expected at least two patients to split, got 0$"):
        split_patients([])


@pytest.mark.parametrize("validation", [0.0, 1.0, -0.2, float("nan")])
def test_a_side_needs_a_part(validation: float) -> None:
    """Nothing and everything are no splits."""
    with pytest.raises(InvalidInput, match=f"^validation must be above 0 and below 1, got {validation}$"):
        split_patients([case("a", "normal"), case("b", "normal")], validation=validation)
