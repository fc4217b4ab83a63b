"""Networks that methods need beside the model they explain, one file for each kind.

A kind is registered by one line in `KINDS`; its module has a function ``load(path, model_input)`` that returns the
network.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from radlens.datasets.model_input import ModelInput
from radlens.errors import InvalidParameter, TrainingError
from radlens.families.base import RECORD

__all__ = ["KINDS", "Companion", "load_companions", "require_input", "trained_for"]

KINDS: Mapping[str, str] = {
    "generators": "radlens.families.companions.generators",
    "inpainter": "radlens.families.companions.inpainter",
    "proposer": "radlens.families.companions.proposer",
}
"""Module of each kind of companion, by the name that questions use."""


@dataclass(frozen=True, eq=False)
class Companion:
    """A companion for a model.

    Attributes:
        network: Network in evaluation mode.
        origin: Name, version and hash of its bundle, for the record of the model.
        network_hash: Hash of the only classifier that it may be bundled with; None for any classifier of its input.
    """

    network: Any
    origin: Mapping[str, str]
    network_hash: str | None = None


def load_companions(paths: Mapping[str, Path], model_input: ModelInput) -> dict[str, Companion]:
    """Read companions for a model.

    Args:
        paths: Folder of each companion by its kind: a bundle, or for generators and a proposer a run.
        model_input: Preprocessing of the model; that of a companion must be the same.

    Raises:
        InvalidParameter: A kind is unknown, or a companion expects other images.
        BundleError: A bundle cannot be read.
    """
    if unknown := sorted(set(paths) - set(KINDS)):
        raise InvalidParameter(f"companions must be of {', '.join(KINDS)}, got {', '.join(unknown)}")
    return {kind: import_module(KINDS[kind]).load(path, model_input) for kind, path in paths.items()}


def trained_for(companions: Mapping[str, Companion]) -> dict[str, str]:
    """Return the hash of the only classifier that a companion fits, by kind; others fit any classifier."""
    return {kind: each.network_hash for kind, each in companions.items() if each.network_hash is not None}


def require_input(kind: str, got: ModelInput, expected: ModelInput) -> None:
    """Raise InvalidParameter unless a companion takes the images that its classifier takes."""
    given, wanted = got.to_json(), expected.to_json()
    if different := [name for name in wanted if wanted[name] != given[name]]:
        listed = "; ".join(f"{name} {wanted[name]}, got {given[name]}" for name in different)
        raise InvalidParameter(f"the {kind} must take the images that the classifier takes: {listed}")


def stored_run(path: Path, kind: str, task: str, weights: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the record of a finished run of `radlens companion`, and the arrays of its network by name.

    Args:
        path: Folder of the run.
        kind: Kind of the companion, the name of its command.
        task: Task that the record must state.
        weights: Name of the file of the arrays.

    Raises:
        TrainingError: The folder does not hold such a run.
    """
    import numpy as np
    import torch

    if not (path / RECORD).is_file() or not (path / weights).is_file():
        raise TrainingError(
            f"a finished run of radlens companion {kind} must hold {RECORD} and {weights}, got {path.name}"
        )
    record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    if record.get("task") != task:
        raise TrainingError(f"the run must be of task {task!r}, got {record.get('task')!r}")
    with np.load(path / weights) as stored:
        return record, {name: torch.from_numpy(stored[name]) for name in stored.files}


def run_origin(path: Path, kind: str, weights: str, record: Mapping[str, Any]) -> dict[str, str]:
    """Return what the record of a model says of a companion that is a run."""
    of, digest = record["classifier"], hashlib.sha256((path / weights).read_bytes()).hexdigest()
    return {"name": f"{kind} of {of['name']}", "version": of["version"], "bundle_hash": digest}
