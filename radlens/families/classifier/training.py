"""Training of the image classifiers of Sam Millan 2023 and Byra et al. 2022.

A run is a folder with the images, one checkpoint for each member in training, one ``member-NN.npz`` for each trained
member, and the record ``training.json``. Starting the run again continues after the last finished epoch.
"""

import hashlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radlens import __version__
from radlens.datasets import ModelInput
from radlens.errors import TrainingError
from radlens.evaluation import classification_measures
from radlens.families.base import RECORD
from radlens.families.classifier.recipes import ClassifierPreset
from radlens.families.classifier.training_data import ImageSet, build_sets, classes_of, require_data
from radlens.families.classifier.training_loop import channels_last, class_logits, positive_probability, train_member
from radlens.families.runs import claim, write_record
from radlens.networks import ClassifierNetwork, create_classifier, load_imagenet
from radlens.wire import CLASSIFICATION

__all__ = ["GOOD_AUC", "TrainedClassifier", "load_classifier_run", "train_classifier"]

GOOD_AUC = 0.9
"""Area under the ROC curve below which the record states a probable reason."""

_OVERLAPPING = {"ultrasound": ("masses", "ultrasound", "0.90"), "nodules": ("nodules", "nodule", "0.92")}
"""Lesions and simulator of the tasks whose classes overlap, and the AUC of all true features."""

_HISTORY = "history"
_N_BOOTSTRAP = 1000
Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """A finished run.

    Attributes:
        network: name of the network, one of `radlens.networks.CLASSIFIERS`.
        members: networks in evaluation mode, on the CPU.
        model_input: preprocessing that the networks expect.
        classes: names of the negative and the positive class.
        n_outputs: 2 for a softmax over the classes, 1 for the sigmoid of the positive class.
        record: training record.
    """

    network: str
    members: list[ClassifierNetwork]
    model_input: ModelInput
    classes: tuple[str, ...]
    n_outputs: int
    record: dict[str, Any]


def train_classifier(
    folder: Path,
    preset: ClassifierPreset,
    *,
    model: str = "classifier",
    variant: str = "custom",
    data: str | None = None,
    root: Path | None = None,
    imagenet: Path | None = None,
    device: str | None = None,
    n_workers: int | None = None,
    on_progress: Progress | None = None,
) -> TrainedClassifier:
    """Train a classifier, or continue an interrupted run.

    Args:
        folder: folder of the run; created if it is missing.
        preset: recipe.
        model: name of the recipe, for the record.
        variant: variant of the recipe, for the record.
        data: name of a data set in `.training_data.TASK_DATA`; None for simulated images.
        root: folder of the data set.
        imagenet: file of initial weights in a form that `radlens.networks.load_imagenet` reads.
        device: ``"cpu"`` or ``"cuda"``; by default a GPU if there is one.
        n_workers: number of processes that simulate or read images; by default one for each core.
        on_progress: callback ``on_progress(stage, done, total)``.

    Raises:
        TrainingError: The folder holds a run of another recipe, or a part of the images has a single class.
        InvalidParameter: The data set does not fit the task, or one of data and root is missing.
        InvalidInput: The ImageNet weights do not fit the network.
        DatasetError: The data set cannot be read.
    """
    report = on_progress or (lambda stage, done, total: None)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    require_data(preset, data, root)
    recipe = {"model": model, "variant": variant, "preset": preset.to_json(), "data": data}
    recipe["imagenet"] = None if imagenet is None else _checked(imagenet, preset)
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, recipe)
    if (folder / RECORD).exists():
        return load_classifier_run(folder)
    n_workers = n_workers or len(os.sched_getaffinity(0))
    sets = build_sets(folder / "data", preset, data=data, root=root, n_workers=n_workers, on_progress=report)
    for member in range(preset.n_members):
        if not _member_file(folder, member).exists():
            checkpoint = folder / f"member-{member:02d}.checkpoint.pt"
            trained = train_member(
                checkpoint, member, preset, sets, imagenet=imagenet, device=device, on_progress=report
            )
            _save_member(_member_file(folder, member), trained.network, trained.history)
            checkpoint.unlink()
    classes = classes_of(preset, data)
    record = _record(folder, preset, recipe, classes, sets, device)
    record |= _evaluation(folder, preset, sets["test"], report)
    write_record(folder, record | {"note": _note(record)})
    return load_classifier_run(folder)


def load_classifier_run(folder: Path) -> TrainedClassifier:
    """Load a finished run.

    Raises:
        TrainingError: The folder does not hold a run of a classifier, or members are missing.
    """
    if not (folder / RECORD).is_file():
        raise TrainingError(f"a finished training run must hold {RECORD}, which is missing")
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if record.get("task") != CLASSIFICATION:
        raise TrainingError(f"the run must be of task {CLASSIFICATION}, got {record.get('task')!r}")
    n_members = record["preset"]["n_members"]
    files = [_member_file(folder, member) for member in range(n_members)]
    n_found = sum(file.exists() for file in files)
    if n_found < n_members:
        raise TrainingError(f"the run must have {n_members} trained members, got {n_found}")
    model_input = ModelInput.from_json(record["model_input"])
    members = [_load_member(file, record["network"], record["n_outputs"], model_input.n_channels) for file in files]
    classes = tuple(record["classes"])
    return TrainedClassifier(record["network"], members, model_input, classes, record["n_outputs"], record)


