"""``radlens evaluate``."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from study_runs import make_run, small_studies

RUN = "ultrasound-resnet"


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with small_studies():
        yield


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the ultrasound classifier."""
    return make_run(tmp_path_factory.mktemp("runs") / RUN, RUN)


def test_a_run_is_measured(run: Callable[..., Any], run_folder: Path) -> None:
    """The page, the numbers and the tables are written; what is asked for is measured, and nothing else."""
    images = ("--engine", "eager", "--simulated", 4, "--target", "positive", "--n-faithful", 1, "--n-steps", 2)
    wanted = ("--methods", "saliency,cam", "--measures", "classification, iou, faithfulness", "--quantile", 0.9)
    result = run("evaluate", run_folder, "-o", "out", *images, *wanted)
    assert result.exit_code == 0, result.stderr
    assert "wrote out/index.html and" in result.stderr
    found = json.loads(Path("out/results.json").read_text())
    assert list(found) == ["classification", "maps", "iou", "faithfulness", "time"]
    printed = [line.replace("│", " ").split() for line in result.stdout.splitlines()]
    assert ["AUC", f"{found['classification']['auc']['value']:.3f}"] in [line[:2] for line in printed]
    (saliency,) = [line for line in printed if line[:1] == ["saliency"]]
    deleted = found["faithfulness"]["methods"]["saliency"]["deletion"]
    assert saliency[1:3] == [f"{found['iou']['mean_iou']['saliency']:.3g}", f"{sum(deleted) / len(deleted):.3g}"]
    assert ["baseline:", "image", "as", "map", f"{found['iou']['baselines']['image']:.3g}"] in [
        line[:5] for line in printed
    ]
    assert "mean IoU: better than the best baseline" in result.stderr
    assert found["iou"]["rule"] == {"quantile": 0.9, "opening": None}
    assert found["classification"]["n_positive"] == found["classification"]["n_negative"] == 2
    assert set(found["maps"]["parameters"]) == {"saliency", "cam"}
    assert Path("out/index.html").read_text().count("<img") == 6
    assert len(list(Path("out/tables").iterdir())) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--measures", "beauty"), "measures must be among"),
        (("--methods", "omig"), "methods must be among"),
        (("--target", "everything"), "--target must be one of positive, predicted"),
        (("--part", "half"), "--part must be one of test, all"),
        (("--data", "busi"), "data and root must be given together"),
        (("--opening", "4"), "opening must be odd"),
    ],
)
def test_refusals(run: Callable[..., Any], run_folder: Path, options: tuple[str, ...], message: str) -> None:
    """One line and exit code 2."""
    how = ("--engine", "eager", "--simulated", 2, "--measures", "iou", "--methods", "cam")
    result = run("evaluate", run_folder, "-o", "out", *how, *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())


def test_a_folder_without_a_model(run: Callable[..., Any], tmp_path: Path) -> None:
    """Exit code of a training run that is none."""
    result = run("evaluate", tmp_path, "-o", "out")
    assert result.exit_code == 6
    assert "a finished training run must hold training.json" in " ".join(result.stderr.split())


def test_the_effect_of_removing_lesions_is_printed(run: Callable[..., Any], run_folder: Path) -> None:
    """Of a run of a classifier: lesion and healthy tissue, and the record as JSON."""
    result = run("evaluate", run_folder, "--causal", "--simulated", 4, "-o", "causal")
    assert result.exit_code == 0, result.stderr
    assert "measured on 4 new images" in result.stderr
    record = json.loads(Path("causal/causal.json").read_text())
    assert record["lesion"]["n"] == 4
    assert f"{record['lesion']['n_lowered']} of 4" in result.stdout
    assert "healthy tissue" in result.stdout


@pytest.mark.slow
def test_a_bundle_holds_its_causal_record(run: Callable[..., Any], run_folder: Path) -> None:
    """The export of a run on simulated images measures and prints it; the evaluation prints it beside its own."""
    result = run("export", run_folder, "--name", "small")
    assert result.exit_code == 0, result.stderr
    assert "Causal record" in result.stdout
    bundle = Path("model_store/bundles/small-1.0")
    stored = json.loads((bundle / "bundle.json").read_text())["training"]["causal"]
    assert stored["lesion"]["n"] == 24
    assert stored["task"] == "ultrasound"
    result = run("evaluate", bundle, "--causal", "--simulated", 2, "--engine", "onnxruntime")
    assert result.exit_code == 0, result.stderr
    assert "record of the bundle, 24 images" in result.stderr
    assert f"{stored['lesion']['n_lowered']} of 24" in result.stdout
    assert "measured again on 2 new images" in result.stderr
