"""The proposer of counterfactual masks as companion of the classifier whose masks it learned."""

from pathlib import Path
from typing import Any

from radlens.datasets.model_input import ModelInput
from radlens.families.companions import Companion, require_input, run_origin, stored_run
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
    origin = run_origin(path, "proposer", WEIGHTS, record)
    return Companion(network, origin, network_hash=record["classifier"]["network_hash"])


def load_proposer(path: Path) -> tuple[MaskProposer, dict[str, Any]]:
    """Return the network of a finished run in evaluation mode, and its record.

    Raises:
        TrainingError: The folder does not hold a finished run of a proposer.
    """
    record, state = stored_run(path, "proposer", TASK, WEIGHTS)
    n_channels = ModelInput.from_json(record["model_input"]).n_channels
    network = MaskProposer(n_channels, tuple(record["classes"]), record["recipe"]["width"])
    network.load_state_dict(state)
    return network.eval().requires_grad_(False), record
