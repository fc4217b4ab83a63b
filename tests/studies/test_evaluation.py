"""All measures of one model: the page, its files, and going on after an interruption."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from study_runs import N_TEST

from radlens.errors import InvalidParameter
from radlens.evaluation import classification_measures
from radlens.figures import save_small
from radlens.phantoms.mammogram import Masses
from radlens.studies import (
    BoxRule,
    CaseSet,
    Effort,
    Plan,
    Store,
    StudyModel,
    evaluate,
    examine,
    source_of,
)
from radlens.studies.evaluation import default_parameters

QUICK = Plan(
    methods=("saliency", "cam"),
    n_faithful=1,
    n_randomised=1,
    effort=Effort(n_steps=3, n_squares=3, n_noisy=1),
    rule=BoxRule(0.8),
)
SECTIONS = ("Classification", "Maps", "Boxes", "Pointing game", "Randomisation", "Faithfulness", "Time")


@pytest.fixture(scope="module")
def page(model: StudyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation."""
    folder = tmp_path_factory.mktemp("evaluation")
    files = evaluate(model, source_of(model, n_simulated=N_TEST), folder, QUICK)
    assert files[0] == folder / "index.html"
    assert all(file.is_file() for file in files)
    return folder


@pytest.fixture
def plain_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pictures be white: to draw them takes seconds."""
    png = save_small(Figure(figsize=(1, 1)))
    for module in ("blocks", "evaluation"):
        monkeypatch.setattr(f"radlens.studies.{module}.save_small", lambda figure: png)


@pytest.fixture
def as_bundle(model: StudyModel) -> StudyModel:
    """The model without what a bundle does not have: modules, and here a record."""
    return replace(model, networks=(), record={})


def test_the_page_has_every_part(page: Path) -> None:
    """Every measure has its section, and none is missing."""
    text = (page / "index.html").read_text()
    for heading in SECTIONS:
        assert heading in text
    assert "not computed yet" not in text
    assert "Left out" not in text
    tables = [file.name for file in sorted((page / "tables").iterdir())]
    assert tables[0] == "01-classification-1-classification.csv"
    with (page / "tables" / tables[0]).open() as stream:
        assert next(csv.reader(stream)) == ["Measure", "Value", "95 % interval"]


def test_results_are_what_was_measured(page: Path, model: StudyModel, cases: CaseSet, store: Store) -> None:
    """Numbers of the file are those of the measures on the same images."""
    results = json.loads((page / "results.json").read_text())
    assert list(results) == ["classification", "maps", "iou", "pointing", "randomisation", "faithfulness", "time"]
    examined = examine(model, cases, store)
    found = classification_measures(examined.labels, examined.probability, n_bootstrap=2)
    assert results["classification"]["auc"]["value"] == found.auc.value
    assert results["classification"]["threshold"] == pytest.approx(found.threshold)
    assert results["iou"]["images"] == [2, 4, 6]
    assert results["iou"]["rule"] == {"quantile": 0.8, "opening": None}
    assert set(results["iou"]["iou"]) == {"saliency", "cam"}
    n_counted = results["pointing"]["tables"]["cam"]["any"]["n_cases"]
    assert n_counted == examined.correct.sum() == N_TEST - results["pointing"]["n_wrong"]
    assert set(results["faithfulness"]["methods"]) == {"saliency", "cam", "random"}
    assert results["time"]["maps/ultrasound-resnet"] > 0


def test_a_second_run_draws_only(page: Path, model: StudyModel, plain_pictures: None) -> None:
    """Nothing is computed again; a part can be asked for alone."""
    before = json.loads((page / "results.json").read_text())
    silent = replace(model, classifier=None, networks=[None])  # type: ignore[list-item]
    evaluate(silent, source_of(model, n_simulated=N_TEST), page, QUICK)
    assert json.loads((page / "results.json").read_text()) == before
    evaluate(silent, source_of(model, n_simulated=N_TEST), page, replace(QUICK, measures=("iou",)))
    assert list(json.loads((page / "results.json").read_text())) == ["maps", "iou", "time"]


def test_what_has_no_truth_is_left_out(as_bundle: StudyModel, tmp_path: Path, plain_pictures: None) -> None:
    """A bundle of mammograms: no pointing game, no stored randomisation; the page says so."""
    source = source_of(as_bundle, n_simulated=4, task="mammograms")
    assert source.classes == ("normal", "malignant")
    plan = replace(QUICK, n_mapped=2, measures=("pointing", "randomisation"))
    evaluate(as_bundle, source, tmp_path, plan)
    text = (tmp_path / "index.html").read_text()
    assert "Left out: the regions are defined for ultrasound images only." in text
    assert "Left out: the bundle does not contain a result." in text


def test_a_classifier_of_masses_is_measured_on_masses(model: StudyModel) -> None:
    """The images have the classes, the size and contrast of masses and the calcifications of its recipe."""
    masses = Masses((10.0, 28.0), 0.8)
    preset = {"task": "mammograms", "p_calcifications": 0.0, "masses": {"diameter_mm": [10.0, 28.0], "contrast": 0.8}}
    of_masses = replace(model, classes=("healthy", "mass"), record={"preset": preset})
    source = source_of(of_masses, n_simulated=4)
    assert source.classes == ("healthy", "mass")
    assert (source.masses, source.p_calcifications) == (masses, 0.0)


def test_no_box_no_overlap(model: StudyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images without boxes and outlines: the sections say why they are empty."""
    monkeypatch.setattr("radlens.studies.cases.StudyCase.boxes", ())
    monkeypatch.setattr("radlens.studies.pointing_game.regions_of", lambda *_: None)
    plan = replace(QUICK, methods=("cam",), n_mapped=2, measures=("iou", "pointing"))
    evaluate(model, source_of(model, n_simulated=4), tmp_path, plan)
    text = (tmp_path / "index.html").read_text()
    assert "Left out: no explained malignant image has a box." in text
    assert "Left out: no correctly classified image has an outline and a pixel spacing." in text


