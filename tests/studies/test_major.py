"""The study of counterfactual impact analysis, small: every chapter, from runs of a few steps."""

import json
from dataclasses import replace

import dataset_files
import numpy as np
import pytest
import torch

from radlens.datasets import ModelInput
from radlens.errors import DatasetError, InvalidParameter
from radlens.families.classifier.recipes import CLASSIFIER_PRESETS, WarmUp
from radlens.families.classifier.training import train_classifier
from radlens.families.companions.proposer import TASK, WEIGHTS
from radlens.families.inpainter.recipes import Holes, InpainterPreset, Phase
from radlens.families.inpainter.training import train_inpainter
from radlens.networks import MaskProposer
from radlens.studies.major import MajorOptions, reproduce_major
from radlens.studies.major_material import FIRST, INPAINTER, PROPOSER, SECOND, Material

pytestmark = pytest.mark.slow

INPUT = ModelInput((96, 80), framing="breast")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two classifiers and an inpainter, hardly trained."""
    folder = tmp_path_factory.mktemp("runs")
    for name in (FIRST, SECOND):
        small = replace(
            CLASSIFIER_PRESETS[name]["demo"],
            input=INPUT,
            n_training=24,
            n_validation=8,
            n_test=8,
            epochs=1,
            warm_up=WarmUp(epochs=1, shape=(64, 64), n_patches=16),
        )
        train_classifier(folder / name, small, model=name, variant="demo", n_workers=1)
    recipe = InpainterPreset(
        input=INPUT,
        width=2,
        n_training=8,
        n_validation=4,
        batch_size=4,
        phases=(Phase(1, 1e-3, has_norm=True),),
        holes=Holes(most=10, sides=(4, 8)),
        perceptual_steps=4,
    )
    train_inpainter(folder / INPAINTER, recipe, model=INPAINTER, variant="demo", n_workers=1)
    write_proposer(folder / PROPOSER)
    return {name: folder / name for name in (FIRST, SECOND, INPAINTER, PROPOSER)}


def write_proposer(folder):
    """Write the run of a proposer with random weights: classifiers that are hardly trained have no masks to learn."""
    torch.manual_seed(0)
    folder.mkdir()
    state = MaskProposer(1, (1,), 2).state_dict()
    np.savez(folder / WEIGHTS, **{name: value.numpy() for name, value in state.items()})
    record = {"task": TASK, "classes": [1], "recipe": {"width": 2}, "model_input": INPUT.to_json()}
    (folder / "training.json").write_text(json.dumps(record))


def test_the_study_writes_every_chapter(runs, tmp_path):
    """Page, tables, pictures and numbers; a second run computes nothing again."""
    options = MajorOptions(runs=runs, n_cases=4, n_tissue=4, n_runs=2, n_judged=12)
    files = reproduce_major(tmp_path, options)
    page = files[0].read_text(encoding="utf-8")
    for heading in (
        "Fig. 2",
        "Fig. 3",
        "Table 1",
        "Table 2",
        "is the change real",
        "mass removed",
        "stability",
        "look real",
        "in one pass",
    ):
        assert heading in page
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["areas"]["area"]) == 4
    assert len(results["roc"]["mass tissue"]) == 2
    assert set(results["validity"]) >= {"ours", "the true mass, filled", "the same mask elsewhere"}
    assert set(results["realism"]) == {"the inpainter", "mean of the tissue around"}
    assert results["fast"]["searched"]["iou"] == [1.0] * 4
    assert results["fast"]["proposed"]["seconds"] > 0
    assert len(results["fast"]["proposed for another image"]["area"]) == 4
    assert len(results["fast"]["the same, mass removed"]["area"]) == 4
    stored = {file: file.stat().st_mtime_ns for file in (tmp_path / "work").rglob("*.npz")}
    reproduce_major(tmp_path, options)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "work").rglob("*.npz")} == stored


def test_masses_of_a_data_set_are_explained(runs, tmp_path, monkeypatch):
    """Distances and areas of recorded masses; what needs healthy images says so; too few masses are an error."""
    root = dataset_files.cbis(tmp_path / "cbis", [dataset_files.cbis_row(1)])
    # The second call writes the table of the other part.
    (root / "mass_case_description_train_set.csv").rename(root / "mass_case_description_test_set.csv")
    dataset_files.cbis(root, [dataset_files.cbis_row(number) for number in range(2, 6)])
    options = MajorOptions(runs=runs, n_cases=4, n_tissue=4, n_runs=2, root=root)
    # The networks have hardly learned: whether they recognise a mass does not matter here.
    monkeypatch.setattr(Material, "odds", lambda self, model, images: np.ones(len(images)))
    page = reproduce_major(tmp_path / "study", options)[0].read_text(encoding="utf-8")
    assert "data set cbis-ddsm" in page
    assert page.count("every image of cbis-ddsm shows a lesion") == 2
    assert "Masses of cbis-ddsm cannot be removed" in page
    results = json.loads((tmp_path / "study/results.json").read_text())
    assert len(results["areas"]["area"]) == 4
    assert len(results["distances"]["D 50 cam"]["theirs"]) == 4
    monkeypatch.setattr(Material, "odds", lambda self, model, images: -np.ones(len(images)))
    with pytest.raises(DatasetError, match="masses in at least 4 images of the data set, got 0"):
        reproduce_major(tmp_path / "none", options)


def test_options_are_checked():
    """Numbers and names."""
    with pytest.raises(InvalidParameter, match="n_cases must be at least 4, got 1"):
        MajorOptions(n_cases=1)
    with pytest.raises(InvalidParameter, match="runs must be of mammogram-mobilenet"):
        MajorOptions(runs={"x": None})
    with pytest.raises(InvalidParameter, match="preset must be demo or paper, got big"):
        MajorOptions(preset="big")
