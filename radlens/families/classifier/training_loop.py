"""Training of one member of a classifier: losses, random flips, rotations and sizes, and epochs that can be resumed."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radlens.evaluation import roc_curve
from radlens.families.classifier.recipes import ClassifierPreset, Loss, Schedule, WarmUp
from radlens.families.classifier.training_data import WARM_UP, ImageSet, Progress
from radlens.networks import ClassifierNetwork, create_classifier, load_imagenet

__all__ = [
    "TrainedMember",
    "channels_last",
    "class_logits",
    "classification_loss",
    "positive_probability",
    "train_member",
    "varied",
]

FOCAL_GAMMA = 2.0
"""Exponent of the focal loss; the best value of Lin et al."""

_MOMENTUM = 0.9
"""Momentum of stochastic gradient descent: Sam Millan 2023, section 3.2.3."""

_N_CALIBRATION = 128
"""Number of training images that measure the statistics of batch normalisation."""

_BATCH = 16
"""Batch size of evaluations."""


@dataclass(frozen=True, eq=False)
class TrainedMember:
    """A trained network.

    Attributes:
        network: network in evaluation mode, on the CPU.
        history: one entry per epoch: phase, learning rate at its start, losses, validation AUC and seconds.
    """

    network: ClassifierNetwork
    history: list[dict[str, Any]]


def classification_loss(logits: Tensor, labels: Tensor, *, loss: Loss, class_weight: float = 1.0) -> Tensor:
    """Return the mean loss of a batch, weighted by class as in `torch.nn.functional.cross_entropy`.

    Args:
        logits: ``(b, 2)``, or ``(b, 1)`` for a sigmoid.
        labels: ``(b,)`` int64, 0 or 1.
        loss: cross entropy, binary for one output, or focal loss.
        class_weight: weight of label 1, relative to label 0.
    """
    weights = torch.where(labels == 1, class_weight, 1.0)
    return (_losses(logits, labels, loss) * weights).sum() / weights.sum()


def _losses(logits: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    alone = logits.shape[1] == 1
    if loss == "focal":
        from monai.losses import FocalLoss

        focal = FocalLoss(gamma=FOCAL_GAMMA, reduction="none", use_softmax=not alone)
        target = labels[:, None] if alone else F.one_hot(labels, 2)
        return focal(logits, target).sum(dim=1)
    if alone:
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype), reduction="none")
    return F.cross_entropy(logits, labels, reduction="none")


def positive_probability(logits: Tensor) -> Tensor:
    """Return the probability of the positive class ``(b,)`` from logits ``(b, 1)`` or ``(b, 2)``."""
    return logits[:, 0].sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)[:, 1]


def varied(
    images: Tensor, rng: np.random.Generator, *, flips: tuple[int, ...], rotation: float, zoom: float = 0.0
) -> Tensor:
    """Return images with random flips, rotations and sizes, drawn for each image.

    Args:
        images: images ``(b, c, h, w)`` float32.
        rng: random generator.
        flips: axes of possible flips, 0 for up and down, 1 for left and right.
        rotation: largest angle in degrees; interpolation is bilinear, and pixels beyond the edges are mirrored.
        zoom: largest change of the size about the centre, as a share.
    """
    for axis in flips:
        chosen = torch.from_numpy(rng.random(len(images)) < 0.5).to(images.device)
        images = torch.where(chosen[:, None, None, None], images.flip(axis + 2), images)
    if rotation == 0 and zoom == 0:
        return images
    angles = torch.from_numpy(rng.uniform(-rotation, rotation, len(images)) * math.pi / 180).float()
    height, width = images.shape[2:]
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    if zoom:
        # The grid tells where each pixel comes from: a shorter grid enlarges.
        sizes = torch.from_numpy(rng.uniform(1 - zoom, 1 + zoom, len(images))).float()
        cos, sin = cos / sizes, sin / sizes
    # Coordinates of the grid run from -1 to 1 along each side, so a rotation must be scaled by the ratio of the sides.
    rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    turn = torch.stack(rows, dim=1).view(-1, 2, 3).to(images.device)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def channels_last(network: ClassifierNetwork) -> ClassifierNetwork:
    """Store weights with channels last, like the images; otherwise depthwise convolutions are up to 15 times slower."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch declares none


