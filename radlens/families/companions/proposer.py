"""The proposer of counterfactual masks as companion of a classifier: a run of `radlens companion proposer`."""

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
from radlens.networks import MaskProposer

__all__ = ["TASK", "WEIGHTS", "load", "load_proposer"]

TASK = "mask proposal"
"""Task in the record of a run."""

WEIGHTS = "proposer.npz"


def load(path: Path, model_input: ModelInput) -> Companion:
    """Read a finished run for a classifier.

    Args:
        path: Folder of the run.
        model_input: Preprocessing of the classifier.

    Raises:
        InvalidParameter: The proposer expects images that were preprocessed otherwise.
        TrainingError: The folder does not hold a finished run.
    """
    network, record = load_proposer(path)
    require_input("proposer", ModelInput.from_json(record["model_input"]), model_input)
    of = record["classifier"]
    digest = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    return Companion(network, {"name": f"proposer of {of['name']}", "version": of["version"], "bundle_hash": digest})


def load_proposer(path: Path) -> tuple[MaskProposer, dict[str, Any]]:
    """Return the network of a finished run in evaluation mode, and its record.

    Raises:
        TrainingError: The folder does not hold a finished run of a proposer.
    """
    if not (path / RECORD).is_file() or not (path / WEIGHTS).is_file():
        raise TrainingError(
            f"a finished run of radlens companion proposer must hold {RECORD} and {WEIGHTS}, got {path.name}"
        )
    record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    if record.get("task") != TASK:
        raise TrainingError(f"the run must be of task {TASK!r}, got {record.get('task')!r}")
    n_channels = ModelInput.from_json(record["model_input"]).n_channels
    network = MaskProposer(n_channels, tuple(record["classes"]), record["recipe"]["width"])
    with np.load(path / WEIGHTS) as stored:
        network.load_state_dict({name: torch.from_numpy(stored[name]) for name in stored.files})
    return network.eval().requires_grad_(False), record
