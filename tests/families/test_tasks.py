"""Bundles and training runs of any family are told apart by the task that they state, and by nothing else."""

import json

import pytest

from radlens.errors import BundleError, TrainingError
from radlens.families import load, run_family
from radlens.wire import CDC, CLASSIFICATION, INPAINTING


def test_an_unknown_task_is_named_with_the_known_ones(tmp_path):
    """A bundle of a newer version, perhaps."""
    (tmp_path / "bundle.json").write_text(json.dumps({"format_version": 2, "task": "nodules", "files": {}}))
    with pytest.raises(BundleError, match="task must be one of cdmam-cdc, classification, inpainting, got 'nodules'"):
        load(tmp_path)


@pytest.mark.parametrize("task", [CDC, CLASSIFICATION, INPAINTING])
def test_a_run_states_its_task(tmp_path, task):
    """In its record."""
    (tmp_path / "training.json").write_text(json.dumps({"task": task, "network": "ignored"}))
    assert run_family(tmp_path).task == task


@pytest.mark.parametrize("text", ["{}", "[]", "not JSON", '{"task": "nodules"}'])
def test_a_record_without_a_known_task_is_refused(tmp_path, text):
    """Whatever else it holds."""
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(
        TrainingError, match=r"training.json must state a task, one of cdmam-cdc, classification, inpainting, got"
    ):
        run_family(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    """It says what is missing."""
    with pytest.raises(TrainingError, match=r"a training run must hold training.json, which is missing"):
        run_family(tmp_path)
