"""``radlens reproduce``; the studies themselves are tested in tests/studies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from radlens.errors import TrainingError
from radlens.studies import AmanovaOptions, BoxRule, StudyOptions


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path, StudyOptions]]:
    """What the studies were called with."""
    calls: list[tuple[str, Path, StudyOptions]] = []
    for name in ("sam_millan", "byra"):

        def reproduce(folder: Path, options: StudyOptions, *, on_progress: Any, name: str = name) -> list[Path]:
            on_progress("maps", 1, 2)
            calls.append((name, folder, options))
            return [folder / "index.html", folder / "results.json"]

        monkeypatch.setattr(f"radlens.studies.reproduce_{name}", reproduce)
    return calls


def test_options_reach_the_study(run: Callable[..., Any], given: list[Any], tmp_path: Path) -> None:
    """Defaults are a demo on simulated images; runs are given by the name of their model."""
    result = run("reproduce", "byra", "-o", "out")
    assert result.exit_code == 0, result.stderr
    assert "wrote out/index.html and 1 more files in out" in result.stderr
    more = ("--preset", "paper", "--data", "omi-db", "--root", tmp_path, "--cases", 3, "--quantile", 0.95)
    runs = ("--run", f"patch-resnet50={tmp_path}", "--run", f"patch-mobilenet-v2={tmp_path}", "--engine", "eager")
    assert run("reproduce", "sam-millan", "-o", "out", *more, *runs).exit_code == 0
    expected = StudyOptions(
        preset="paper",
        data="omi-db",
        root=tmp_path,
        runs=dict.fromkeys(("patch-resnet50", "patch-mobilenet-v2"), tmp_path),
        n_cases=3,
        rule=BoxRule(0.95),
        engine="eager",
    )
    assert given == [("byra", Path("out"), StudyOptions()), ("sam_millan", Path("out"), expected)]


def test_options_reach_the_study_of_amanova(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Defaults are the paper's and the demo members; runs and smaller numbers are given by options."""
    calls: list[AmanovaOptions] = []

    def reproduce(folder: Path, options: AmanovaOptions, *, on_progress: Any) -> list[Path]:
        calls.append(options)
        return [folder / "index.html", folder / "results.json"]

    monkeypatch.setattr("radlens.studies.reproduce_amanova", reproduce)
    result = run("reproduce", "amanova", "-o", "out")
    assert result.exit_code == 0, result.stderr
    assert "wrote out/index.html and 1 more files in out" in result.stderr
    small = ("--samples", 7, "--n-steps", 3, "--path-length", 2, "--zscore", 4, "--n-test", 5, "--stride", 9)
    more = ("--recordings", tmp_path, "--spacing-mm", 0.1, "--no-paper-recipe", "--seed", 8, "--engine", "eager")
    assert run("reproduce", "amanova", "-o", "out", *small, *more, "--run", f"registered={tmp_path}").exit_code == 0
    expected = AmanovaOptions(
        n_samples=7,
        n_steps=3,
        path_length=2.0,
        zscore=4.0,
        n_test=5,
        stride=9,
        spacing_mm=0.1,
        recordings=tmp_path,
        runs={"registered": tmp_path},
        with_paper=False,
        engine="eager",
        seed=8,
    )
    assert calls == [AmanovaOptions(), expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("byra", "--run", "ultrasound-resnet"), "--run must be MODEL=DIR with an existing folder, got ultrasound"),
        (("byra", "--run", "ultrasound-resnet=nowhere"), "--run must be MODEL=DIR with an existing folder"),
        (("byra", "--data", "busi"), "--data and --root must be given together"),
        (("byra", "--preset", "giant"), "--preset must be one of demo, paper"),
        (("amanowa",), "STUDY must be one of amanova, sam-millan, byra"),
        (("amanova", "--preset", "paper"), "do not apply to amanova; it has --recordings"),
        (("amanova", "--run", "registered=nowhere"), "--run must be MODEL=DIR with an existing folder"),
        (("amanova", "--zscore", "0"), "zscore must be positive and finite, got 0.0"),
        (("amanova",), "runs must hold a folder for registered, got export/cdmam_demo; give one with --run"),
    ],
)
def test_refusals(run: Callable[..., Any], arguments: tuple[str, ...], message: str) -> None:
    """One line and exit code 2."""
    result = run("reproduce", *arguments, "-o", "out")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())


def test_errors_of_the_study_are_one_line(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of another recipe has the exit code of training."""

    def refuse(*_: Any, **__: Any) -> None:
        raise TrainingError("the folder holds a run of another recipe; choose an empty one or delete it")

    monkeypatch.setattr("radlens.studies.reproduce_byra", refuse)
    result = run("reproduce", "byra", "-o", "out")
    assert result.exit_code == 6
    assert "the folder holds a run of another recipe" in " ".join(result.stderr.split())


def test_planted_causes_have_no_data_set(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The study runs with its own options; those of the papers' studies are refused."""
    calls: list[Path] = []

    def reproduce(folder: Path, *, on_progress: Any) -> list[Path]:
        calls.append(folder)
        return [folder / "index.html", folder / "results.json", folder / "planted_record.py"]

    monkeypatch.setattr("radlens.studies.reproduce_planted", reproduce)
    result = run("reproduce", "planted", "-o", "out")
    assert result.exit_code == 0, result.stderr
    assert "wrote out/index.html and 2 more files" in result.stderr
    refused = run("reproduce", "planted", "-o", "out", "--cases", 3)
    assert refused.exit_code == 2
    assert "do not apply to planted" in refused.stderr
    assert calls == [Path("out")]