def _checked(imagenet: Path, preset: ClassifierPreset) -> dict[str, str]:
    """Check that a file of weights fits the network, and return its name and hash for the record."""
    load_imagenet(create_classifier(preset.network, n_outputs=1, n_channels=preset.input.n_channels), imagenet)
    return {"file": imagenet.name, "sha256": hashlib.sha256(imagenet.read_bytes()).hexdigest()}


def _record(
    folder: Path,
    preset: ClassifierPreset,
    recipe: dict[str, Any],
    classes: tuple[str, str],
    sets: dict[str, ImageSet],
    device: str,
) -> dict[str, Any]:
    histories = [_history(_member_file(folder, member)) for member in range(preset.n_members)]
    return recipe | {
        "task": CLASSIFICATION,
        "network": preset.network,
        "model_input": preset.input.to_json(),
        "classes": list(classes),
        "n_outputs": preset.n_outputs,
        "images": {
            "source": recipe["data"] or "simulated by radlens.phantoms",
            "split": "a patient is in one part only" if recipe["data"] else "each image has a seed of its own",
            **{part: {"n": len(found), "n_positive": int(found.labels.sum())} for part, found in sets.items()},
        },
        "epochs": histories,
        "seconds_per_member": [sum(entry["seconds"] for entry in history) for history in histories],
        "machine": f"{platform.machine()}, {device}, {torch.get_num_threads()} threads",
        "versions": {"radlens": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }


def _evaluation(folder: Path, preset: ClassifierPreset, test: ImageSet, report: Progress) -> dict[str, Any]:
    """Return AUC and measures at the ROC corner on images that no member has seen, with 95 % intervals."""
    scores = np.zeros(len(test))
    for member in range(preset.n_members):
        report("evaluating", member, preset.n_members)
        file = _member_file(folder, member)
        network = _load_member(file, preset.network, preset.n_outputs, preset.input.n_channels)
        scores += (
            positive_probability(class_logits(channels_last(network), test.images)).double().numpy() / preset.n_members
        )
    report("evaluating", preset.n_members, preset.n_members)
    found = asdict(classification_measures(test.labels, scores, n_bootstrap=_N_BOOTSTRAP))
    found = {key: value._asdict() if hasattr(value, "_asdict") else value for key, value in found.items()}
    return {"evaluation": found}


def _note(record: dict[str, Any]) -> str:
    """Return a probable reason why the test AUC is below `GOOD_AUC`; empty if it is not."""
    auc = record["evaluation"]["auc"]["value"]
    if auc >= GOOD_AUC:
        return ""
    epochs = [entry for entry in record["epochs"][0] if entry["phase"] == "training"]
    last, n = epochs[-1], record["images"]["training"]["n"]
    learnt, missed = last["training_loss"], last["validation_loss"]
    losses = f"the loss of the training images is {learnt:.2f} and that of the validation images {missed:.2f}"
    if learnt < missed / 2:
        reason = f"{losses}, so it knows its {n} images by heart and needs more of them"
    else:
        reason = f"after {len(epochs)} epochs of {n} images {losses}, so it needs more steps or an easier task"
    if record["preset"]["task"] in _OVERLAPPING and record["data"] is None:
        lesions, simulator, ceiling = _OVERLAPPING[record["preset"]["task"]]
        reason += (
            f"; benign and malignant {lesions} overlap in the simulator, where a regression on all true features "
            f"reaches {ceiling} (radlens overlap {simulator})"
        )
    return f"the test AUC is {auc:.3f}, below {GOOD_AUC}: {reason}"


def _member_file(folder: Path, member: int) -> Path:
    return folder / f"member-{member:02d}.npz"


def _save_member(file: Path, network: ClassifierNetwork, history: list[dict[str, Any]]) -> None:
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    draft = file.with_name(f"{file.name}.tmp")
    with draft.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **(state | {_HISTORY: np.array(json.dumps(history))}))
    draft.replace(file)


def _history(file: Path) -> list[dict[str, Any]]:
    with np.load(file) as stored:
        return json.loads(str(stored[_HISTORY]))


def _load_member(file: Path, network: str, n_outputs: int, n_channels: int) -> ClassifierNetwork:
    found = create_classifier(network, n_outputs=n_outputs, n_channels=n_channels)
    with np.load(file) as stored:
        state = {name: torch.from_numpy(stored[name]) for name in stored.files if name != _HISTORY}
    found.load_state_dict(state)
    return found.eval()
