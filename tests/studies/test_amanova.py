"""The study of Amanova et al. 2022 with networks of a second: every figure, interruptions, the paper's numbers."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from smallest_run import SMALLEST
from tiny_bundle import TYPICAL_CURVE_UM

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.causal import PUBLISHED_COVERAGE
from radlens.evaluation.published import AMANOVA_COVERAGE, AMANOVA_PARAMETERS
from radlens.explainers import UpsampledMap
from radlens.families.cdmam.training import save_member
from radlens.families.cdmam.training_registered import RegisteredPreset
from radlens.figures import save_small
from radlens.images import to_npy
from radlens.networks import CdmamNet
from radlens.phantoms.cdmam import SCENARIOS, Layout, simulate, to_dicom
from radlens.phantoms.cdmam.geometry import cell_to_phantom
from radlens.studies import AmanovaOptions, reproduce_amanova
from radlens.studies.amanova import agreement
from radlens.studies.amanova_images import recordings, scenario, turned
from radlens.studies.amanova_maps import MapParameters
from radlens.studies.amanova_options import PAPER, REGISTERED
from radlens.studies.amanova_recipes import run_recipe

SPACING_MM = 0.4


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Any:
    """White pictures."""
    png = save_small(Figure(figsize=(1, 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("radlens.studies.amanova.save_small", lambda figure: png)
        yield


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two untrained members that see registered phantoms; its record states a coverage of scenario 2."""
    record = {
        "recipe": "registered",
        "preset": asdict(RegisteredPreset(2, 16, 1, rank=2)),
        "output": "log um",
        "normalisation": {"mean": 0.0, "std": 1.0},
        "seconds_per_member": [1.0, 1.0],
        "causal": {"groups": {"scenario 2": {"coverage": {"value": 0.9375, "standard_error": None}}}},
    }
    return _untrained(tmp_path_factory.mktemp("registered"), record)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Any]]:
    """Folders and recipes that were trained; the members stay untrained."""
    calls: list[tuple[Path, Any]] = []

    def train(folder: Path, preset: Any, *, on_progress: Callable[[str, float, float], None]) -> None:
        on_progress("member 1 of 2", 1, 1)
        if not folder.exists():
            calls.append((folder, preset))
            folder.mkdir(parents=True)
            norm = {"mean": 1000.0, "std": 10.0}
            _untrained(folder, {"preset": asdict(preset), "normalisation": norm, "seconds_per_member": [1.0, 1.0]})

    monkeypatch.setattr("radlens.studies.amanova.train", train)
    return calls


def _untrained(folder: Path, record: dict[str, Any]) -> Path:
    """Write a run of two untrained members."""
    torch.manual_seed(0)
    for number in range(2):
        net, mean = CdmamNet(2), torch.tensor(TYPICAL_CURVE_UM)
        mean = mean.log() if "output" in record else mean
        net.scale_output(mean, torch.full_like(mean, 0.02))
        save_member(folder / f"member-{number:02d}.npz", net.eval(), 1.0)
    (folder / "training.json").write_text(json.dumps(record))
    return folder


def options(registered: Path, **changes: Any) -> AmanovaOptions:
    """Return the cheapest study there is."""
    small: dict[str, Any] = {
        "n_samples": 2,
        "n_steps": 1,
        "n_test": 1,
        "stride": 125,
        "path_lengths": (1.0, 10.0),
        "part_of_lengths": 2,
        "spacing_mm": SPACING_MM,
        "runs": {REGISTERED: registered},
        "preset": SMALLEST,
        "engine": "eager",
    }
    return AmanovaOptions(**(small | changes))


