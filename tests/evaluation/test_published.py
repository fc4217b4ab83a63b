"""The published numbers hold together, and their names are those of the measures here."""

import itertools

import numpy as np

from radlens.evaluation import breast_regions
from radlens.evaluation.classification import Classification
from radlens.evaluation.published import (
    BYRA_CLASSIFICATION,
    BYRA_DATASET,
    BYRA_POINTING,
    SAM_MILLAN_DATASETS,
    SAM_MILLAN_MODELS,
)


def test_the_counts_of_the_thesis_add_up():
    """Train and validation to the printed total of each class, and classes to the printed totals of each set."""
    assert all(row.train + row.validation == row.total for row in SAM_MILLAN_DATASETS)
    totals = [
        tuple(np.sum([row[2:] for row in rows], axis=0))
        for _, rows in itertools.groupby(SAM_MILLAN_DATASETS, key=lambda row: row.data)
    ]
    assert totals == [(6090, 1526, 7616), (2209, 558, 2767), (5788, 1441, 7229)]


def test_the_masses_of_byra_add_up():
    """By diagnosis and by set."""
    counts = {name: row.value for name, row in BYRA_DATASET.items()}
    assert counts["malignant"] + counts["benign"] == counts["masses"]
    assert counts["training set"] + counts["test set"] == counts["masses"]


def test_the_models_of_the_thesis_name_data_sets_of_its_table():
    """A model without its data could not be shown beside it."""
    assert {model.data for model in SAM_MILLAN_MODELS} == {row.data for row in SAM_MILLAN_DATASETS}


def test_names_are_those_of_our_measures():
    """Regions as breast_regions calls them, measures as Classification does."""
    mask = np.zeros((9, 9), dtype=bool)
    mask[4, 4] = True
    assert list(BYRA_POINTING) == [*breast_regions(mask, 1.0), "any"]
    assert set(BYRA_CLASSIFICATION) <= set(Classification.__dataclass_fields__)