def test_stored_randomisation_is_drawn(as_bundle: StudyModel, tmp_path: Path, plain_pictures: None) -> None:
    """A bundle's record stands in for the check."""
    record = {"saliency": {"layers": ["a", "b"], "spearman": [0.5, 0.1], "ssim": [0.5, 0.1]}}
    model = replace(as_bundle, randomisation=record)
    plan = replace(QUICK, methods=("saliency",), n_mapped=2, measures=("randomisation", "faithfulness"))
    evaluate(model, source_of(model, n_simulated=4, task="ultrasound"), tmp_path, plan)
    assert "Results stored in the bundle." in (tmp_path / "index.html").read_text()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["randomisation"]["saliency"]["spearman"] == [[0.5], [0.1]]
    (table,) = (tmp_path / "tables").glob("*faithfulness*.csv")
    with table.open() as stream:
        rows = list(csv.reader(stream))
    assert float(rows[1][5]) == 0.1


def test_classes_and_thresholds(model: StudyModel, cases: CaseSet, store: Store) -> None:
    """Correct is what lies on the right side of the ROC corner; titles tell class and probability."""
    examined = examine(model, cases, store)
    side = examined.probability >= examined.classification.threshold
    np.testing.assert_array_equal(examined.correct, side == (examined.labels == 1))
    assert examined.title(1) == f"malignant\np(malignant) = {examined.probability[1]:.2f}"
    np.testing.assert_array_equal(examined.is_called_positive, examined.logits[:, 0] > 0)


def test_small_images_have_small_windows() -> None:
    """Occlusion has the thesis' window on whole mammograms, a seventh of the side on patches."""
    assert default_parameters((224, 224)) == {"occlusion": {"window": 32, "stride": 16}}
    assert default_parameters((1024, 512)) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measures": ("iou", "beauty")}, "measures must be among classification, .*, got beauty"),
        ({"n_faithful": 0}, "n_faithful must be at least 1, got 0"),
        ({"n_mapped": 0}, "n_mapped must be at least 1, got 0"),
        ({"methods": ("saliency", "lrb")}, "method must be one of .*, got 'lrb'"),
    ],
)
def test_plans_that_cannot_be(changes: dict[str, object], message: str) -> None:
    """Unknown measures and numbers below 1."""
    with pytest.raises(InvalidParameter, match=message):
        Plan(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"opening": 4}, "opening must be odd and at least 1, got 4"),
        ({"opening": 0}, "opening must be odd and at least 1, got 0"),
        ({"quantile": 1.5}, r"quantile must be in \[0, 1\], got 1.5"),
    ],
)
def test_rules_of_boxes_that_cannot_be(values: dict[str, float], message: str) -> None:
    """Found out before anything is computed."""
    with pytest.raises(InvalidParameter, match=message):
        BoxRule(**values)  # type: ignore[arg-type]


def test_refusals_name_what_works(model: StudyModel, as_bundle: StudyModel, tmp_path: Path) -> None:
    """A method that the model does not allow, and a model that does not tell its task."""
    with pytest.raises(InvalidParameter, match=r"methods must be among cam, .*, got omig: it is unknown or"):
        evaluate(model, source_of(model, n_simulated=2), tmp_path, replace(QUICK, methods=("omig",)))
    with pytest.raises(
        InvalidParameter, match="task must be one of patches, mammograms, ultrasound, nodules, got None"
    ):
        source_of(as_bundle, n_simulated=2)