@pytest.mark.slow
def test_the_study_is_interrupted_and_finished(
    registered: Path, tmp_path: Path, trainings: list[tuple[Path, Any]]
) -> None:
    """Killed at any stage it goes on: nothing is trained or computed twice, and every part is there."""
    stages: list[str] = []

    def interrupt_at(stage: str) -> Callable[[str, float, float], None]:
        def report(now: str, done: float, total: float) -> None:
            stages.append(now)
            if now.startswith(stage) and done > 0:
                raise KeyboardInterrupt

        return report

    for stage in ("test images", "OMIG, scenario 1, registered", "c = 10"):
        with pytest.raises(KeyboardInterrupt):
            reproduce_amanova(tmp_path, options(registered), on_progress=interrupt_at(stage))
    pieces = {file: file.stat().st_mtime_ns for file in (tmp_path / "work").rglob("*.npz")}
    stages.clear()
    files = reproduce_amanova(tmp_path, options(registered), on_progress=interrupt_at("nothing"))
    assert all(file.is_file() for file in files)
    assert trainings == [(tmp_path / "runs" / "paper", SMALLEST)]
    kept = {file: time for file, time in pieces.items() if "checkpoint" not in file.name}
    assert kept
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert not list((tmp_path / "work").rglob("*.checkpoint.npz"))
    assert "paper: member 1 of 2" in stages
    _check_page((tmp_path / "index.html").read_text())
    _check_results(json.loads((tmp_path / "results.json").read_text()))


def _check_page(page: str) -> None:
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "not computed yet" not in text
    for number in (1, 2, 3, 4, 5, 6, 7, 12, 13, 14):
        assert f"Fig. {number}" in text
    # Every map has its parameters under it, and the sentence that compares it with its twin.
    assert text.count("c = 1, L = 1, t = 3, N = 2 samples, seed 0.") >= 7
    assert "L = 1, t = 3, N = 1 samples, seed 0, scenario 1." in text
    assert "t of the twin" in text
    assert "This map" in text
    # The paper's own numbers and what stands for recordings.
    for published in ("97.1%", "99.1%", "96.9%", "61.0%", "98.7%", "5000", "93.8%"):
        assert published in text
    assert "No recordings of a phantom can be shipped" in text
    assert "with 2 networks and 12 images instead of 10 and 57 600" in text


def _check_results(results: dict[str, Any]) -> None:
    assert list(results) == [
        *("parameters", "images", "curves", "coverage", "methods", "large-disks", "small-disks", "scenario-4"),
        *("rotation", "sensitivity", "before-after", "path-lengths", "time"),
    ]
    assert results["coverage"][REGISTERED]["scenario 2"]["record"] == 0.9375
    assert results["coverage"][PAPER]["scenario 4"]["n"] == 1
    for recipe in (REGISTERED, PAPER):
        shown = results["scenario-4"][recipe]["scenario 4"]
        assert shown["disks"]["large"]["n"] == shown["twin"]["large"]["n"]
        assert len(results["methods"][recipe]) == 9
    assert list(results["path-lengths"]) == ["1", "10"]


@pytest.mark.slow
def test_the_paper_recipe_can_be_left_out(registered: Path, tmp_path: Path, trainings: list[tuple[Path, Any]]) -> None:
    """Nothing is trained, and the page says so."""
    page = reproduce_amanova(tmp_path, options(registered, with_paper=False))[0].read_text()
    assert "left out of this run" in page
    assert "Three methods, paper" not in page
    assert trainings == []


def test_runs_that_do_not_fit_are_refused(registered: Path, tmp_path: Path) -> None:
    """Each recipe wants a run of its own kind."""
    with pytest.raises(InvalidParameter, match="runs must be of registered, paper, got other"):
        options(registered, runs={"other": registered})
    with pytest.raises(InvalidParameter, match="runs must hold a folder for registered"):
        reproduce_amanova(tmp_path, options(registered, runs={}))
    with pytest.raises(InvalidParameter, match="must see whole images, got a registered one"):
        reproduce_amanova(tmp_path, options(registered, runs=dict.fromkeys((REGISTERED, PAPER), registered)))
    with pytest.raises(InvalidParameter, match="n_test must be at least 1, got 0"):
        options(registered, n_test=0)
    with pytest.raises(InvalidParameter, match="path_lengths must hold at least one value"):
        options(registered, path_lengths=())


def test_defaults_are_those_of_the_paper() -> None:
    """c, L, t and N as the paper states them."""
    found = AmanovaOptions().parameters
    expected = [AMANOVA_PARAMETERS[name].value for name in ("N", "L", "c", "t")]
    assert [found.n_samples, found.n_steps, found.path_length, found.zscore] == expected == [5000, 50, 1.0, 3.0]
    assert found.text("c", "L", "N") == "c = 1, L = 50, N = 5000 samples"


