"""The study of CycleGAN activation maximisation, small: every chapter, from runs of a few steps."""

import json
from dataclasses import replace

import numpy as np
import pytest

from radlens.datasets import ModelInput
from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.classification import roc_curve
from radlens.families.classifier.cycling import of_run, run_images
from radlens.families.classifier.recipes import CLASSIFIER_PRESETS
from radlens.families.classifier.training import train_classifier
from radlens.families.companions.cycle_recipes import CYCLE_PRESETS
from radlens.families.companions.cycle_training import train_generators
from radlens.phantoms import nodule
from radlens.studies.filled_tissue import told_apart
from radlens.studies.katzmann import CHAPTERS, KatzmannOptions, reproduce_katzmann
from radlens.studies.katzmann_chapters import decision_measures
from radlens.studies.katzmann_material import FIRST, GENERATORS, METHODS, SECOND, SECOND_GENERATORS, Material

INPUT = ModelInput((64, 64), scaling="fixed", mean=(-1000.0,), std=(1400.0,))
"""That of the recipes, which tests of studies otherwise replace by smaller ones."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two classifiers and two pairs of generators, hardly trained."""
    folder = tmp_path_factory.mktemp("runs")
    for name in (FIRST, SECOND):
        sizes = {"n_training": 32, "n_validation": 8, "n_test": 8, "epochs": 1, "input": INPUT}
        small = replace(CLASSIFIER_PRESETS[name]["demo"], **sizes)
        train_classifier(folder / name, small, model=name, variant="demo", n_workers=1)
    explained = of_run(folder / FIRST)
    training, validation = run_images(folder / FIRST, explained)
    for seed, name in enumerate((GENERATORS, SECOND_GENERATORS)):
        recipe = replace(CYCLE_PRESETS["demo"], width=2, steps=2, seed=seed)
        train_generators(folder / name, explained.classify, training, validation, recipe, origin=explained.origin())
    return {name: folder / name for name in (FIRST, SECOND, GENERATORS, SECOND_GENERATORS)}


@pytest.mark.slow
def test_the_study_writes_every_chapter(runs, tmp_path):
    """Page, tables, pictures and numbers; a second run computes no map again."""
    options = KatzmannOptions(runs=runs, n_patches=20, n_maps=10)
    files = reproduce_katzmann(tmp_path, options)
    page = files[0].read_text(encoding="utf-8")
    for title, _, _ in CHAPTERS:
        assert title in page
    results = json.loads((tmp_path / "results.json").read_text())
    for kind in ("Patches moved by up to 12 pixels", "Patches with the nodule in the middle"):
        assert set(results["places"][kind]) == {*METHODS, "image", "centre", "random", "ours of another patch"}
    assert len(results["transfer"][FIRST]["G+(x)"]) == 20
    assert len(results["transfer"][SECOND]["x, changes of G+ to another patch"]) == 20
    assert -1 <= np.mean(results["seeds"]["correlation"]) <= 1
    stored = {file: file.stat().st_mtime_ns for file in (tmp_path / "work").rglob("*.npz")}
    assert stored
    reproduce_katzmann(tmp_path, options)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "work").rglob("*.npz")} == stored


def test_patches_have_the_truth_of_their_own_nodules(runs, tmp_path):
    """Image, mask and changed pixels are those of one simulation."""
    study = Material(tmp_path, KatzmannOptions(runs=runs, n_patches=20, n_maps=10), lambda *_: None)
    for k, patch in enumerate(study.patches[:6]):
        drawn = nodule.sample(("benign", "malignant")[k % 2], seed=patch.pair.seed)
        np.testing.assert_array_equal(patch.pair.lesion_mask, drawn.mask)
        np.testing.assert_allclose(patch.pair.image[0], (drawn.pixels + 1000) / 1400, atol=1e-6)
        changed = np.zeros_like(drawn.mask)
        for each in drawn.feature_masks.values():
            changed |= each
        np.testing.assert_array_equal(patch.changed, changed)
        assert np.abs(patch.pair.image - patch.pair.healthy)[0][drawn.mask].mean() > 0.02
    assert study.labels.tolist() == [0, 1] * 10
    masks = [patch.pair.lesion_mask for patch in study.patches]
    moved = study.moved(masks)
    assert len(moved) == 10
    for mask, each, (down, right) in zip(masks, moved, study.shifts, strict=False):
        assert np.array_equal(np.roll(np.roll(mask, down, 0), right, 1), each)


def test_decisions_are_measured_at_one_half():
    """Against the counts by hand; intervals hold the value."""
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    scores = np.array([0.9, 0.8, 0.5, 0.1, 0.7, 0.2, 0.1, 0.3, 0.2, 0.4])
    found = decision_measures(labels, scores)
    assert found["sensitivity"][0] == pytest.approx(3 / 4)
    assert found["specificity"][0] == pytest.approx(5 / 6)
    assert found["ppv"][0] == pytest.approx(3 / 4)
    assert found["accuracy"][0] == pytest.approx(8 / 10)
    assert found["auc"][0] == pytest.approx(roc_curve(labels, scores).auc)
    for value, low, high in found.values():
        assert low <= value <= high


def test_the_judge_sees_what_is_there():
    """Made images with a mark are told from real ones, equal ones are not."""
    rng = np.random.default_rng(0)
    real = rng.normal(size=(96, 1, 32, 32)).astype(np.float32)
    marked = real.copy()
    marked[:, :, 10:16, 10:16] += 2
    assert roc_curve(*told_apart(real, marked)).auc > 0.95
    labels, scores = told_apart(real, real)
    assert 0.2 < roc_curve(labels, scores).auc < 0.8
    with pytest.raises(InvalidInput, match="at least 12 of one shape"):
        told_apart(real[:11], real[:11])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_patches": 19}, "n_patches must be at least 20, got 19"),
        ({"n_maps": 9}, "n_maps must be at least 10, got 9"),
        ({"n_patches": 20, "n_maps": 21}, "n_maps must be at most n_patches, 20, got 21"),
        ({"n_pairs": 3}, "n_pairs must be 1 or 2, got 3"),
        ({"preset": "big"}, "preset must be demo or paper, got big"),
        ({"runs": {"x": None}}, "runs must be of nodule-convnet"),
    ],
)
def test_options_that_cannot_be(changes, message):
    """Each is named."""
    with pytest.raises(InvalidParameter, match=message):
        KatzmannOptions(**changes)
