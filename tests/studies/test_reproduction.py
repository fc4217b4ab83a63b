"""The studies of both papers with recipes of a second: every table and figure, interruptions, runs that do not fit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from study_runs import N_TEST, make_run

from radlens.errors import InvalidParameter
from radlens.figures import save_small
from radlens.studies import Effort, StudyOptions, blocks, reproduce_byra, reproduce_sam_millan, run_model
from radlens.studies.byra import MODEL, one_of_each
from radlens.studies.pointing_game import PointingGame
from radlens.studies.reproduction import Bench
from radlens.studies.sam_millan import METHODS, MODELS, thesis_parameters

EFFORT = Effort(n_steps=2, n_squares=2, n_noisy=1)


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Any:
    """White pictures, and methods that look once or twice."""
    png = save_small(Figure(figsize=(1, 1)))
    few = {"n_steps": 2, "n_evaluations": 4, "n_draws": 2}

    def quick(names: Any, parameters: Any = None) -> Any:
        from dataclasses import fields, replace

        from radlens.studies.maps import methods_of

        found = methods_of(names, parameters)
        own = {name: {field.name for field in fields(method)} & set(few) for name, method in found.items()}
        return {name: replace(found[name], **{key: few[key] for key in own[name]}) for name in found}

    with pytest.MonkeyPatch.context() as patch:
        for study in ("sam_millan", "byra"):
            patch.setattr(f"radlens.studies.{study}.save_small", lambda figure: png)
            patch.setattr(f"radlens.studies.{study}.methods_of", quick)
            patch.setattr(f"radlens.studies.{study}._N_FAITHFUL", {"demo": 2, "paper": 2})
        patch.setattr("radlens.studies.blocks.save_small", lambda figure: png)
        patch.setattr("radlens.studies.randomisation.N_POINTS", 2)
        yield


@pytest.mark.slow
def test_byra_is_trained_interrupted_and_finished(tmp_path: Path) -> None:
    """Killed at any stage the study goes on: nothing is trained or computed twice, and every part is there."""
    stages: list[str] = []

    def interrupt_at(stage: str) -> Any:
        def report(now: str, done: float, total: float) -> None:
            stages.append(now)
            if now == stage and done > 0:
                raise KeyboardInterrupt

        return report

    options = StudyOptions(engine="eager", n_cases=2, effort=EFFORT)
    interrupted = (
        f"{MODEL}: training of member 1 of 1",
        "simulated breast ultrasound images",
        "maps of ResNet-18",
        "randomisation, ResNet-18",
        "faithfulness, ResNet-18",
    )
    for stage in interrupted:
        with pytest.raises(KeyboardInterrupt):
            reproduce_byra(tmp_path, options, on_progress=interrupt_at(stage))
    stages.clear()
    files = reproduce_byra(tmp_path, options, on_progress=interrupt_at("nothing"))
    assert not [stage for stage in stages if "training" in stage]
    page = files[0].read_text()
    assert "not computed yet" not in page
    for part in (
        "Fig. 1",
        "Fig. 3",
        "Table 1",
        "Table 2",
        "Fig. 4",
        "0.887 ± 0.015",
        "34%",
        "71%",
        "Two random pixels",
        "Image as map",
        "Better than the best baseline",
        "Here, simulated breast ultrasound images",
        "Paper, Table 2, patients with 272 masses",
    ):
        assert part in page
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == [
        *("images", "regions", "classification", "pointing", "examples"),
        *("other-methods", "planted", "faithfulness", "time"),
    ]
    counted = results["pointing"]["tables"]["cam"]["any"]["n_cases"] + results["pointing"]["n_wrong"]
    assert counted == N_TEST
    measured = results["faithfulness"][MODEL]["faithfulness"]["methods"]
    assert set(measured) == {*run_model(tmp_path / "runs" / MODEL).methods, "random"}
    assert f"training of {MODEL}" in results["time"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished runs of the thesis' models."""
    folder = tmp_path_factory.mktemp("thesis")
    return {name: make_run(folder / name, name) for name in MODELS}


