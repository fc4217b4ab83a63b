"""The pair of generators as companion of the classifier that it was trained for: Katzmann et al. 2021."""

from pathlib import Path
from typing import Any

from radlens.datasets.model_input import ModelInput
from radlens.families.companions import Companion, require_input, run_origin, stored_run
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
    origin = run_origin(path, "generators", WEIGHTS, record)
    return Companion(pair, origin, network_hash=record["classifier"]["network_hash"])


def load_generators(path: Path) -> tuple[GeneratorPair, dict[str, Any]]:
    """Return the pair of a finished run in evaluation mode, and its record.

    Raises:
        TrainingError: The folder does not hold a finished run of generators.
    """
    record, state = stored_run(path, "generators", TASK, WEIGHTS)
    pair = GeneratorPair(
        ModelInput.from_json(record["model_input"]).n_channels,
        record["recipe"]["width"],
        form=record["recipe"]["form"],
        classes=tuple(record["classes"]),
    )
    pair.load_state_dict(state)
    return pair.eval().requires_grad_(False), record
