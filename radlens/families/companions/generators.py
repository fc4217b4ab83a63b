"""The pair of generators as companion of the classifier that it was trained for: Katzmann et al. 2021."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radlens.datasets.model_input import ModelInput
from radlens.errors import TrainingError
from radlens.families.base import RECORD
from radlens.families.companions import Companion, require_input
from radlens.networks import GeneratorPair

__all__ = ["TASK", "WEIGHTS", "load", "load_generators"]

TASK = "cycle activation"
"""Task in the record of a run."""

WEIGHTS = "generators.npz"


def load(path: Path, model_input: ModelInput) -> Companion:
    """Read a finished run for a classifier.

    Args:
        path: Folder of the run.
        model_input: Preprocessing of the classifier.

    Raises:
        InvalidParameter: The generators expect images that were preprocessed otherwise.
        TrainingError: The folder does not hold a finished run.
    """
    pair, record = load_generators(path)
    require_input("generators", ModelInput.from_json(record["model_input"]), model_input)
    of, digest = record["classifier"], hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    origin = {"name": f"generators of {of['name']}", "version": of["version"], "bundle_hash": digest}
    return Companion(pair, origin, network_hash=of["network_hash"])


def load_generators(path: Path) -> tuple[GeneratorPair, dict[str, Any]]:
    """Return the pair of a finished run in evaluation mode, and its record.

    Raises:
        TrainingError: The folder does not hold a finished run of generators.
    """
    if not (path / RECORD).is_file() or not (path / WEIGHTS).is_file():
        raise TrainingError(
            f"a finished run of radlens companion generators must hold {RECORD} and {WEIGHTS}, got {path.name}"
        )
    record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    if record.get("task") != TASK:
        raise TrainingError(f"the run must be of task {TASK!r}, got {record.get('task')!r}")
    pair = GeneratorPair(
        ModelInput.from_json(record["model_input"]).n_channels,
        record["recipe"]["width"],
        form=record["recipe"]["form"],
        classes=tuple(record["classes"]),
    )
    with np.load(path / WEIGHTS) as stored:
        pair.load_state_dict({name: torch.from_numpy(stored[name]) for name in stored.files})
    return pair.eval().requires_grad_(False), record
