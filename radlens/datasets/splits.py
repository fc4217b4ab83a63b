"""Training and validation patients: Sam Millan 2023, section 3.1 (80 % and 20 %, no patient in both)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from radlens.datasets.case import LABELS, Case
from radlens.errors import InvalidInput

__all__ = ["Split", "split_patients"]


class Split(NamedTuple):
    """Two sets of cases without a common patient.

    Attributes:
        training: training cases, in the order given.
        validation: validation cases, in the order given.
    """

    training: tuple[Case, ...]
    validation: tuple[Case, ...]


def split_patients(cases: Iterable[Case], *, validation: float = 0.2, seed: int = 0) -> Split:
    """Divide patients, not images, between training and validation.

    Patients are stratified by the most severe label among their images. Each stratum is divided in the same proportion,
    with the largest remainder method, so that the number of validation patients is exact. The result depends on the
    patients and the seed, but not on the order of the cases.

    Args:
        cases: cases of one data set; patients of two data sets must not share an identifier.
        validation: fraction of the patients, above 0 and below 1; each side gets at least one patient.
        seed: seed of the random draw.

    Raises:
        InvalidInput: the fraction is out of range, or there are fewer than two patients.
    """
    cases = tuple(cases)
    if not 0 < validation < 1:
        raise InvalidInput(f"validation must be above 0 and below 1, got {validation}")
    groups = _groups(cases)
    n_patients = sum(map(len, groups))
    if n_patients < 2:
        raise InvalidInput(f"expected at least two patients to split, got {n_patients}")
    n_validation = min(max(round(validation * n_patients), 1), n_patients - 1)
    counts = _shares([len(group) for group in groups], n_validation)
    generator = np.random.default_rng(seed)
    chosen: set[str] = set()
    for group, count in zip(groups, counts, strict=True):
        chosen.update(group[index] for index in generator.permutation(len(group))[:count])
    return Split(
        tuple(case for case in cases if case.patient_id not in chosen),
        tuple(case for case in cases if case.patient_id in chosen),
    )


def _groups(cases: Iterable[Case]) -> list[list[str]]:
    gravest: dict[str, int] = {}
    for case in cases:
        gravest[case.patient_id] = max(gravest.get(case.patient_id, 0), LABELS.index(case.label))
    # Sorted, so that the order of the cases does not matter.
    groups = [sorted(patient for patient, found in gravest.items() if found == label) for label in range(len(LABELS))]
    return [group for group in groups if group]


def _shares(sizes: Sequence[int], total: int) -> list[int]:
    exact = [size * total / sum(sizes) for size in sizes]
    shares = [int(share) for share in exact]
    # Largest remainder (Hamilton) method.
    by_remainder = sorted(range(len(sizes)), key=lambda index: shares[index] - exact[index])
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares
