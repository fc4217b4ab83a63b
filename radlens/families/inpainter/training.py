"""Training of the inpainter in two phases: Major et al. 2020, section 3; Liu et al. 2018, section 3.3.

A run is a folder with the images, the perceptual network, a checkpoint while it lasts, the network ``inpainter.npz``
and the record ``training.json``. Starting the run again continues after the last finished epoch.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from radlens import __version__
from radlens.datasets.model_input import ModelInput
from radlens.errors import TrainingError
from radlens.families.base import RECORD
from radlens.families.inpainter.holes import random_mask
from radlens.families.inpainter.losses import inpainting_loss
from radlens.families.inpainter.perceptual import Perceptual, load_vgg, train_perceptual
from radlens.families.inpainter.recipes import InpainterPreset, Phase
from radlens.families.inpainter.training_data import HealthyImages, build_parts, require_data
from radlens.families.runs import claim, write_record
from radlens.networks import PartialConvInpainter
from radlens.wire import INPAINTING

__all__ = ["TrainedInpainter", "load_inpainter_run", "train_inpainter"]

_WEIGHTS = "inpainter.npz"
_BATCH = 8
"""Batch size of evaluations."""

_VALIDATION_SEED = 5
"""Seed of the holes in validation images."""

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, eq=False)
class TrainedInpainter:
    """A finished run.

    Attributes:
        network: Network in evaluation mode, on the CPU.
        model_input: Preprocessing that it expects.
        record: Training record.
    """

    network: PartialConvInpainter
    model_input: ModelInput
    record: dict[str, Any]


def train_inpainter(
    folder: Path,
    preset: InpainterPreset,
    *,
    model: str = "inpainter",
    variant: str = "custom",
    data: str | None = None,
    root: Path | None = None,
    vgg: Path | None = None,
    device: str | None = None,
    n_workers: int | None = None,
    on_progress: Progress | None = None,
) -> TrainedInpainter:
    """Train an inpainter, or continue an interrupted run.

    Args:
        folder: Folder of the run; created if it is missing.
        preset: Recipe.
        model: Name of the recipe, for the record.
        variant: Variant of the recipe, for the record.
        data: Name of a data set; None for simulated images.
        root: Folder of the data set.
        vgg: File with weights of VGG-16 for the perceptual and the style loss; None to train a small network.
        device: ``"cpu"`` or ``"cuda"``; by default a GPU if there is one.
        n_workers: Number of processes that simulate or read images; by default one for each core.
        on_progress: Callback ``on_progress(stage, done, total)``.

    Raises:
        TrainingError: The folder holds a run of another recipe, there are no healthy images, or the loss is not finite.
        InvalidParameter: The data set is unknown, or one of data and root is missing.
        InvalidInput: The weights of VGG-16 cannot be read.
        DatasetError: The data set cannot be read.
    """
    report = on_progress or (lambda stage, done, total: None)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    require_data(data, root)
    recipe = {"model": model, "variant": variant, "preset": preset.to_json(), "data": data}
    recipe["vgg"] = None if vgg is None else vgg.name
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, recipe)
    if (folder / RECORD).exists():
        return load_inpainter_run(folder)
    n_workers = n_workers or len(os.sched_getaffinity(0))
    parts = build_parts(folder / "data", preset, data=data, root=root, n_workers=n_workers, on_progress=report)
    features, of_features = _features(folder, preset, parts["training"], vgg, device, report)
    training = _Training(preset, parts, features, device, report)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        training.load(torch.load(checkpoint, map_location=device, weights_only=True))
    while not training.is_finished:
        training.epoch()
        draft = checkpoint.with_suffix(".tmp")
        torch.save(training.state(), draft)
        draft.replace(checkpoint)
    state = {name: value.cpu().numpy() for name, value in training.network.state_dict().items()}
    np.savez(folder / _WEIGHTS, allow_pickle=False, **state)
    record = recipe | {
        "task": INPAINTING,
        "model_input": preset.input.to_json(),
        "width": preset.width,
        "images": {
            "source": data or "simulated by radlens.phantoms",
            **{name: {"n": len(part)} for name, part in parts.items()},
        },
        "perceptual_network": of_features,
        "epochs": training.history,
        "seconds": sum(entry["seconds"] for entry in training.history),
        "evaluation": training.evaluation(),
        "machine": f"{platform.machine()}, {device}, {torch.get_num_threads()} threads",
        "versions": {"radlens": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    write_record(folder, record)
    checkpoint.unlink()
    return load_inpainter_run(folder)


def load_inpainter_run(folder: Path) -> TrainedInpainter:
    """Load a finished run.

    Raises:
        TrainingError: The folder does not hold a run of an inpainter.
    """
    if not (folder / RECORD).is_file():
        raise TrainingError(f"a finished training run must hold {RECORD}, which is missing")
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if record.get("task") != INPAINTING:
        raise TrainingError(f"the run must be of task {INPAINTING}, got {record.get('task')!r}")
    model_input = ModelInput.from_json(record["model_input"])
    network = PartialConvInpainter(model_input.n_channels, record["width"])
    with np.load(folder / _WEIGHTS) as stored:
        network.load_state_dict({name: torch.from_numpy(stored[name]) for name in stored.files})
    return TrainedInpainter(network.eval(), model_input, record)


def _features(
    folder: Path, preset: InpainterPreset, part: HealthyImages, vgg: Path | None, device: str, report: Progress
) -> tuple[Callable[[Tensor], Sequence[Tensor]], dict[str, Any]]:
    """Return the perceptual features, and their origin for the record."""
    if vgg is not None:
        return load_vgg(vgg, preset.input.n_channels, device), {"network": "VGG-16", "file": vgg.name}
    file = folder / "perceptual.pt"
    if file.exists():
        stored = torch.load(file, map_location="cpu", weights_only=True)
        network, accuracy = Perceptual(preset.input.n_channels), float(stored["accuracy"])
        network.load_state_dict(stored["state"])
        network.eval().requires_grad_(False)
    else:
        network, accuracy = train_perceptual(
            part.images,
            part.regions,
            preset.perceptual_steps,
            on_step=lambda done, total: report("training the perceptual network", done, total),
        )
        draft = file.with_suffix(".tmp")
        torch.save({"state": network.state_dict(), "accuracy": accuracy}, draft)
        draft.replace(file)
    origin = {"network": "trained to tell distorted patches of healthy tissue", "accuracy": accuracy}
    return network.to(device).features, origin


class _Training:
    """The training of the network, epoch by epoch."""

    def __init__(
        self,
        preset: InpainterPreset,
        parts: dict[str, HealthyImages],
        features: Callable[[Tensor], Sequence[Tensor]],
        device: str,
        report: Progress,
    ) -> None:
        torch.manual_seed(0)
        self.preset, self.parts, self.features, self.device, self.report = preset, parts, features, device, report
        self.network = PartialConvInpainter(preset.input.n_channels, preset.width).to(device)
        self.history: list[dict[str, Any]] = []
        self.batch_size = min(preset.batch_size, len(parts["training"]))
        self.n_steps = len(parts["training"]) // self.batch_size
        self._start_phase()

    @property
    def phase(self) -> tuple[int, Phase]:
        """Number and recipe of the phase of the next epoch."""
        before = 0
        for number, phase in enumerate(self.preset.phases):
            before += phase.epochs
            if len(self.history) < before:
                return number, phase
        return len(self.preset.phases) - 1, self.preset.phases[-1]

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done."""
        return len(self.history) >= sum(phase.epochs for phase in self.preset.phases)

    def state(self) -> dict[str, Any]:
        """Return the state for `load`."""
        found: dict[str, Any] = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.schedule:
            found["schedule"] = self.schedule.state_dict()
        return found | {"history": self.history}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state` returned."""
        self.history = state["history"]
        self._start_phase()
        self.network.load_state_dict(state["network"])
        if not self._is_first_of_phase():
            self.optimizer.load_state_dict(state["optimizer"])
            if self.schedule:
                self.schedule.load_state_dict(state["schedule"])

    def epoch(self) -> None:
        """Train for one epoch and measure the error in the holes of validation images."""
        if self.history and self._is_first_of_phase():
            self._start_phase()
        begin, (number, phase) = time.monotonic(), self.phase
        rng = np.random.default_rng([11, len(self.history)])
        order = rng.permutation(len(self.parts["training"]))
        self._set_mode(phase)
        sums: dict[str, float] = {}
        for step in range(self.n_steps):
            chosen = np.sort(order[step * self.batch_size : (step + 1) * self.batch_size])
            for name, value in self._learn(chosen, rng).items():
                sums[name] = sums.get(name, 0.0) + value / self.n_steps
            done = len(self.history) * self.n_steps + step + 1
            total = sum(each.epochs for each in self.preset.phases) * self.n_steps
            self.report(f"phase {number + 1} of {len(self.preset.phases)}", done, total)
        entry = {"phase": number + 1, **sums, "seconds": time.monotonic() - begin}
        self.history.append(entry | {"validation_hole": self._errors()["inpainter"]})

    def evaluation(self) -> dict[str, float]:
        """Return mean absolute errors in the holes of validation images, and of the mean of the known tissue there."""
        return self._errors()

    def _is_first_of_phase(self) -> bool:
        starts = np.cumsum([0, *(phase.epochs for phase in self.preset.phases)])
        return len(self.history) in starts

    def _start_phase(self) -> None:
        _, phase = self.phase
        self.optimizer = torch.optim.Adam(self.network.parameters(), phase.learning_rate)
        self.schedule = (
            torch.optim.lr_scheduler.OneCycleLR(self.optimizer, phase.learning_rate, phase.epochs * self.n_steps + 1)
            if phase.one_cycle
            else None
        )

    def _set_mode(self, phase: Phase) -> None:
        self.network.train()
        for part in self.network.encoder.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.train(phase.has_norm)
                part.requires_grad_(phase.has_norm)

    def _learn(self, chosen: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
        part = self.parts["training"]
        images, masks = self._masked(part.images[chosen], part.regions[chosen], rng)
        if rng.random() < 0.5:
            images, masks = images.flip(2), masks.flip(2)
        terms = inpainting_loss(self.network(images, masks), images, masks, self.features)
        loss = terms.total()
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss must be finite, got {loss.item()}; a lower learning rate may help")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        return {name: value.detach().item() for name, value in vars(terms).items()} | {"loss": loss.detach().item()}

    def _masked(self, images: np.ndarray, regions: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        masks = np.stack([random_mask(rng, region, self.preset.holes) for region in regions])[:, None]
        return torch.from_numpy(images.astype(np.float32)).to(self.device), torch.from_numpy(masks).to(self.device)

    @torch.no_grad()
    def _errors(self) -> dict[str, float]:
        self.network.eval()
        part, rng = self.parts["validation"], np.random.default_rng(_VALIDATION_SEED)
        sums = dict.fromkeys(("inpainter", "mean"), 0.0)
        n_holes = 0.0
        for first in range(0, len(part), _BATCH):
            images, regions = part.images[first : first + _BATCH], part.regions[first : first + _BATCH]
            seen, masks = self._masked(images, regions, rng)
            tissue = torch.from_numpy(regions)[:, None].to(self.device) * masks
            mean = (seen * tissue).sum((1, 2, 3), keepdim=True) / tissue.sum((1, 2, 3), keepdim=True).clamp_min(1)
            holes = (1 - masks).expand_as(seen)
            for name, drawn in (("inpainter", self.network(seen, masks)), ("mean", mean)):
                sums[name] += float((holes * (drawn - seen).abs()).sum())
            n_holes += float(holes.sum())
        return {name: value / max(n_holes, 1.0) for name, value in sums.items()}
