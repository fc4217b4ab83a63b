"""``radlens train`` and ``radlens export``."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_bundle import make_bundle

from radlens.cli.export import export_run
from radlens.families.cdmam import training
from radlens.families.cdmam.manifest import save
from radlens.families.cdmam.training import PRESETS, TrainedRun

RECORD = {"evaluation": {"random": {"n_images": 200, "rmse_um": 0.1234, "skill": 3.456, "coverage": 0.9512}}}
PARITY = {"prediction": {"eager": 1e-7, "traced": 2e-7}, "gradient": {"eager": 3e-6}, "n_images": 2, "reference": "it"}


def test_prints_the_record(run, monkeypatch):
    """The table holds error, skill and coverage of each group of test images."""
    seen = {}

    def train(folder, preset, *, recordings, device, on_progress):
        seen.update(folder=folder, preset=preset, recordings=recordings, device=device)
        on_progress("member 1 of 3", 7, 7)
        return TrainedRun((), RECORD)

    monkeypatch.setattr(training, "train", train)
    result = run("train", "runs/a", "--preset", "paper-small", "--members", "3", "--recordings", ".", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert all(text in result.stdout for text in ("random", "200", "0.123", "3.46", "95.1%"))
    assert "member 1 of 3" in result.stderr
    assert seen == {
        "folder": Path("runs/a"),
        "preset": replace(PRESETS["paper-small"], n_members=3),
        "recordings": Path("."),
        "device": "cpu",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "tiny"], "--preset must be one of paper, paper-small, standard, demo, got 'tiny'"),
        (["--device", "tpu"], "--device must be one of cpu, cuda, got 'tpu'"),
    ],
)
def test_refuses_unknown_choices(run, tmp_path, arguments, message):
    """Nothing is drawn and nothing is written."""
    result = run("train", "run", *arguments)
    assert (result.exit_code, result.stderr) == (2, f"error: {message}\n")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def exporting(monkeypatch):
    """Replace the slow part of an export, the tracing of a trained run, by writing the small bundle."""

    def export_bundle(trained, folder, *, name, version, on_progress):
        assert trained is finished
        on_progress("tracing", 4, 4)
        bundle = make_bundle(folder, version=version)
        return save(folder, replace(bundle.manifest, name=name, parity=PARITY))

    finished = TrainedRun((), RECORD)
    monkeypatch.setattr(training, "load_run", lambda folder: finished)
    monkeypatch.setattr("radlens.families.cdmam.export.export_bundle", export_bundle)


@pytest.mark.usefixtures("exporting")
def test_export_makes_bundle_and_archive(run, tmp_path):
    """Both lie in the store, and the parity is printed."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "training.json").write_text('{"task": "cdmam-cdc"}')
    result = run("export", "run", "--version", "2.0", "--store", "store")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "store" / "cdmam-2.0.mar").is_file()
    assert (tmp_path / "store" / "bundles" / "cdmam-2.0" / "bundle.json").is_file()
    assert all(text in result.stdout for text in ("eager", "traced", "1.0e-07", "2.0e-07", "3.0e-06"))
    assert "exporting" in result.stderr


@pytest.mark.usefixtures("exporting")
def test_export_returns_what_it_printed(tmp_path):
    """The form of the archive is the caller's choice."""
    stages = []
    (tmp_path / "training.json").write_text('{"task": "cdmam-cdc"}')
    bundle, archived = export_run(
        tmp_path, tmp_path / "store", name="cdmam", version="1.0", form="directory",
        report=lambda stage, done, total: stages.append(stage),
    )  # fmt: skip
    assert (bundle.manifest.parity, archived, stages) == (PARITY, tmp_path / "store" / "cdmam-1.0", ["exporting"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--name", "../up"], 2, "--name must be letters, digits, '.', '_' or '-', got '../up'"),
        (["--version", "a/b"], 2, "--version must be letters, digits, '.', '_' or '-', got 'a/b'"),
        ([], 6, "a training run must hold training.json, which is missing"),
    ],
)
def test_export_refuses_what_it_cannot_export(run, tmp_path, arguments, code, message):
    """Names become paths and URLs, so they hold no slash; an empty folder is no run."""
    (tmp_path / "run").mkdir()
    result = run("export", "run", *arguments)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (code, f"error: {message}")
