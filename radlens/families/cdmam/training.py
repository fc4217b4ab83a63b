"""Training of the CDMAM ensemble, by the paper's recipe or by one that reads the disks.

The preset ``paper`` follows Amanova et al. 2022, section 2.2 and Appendix D: images are not registered but normalised
by the mean and the standard deviation of the training images, and curves are in um. The other presets register the
phantom, normalise it by its own noise, and learn the logarithm of the curve
(`radlens.families.cdmam.training_registered`). The network is the same.

A run is a folder with the simulated data, one checkpoint for each member in training, one ``member-NN.npz`` for each
trained member, and the record ``training.json``. Starting the run again continues after its last checkpoint.
"""

import json
import multiprocessing
import platform
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radlens import __version__
from radlens.errors import InvalidParameter, TrainingError
from radlens.families.base import RECORD
from radlens.families.cdmam import training_paper as cdmam_paper
from radlens.families.cdmam import training_registered as cdmam_registered
from radlens.families.cdmam.calibration import Calibration
from radlens.families.cdmam.training_paper import PaperPreset
from radlens.families.cdmam.training_registered import RegisteredPreset
from radlens.families.runs import claim, write_record
from radlens.networks import CdmamNet, FoldedCdmamEnsemble
from radlens.pools import process_pool
from radlens.wire import CDC

__all__ = ["PRESETS", "Preset", "TrainedRun", "keep_in_record", "load_run", "save_member", "train"]

_SECONDS = "training_seconds"

Preset = PaperPreset | RegisteredPreset
"""Recipe of either kind."""

PRESETS: dict[str, Preset] = {
    "paper": PaperPreset(10, 52_800, 4_800, epochs=300, batch_size=50, learning_rate=1e-5, n_test=1200),
    "paper-small": PaperPreset(
        2, 2_400, 200, epochs=8, batch_size=32, learning_rate=2e-3, dense_rate=0.01, one_cycle=True, rank=8
    ),
    "standard": RegisteredPreset(8, 16_000, 24_000, n_calibration=200),
    "demo": RegisteredPreset(4, 8_000, 6_000),
}
"""Presets by name. ``paper``: the paper's numbers. ``paper-small``: its recipe at a size for two cores, for comparison.
``standard``: seven hours on two cores. ``demo``: one hour."""

RECIPES: dict[type, str] = {PaperPreset: "paper", RegisteredPreset: "registered"}
"""Names of the kinds of recipe in a record."""

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A finished run.

    Attributes:
        members: networks in evaluation mode; outputs in um of gold, or in the logarithm of it.
        record: training record.
    """

    members: tuple[CdmamNet, ...]
    record: dict[str, Any]

    @property
    def logarithmic(self) -> bool:
        """Whether the members learned the natural logarithm of the curve."""
        return self.record.get("output") == cdmam_registered.OUTPUT

    @property
    def registered(self) -> bool:
        """Whether the members see registered phantoms in units of their own noise."""
        return self.record.get("recipe") == RECIPES[RegisteredPreset]

    @property
    def calibration(self) -> Calibration | None:
        """Errors of the predictions on phantoms that no member has seen; None if they were not measured."""
        found = self.record.get("calibration")
        return None if found is None else Calibration.from_json(found)

    def ensemble(self) -> FoldedCdmamEnsemble:
        """Return the members as the folded ensemble that is served."""
        return FoldedCdmamEnsemble.from_members(self.members, logarithmic=self.logarithmic)

    @property
    def mean(self) -> float:
        """Mean pixel value of the training images, or 0 if each image is normalised by itself."""
        return float(self.record["normalisation"]["mean"])

    @property
    def std(self) -> float:
        """Standard deviation of the training images' pixel values, or 1 if each image is normalised by itself."""
        return float(self.record["normalisation"]["std"])


def train(
    folder: Path,
    preset: Preset,
    *,
    recordings: Path | None = None,
    device: str | None = None,
    n_workers: int = 2,
    on_progress: Progress | None = None,
) -> TrainedRun:
    """Train an ensemble, or continue an interrupted run.

    Args:
        folder: folder of the run; created if it is missing.
        preset: recipe.
        recordings: folder of real phantom images with their curves.
        device: ``"cpu"`` or ``"cuda"``; by default a GPU if there is one.
        n_workers: number of members trained at the same time on a CPU, each on one core, which is faster than one
            member after the other on several cores. A GPU trains one member at a time.
        on_progress: callback ``on_progress(stage, done, total)``.

    Raises:
        TrainingError: The folder holds a run of another recipe.
        InvalidParameter: ``recordings`` are given to a registered recipe, which cannot use them.
    """
    report = on_progress or (lambda stage, done, total: None)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, asdict(preset))
    if recordings is not None and isinstance(preset, RegisteredPreset):
        raise InvalidParameter("recordings must come with a preset of the paper's recipe, got a registered one")
    record = _open_record(folder, preset, recordings, report)
    _train_members(folder, preset, n_workers if device == "cpu" else 1, device, report)
    record["seconds_per_member"] = [_seconds(_member_file(folder, i)) for i in range(preset.n_members)]
    run = TrainedRun(_load_members(folder, preset), record)
    if "evaluation" not in record:
        record |= _evaluate(folder, run, preset, n_workers, report)
        write_record(folder, record)
    return run