def test_published_coverages_are_those_of_the_causal_record() -> None:
    """One number each, wherever it stands."""
    own = {name.replace("OOD", "out of distribution"): found.value for name, found in AMANOVA_COVERAGE.items()}
    assert own.pop("recorded") == 1.0
    assert own == dict(PUBLISHED_COVERAGE)


@pytest.mark.parametrize("is_turned", [False, True])
def test_the_twin_of_a_whole_image_loses_its_disks_alone(registered: Path, is_turned: bool) -> None:
    """Thick disks get the value of the plate; few other pixels change."""
    image = scenario("1", SPACING_MM)
    image = turned(image) if is_turned else image
    recipe = replace(run_recipe(PAPER, registered), is_registered=False, normalisation=(1000.0, 10.0))
    view = image.seen_by(recipe)
    changed = view.twin().values != view.values
    found = image.phantom
    rows, cols = (np.rint(each).astype(int) for each in found.layout.to_pixels(*cell_to_phantom(*_THICK_DISKS.T + 0.5)))
    disks = (cols, rows) if found.is_transposed else (rows, cols)
    # The noise of the mean of six pixels is 0.3 units of this normalisation.
    assert view.values[disks].mean() - view.twin().values[disks].mean() > 1.5
    assert 0.01 < changed.mean() < 0.2
    assert not changed[:2].any()


_THICK_DISKS = np.array([(2, 11), (3, 11), (3, 12), (4, 11), (4, 12), (4, 13)])
"""Cells with disks of 0.8 mm and more and 0.5 um of gold and more."""


def test_agreement_does_not_depend_on_the_grid() -> None:
    """A map and the same with each pixel doubled agree wholly, and its negative not at all."""
    rng = np.random.default_rng(0)
    values, visits = rng.normal(size=(100, 150)), np.ones((100, 150), np.int64)
    found = UpsampledMap(values, visits, 1)
    doubled = UpsampledMap(np.kron(values, np.ones((2, 2))), np.kron(visits, np.ones((2, 2), np.int64)), 1)
    assert agreement(found, doubled) == pytest.approx(1.0)
    assert agreement(found, UpsampledMap(-values, visits, 1)) == pytest.approx(-1.0)


def test_recordings_are_read_with_their_curves(tmp_path: Path) -> None:
    """Images that state a spacing, and one line of cdc.csv each; anything else is refused."""
    drawn = simulate(SCENARIOS["2"], Layout.with_margin(1, SPACING_MM))
    (tmp_path / "a.dcm").write_bytes(to_dicom(drawn))
    (tmp_path / "b.npy").write_bytes(to_npy(drawn.pixels))
    curve = ",".join(str(value) for value in TYPICAL_CURVE_UM)
    with pytest.raises(InvalidInput, match=r"cdc\.csv, which is missing"):
        recordings(tmp_path)
    for line, message in (
        (f"c.dcm,{curve}", "names an image that is not in its folder"),
        (f"b.npy,{curve}", "must state their pixel spacing, got none in number 1"),
        ("a.dcm,0.1", "must hold lines of a file name and 12 thresholds"),
    ):
        (tmp_path / "cdc.csv").write_text(f"file,thresholds\n{line}\n")
        with pytest.raises(InvalidInput, match=message):
            recordings(tmp_path)
    (tmp_path / "cdc.csv").write_text(f"file,thresholds\na.dcm,{curve}\n")
    (found,) = recordings(tmp_path)
    assert found.truth_um.tolist() == list(TYPICAL_CURVE_UM)
    assert found.spacing_mm == pytest.approx((SPACING_MM, SPACING_MM))
    np.testing.assert_array_equal(found.pixels, drawn.pixels)


def test_parameters_are_said_as_they_are() -> None:
    """A value that a figure has instead of the common one stands in its place."""
    parameters = MapParameters(n_samples=7, n_steps=3, path_length=2.0)
    assert parameters.text("c", "L", "t", "N", c="100", N=4) == "c = 100, L = 3, t = 3, N = 4 samples"