@pytest.fixture(scope="module")
def thesis(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the thesis' study with runs that were given."""
    folder = tmp_path_factory.mktemp("sam-millan")
    options = StudyOptions(engine="eager", n_cases=2, effort=EFFORT, runs=runs)
    files = reproduce_sam_millan(folder, options)
    assert all(file.is_file() for file in files)
    assert not (folder / "runs").exists()
    return folder


@pytest.mark.slow
def test_every_part_of_the_thesis_is_there(thesis: Path) -> None:
    """Its tables and figures in its order, beside its numbers; what is not reproduced says so."""
    page = (thesis / "index.html").read_text()
    assert "not computed yet" not in page
    parts = ("Table 1", "3.2.2", "Fig. 2", "Fig. 3", "Fig. 4", "Figs. 5 and 6", "Fig. 7", "Figs. 8", "A.12", "A.16")
    places = [page.index(part, page.index("<h2")) for part in parts]
    assert places == sorted(places)
    for number in ("3808", "0.97", "0.93", "0.83", "highest"):
        assert number in page
    assert "Not reproduced" in page
    results = json.loads((thesis / "results.json").read_text())
    assert set(results["iou"]["mean_iou"]) == set(METHODS)
    assert results["iou"]["images"] == [2, 4]
    assert set(results["faithfulness"]) == set(MODELS)


@pytest.mark.slow
def test_true_and_false_are_told_apart(thesis: Path, runs: dict[str, Path]) -> None:
    """Malignant mammograms on either side of one half fill the two kinds of figures."""
    bench = Bench(thesis, MODELS, StudyOptions(engine="eager", runs=runs))
    whole = bench.examined(MODELS[2])
    results = json.loads((thesis / "results.json").read_text())
    for chapter, called in (("highest-tp", True), ("fn", False)):
        chosen = [i for i in (1, 3) if (whole.probability[i] > 0.5) == called]
        assert set(results[chapter]["images"]) == {i + 1 for i in chosen}
        said = f"there are no {'false negatives' if not called else 'true positives'}"
        assert (said in (thesis / "index.html").read_text()) == (not chosen)


@pytest.mark.slow
def test_patches_are_correct_ones(thesis: Path, runs: dict[str, Path]) -> None:
    """Fig. 4 shows true positives, then true negatives."""
    bench = Bench(thesis, MODELS, StudyOptions(engine="eager", runs=runs))
    patches = bench.examined(MODELS[0])
    shown = [i - 1 for i in json.loads((thesis / "results.json").read_text())["patches"]["images"]]
    labels = patches.labels[shown].tolist()
    assert labels == sorted(labels, reverse=True)
    np.testing.assert_array_equal(patches.is_called_positive[shown], patches.labels[shown] == 1)


def test_the_window_of_occlusion_covers_the_same_tissue() -> None:
    """60 of 1024 rows; patches have the window of the thesis, whatever their size."""
    assert thesis_parameters("mammograms", (512, 256)) == {"occlusion": {"window": 30, "stride": 15}}
    assert thesis_parameters("mammograms", (1024, 512)) == {}
    assert thesis_parameters("patches", (224, 224)) == {}


def test_accuracy_is_of_the_more_probable_class() -> None:
    """Three of four are right; the interval is Wilson's."""
    found = blocks.accuracy(np.array([1, 0, 1, 0]), np.array([0.9, 0.2, 0.6, 0.7]))
    assert found.value == 0.75
    # Wilson's interval, by hand: centre (3 + z²/2) / (4 + z²), z = 1.96.
    centre, half = (3 + 1.9208) / (4 + 3.8415), 1.96 * np.sqrt(4 * 0.75 * 0.25 + 0.9604) / (4 + 3.8415)
    np.testing.assert_allclose((found.low, found.high), (centre - half, centre + half), atol=1e-4)


def test_examples_hit_each_region() -> None:
    """For each region the first image that hits it, then others that hit any, then those that hit none."""
    keys = ("mass", "peritumoral", "below")
    rows = ((0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 1, 0), (0, 1, 1), (1, 1, 1))
    hits = [{key: bool(value) for key, value in zip(keys, row, strict=True)} for row in rows]
    game = PointingGame([10, 11, 12, 13, 14, 15], {"cam": hits}, {}, dict.fromkeys((*keys, "any"), 0.5), 0, 0)
    chosen = np.ones(20, dtype=bool)
    assert one_of_each(game, chosen) == [12, 11, 14, 13]
    chosen[[11, 12, 13, 15]] = False
    assert one_of_each(game, chosen) == [14, 10]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "giant"}, "preset must be demo or paper, got giant"),
        ({"n_cases": 0}, "n_cases must be at least 1, got 0"),
    ],
)
def test_options_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    """Unknown presets and numbers below 1."""
    with pytest.raises(InvalidParameter, match=message):
        StudyOptions(**changes)


def test_runs_must_fit(runs: dict[str, Path], tmp_path: Path) -> None:
    """A run of another task, and one of a model that the study does not have."""
    with pytest.raises(InvalidParameter, match="runs must be of ultrasound-resnet, got patch-resnet50"):
        reproduce_byra(tmp_path, StudyOptions(runs={MODELS[0]: runs[MODELS[0]]}))
    with pytest.raises(InvalidParameter, match="run of ultrasound-resnet must be for ultrasound, got patches"):
        reproduce_byra(tmp_path, StudyOptions(runs={MODEL: runs[MODELS[0]]}, engine="eager"))
