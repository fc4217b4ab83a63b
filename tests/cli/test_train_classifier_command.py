"""``radlens train --model`` of a classifier."""

from dataclasses import replace
from pathlib import Path

import pytest

from radlens.datasets import ModelInput
from radlens.families.classifier import training
from radlens.families.classifier.recipes import CLASSIFIER_PRESETS
from radlens.families.classifier.training import TrainedClassifier

ESTIMATE = {"value": 0.9123, "low": 0.8001, "high": 0.9502, "std": 0.01}
RECORD = {
    "classes": ["benign", "malignant"],
    "evaluation": {"n_positive": 12, "n_negative": 34}
    | dict.fromkeys(("auc", "accuracy", "sensitivity", "specificity"), ESTIMATE),
    "note": "",
}


@pytest.fixture
def seen(monkeypatch):
    """What training was called with; it takes no time."""
    seen = {}

    def train_classifier(folder, preset, *, on_progress, **options):
        seen.update(folder=folder, preset=preset, **options)
        on_progress("training of member 1 of 1", 7, 7)
        return TrainedClassifier("resnet18", [], ModelInput((32, 32)), ("a", "b"), 1, RECORD)

    monkeypatch.setattr(training, "train_classifier", train_classifier)
    return seen


def test_options_change_the_recipe(run, seen, tmp_path):
    """Loss, class weight and members come from the command line, the rest from the preset."""
    (tmp_path / "weights.pth").touch()
    result = run(
        "train", "runs/a", "--model", "mammogram-efficientnet-b0", "--preset", "paper", "--loss", "focal",
        "--class-weight", "3", "--members", "2", "--data", "rsna-2022", "--root", ".", "--imagenet", "weights.pth",
        "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    paper = CLASSIFIER_PRESETS["mammogram-efficientnet-b0"]["paper"]
    assert seen == {
        "folder": Path("runs/a"),
        "preset": replace(paper, loss="focal", class_weight=3.0, n_members=2),
        "model": "mammogram-efficientnet-b0",
        "variant": "paper",
        "data": "rsna-2022",
        "root": Path("."),
        "imagenet": Path("weights.pth"),
        "device": "cpu",
    }
    assert "training of member 1 of 1" in result.stderr


def test_prints_the_measures(run, seen, monkeypatch):
    """The table holds each measure with its interval; a low AUC is explained."""
    result = run("train", "runs/a", "--model", "ultrasound-resnet")
    assert result.exit_code == 0, result.stderr
    assert seen["preset"] == CLASSIFIER_PRESETS["ultrasound-resnet"]["demo"]
    assert all(text in result.stdout for text in ("34 benign", "12 malignant", "AUC", "0.912", "0.800 to 0.950"))
    monkeypatch.setitem(RECORD, "note", "too few images")
    assert "too few images" in run("train", "runs/a", "--model", "ultrasound-resnet").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "vgg"], "--model must be one of cdmam, patch-resnet50, patch-mobilenet-v2, mammogram-"),
        (
            ["--model", "ultrasound-resnet", "--preset", "standard"],
            "--preset must be one of demo, paper, got 'standard'",
        ),
        (["--model", "ultrasound-resnet", "--loss", "hinge"], "loss must be one of cross-entropy, focal, got 'hinge'"),
        (
            ["--model", "ultrasound-resnet", "--data", "busi"],
            "data must be given with root, the folder where it is, got",
        ),
        (["--model", "ultrasound-resnet", "--recordings", "."], "--recordings must come with --model of cdmam"),
        (
            ["--loss", "focal", "--class-weight", "3"],
            "--loss, --class-weight must come with --model of patch-resnet50, ",
        ),
    ],
)
def test_refuses_what_does_not_fit(run, tmp_path, arguments, message):
    """Nothing is drawn and nothing is written."""
    result = run("train", "run", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "run").exists()