@torch.no_grad()
def class_logits(network: nn.Module, images: np.ndarray, device: str = "cpu") -> Tensor:
    """Return the logits ``(n, n_outputs)`` of images ``(n, c, h, w)``, on the CPU; sets evaluation mode."""
    network.eval()
    parts = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
    return torch.cat([network(_tensor(part, device)).cpu() for part in parts])


def train_member(
    checkpoint: Path,
    member: int,
    preset: ClassifierPreset,
    sets: dict[str, ImageSet],
    *,
    imagenet: Path | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> TrainedMember:
    """Train one network, or continue after the last epoch in ``checkpoint``.

    Weights, order and variation of the images depend on ``(member, epoch)`` alone, so a run can resume.

    Args:
        checkpoint: file that is written after each epoch.
        member: number of the member.
        preset: recipe.
        sets: image sets of `radlens.families.classifier.training_data.build_sets`.
        imagenet: file of initial weights in a form that `radlens.networks.load_imagenet` reads.
        device: ``"cpu"`` or ``"cuda"``.
        on_progress: callback ``on_progress(stage, done, total)`` after each optimiser step.
    """
    torch.manual_seed(1000 * preset.seed + member)
    network = create_classifier(preset.network, n_outputs=preset.n_outputs, n_channels=preset.input.n_channels)
    if imagenet is not None:
        load_imagenet(network, imagenet)
    run = _Run(network, member, preset, sets, device, on_progress or (lambda stage, done, total: None))
    if checkpoint.exists():
        run.load(torch.load(checkpoint, map_location=device, weights_only=True))
    draft = checkpoint.with_name(f"{checkpoint.name}.tmp")
    while not run.is_over:
        run.epoch()
        torch.save(run.state(), draft)
        draft.replace(checkpoint)
    network.load_state_dict(run.best)
    return TrainedMember(network.cpu().eval(), run.history)


class _Run:
    """State of the training of a member between two epochs."""

    def __init__(
        self,
        network: ClassifierNetwork,
        member: int,
        preset: ClassifierPreset,
        sets: dict[str, ImageSet],
        device: str,
        report: Progress,
    ) -> None:
        self.network = channels_last(network).to(device)
        self.member, self.preset, self.sets, self.device, self.report = member, preset, sets, device, report
        self._class_weight = _class_weight(preset, sets)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}
        self._start_phase()

    @property
    def is_over(self) -> bool:
        """Whether the last epoch is done, or the validation loss has not fallen for ``stop_after`` epochs."""
        losses = [entry["validation_loss"] for entry in self.history if entry["phase"] == "training"]
        waited = len(losses) - 1 - int(np.argmin(losses)) if losses else 0
        return len(losses) == self.preset.epochs or waited >= (self.preset.stop_after or math.inf)

    @property
    def warm_up(self) -> WarmUp | None:
        """Recipe of the warm-up while it lasts, None afterwards."""
        plan = self.preset.warm_up
        return plan if plan and len(self.history) < plan.epochs else None

    def epoch(self) -> None:
        """Train for one epoch, validate, and keep the weights if they are the best so far."""
        begin, number = time.monotonic(), len(self.history)
        torch.manual_seed(100_000 * (self.member + 1) + number)
        entry = {"phase": "warm-up" if self.warm_up else "training", "learning_rate": self._rate()}
        entry["training_loss"] = self._learn(np.random.default_rng([self.member, number]))
        if not self.warm_up:
            entry |= self._validate()
        self.history.append(entry | {"seconds": time.monotonic() - begin})
        if self.preset.warm_up and len(self.history) == self.preset.warm_up.epochs:
            self._start_phase()

    def state(self) -> dict[str, Any]:
        """Return the state for `load`."""
        parts = {"network": self.network, "optimizer": self.optimizer, "schedule": self.schedule}
        return {name: part.state_dict() for name, part in parts.items()} | {"history": self.history, "best": self.best}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state` returned."""
        self.history, self.best = state["history"], state["best"]
        self._start_phase()
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])

    def _start_phase(self) -> None:
        preset, warm_up = self.preset, self.warm_up
        self.images = self.sets[WARM_UP if warm_up and warm_up.n_patches else "training"]
        self.batch_size = min(preset.batch_size, len(self.images))
        self.n_steps = len(self.images) // self.batch_size
        parameters = self.network.parameters()
        if warm_up or preset.optimizer == "adam":
            rate = warm_up.learning_rate if warm_up else preset.learning_rate
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(parameters, rate)
        else:
            self.optimizer = torch.optim.SGD(parameters, preset.learning_rate, momentum=_MOMENTUM)
        self.schedule = self._schedule("one-cycle" if warm_up else preset.schedule, (warm_up or preset).epochs)

    def _schedule(self, kind: Schedule, epochs: int) -> Any:
        schedulers = torch.optim.lr_scheduler
        if kind == "plateau":
            return schedulers.ReduceLROnPlateau(self.optimizer, patience=self.preset.patience)
        if kind == "warm-restarts":
            return schedulers.CosineAnnealingWarmRestarts(self.optimizer, self.preset.period * self.n_steps)
        return schedulers.OneCycleLR(self.optimizer, self._rate(), epochs * self.n_steps + 1)

    def _rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _learn(self, rng: np.random.Generator) -> float:
        """Take one step for each batch; return the mean loss."""
        self.network.train()
        losses = []
        for images, labels in self._batches(rng):
            loss = self._loss(self.network(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            if not isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
                self.schedule.step()
            losses.append(loss.item())
            self._tell(len(losses))
        return float(np.mean(losses))

    def _tell(self, step: int) -> None:
        warm_up, done = self.preset.warm_up, len(self.history)
        before = warm_up.epochs if warm_up and not self.warm_up else 0
        phase = "warm-up" if self.warm_up else "training"
        total = (self.warm_up or self.preset).epochs * self.n_steps
        stage = f"{phase} of member {self.member + 1} of {self.preset.n_members}"
        self.report(stage, (done - before) * self.n_steps + step, total)

    def _batches(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order, size = rng.permutation(len(self.images)), self.batch_size
        for i in range(self.n_steps):
            # Sorted, because a memory-mapped file is read fastest in its own order.
            chosen = np.sort(order[i * size : (i + 1) * size])
            images = self._on_device(self.images.images[chosen])
            if self.warm_up and images.shape[2:] != self.warm_up.shape:
                images = _smaller(images, self.warm_up.shape)
            images = varied(images, rng, flips=self.preset.flips, rotation=self.preset.rotation, zoom=self.preset.zoom)
            labels = torch.from_numpy(self.images.labels[chosen]).to(self.device)
            yield images.contiguous(memory_format=torch.channels_last), labels

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return classification_loss(logits, labels, loss=self.preset.loss, class_weight=self._class_weight)

    def _validate(self) -> dict[str, float]:
        """Return loss and AUC of the validation images; keep the weights if the loss is the lowest so far."""
        self._calibrate()
        found = self.sets["validation"]
        labels = torch.from_numpy(found.labels)
        logits = class_logits(self.network, found.images, self.device)
        loss = self._loss(logits, labels).item()
        if loss < min((e["validation_loss"] for e in self.history if e["phase"] == "training"), default=math.inf):
            self.best = {name: value.clone() for name, value in self.network.state_dict().items()}
        if isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(loss)
        return {"validation_loss": loss, "validation_auc": roc_curve(labels, positive_probability(logits)).auc}

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Measure the batch normalisation statistics again: after few steps, running means lag behind the weights."""
        norms = [part for part in self.network.modules() if isinstance(part, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            # With None, BatchNorm2d computes the plain mean over all batches.
            norm.momentum = None
        self.network.train()
        images = self.sets["training"].images
        # Spread over the whole set, because data sets list one class after the other.
        chosen = np.linspace(0, len(images) - 1, min(len(images), _N_CALIBRATION)).astype(int)
        n_batches = -(-len(chosen) // _BATCH)
        for i in range(n_batches):
            self.network(self._on_device(images[chosen[i::n_batches]]))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def _on_device(self, images: np.ndarray) -> Tensor:
        return _tensor(images, self.device)


def _class_weight(preset: ClassifierPreset, sets: dict[str, ImageSet]) -> float:
    if preset.class_weight is not None:
        return preset.class_weight
    n_positive = int(sets["training"].labels.sum())
    return (len(sets["training"]) - n_positive) / n_positive


def _tensor(images: np.ndarray, device: str) -> Tensor:
    return torch.from_numpy(images.astype(np.float32)).to(device, memory_format=torch.channels_last)


def _smaller(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return images resized with antialiasing, and standardised again because averaging reduces their noise."""
    small = F.interpolate(images, size=shape, mode="bilinear", antialias=True, align_corners=False)
    std, mean = torch.std_mean(small, dim=(1, 2, 3), keepdim=True)
    return (small - mean) / std.clamp(min=1e-6)