def load_run(folder: Path) -> TrainedRun:
    """Load a finished run.

    Raises:
        TrainingError: The folder does not hold a run, or the run is not finished.
    """
    if not (folder / RECORD).is_file():
        raise TrainingError(f"a training run must hold {RECORD}, which is missing")
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    preset = _preset(record)
    missing = [i for i in range(preset.n_members) if not _member_file(folder, i).exists()]
    if missing:
        raise TrainingError(
            f"the run must have {preset.n_members} trained members, got {preset.n_members - len(missing)}"
        )
    return TrainedRun(_load_members(folder, preset), record)


def keep_in_record(folder: Path, name: str, found: Mapping[str, Any]) -> Path:
    """Store measurements of a finished run in its record, which an export copies; return the file.

    Args:
        folder: folder of the run.
        name: key of ``found`` in the record; an existing value is replaced.
        found: measurements as JSON values.

    Raises:
        TrainingError: The folder does not hold a finished run.
    """
    write_record(folder, {**load_run(folder).record, name: dict(found)})
    return folder / RECORD


def _preset(record: Mapping[str, Any]) -> Preset:
    kinds = {name: kind for kind, name in RECIPES.items()}
    recipe = record.get("recipe", RECIPES[PaperPreset])
    try:
        return kinds[recipe](**record["preset"])
    except (KeyError, TypeError) as error:
        raise TrainingError(f"{RECORD} must hold the preset of one of {', '.join(kinds)}, got {recipe!r}") from error


def _open_record(folder: Path, preset: Preset, recordings: Path | None, report: Progress) -> dict[str, Any]:
    """Create the training data unless they exist, and return the record so far."""

    def drawing(done: int, total: int) -> None:
        report("drawing images", done, total)

    if isinstance(preset, PaperPreset):
        drawn = cdmam_paper.prepare(folder, preset, recordings, drawing)
    else:
        drawn = cdmam_registered.prepare(folder, preset, drawing)
    if (folder / RECORD).exists():
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))
    record = {
        "task": CDC,
        "recipe": RECIPES[type(preset)],
        "preset": asdict(preset),
        **drawn,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"radlens": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    write_record(folder, record)
    return record


def _evaluate(folder: Path, run: TrainedRun, preset: Preset, n_workers: int, report: Progress) -> dict[str, Any]:
    if isinstance(preset, PaperPreset):
        return cdmam_paper.evaluate(
            run.members, run.record, preset.n_test, lambda done, total: report("evaluating", done, total)
        )
    return cdmam_registered.evaluate(folder, run.ensemble(), preset, n_workers, report)


def _train_members(folder: Path, preset: Preset, n_workers: int, device: str, report: Progress) -> None:
    """Train the missing members, each in its own process."""
    missing = [member for member in range(preset.n_members) if not _member_file(folder, member).exists()]
    with multiprocessing.get_context("spawn").Manager() as manager, process_pool(n_workers) as pool:
        news = manager.Queue()
        waiting = {pool.submit(_train_in_process, folder, member, preset, device, news) for member in missing}
        while waiting:
            finished, waiting = wait(waiting, timeout=0.5)
            for future in finished:
                future.result()
            while not news.empty():
                report(*news.get())


def _train_in_process(folder: Path, member: int, preset: Preset, device: str, news: Any) -> None:
    torch.set_num_threads(1)
    checkpoint = folder / f"member-{member:02d}.checkpoint.pt"

    def report(done: int, total: int) -> None:
        news.put((f"member {member + 1} of {preset.n_members}", done, total))

    if isinstance(preset, PaperPreset):
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        net, seconds = cdmam_paper.train_member(folder, checkpoint, member, preset, record, device, report)
    else:
        net, seconds = cdmam_registered.train_member(folder, checkpoint, member, preset, device, report)
    save_member(_member_file(folder, member), net, seconds)
    checkpoint.unlink(missing_ok=True)


def _member_file(folder: Path, member: int) -> Path:
    return folder / f"member-{member:02d}.npz"


def save_member(file: Path, net: CdmamNet, seconds: float) -> None:
    """Write a member, with its large dense layers in half precision: the error is below the training noise."""
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    for name in ("dense1.weight", "dense1.narrow.weight", "dense2.weight"):
        if name in state:
            # Half precision has a small range of exponents: each row is scaled to 1, and its scale is stored.
            scale = np.abs(state[name]).max(axis=1, keepdims=True).clip(min=np.finfo(np.float32).tiny)
            state[f"{name}.scale"] = scale
            state[name] = (state[name] / scale).astype(np.float16)
    np.savez_compressed(file, allow_pickle=False, **(state | {_SECONDS: np.array(seconds)}))


def _seconds(file: Path) -> float:
    with np.load(file) as stored:
        return float(stored[_SECONDS])


def _load_members(folder: Path, preset: Preset) -> tuple[CdmamNet, ...]:
    return tuple(_load_member(_member_file(folder, i), preset.dropout) for i in range(preset.n_members))


def _load_member(file: Path, dropout: float) -> CdmamNet:
    with np.load(file) as stored:
        state = {name: stored[name] for name in stored.files if not name.endswith((".scale", _SECONDS))}
        for name in stored.files:
            if name.endswith(".scale"):
                weight = name.removesuffix(".scale")
                state[weight] = state[weight].astype(np.float32) * stored[name]
    narrow = state.get("dense1.narrow.weight")
    net = CdmamNet(None if narrow is None else len(narrow), dropout)
    net.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in state.items()})
    return net.eval()
